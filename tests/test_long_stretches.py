"""Text without spaces: stretches are cut before anything is learnt, at places that a reader would not mind."""

import random
import unicodedata
from itertools import pairwise

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from thinned import first_of
from tokenizer_samples import t5_like, tiny_backend
from transformers import PreTrainedTokenizerFast

from vocabtransfer.tokenization.extend import extend_tokenizer
from vocabtransfer.tokenization.stretches import LONGEST_STRETCH, cut_counts, cut_line, cut_stretch
from vocabtransfer.tokenization.train import train_tokenizer

WORDS = {
    "Thai": ["บ้าน", "ใหญ่", "รัก", "ภาษา", "แม่", "วัน", "ไทย", "น้ำ"],
    "Lao": ["ເຮືອນ", "ໃຫຍ່", "ຮັກ", "ພາສາ", "ແມ່", "ວັນ", "ລາວ", "ນ້ຳ"],
    "Khmer": ["ផ្ទះ", "ធំ", "ស្រឡាញ់", "ភាសា", "ម្តាយ", "ថ្ងៃ", "ខ្មែរ", "ទឹក"],
    "Burmese": ["အိမ်", "ကြီး", "ချစ်", "ဘာသာ", "အမေ", "နေ့", "မြန်မာ", "ရေ"],
    "Hindi": ["क्षेत्र", "भाषा", "हिन्दी", "विद्या"],
    "Japanese": ["食べる", "東京", "タワー", "言葉", "は", "ありがとう"],
    "code": ["function(a){", "return b.c[d]}", "if(y!==null)z(", '"str":{'],
}
TEXT = {
    name: "".join(random.Random(name).choice(words) for _ in range(4_000)) for name, words in WORDS.items()
}  # fmt: skip


def line_of(name: str, characters: int) -> str:
    draw = random.Random(name)
    return "".join(draw.choice(WORDS[name]) for _ in range(characters // 3))


@given(st.text(), st.integers(2, 40))
def test_parts_are_short_and_make_up_the_text(text: str, longest: int) -> None:
    parts = cut_stretch(text * 5, longest)
    assert "".join(parts) == text * 5 and max(map(len, parts)) <= longest and all(parts) == bool(text)
    assert "".join(cut_line(text * 50)) == text * 50


@pytest.mark.parametrize("name", WORDS)
def test_cuts_fall_between_clusters_and_never_after_a_vowel_written_first(name: str) -> None:
    text = TEXT[name]
    clusters = {match.start() for match in regex.finditer(r"\X", text)}
    place = 0
    for part in cut_stretch(text)[:-1]:
        assert LONGEST_STRETCH // 2 <= len(part) <= LONGEST_STRETCH
        place += len(part)
        assert place in clusters
        assert part[-1] not in "เแโใไເແໂໃໄ" and unicodedata.combining(part[-1]) != 9


def test_cuts_fall_where_the_script_changes_or_at_punctuation() -> None:
    parts = cut_stretch(TEXT["code"])
    assert all(not (left[-1].isalnum() and right[0].isalnum()) for left, right in pairwise(parts))
    japanese = "ありがとう" * 20 + "東京" + "ありがとう" * 20
    assert cut_stretch(japanese)[0] in ("ありがとう" * 20, "ありがとう" * 20 + "東京")


def test_short_lines_and_counts_stay_as_they_are() -> None:
    line = "a word " * 500
    assert cut_line(line) == [line] and cut_line("") == [""]
    assert cut_counts({"b": 2, "a": 1}) == {"b": 2, "a": 1}
    assert sum(cut_counts({"ab" * 500: 3}).values()) >= 3 * 7


def tiny(kind: str) -> PreTrainedTokenizerFast:
    if kind == "unigram":
        return t5_like()
    return PreTrainedTokenizerFast(tokenizer_object=tiny_backend(), eos_token="<|endoftext|>")


@pytest.mark.parametrize(
    ("like", "algorithm"),
    [("bpe", None), ("bpe", "unigram"), ("bpe", "sentencepiece"), ("bpe", "wordpiece"), ("unigram", None)],
)
@pytest.mark.parametrize("name", first_of(["Thai", "Khmer"], "Thai"))
def test_one_endless_line_teaches_words(name: str, like: str, algorithm: str | None) -> None:
    # SentencePiece takes seconds to weigh the many candidates of random text.
    line = line_of(name, 9_000 if "unigram" in (like, algorithm) else 60_000)
    made = train_tokenizer([line], like=tiny(like), vocab_size=700, algorithm=algorithm)  # type: ignore[arg-type]
    again = train_tokenizer([line], like=tiny(like), vocab_size=700, algorithm=algorithm)  # type: ignore[arg-type]
    assert made.backend_tokenizer.to_str() == again.backend_tokenizer.to_str()
    sample = "".join(WORDS[name])
    tokens = made.backend_tokenizer.encode(sample, add_special_tokens=False).tokens
    assert len(tokens) <= 2 * len(WORDS[name])


def test_a_vocabulary_is_extended_from_one_endless_line() -> None:
    made = extend_tokenizer(tiny("bpe"), [line_of("Lao", 60_000)], new_tokens=200)
    sample = "".join(WORDS["Lao"])
    before, after = (len(each.encode(sample, add_special_tokens=False)) for each in (tiny("bpe"), made.tokenizer))
    assert after < before / 4
