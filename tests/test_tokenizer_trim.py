"""Trimmed and optimised vocabularies: what stays, that nothing is lost, and that the trade is a good one."""

from collections import Counter
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from thinned import first_of
from tokenizer_samples import TEXTS, django_lines, ids_of, t5_like
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.tokenization.audit import audit_tokenizer
from vocabtransfer.tokenization.extend import extend_tokenizer
from vocabtransfer.tokenization.optimise import optimise_tokenizer
from vocabtransfer.tokenization.reshape import Reshaped
from vocabtransfer.tokenization.save import backend_document
from vocabtransfer.tokenization.train import train_tokenizer
from vocabtransfer.tokenization.trim import trim_tokenizer
from vocabtransfer.vocabulary import byte_alphabet

Source = Callable[[str], PreTrainedTokenizerFast]
Trimmed = Callable[[str], Reshaped]

# Llama 3 takes whole words as they are; its size makes it slow. T5 is tested every time where vocabularies are extended.
NAMES = [
    "smollm2",
    "mistral_v3",
    "minilm",
    "unigram",
    *(pytest.param(n, marks=pytest.mark.slow) for n in ("llama3", "t5")),
]


@pytest.fixture(scope="module")
def source(real_tokenizer: Source) -> Source:
    """Gives a tokenizer to trim, two of them Unigram, one without fallback to bytes."""

    def find(name: str) -> PreTrainedTokenizerFast:
        lines = django_lines("nl")
        if name == "t5":
            return extend_tokenizer(t5_like(), lines, new_tokens=600).tokenizer
        if name == "unigram":
            return train_tokenizer(lines, like=real_tokenizer("mistral_v3"), vocab_size=2_500, algorithm="unigram")
        return real_tokenizer(name)

    return cache(find)


def corpus() -> list[str]:
    return [*django_lines("nl")[:250], *TEXTS]


@pytest.fixture(scope="module")
def trimmed(source: Source) -> Trimmed:
    """Gives tokenizers without the tokens that the corpus never uses."""
    return cache(lambda name: trim_tokenizer(source(name), iter(corpus()), drop_unused=True))


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_dropping_the_unused_changes_nothing_for_the_corpus(name: str, source: Source, trimmed: Trimmed) -> None:
    old, new = source(name), trimmed(name)
    assert len(new.kept) < 0.8 * len(old)
    now = [new.kept[ids].tolist() for ids in ids_of(new.tokenizer, corpus())]
    assert now == ids_of(old, corpus())


def test_ids_close_up_in_their_old_order(name: str, source: Source, trimmed: Trimmed) -> None:
    new = trimmed(name)
    assert (np.diff(new.kept) > 0).all() and new.new_tokens == 0
    assert sorted(new.tokenizer.get_vocab().values()) == list(range(len(new.kept)))
    strings = new.tokenizer.convert_ids_to_tokens(list(range(len(new.kept))))
    assert strings == source(name).convert_ids_to_tokens(new.kept.tolist())


def test_what_is_left_is_reached_as_before(name: str, source: Source, trimmed: Trimmed) -> None:
    old, new = audit_tokenizer(source(name)), audit_tokenizer(trimmed(name).tokenizer)
    assert set(trimmed(name).kept[new.unreachable].tolist()) <= set(old.unreachable.tolist())


def test_specials_bytes_and_white_space_stay(name: str, source: Source, trimmed: Trimmed) -> None:
    old, new = source(name), trimmed(name).tokenizer
    assert list(map(str, new.added_tokens_decoder.values())) == list(map(str, old.added_tokens_decoder.values()))
    assert new.special_tokens_map == old.special_tokens_map and new.chat_template == old.chat_template
    vocabulary = set(new.get_vocab())
    if name in ("smollm2", "llama3"):
        assert set(byte_alphabet().values()) & set(old.get_vocab()) <= vocabulary
        assert {"ĠĠĠĠ", "ĊĊ"} & set(old.get_vocab()) <= vocabulary
    if name in ("mistral_v3", "unigram"):
        assert {f"<0x{byte:02X}>" for byte in range(256)} <= vocabulary
    if name in ("t5", "minilm"):
        assert {text for text in old.get_vocab() if len(text) == 1} <= vocabulary
    before, after = backend_document(old), backend_document(new)
    assert all(before[part] == after[part] for part in ("normalizer", "pre_tokenizer", "decoder"))
    assert new.convert_ids_to_tokens(new("a").input_ids)[:1] == old.convert_ids_to_tokens(old("a").input_ids)[:1]


@pytest.mark.parametrize("name", ["smollm2", pytest.param("llama3", marks=pytest.mark.slow)])
def test_chats_are_put_together_from_the_same_tokens(name: str, source: Source, trimmed: Trimmed) -> None:
    old, new = source(name), trimmed(name)
    line = corpus()[0]
    for roles in (("user",), ("system", "user", "assistant")):
        chat = [{"role": role, "content": line} for role in roles]
        before, after = (t.apply_chat_template(chat, add_generation_prompt=True) for t in (old, new.tokenizer))
        assert new.kept[after["input_ids"]].tolist() == before["input_ids"]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
@example(text="\x00\x1f\ufdd0\U0010ffff")
@example(text="Unaffordable 中文 kwaliteitszorgsysteem <0x41> ▁ ##ing 31337")
def test_any_text_is_written_as_before(name: str, text: str, source: Source, trimmed: Trimmed) -> None:
    old, new = source(name), trimmed(name).tokenizer
    assert new.decode(ids_of(new, [text])[0]) == old.decode(ids_of(old, [text])[0])


@pytest.mark.parametrize(
    "name", ["smollm2", "mistral_v3", "unigram", *(pytest.param(n, marks=pytest.mark.slow) for n in ("minilm", "t5"))]
)
def test_the_most_used_tokens_are_kept(name: str, source: Source, trimmed: Trimmed) -> None:
    old = source(name)
    least = len(trim_tokenizer(old, corpus(), drop_unused=True).kept)
    size = (least + smallest(old)) // 2
    new = trim_tokenizer(old, corpus(), keep=size)
    assert len(new.kept) == len(new.tokenizer) == size
    counts = Counter(i for ids in ids_of(old, corpus()) for i in ids)
    kept = set(new.kept.tolist())
    gone = [counts[i] for i in trimmed(name).kept.tolist() if i not in kept]
    left = [counts[i] for i in kept if counts[i]]
    assert np.median(gone) < np.median(left) and any("more than before" in note for note in new.notes)
    # What went takes few tokens more: less than if it had been cut into characters.
    before, after = (sum(map(len, ids_of(t, corpus()))) for t in (old, new.tokenizer))
    assert before < after < 1.8 * before
    assert [new.tokenizer.decode(i) for i in ids_of(new.tokenizer, TEXTS)] == [
        old.decode(i) for i in ids_of(old, TEXTS)
    ]


def smallest(tokenizer: PreTrainedTokenizerFast) -> int:
    with pytest.raises(UsageError, match="at least") as problem:
        trim_tokenizer(tokenizer, corpus(), keep=1)
    return int(str(problem.value).rsplit(" ", 1)[1].strip(".").replace(",", ""))


def test_the_minimum_that_is_named_is_possible(source: Source) -> None:
    for name in ("mistral_v3", "minilm"):
        size = smallest(source(name))
        assert len(trim_tokenizer(source(name), corpus(), keep=size).tokenizer) == size < 4_000
        with pytest.raises(UsageError, match="at least"):
            trim_tokenizer(source(name), corpus(), keep=size - 1)


def test_keeping_more_than_there_is_keeps_all(source: Source) -> None:
    new = trim_tokenizer(source("smollm2"), corpus(), keep=100_000)
    assert new.kept.tolist() == list(range(49_152))


def leafy() -> PreTrainedTokenizerFast:
    """Return a vocabulary in which "abcd" needs "abc" and "ab", and "cd" is needed by nothing."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "b"), ("c", "d"), ("ab", "c"), ("abc", "d"), ("x", "y"), ("xy", "z")]
    strings = [*letters, *(a + b for a, b in merges)]
    backend = Tokenizer(models.BPE({text: i for i, text in enumerate(strings)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def test_parts_go_after_the_whole() -> None:
    # "abc" is merged before "cd" gets a chance only where "ab" came first: so "abcd" is ab + cd, never abc + d.
    tokenizer = leafy()
    assert tokenizer.tokenize("abcd") == ["ab", "cd"]
    counts = {"abc": 5, "cd": 3, "xyz": 1}
    order = []
    for size in range(len(tokenizer) - 1, 255, -1):
        left = set(trim_tokenizer(tokenizer, counts, keep=size).tokenizer.get_vocab())
        order.append(set(tokenizer.get_vocab()) - left)
    steps = [after - before for before, after in zip([set(), *order], order, strict=False)]
    assert [next(iter(step)) for step in steps] == ["abcd", "xyz", "xy", "cd", "abc", "ab"]


def test_uses_of_a_dropped_token_count_for_its_parts() -> None:
    # Without "abc", "ab" is used as often as "abc" was: more than "cd", so it stays.
    kept = trim_tokenizer(leafy(), {"abc": 5, "cd": 6, "ab": 1}, keep=258).tokenizer.get_vocab()
    assert {"cd", "ab"} <= set(kept) and "abc" not in kept


@pytest.mark.slow
def test_reserved_tokens_go_when_told(source: Source) -> None:
    new = trim_tokenizer(source("llama3"), corpus(), keep=20_000, keep_reserved=False)
    assert len(new.tokenizer) == 20_000 and len(new.tokenizer.added_tokens_decoder) == 5
    assert not any("reserved_special" in text for text in new.tokenizer.get_vocab())
    assert new.tokenizer.chat_template == source("llama3").chat_template
    numbers = [f"{n:03d}" for n in range(1000)]  # groups of three stay whole in a large vocabulary
    assert all(len(ids) == 1 for ids in ids_of(new.tokenizer, numbers))


def test_requests_that_make_no_sense(source: Source) -> None:
    for wrong in ({}, {"keep": 5, "drop_unused": True}):
        with pytest.raises(UsageError, match="Say either"):
            trim_tokenizer(source("smollm2"), corpus(), **wrong)
    with pytest.raises(UsageError, match="at least 1"):
        trim_tokenizer(source("smollm2"), corpus(), keep=0)
    with pytest.raises(VocabTransferError, match="no text"):
        trim_tokenizer(source("smollm2"), [""], drop_unused=True)


# --- trim and extend in one -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", first_of(["smollm2", "mistral_v3", "minilm", "unigram"], "smollm2", "unigram"))
def test_optimised_vocabularies_have_their_size_and_use_it(name: str, source: Source) -> None:
    # BERT's single characters, which have no bytes to fall back to, are 1,994 by themselves.
    old, lines, size = source(name), django_lines("tt"), 3_500 if name == "minilm" else 2_200
    new = optimise_tokenizer(old, iter(lines), size=size)
    assert len(new.kept) == len(new.tokenizer) == size
    strings = new.tokenizer.convert_ids_to_tokens(list(range(size)))
    shared = new.kept >= 0
    assert [s for s, is_old in zip(strings, shared, strict=True) if is_old] == old.convert_ids_to_tokens(
        new.kept[shared].tolist()
    )
    assert not set(np.array(strings)[~shared]) & set(old.get_vocab())
    before, after = (sum(map(len, ids_of(t, lines))) for t in (old, new.tokenizer))
    fresh = sum(map(len, ids_of(train_tokenizer(lines, like=old, vocab_size=size), lines)))
    # A fresh Unigram vocabulary also learns pieces seen once by heart.
    assert after < 0.8 * before and after < (1.2 if name == "unigram" else 1.12) * fresh
    assert new.tokenizer.special_tokens_map == old.special_tokens_map


@pytest.mark.slow
def test_the_trade_is_hardly_worse_than_any_fixed_one(source: Source) -> None:
    lines = [*django_lines("tt"), *django_lines("nl")]
    tokens = {}
    for keep in (None, 600, 1_000, 1_500, 2_000):
        new = optimise_tokenizer(source("smollm2"), lines, size=2_500, keep=keep).tokenizer
        tokens[keep] = sum(map(len, ids_of(new, lines)))
    assert tokens[None] < 1.04 * min(count for keep, count in tokens.items() if keep)


def test_word_counts_will_do(source: Source) -> None:
    words = Counter(word for line in django_lines("tt") for word in line.split())
    new = optimise_tokenizer(source("mistral_v3"), words, size=2_500)
    assert len(new.tokenizer) == 2_500
    lines = django_lines("tt")
    from_text = optimise_tokenizer(source("mistral_v3"), lines, size=2_500)
    tokens = [sum(map(len, ids_of(made.tokenizer, lines))) for made in (new, from_text)]
    assert tokens[0] < 1.2 * tokens[1]


def test_repaired_marks_are_there_before_anything_is_counted(source: Source) -> None:
    new = optimise_tokenizer(source("smollm2"), django_lines("hi"), size=2_500)
    assert sum("marks" in note for note in new.notes) == 1
    pieces = new.tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("हिन्दी")
    assert len(pieces) == 1


def test_sizes_that_make_no_sense(source: Source) -> None:
    for size, keep, message in ((0, None, "at least 1"), (2_000, 3_000, "to keep"), (100, None, "at least")):
        with pytest.raises(UsageError, match=message):
            optimise_tokenizer(source("smollm2"), corpus(), size=size, keep=keep)
