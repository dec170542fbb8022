"""Text in another script or language than the one that is named is said, by share; text that fits is not."""

from pathlib import Path

import pytest
from thinned import first_of

from vocabtransfer.corpora.identification import (
    FASTTEXT,
    ONLY_FASTTEXT,
    PY3LANGID,
    _fasttext,
    canonical,
    identifier_for,
)
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.languages import find_language
from vocabtransfer.pipeline.language_check import LanguageCheck

HELD_OUT = Path(__file__).parents[1] / "data" / "held_out"
SHIPPED = sorted(path.stem for path in HELD_OUT.glob("*.txt"))


def lines_in(code: str) -> list[str]:
    return (HELD_OUT / f"{code}.txt").read_text(encoding="utf-8").splitlines()


def said_of(lines: list[str], target: str) -> str:
    check = LanguageCheck(find_language(target))
    for line in lines:
        check.see(line)
    return " ".join(check.notes())


@pytest.mark.parametrize("code", first_of(SHIPPED, "tt", "nl", "hi", "sw"))
def test_text_in_its_language_needs_no_word(code: str) -> None:
    assert said_of(lines_in(code), code) == ""
    assert said_of(lines_in(code) * 300, code) == ""


@pytest.mark.parametrize(
    ("text", "target", "parts"),
    [
        ("nl", "tt", ["script of Tatar", "0 % of its letters are Cyrl", "100 % Latn", "tt-Latn"]),
        ("tt", "nl", ["script of Dutch", "100 % Cyrl"]),
        ("hi", "sw", ["script of Swahili", "Deva"]),
        ("ru", "zh-TW", ["script of Chinese", "Cyrl"]),
        ("ru", "tt", ["another language than Tatar", "100 % Russian"]),
        ("nl", "sw", ["another language than Swahili", "Dutch"]),
        ("de", "tr", ["another language than Turkish", "German"]),
        ("nl", "Hawaiian", ["does not know Hawaiian", "are surely Dutch"]),
        ("ru", "Chuvash", ["another language than Chuvash", "100 % Russian (lid.176)"]),
    ],
)
def test_text_in_another_script_or_language_is_said_with_shares(text: str, target: str, parts: list[str]) -> None:
    said = said_of(lines_in(text), target)
    assert all(part in said for part in parts), said


def test_a_mixture_is_said_with_its_shares_wherever_it_stands() -> None:
    dutch, german = lines_in("nl"), lines_in("de")
    for lines in (dutch + german, [line for pair in zip(dutch, german, strict=False) for line in pair]):
        said = said_of(lines, "nl")
        assert "mixture" in said and "Dutch" in said and "German" in said
    late = said_of(dutch * 200 + german * 200, "nl")
    assert "mixture" in late and "German" in late


def test_short_lines_say_it_together_and_nothing_is_said_of_nothing() -> None:
    words = [word for line in lines_in("nl") for word in line.split()]
    assert "Dutch" in said_of(words, "sw")
    assert said_of(words, "nl") == "" and said_of([], "nl") == "" and said_of(["123", "!"], "tt") == ""


def test_close_languages_are_not_told_apart() -> None:
    assert said_of(lines_in("nl"), "af") == ""
    assert said_of(lines_in("hi"), "mr") == ""


SIMPLIFIED = ["人人生而自由，在尊严和权利上一律平等。", "他们赋有理性和良心，并应以兄弟关系的精神相对待。"] * 10
TRADITIONAL = ["人人生而自由，在尊嚴和權利上一律平等。", "他們賦有理性和良心，並應以兄弟關係的精神相對待。"] * 10


def test_simplified_and_traditional_chinese_are_told_apart() -> None:
    assert "is not in traditional Chinese" in said_of(SIMPLIFIED, "zh-TW")
    assert "100 % are simplified" in said_of(SIMPLIFIED, "zh-TW") and "zh-Hans" in said_of(SIMPLIFIED, "zh-TW")
    assert "is not in simplified Chinese" in said_of(TRADITIONAL, "zh-CN")
    assert said_of(SIMPLIFIED, "zh-CN") == "" and said_of(TRADITIONAL, "zh-TW") == ""
    assert "44 % are simplified" in said_of(SIMPLIFIED + TRADITIONAL, "zh-TW")


def test_who_tells_a_language_is_chosen_in_one_place() -> None:
    """lid.176 is asked about what only it knows, and the list of that is what its model says."""
    assert identifier_for(find_language("yoruba")) is PY3LANGID
    assert identifier_for(find_language("hawaiian")) is PY3LANGID and not PY3LANGID.knows(find_language("hawaiian"))
    assert identifier_for(find_language("chuvash")) is FASTTEXT
    taught = {canonical(label.removeprefix("__label__")) for label in _fasttext().get_labels()}
    assert taught - PY3LANGID.codes() == ONLY_FASTTEXT


def test_without_the_model_the_other_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise VocabTransferError("no network")

    monkeypatch.setattr("vocabtransfer.corpora.identification._fasttext", gone)
    assert identifier_for(find_language("chuvash")) is PY3LANGID
    assert "does not know Chuvash" in said_of(lines_in("ru"), "Chuvash")
