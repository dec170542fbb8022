"""Tokenizers trained on real text after real tokenizers: what is kept, what is learnt, and that text survives."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizer_samples import django_lines, largest_slow
from transformers import PreTrainedTokenizerFast

from vocabtransfer.tokenization.save import backend_document
from vocabtransfer.tokenization.train import train_tokenizer, training_notes

TextSource = Callable[[str], list[str]]
Trained = Callable[[str], PreTrainedTokenizerFast]

# After which tokenizer, for which language, how large.
CASES = {
    "llama3": ("hi", 1500),
    "qwen3": ("nl", 2000),
    "gpt4o": ("tt", 1000),
    "deepseek_v3": ("tt", 1000),
    "smollm2": ("tt", 1000),
    "tekken": ("nl", 1500),
    "llama2": ("nl", 1500),
    "mistral_v3": ("tt", 1000),
    "gemma3": ("hi", 1500),
    "minilm": ("nl", 1500),
}
LOSSLESS = [name for name in CASES if name != "minilm"]
BYTE_LEVEL = ("llama3", "qwen3", "gpt4o", "deepseek_v3", "smollm2", "tekken")


@pytest.fixture(scope="module")
def trained(real_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> Trained:
    """Gives the tokenizer of `CASES` trained after a real one, by its name."""

    def train(name: str) -> PreTrainedTokenizerFast:
        language, size = CASES[name]
        return train_tokenizer(iter(django_lines(language)), like=real_tokenizer(name), vocab_size=size)

    return cache(train)


@pytest.fixture(params=largest_slow(CASES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def source(name: str, real_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    return real_tokenizer(name)


@pytest.fixture
def new(name: str, trained: Trained) -> PreTrainedTokenizerFast:
    return trained(name)


def marks(tokenizer: PreTrainedTokenizerFast, text: str, **options: Any) -> list[str]:
    """Return the special tokens in the encoding of a text."""
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(text, **options).input_ids)
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.content.strip()}
    return [token for token in tokens if token in special]


def ordinary(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    added = tokenizer.added_tokens_decoder
    # BERT's [unused7] are plain entries of the vocabulary, and no text gives them.
    return [t for t, i in tokenizer.get_vocab().items() if i not in added and not t.startswith("[unused")]


def test_the_size_is_the_one_asked_for_and_ids_have_no_holes(name: str, new: PreTrainedTokenizerFast) -> None:
    assert len(new) == CASES[name][1]
    assert sorted(new.get_vocab().values()) == list(range(len(new)))
    assert not any("supports" in note for note in training_notes(new))


def test_special_tokens_keep_order_flags_and_side(
    source: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast
) -> None:
    # Whatever a file says, a token with a role is special.
    kept, originals = (
        [
            (repr(token).rsplit(", ", 1)[0], token.special or token.content in source.all_special_tokens)
            for token in tokens
        ]
        for tokens in ([token for _, token in sorted(t.added_tokens_decoder.items())] for t in (new, source))
    )
    assert kept == [token for token in originals if token in set(kept)]
    old, now = ({token.content: i for i, token in t.added_tokens_decoder.items()} for t in (source, new))
    first_old, first_new = (min(t.convert_tokens_to_ids(token) for token in ordinary(t)) for t in (source, new))
    assert {text for text in now if now[text] < first_new} == {text for text in now if old[text] < first_old}
    leading, trailing = ([i for i in now.values() if (i < first_new) is first] for first in (True, False))
    assert leading == list(range(len(leading)))
    assert trailing == list(range(len(new) - len(trailing), len(new)))


def test_roles_template_and_settings_are_carried(source: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast) -> None:
    assert new.special_tokens_map == source.special_tokens_map
    assert all(new.convert_tokens_to_ids(token) is not None for token in new.special_tokens_map.values())
    assert new.chat_template == source.chat_template
    for setting in ("padding_side", "truncation_side", "model_max_length", "clean_up_tokenization_spaces"):
        assert getattr(new, setting) == getattr(source, setting)
    assert new.backend_tokenizer.truncation is None and new.backend_tokenizer.padding is None


def test_pipeline_is_carried(name: str, source: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast) -> None:
    old, now = backend_document(source), backend_document(new)
    assert now["normalizer"] == old["normalizer"]
    assert now["decoder"] == old["decoder"]
    if name != "llama3":  # trained on Hindi, whose marks its pattern cuts off
        assert now["pre_tokenizer"] == old["pre_tokenizer"]
    assert {**now["model"], "vocab": 0, "merges": 0} == {**old["model"], "vocab": 0, "merges": 0}


def test_the_post_processor_adds_the_same_tokens(source: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast) -> None:
    assert marks(new, "a b") == marks(source, "a b")
    old, now = ([i for i in t("a", "b").input_ids if i in t.all_special_ids] for t in (source, new))
    assert new.convert_ids_to_tokens(now) == source.convert_ids_to_tokens(old)


@pytest.mark.parametrize("name", largest_slow(["llama3", "qwen3", "gemma3", "deepseek_v3", "smollm2"]))
def test_chat_markers_stay_whole(name: str, trained: Trained, real_tokenizer: Callable[[str], Any]) -> None:
    chat = [
        {"role": "user", "content": "Привет"},
        {"role": "assistant", "content": "ok"},
        {"role": "user", "content": "2"},
    ]
    source, new = real_tokenizer(name), trained(name)
    text = source.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert new.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == text
    found = list(marks(source, text, add_special_tokens=False))
    assert found and marks(new, text, add_special_tokens=False) == found


def most_digits(tokenizer: PreTrainedTokenizerFast) -> int:
    text_tokens = [token for token in ordinary(tokenizer) if not re.fullmatch("<0x..>", token)]
    return max(len(re.findall("[0-9]", token)) for token in text_tokens)


SAMPLES = [
    "Сәлам, дөнья! Өч җәмгысе 12345,67 ₽",
    "Één café naïve façade — “aanhalingstekens” en it's foto's",
    "नमस्ते दुनिया, हिन्दी में क्ष और ज्ञ। १२३",
    "ภาษาไทย ທົດສອບ العربية עברית 日本語 한국어",
    "👩‍🚀🏳️‍🌈 🇳🇱 é (decomposed) \u200b zero width",
    "def f(x):\n    if x  ==  1:\n\t\treturn {'a': [1, 2]}  # <0x41> ▂\n\n\n",
    "  leading, double  and trailing   ",
    "tab\tnewline\r\nno-break\u00a0space\n",
]


@pytest.mark.parametrize("name", largest_slow(LOSSLESS))
@pytest.mark.parametrize("text", SAMPLES)
def test_text_survives(name: str, text: str, trained: Trained) -> None:
    new = trained(name)
    expected = text if name != "qwen3" else new.backend_tokenizer.normalizer.normalize_str(text)
    assert new.decode(new(text, add_special_tokens=False).input_ids) == expected


@pytest.mark.parametrize("name", largest_slow(["llama3", "llama2", "gemma3"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=40))
@example(text="\x00\x1f\ufdd0\U0010ffff")
def test_any_text_survives(name: str, text: str, trained: Trained) -> None:
    new = trained(name)
    assert new.decode(new(text, add_special_tokens=False).input_ids) == text


def test_whole_corpora_survive_and_get_shorter(
    name: str, source: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast
) -> None:
    lines = django_lines(CASES[name][0])
    before, after = (sum(map(len, t(lines, add_special_tokens=False).input_ids)) for t in (source, new))
    if name not in (
        "gpt4o",
        "minilm",
        "gemma3",
        "tekken",
        "qwen3",
    ):  # those know the language, with many times the tokens
        assert after < before
    if name in LOSSLESS:
        assert new.batch_decode(new(lines, add_special_tokens=False).input_ids) == lines


@pytest.mark.parametrize("name", largest_slow(LOSSLESS))
def test_digits_are_grouped_as_in_the_source(name: str, trained: Trained, real_tokenizer: Callable[[str], Any]) -> None:
    source, new = real_tokenizer(name), trained(name)
    longest = 3 if name in ("llama3", "gpt4o", "deepseek_v3") else 1
    assert most_digits(new) <= longest
    number = "x = 31415926 " * 2
    old, now = (t.tokenize(number) for t in (source, new))
    if longest == 1:
        assert [t for t in now if t.isdigit()] == [t for t in old if t.isdigit()] == list("3141592631415926")
    else:
        pieces = [piece for piece, _ in new.backend_tokenizer.pre_tokenizer.pre_tokenize_str("31415926")]
        assert pieces == ["314", "159", "26"]
    assert set("0123456789") <= set(new.get_vocab())


def test_large_vocabularies_take_over_groups_of_three(real_tokenizer: Callable[[str], Any]) -> None:
    lines = django_lines("ru") * 2  # every word twice is learnt whole
    new = train_tokenizer(lines, like=real_tokenizer("llama3"), vocab_size=16_100)
    numbers = [f"{n:0{width}d}" for width in (1, 2, 3) for n in range(10**width)]
    assert [len(ids) for ids in new(numbers, add_special_tokens=False).input_ids] == [1] * len(numbers)


@pytest.mark.slow
def test_groups_of_three_are_not_taken_over_where_the_source_has_few(real_tokenizer: Callable[[str], Any]) -> None:
    without = train_tokenizer(django_lines("ru"), like=real_tokenizer("deepseek_v3"), vocab_size=4_000)
    assert sum(t.isdigit() and t.isascii() for t in without.get_vocab()) < 100


@pytest.mark.parametrize("name", largest_slow(BYTE_LEVEL))
def test_all_bytes_are_there(name: str, trained: Trained) -> None:
    from vocabtransfer.vocabulary import byte_alphabet

    assert set(byte_alphabet().values()) <= set(trained(name).get_vocab())


@pytest.mark.parametrize("name", largest_slow(["llama2", "mistral_v3", "gemma3"]))
def test_all_byte_tokens_and_unk_are_there(name: str, trained: Trained) -> None:
    vocabulary = trained(name).get_vocab()
    assert {f"<0x{byte:02X}>" for byte in range(256)} | {"<unk>"} <= set(vocabulary)
    bytes_ = [vocabulary[f"<0x{byte:02X}>"] for byte in range(256)]
    assert bytes_ == list(range(bytes_[0], bytes_[0] + 256))


@pytest.mark.parametrize("name", largest_slow(["llama3", "qwen3", "tekken", "smollm2", "deepseek_v3"]))
def test_whitespace_runs_of_the_source_are_reached(
    name: str, trained: Trained, real_tokenizer: Callable[[str], Any]
) -> None:
    source, new = real_tokenizer(name), trained(name)
    runs = [text for text in ("  ", "    ", "\n\n", "\t\t") if len(source.tokenize(text)) == 1]
    assert runs
    assert [len(new.tokenize(text)) for text in runs] == [1] * len(runs)


@pytest.mark.slow
def test_gemma_keeps_its_runs_of_spaces_as_text(trained: Trained, real_tokenizer: Callable[[str], Any]) -> None:
    text = "a    b\n\n\n\tc" + " " * 20 + "d"
    wanted = [t for t in real_tokenizer("gemma3").tokenize(text) if not t.strip("▁\n\t")]
    assert [t for t in trained("gemma3").tokenize(text) if not t.strip("▁\n\t")] == wanted


@pytest.mark.parametrize("name", largest_slow(BYTE_LEVEL))
def test_learnt_tokens_can_be_reached(name: str, trained: Trained) -> None:
    new = trained(name)
    model = new.backend_tokenizer.model
    unreached = [t for t in ordinary(new) if [piece.value for piece in model.tokenize(t)] != [t]]
    # Merges of plain BPE can shadow a few of one another; nothing else may.
    assert len(unreached) <= 0.01 * len(new)


def test_reserved_tokens_are_dropped_and_said(trained: Trained, real_tokenizer: Callable[[str], Any]) -> None:
    assert training_notes(trained("llama3"))[0].startswith("251 reserved tokens")
    assert len(trained("llama3").added_tokens_decoder) == 5
    source = real_tokenizer("llama3")
    kept = train_tokenizer(django_lines("nl")[:500], like=source, vocab_size=1500, keep_reserved=True)
    assert len(kept) == 1500 and len(kept.added_tokens_decoder) == 256
    assert not any("reserved" in note for note in training_notes(kept))


def test_reserved_tokens_that_something_names_are_kept(real_tokenizer: Callable[[str], Any]) -> None:
    source = PreTrainedTokenizerFast(
        tokenizer_object=real_tokenizer("llama3").backend_tokenizer,
        bos_token="<|begin_of_text|>",
        pad_token="<|reserved_special_token_7|>",
        chat_template="{{ '<|reserved_special_token_9|>' + messages[0]['content'] }}",
        model_specific_special_tokens={"image_token": "<|reserved_special_token_11|>"},
    )
    new = train_tokenizer(django_lines("tt")[:300], like=source, vocab_size=700)
    reserved = [t.content for t in new.added_tokens_decoder.values() if "reserved" in t.content]
    assert reserved == [f"<|reserved_special_token_{n}|>" for n in (7, 9, 11)]
    assert new.pad_token_id == new.convert_tokens_to_ids("<|reserved_special_token_7|>") < len(new) == 700


def test_hindi_words_keep_their_marks(trained: Trained, real_tokenizer: Callable[[str], Any]) -> None:
    def words(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
        pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
        return [text[start:end] for _, (start, end) in pieces]

    text = "हिन्दी में 123456, it's\n\n ok!"
    assert words(real_tokenizer("llama3"), text)[0] != "हिन्दी"
    assert words(trained("llama3"), text) == ["हिन्दी", " में", " ", "123", "456", ",", " it", "'s", "\n\n", " ok", "!"]
    assert any("marks" in note for note in training_notes(trained("llama3")))
    plain = train_tokenizer(django_lines("hi"), like=real_tokenizer("llama3"), vocab_size=1500, repair_marks=False)
    lines = django_lines("hi")
    assert backend_document(plain)["pre_tokenizer"] == backend_document(real_tokenizer("llama3"))["pre_tokenizer"]
    assert sum(map(len, trained("llama3")(lines).input_ids)) < 0.9 * sum(map(len, plain(lines).input_ids))


def test_gpt2s_own_pattern_is_repaired_too(real_tokenizer: Callable[[str], Any]) -> None:
    new = train_tokenizer(django_lines("hi"), like=real_tokenizer("smollm2"), vocab_size=1500)
    assert any("marks" in note for note in training_notes(new))
    assert most_digits(new) == 1
    assert new.decode(new("हिन्दी में it's  १२ 42").input_ids) == "हिन्दी में it's  १२ 42"


def test_russian_leaves_the_pattern_alone(real_tokenizer: Callable[[str], Any]) -> None:
    new = train_tokenizer(django_lines("ru")[:300], like=real_tokenizer("llama3"), vocab_size=900)
    assert backend_document(new)["pre_tokenizer"] == backend_document(real_tokenizer("llama3"))["pre_tokenizer"]


def test_word_counts_train_like_text(trained: Trained, real_tokenizer: Callable[[str], Any]) -> None:
    words = Counter(word for line in django_lines("nl") for word in re.findall(r"\w+|[^\w\s]", line))
    for name in ("smollm2", "llama2"):
        new = train_tokenizer(words, like=real_tokenizer(name), vocab_size=1200)
        mark = "Ġ" if name == "smollm2" else "▁"
        initial = {token for token in ordinary(new) if token.startswith(mark)}
        assert {mark + word for word in ("veld", "niet", "een")} <= initial
        assert len(initial) > 0.3 * len(new)
        lines = django_lines("nl")
        text_only = train_tokenizer(lines, like=real_tokenizer(name), vocab_size=1200)
        from_words, from_text = (sum(map(len, t(lines).input_ids)) for t in (new, text_only))
        assert from_words < 1.2 * from_text


def test_the_order_of_word_counts_does_not_matter(real_tokenizer: Callable[[str], Any]) -> None:
    words = Counter(word for line in django_lines("tt")[:300] for word in line.split())
    like = real_tokenizer("llama2")

    def trained_on(counts: dict[str, int]) -> str:
        return json.dumps(backend_document(train_tokenizer(counts, like=like, vocab_size=600)))

    expected = trained_on(dict(words))
    assert trained_on(dict(reversed(words.items()))) == expected


@pytest.mark.slow
def test_counts_of_any_size_train_alike(real_tokenizer: Callable[[str], Any]) -> None:
    words = Counter(word for line in django_lines("tt")[:300] for word in line.split())
    like = real_tokenizer("llama2")

    def trained_on(counts: dict[str, int]) -> str:
        return json.dumps(backend_document(train_tokenizer(counts, like=like, vocab_size=600)))

    expected = trained_on(dict(words))
    # 10 ** 13 repetitions cannot be fed one by one.
    huge = trained_on({word: count * 10**10 for word, count in words.items()})
    exact, scaled = (set(json.loads(document)["model"]["vocab"]) for document in (expected, huge))
    assert len(scaled) == 600 and len(exact & scaled) > 0.95 * 600


def test_a_corpus_is_read_once_and_as_a_stream(real_tokenizer: Callable[[str], Any]) -> None:
    seen = 0

    def lines() -> Iterator[str]:
        nonlocal seen
        for line in django_lines("tt") * 3:
            seen += 1
            yield line + "\r\n"

    new = train_tokenizer(lines(), like=real_tokenizer("mistral_v3"), vocab_size=1000)
    assert seen == 3 * len(django_lines("tt"))
    lent = real_tokenizer("mistral_v3").get_vocab()
    assert not any("\r" in token for token in ordinary(new) if token not in lent)
