"""Words: what belongs together stays together, and nothing of the text is lost or changed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabtransfer.alignment.words import split_lines, split_words, word_spans


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't say ’tis rock'n'roll", ["Don't", "say", "’", "tis", "rock'n'roll"]),
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
