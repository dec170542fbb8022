"""Words: what belongs together stays together, and nothing of the text is lost or changed."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabtransfer.alignment.words import WordCounts, fold_marks, split_lines, split_words, word_spans


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't say ’tis rock'n'roll", ["Don't", "say", "’tis", "rock'n'roll"]),
        ("d’État 'quoted' dogs'", ["d’État", "'", "quoted", "'", "dogs", "'"]),
        ("китап-ханә – и -x- a--b", ["китап-ханә", "–", "и", "-", "x", "-", "a", "-", "-", "b"]),
        ("3.14 12:30 ٣٤ 1st mp3", ["3", ".", "14", "12", ":", "30", "٣٤", "1", "st", "mp", "3"]),
        ("cafe\u0301 कुत्ते हिन्दी", ["cafe\u0301", "कुत्ते", "हिन्दी"]),
        ("می\u200cخواهم क्\u200dष", ["می\u200cخواهم", "क्\u200dष"]),
        ("\u200fעברית\u200e שב״כ צ׳ק", ["עברית", "שב״כ", "צ׳ק"]),
        ("猫だ東京タワー", ["猫", "だ", "東", "京", "タ", "ワ", "ー"]),
        ("が", ["が"]),
        ("한국어를 배워요", ["한국어를", "배워요"]),
        ("น้ำไทย", ["น้ำ", "ไ", "ท", "ย"]),
        ("ខ្ញុំ", ["ខ្ញុំ"]),
        ("👨‍👩‍👧🇳🇱🇫🇷👍🏽 1️⃣", ["👨‍👩‍👧", "🇳🇱", "🇫🇷", "👍🏽", "1️⃣"]),
        ("co\u00adop a\u200bb\ufeff", ["co\u00adop", "a", "b"]),
        ("%s $VAR_x ½²", ["%", "s", "$", "VAR", "_", "x", "½", "²"]),
        ("a_b\tc\r\n\0", ["a", "_", "b", "c"]),
        ("", []),
    ],
)
def test_words_of_every_script(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("U O‘zbekistonga bordi.", ["U", "O‘zbekistonga", "bordi", "."]),  # Uzbek, as it is typed ...
        ("O‘g‘lim o'g'lim oʻgʻlim o’g’lim o`g`lim", ["O‘g‘lim", "o'g'lim", "oʻgʻlim", "o’g’lim", "o`g`lim"]),
        ("baland tog‘ va bog‘.", ["baland", "tog‘", "va", "bog‘", "."]),  # ... and where the letter ends the word
        ("‘baland tog‘ va bog‘’ dedi", ["‘", "baland", "tog‘", "va", "bog‘", "’", "dedi"]),
        ("ka ‘ōlelo Hawai‘i", ["ka", "‘ōlelo", "Hawai‘i"]),  # Hawaiian
        ("‘O ka ‘āina, ‘Ae", ["‘O", "ka", "‘āina", ",", "‘Ae"]),
        ("ʻO koe. Koʻeni", ["ʻO", "koe", ".", "Koʻeni"]),  # Tongan
        ("’n Man het ’n hond", ["’n", "Man", "het", "’n", "hond"]),  # Afrikaans
        ("’yan Najeriya 'yan", ["’yan", "Najeriya", "'yan"]),  # Hausa
        ("ta’ Malta u ta' Għawdex", ["ta’", "Malta", "u", "ta'", "Għawdex"]),  # Maltese
        ("п’ять пʼять п'ять", ["п’ять", "пʼять", "п'ять"]),  # Ukrainian
        ("Saltillo: nꞌanj aꞌ", ["Saltillo", ":", "nꞌanj", "aꞌ"]),  # Triqui
        ("Qurʾān ʿAlī mʹ", ["Qurʾān", "ʿAlī", "mʹ"]),
        ("avañe'ẽ mba'e", ["avañe'ẽ", "mba'e"]),  # Guaraní
        ("col·lecció col‧lecció", ["col·lecció", "col‧lecció"]),  # Catalan
        ('ג׳ירפה צה״ל צה"ל וכו׳ "שלום"', ["ג׳ירפה", "צה״ל", 'צה"ל', "וכו׳", '"', "שלום", '"']),  # Hebrew
        ("ἀλλ᾽ ἐγώ", ["ἀλλ᾽", "ἐγώ"]),  # Greek
        ("քո՚ն ա֊բ", ["քո՚ն", "ա֊բ"]),  # Armenian
        ("tɨ꞉ sa꞉b", ["tɨ꞉", "sa꞉b"]),
        ("x‐y x‑y", ["x‐y", "x‑y"]),
        # True quotation marks stay apart from what they quote.
        ("‘word’ ‘two words’.", ["‘", "word", "’", "‘", "two", "words", "’", "."]),
        ("'word' `word` ’ord’", ["'", "word", "'", "`", "word", "`", "’", "ord", "’"]),
        ("‚Wort‘ ‘wort‘", ["‚", "Wort", "‘", "‘", "wort", "‘"]),
        ("(‘it’s’) ``so''", ["(", "‘", "it’s", "’", ")", "`", "`", "so", "'", "'"]),
        ("‘It goes on", ["‘", "It", "goes", "on"]),
        ("She said, ‘it goes on", ["She", "said", ",", "‘", "it", "goes", "on"]),
        ("the dogs’ and boys'", ["the", "dogs", "’", "and", "boys", "'"]),
        ("‘He said: “no.”’", ["‘", "He", "said", ":", "“", "no", ".", "”", "’"]),
        ("'ไทย' ‘猫", ["'", "ไ", "ท", "ย", "'", "‘", "猫"]),
    ],
)
def test_letters_typed_as_quotation_marks_belong_to_their_word(text: str, words: list[str]) -> None:
    assert split_words(text) == words
    assert word_spans(text)[0] == words


@pytest.mark.parametrize(
    "spellings",
    [
        ["O‘zbek", "O'zbek", "Oʻzbek", "Oʼzbek", "O’zbek", "O`zbek"],
        ["col·lecció", "col‧lecció"],
        ["צה״ל", 'צה"ל', "צה”ל"],
        ["ג׳ירפה", "ג'ירפה"],
        ["x-y", "x‐y", "x‑y"],
    ],
)
def test_spellings_of_one_word_meet_when_folded(spellings: list[str]) -> None:
    assert len(set(map(fold_marks, spellings))) == 1
    assert [split_words(word) for word in spellings] == [[word] for word in spellings]


@given(st.text(alphabet="abs '’‘‚`.,-ก猫"))
def test_marks_never_swallow_or_lose_text(text: str) -> None:
    words, starts = word_spans(text)
    assert "".join(words) == text.replace(" ", "")
    assert [text[start : start + len(word)] for word, start in zip(words, starts.tolist(), strict=True)] == words


@given(st.text())
def test_words_are_slices_in_order_and_leave_only_spaces_and_controls_behind(text: str) -> None:
    words, starts = word_spans(text)
    assert words == split_words(text)
    rest, end = "", 0
    for word, start in zip(words, starts.tolist(), strict=True):
        assert start >= end and text[start : start + len(word)] == word
        rest += text[end:start]
        end = start + len(word)
    rest += text[end:]
    assert not any(character.isalnum() for character in rest)
    assert all(character.isspace() or not character.isprintable() for character in rest)


@given(st.lists(st.text(), max_size=5))
def test_a_batch_is_split_like_its_lines(lines: list[str]) -> None:
    assert split_lines(lines) == [split_words(line) for line in lines]


@given(st.lists(st.text("aб猫ก ‘'’.3-\t\u0301\u00a0", max_size=20), max_size=8))
def test_counted_words_are_those_that_lines_are_split_into(lines: list[str]) -> None:
    counted = WordCounts()
    for line in lines:
        counted.add(line)
    assert counted.counts() == Counter(word for line in lines for word in split_words(line))
