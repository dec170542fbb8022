"""Names, codes and tags of languages."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vocabtransfer.errors import UsageError
from vocabtransfer.languages import Language, find_language

TATAR = Language(name="Tatar", code="tt", alpha3="tat", script="Cyrl", endonym="татар", tag="tt")


@pytest.mark.parametrize(
    "text",
    [
        *["tatar", "TATAR", " tatar ", "tt", "TT", "tat", "tt-Cyrl", "tt_Cyrl", "tt-RU", "татар", "Татарча"],
        *["татар теле", "татарский", "tatarca", "Tatar language", "tatar (cyrillic)"],
    ],
)
def test_all_ways_to_say_tatar_are_one_language(text: str) -> None:
    assert find_language(text) == TATAR


@pytest.mark.parametrize(
    ("text", "code"),
    [
        *{"dutch": "nl", "nederlands": "nl", "Flemish": "nl", "dut": "nl", "nld": "nl"}.items(),
        *{"русский язык": "ru", "russisch": "ru", "rus": "ru"}.items(),
        *{"Türkçe": "tr", "turkish": "tr", "қазақша": "kk", "қазақ тілі": "kk", "башҡортса": "ba"}.items(),
        *{"swahili": "sw", "Kiswahili": "sw", "swh": "sw", "हिन्दी": "hi", "hindi": "hi"}.items(),
        *{"Deutsch": "de", "ger": "de", "German": "de", "中文": "zh", "Mandarin": "zh", "cmn": "zh"}.items(),
        *{"iw": "he", "farsi": "fa", "Crimean Tatar": "crh", "日本語": "ja", "tl": "fil", "Malti": "mt"}.items(),
        # A code is a code before it is a name: Tat is also what English calls another language (ttt).
        *{"tat": "tt", "Muslim Tat": "ttt", "yue": "yue", "nb": "nb"}.items(),
    ],
)
def test_names_and_codes(text: str, code: str) -> None:
    assert find_language(text).code == code


@pytest.mark.parametrize(
    ("text", "tag", "script"),
    [
        ("tt-Latn", "tt-Latn", "Latn"),
        ("Tatar (Latin)", "tt-Latn", "Latn"),
        ("tatar arabic", "tt-Arab", "Arab"),
        ("sr", "sr", "Cyrl"),
        ("Serbian Latin", "sr-Latn", "Latn"),
        ("sh", "sr-Latn", "Latn"),
        ("zh-TW", "zh-Hant", "Hant"),
        ("zh-CN", "zh", "Hans"),
        ("pt-BR", "pt", "Latn"),
    ],
)
def test_scripts_show_in_the_tag_only_when_unusual(text: str, tag: str, script: str) -> None:
    language = find_language(text)
    assert (language.tag, language.script) == (tag, script)
    assert find_language(tag) == language


def test_endonyms_are_in_the_language_and_script() -> None:
    assert [find_language(tag).endonym for tag in ("nl", "hi", "sr", "sr-Latn")] == [
        "Nederlands",
        "हिन्दी",
        "српски",
        "srpski",
    ]


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [("tattar", "Tatar (tt)"), ("russain", "Russian (ru)"), ("duch", "Dutch (nl)"), ("тотар", "Tatar (tt)")],
)
def test_misspellings_get_suggestions(text: str, suggestion: str) -> None:
    with pytest.raises(UsageError, match=re.escape(suggestion)) as caught:
        find_language(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "  ", "xx", "tt-Xxxx", "und", "mul", "zxx", "x-private", "qqqqqqqq", "../tt", "\0"]
)
def test_what_is_no_language_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        find_language(text)


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=30))
def test_any_text_gives_a_language_or_a_usage_error(text: str) -> None:
    try:
        language = find_language(text)
    except UsageError as problem:
        assert str(problem)
    else:
        # The code goes into file names, and every description of a language finds it again.
        assert re.fullmatch(r"[a-z]{2,3}", language.code)
        assert re.fullmatch(r"[a-z]{3}", language.alpha3)
        assert find_language(language.tag) == language
