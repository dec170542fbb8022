"""Romanizing normalisers and tokenizers: equal to the romanizer, saved and loaded by plain transformers, offsets kept."""

import json
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from thinned import first_of
from tokenizer_samples import SYLLABLES, django_lines, made_up_text
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.tokenization.save import save_tokenizer
from vocabtransfer.tokenization.train import training_notes
from vocabtransfer.transliteration import (
    RomanizingTokenizer,
    find_transliterator,
    prepare_romanized,
    read_romanization,
    romanizing_normalizer,
    romanizing_tokenizer,
)
from vocabtransfer.transliteration.normalizer import RomanizingNormalizer, count_tokens

Get = Callable[[str], PreTrainedTokenizerFast]

DJANGO = {
    "ru": "ru",
    "el": "el",
    "hy": "hy",
    "ka": "ka",
    "ar": "ar",
    "he": "he",
    "hi": "hi",
    "ko": "ko",
    "zh": "zh_Hans",
}


@cache
def compiled(language: str) -> tuple[RomanizingNormalizer, Counter[str], list[str]]:
    """The normaliser learnt from four fifths of a corpus, its words, and the words of the rest that it has not seen."""
    lines = django_lines(DJANGO[language])
    known = count_tokens(line for number, line in enumerate(lines) if number % 5)
    unseen = [word for word in count_tokens(lines[::5]) if word not in known]
    return romanizing_normalizer(find_transliterator(language), known), known, unseen


@pytest.mark.parametrize("language", first_of(DJANGO, "ru", "ar", "hi"))
def test_the_normaliser_equals_the_romanizer(language: str) -> None:
    made, known, unseen = compiled(language)
    romanizer = find_transliterator(language)
    equal = [made.normalizer.normalize_str(word) == next(romanizer.romanize([word])) for word in known]
    assert sum(equal) / len(equal) == pytest.approx(made.equal_words)
    assert made.equal_words > 0.99 and made.equal_occurrences > 0.99
    new = [made.normalizer.normalize_str(word) == next(romanizer.romanize([word])) for word in unseen]
    assert sum(new) / len(new) > 0.95
    assert made.context_free_words <= made.equal_words
    assert json.loads(json.dumps(made.document)) == made.document


def test_a_table_without_context_is_not_enough_for_hindi_and_is_for_georgian() -> None:
    assert compiled("hi")[0].context_free_occurrences < 0.7
    assert compiled("ka")[0].context_free_occurrences == 1.0
    assert compiled("ka")[0].steps == 2


@pytest.mark.slow
def test_learning_is_deterministic_and_can_be_bounded() -> None:
    words = count_tokens(django_lines("hi")[:60])
    romanizer = find_transliterator("hi")
    one, two = (romanizing_normalizer(romanizer, dict(part)) for part in (words.items(), reversed(words.items())))
    assert one.document == two.document
    bounded = romanizing_normalizer(romanizer, words, most_exceptions=10)
    assert bounded.steps < one.steps and bounded.equal_words < one.equal_words
    word, got, wanted = bounded.examples[0]
    assert bounded.normalizer.normalize_str(word) == got != wanted == next(romanizer.romanize([word]))


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("he", "שָׁלוֹם וּבְרָכָה"),
        ("ru", "ки\u0306й ба\u0301ла за\u200dмок"),
        ("hi", "क्‍ष ज़िंदगी ज\u093cरा १२३"),
        ("fa", "می‌خواهم خانهٔ"),
        ("th", "ภาษาไทย สวัสดี"),
        ("am", "ሰላም ለዓለም"),
        ("ja", "きゃっかー 東京"),
    ],
)
def test_marks_and_joiners_survive_the_normaliser(language: str, text: str) -> None:
    romanizer = find_transliterator(language)
    made = romanizing_normalizer(romanizer, count_tokens([text]))
    assert made.normalizer.normalize_str(text) == next(romanizer.romanize([text]))


def test_nothing_to_romanize_and_what_is_not_text_are_refused() -> None:
    romanizer = find_transliterator("tatar")
    for corpus, told, kind in [
        (["plain text"], "nothing to romanize", VocabTransferError),
        (["\ud800а"], "surrogate", VocabTransferError),
        ("өч", "not one string", UsageError),
        ([b"\xff"], "Line 1", UsageError),
    ]:
        with pytest.raises(kind, match=told):
            romanizing_normalizer(romanizer, count_tokens(corpus))


@pytest.mark.parametrize("name", ["smollm2", "mistral_v1", "minilm"])
def test_a_romanizing_tokenizer_reads_like_romanized_text(name: str, real_tokenizer: Get, tmp_path: Path) -> None:
    source, romanizer = real_tokenizer(name), find_transliterator("tatar")
    text = "Җәй һәм өч ел, Казанның щукасы ьөй ١٢"
    made = romanizing_tokenizer(source, romanizer, [text])
    plain = next(romanizer.romanize([text]))
    assert made(text)["input_ids"] == source(plain)["input_ids"] != source(text)["input_ids"]
    save_tokenizer(made, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    encoded = loaded(text, return_offsets_mapping=True, add_special_tokens=False)
    assert encoded["input_ids"] == made(text, add_special_tokens=False)["input_ids"]
    # Offsets are into the Tatar text: every token romanizes to what its stretch of text does.
    spans = next(romanizer.romanize_with_spans([text])).spans.tolist()
    inside = source(plain, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
    for (start, end), (first, last) in zip(encoded["offset_mapping"], inside, strict=True):
        if first < last:
            assert spans[first][0] <= start <= spans[first][1] and spans[last - 1][0] <= end <= spans[last - 1][1]


def tatar_lines() -> list[str]:
    return [line + " Җәй, өч елга!" for line in made_up_text(300)]


@cache
def prepared(name: str, source: PreTrainedTokenizerFast):  # type: ignore[no-untyped-def]
    return prepare_romanized("tatar", iter(tatar_lines()), source, {"smollm2": 700, "mistral_v1": 900}[name])


@pytest.mark.parametrize("name", ["smollm2", "mistral_v1"])
def test_a_romanized_vocabulary(name: str, real_tokenizer: Get, tmp_path: Path) -> None:
    tokenizer, record = prepared(name, real_tokenizer(name))
    romanizer = find_transliterator("tatar")
    lines = tatar_lines()
    decoded = [tokenizer.decode(ids, skip_special_tokens=True) for ids in tokenizer(lines[:20])["input_ids"]]
    assert decoded == list(romanizer.romanize(lines[:20]))
    before = sum(map(len, real_tokenizer(name)(lines)["input_ids"]))
    assert sum(map(len, tokenizer(lines)["input_ids"])) < before / 2
    assert all(token.isascii() for token in tokenizer.get_vocab() if "kala" in token)
    assert record.equal_words == 1.0 and record.transliterator == "table" and record.language == "tt"
    assert set(record.notes) <= set(training_notes(tokenizer))
    assert tokenizer.chat_template == real_tokenizer(name).chat_template

    save_tokenizer(tokenizer, tmp_path)
    record.save(tmp_path)
    assert read_romanization(tmp_path) == record
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(lines)["input_ids"] == tokenizer(lines)["input_ids"]


def test_preparing_is_deterministic_and_takes_words(real_tokenizer: Get) -> None:
    words = Counter(a + b for a in SYLLABLES for b in SYLLABLES)
    one, two = (
        prepare_romanized("tatar", dict(items), real_tokenizer("smollm2"), 400)
        for items in (words.items(), reversed(words.items()))
    )
    assert one[0].backend_tokenizer.to_str() == two[0].backend_tokenizer.to_str() and one[1] == two[1]


def test_warnings(real_tokenizer: Get) -> None:
    source = real_tokenizer("smollm2")
    tibetan = prepare_romanized("tibetan", ["བོད་སྐད། བཀྲ་ཤིས་བདེ་ལེགས།"] * 3, source, 300)[1]
    assert any("hurt Tibetan" in note for note in tibetan.notes)
    polish = prepare_romanized("polish", ["Zażółć gęślą jaźń"] * 3, source, 300, digits="keep")[1]
    assert any("Latin script" in note for note in polish.notes)
    assert any("cannot be undone" in note for note in polish.notes)
    assert any("Digits" in note for note in tibetan.notes) and not any("Digits" in note for note in polish.notes)
    for bad, told in [("one string", "one string"), ({"өч": "x"}, "Word counts"), (["ascii"], "nothing to romanize")]:
        with pytest.raises(VocabTransferError, match=told):
            prepare_romanized("tatar", bad, source, 300)  # type: ignore[arg-type]


def test_the_wrapper_romanizes_exactly_with_offsets_and_specials(real_tokenizer: Get, tmp_path: Path) -> None:
    tokenizer, record = prepared("smollm2", real_tokenizer("smollm2"))
    wrapper = RomanizingTokenizer(tokenizer, find_transliterator("tatar"), record)
    text = "Җәй <|im_start|>Казанда өч ел"
    encoded = wrapper(text, return_offsets_mapping=True)
    assert encoded["input_ids"] == tokenizer(text)["input_ids"]
    assert encoded["offset_mapping"] == tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    texts = ["Җәй", text, "бер ике өч"]
    batch = wrapper(texts, return_offsets_mapping=True, padding=True, return_tensors="pt")
    expected = tokenizer(texts, padding=True, return_offsets_mapping=True)
    assert batch["input_ids"].tolist() == expected["input_ids"]
    assert [[tuple(pair) for pair in row] for row in batch["offset_mapping"].tolist()] == expected["offset_mapping"]
    cut = {"truncation": True, "max_length": 4, "return_overflowing_tokens": True, "return_offsets_mapping": True}
    assert wrapper(texts, **cut)["offset_mapping"] == tokenizer(texts, **cut)["offset_mapping"]
    assert wrapper("", return_offsets_mapping=True)["offset_mapping"] == []
    pair = wrapper(texts[0], texts[2], return_offsets_mapping=True)
    assert pair["offset_mapping"] == tokenizer(texts[0], texts[2], return_offsets_mapping=True)["offset_mapping"]
    chat = [{"role": "user", "content": "Сәлам, дөнья"}]
    assert wrapper.apply_chat_template(chat)["input_ids"] == tokenizer.apply_chat_template(chat)["input_ids"]
    assert len(wrapper) == len(tokenizer) and wrapper.eos_token == tokenizer.eos_token
    wrapper.save_pretrained(tmp_path)
    assert RomanizingTokenizer.from_pretrained(tmp_path).encode(text) == wrapper.encode(text)


def test_a_folder_without_a_record_or_with_a_damaged_one(tmp_path: Path) -> None:
    assert read_romanization(tmp_path) is None
    with pytest.raises(VocabTransferError, match="has no romanization"):
        RomanizingTokenizer.from_pretrained(tmp_path)
    for text, told in [("{", "damaged"), ('{"format": 1}', "damaged"), ('{"format": 9}', "newer")]:
        (tmp_path / "romanization.json").write_text(text)
        with pytest.raises(VocabTransferError, match=told):
            read_romanization(tmp_path)
