"""How few new tokens save a wanted share: one less would not, and the tokenizer that is made keeps the promise."""

from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizer_samples import django_lines, ids_of, t5_like, tiny_backend
from transformers import PreTrainedTokenizerFast

import vocabtransfer as vt
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.pipeline.new_tokens import default_new_tokens, number_of_new_tokens, read_new_tokens
from vocabtransfer.tokenization.extend import extend_tokenizer
from vocabtransfer.tokenization.saving import tokens_that_save

Source = Callable[[str], PreTrainedTokenizerFast]


@cache
def lines(language: str) -> tuple[list[str], list[str]]:
    """Text to learn from, and text to measure on."""
    found = django_lines(language)
    return found[: len(found) * 4 // 5][:1_200], found[len(found) * 4 // 5 :][:300]


def tokens(tokenizer: PreTrainedTokenizerFast, text: list[str]) -> int:
    return sum(map(len, ids_of(tokenizer, text)))


@pytest.mark.parametrize(
    ("name", "language", "share"),
    [pytest.param("smollm2", "tt", 0.3, marks=pytest.mark.slow), ("mistral_v3", "nl", 0.1)],
)
def test_merges_save_what_was_foretold_and_one_fewer_does_not(
    name: str, language: str, share: float, real_tokenizer: Source
) -> None:
    old, (corpus, held_out) = real_tokenizer(name), lines(language)
    found = tokens_that_save(share, old, corpus, held_out, most=3_000)
    before = tokens(old, held_out)
    made, less = (
        tokens(extend_tokenizer(old, corpus, new_tokens=found.new_tokens - n).tokenizer, held_out) for n in (0, 1)
    )
    assert made <= (1 - share) * before < less
    assert (found.before, found.after) == (before, made)


def test_line_breaks_of_documents_count_too(real_tokenizer: Source) -> None:
    old, (corpus, held_out) = real_tokenizer("mistral_v3"), lines("nl")
    documents = ["\n\n".join(held_out[start : start + 5]) for start in range(0, len(held_out), 5)]
    found = tokens_that_save(0.08, old, corpus, documents, most=3_000)
    made = extend_tokenizer(old, corpus, new_tokens=found.new_tokens).tokenizer
    assert (found.before, found.after) == (tokens(old, documents), tokens(made, documents))
    alone = tokens_that_save(0.08, old, corpus, held_out, most=3_000)
    assert found.new_tokens > alone.new_tokens


@pytest.mark.parametrize("name", ["t5", pytest.param("minilm", marks=pytest.mark.slow)])
def test_pieces_that_are_no_merges_save_it_too(name: str, real_tokenizer: Source) -> None:
    old = t5_like() if name == "t5" else real_tokenizer(name)
    corpus, held_out = lines("nl")
    found = tokens_that_save(0.15, old, corpus, held_out, most=800)
    made = extend_tokenizer(old, corpus, new_tokens=found.new_tokens)
    assert found.before == tokens(old, held_out) and found.after == tokens(made.tokenizer, held_out)
    assert found.share >= 0.15 and found.new_tokens < 700
    fewer = extend_tokenizer(old, corpus, new_tokens=round(0.8 * found.new_tokens))
    assert tokens(fewer.tokenizer, held_out) > 0.85 * found.before


def test_a_share_out_of_reach_says_what_all_of_them_save(real_tokenizer: Source) -> None:
    old, (corpus, held_out) = real_tokenizer("smollm2"), lines("nl")
    found = tokens_that_save(0.9, old, corpus, held_out, most=200)
    assert found.new_tokens == 200 and 0 < found.share < 0.9
    foreign = tokens_that_save(0.1, old, corpus, ["漢字", "仮名"], most=50)
    assert foreign.new_tokens == 50 and foreign.before == foreign.after and foreign.share == 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    corpus=st.lists(st.text("abcdeé ", min_size=3, max_size=40).filter(str.strip), min_size=2, max_size=12),
    held_out=st.lists(st.text("abcdeé ", min_size=3, max_size=40).filter(str.strip), min_size=1, max_size=6),
    share=st.floats(0.02, 0.8),
)
def test_any_text_is_counted_as_the_tokenizer_counts(corpus: list[str], held_out: list[str], share: float) -> None:
    old = PreTrainedTokenizerFast(tokenizer_object=tiny_backend(), eos_token="<|endoftext|>")
    found = tokens_that_save(share, old, corpus, held_out, most=30, min_count=1)
    assert found.before == tokens(old, held_out)
    made = extend_tokenizer(old, corpus, new_tokens=found.new_tokens, min_count=1) if found.new_tokens else None
    assert found.after == (tokens(made.tokenizer, held_out) if made else found.before)


def test_what_is_refused(real_tokenizer: Source) -> None:
    old = real_tokenizer("smollm2")
    for share in (0.0, 1.0, -0.2, float("nan")):
        with pytest.raises(UsageError, match="over 0 and below 1"):
            tokens_that_save(share, old, ["a"], ["a"], most=5)
    with pytest.raises(UsageError, match="at least 1"):
        tokens_that_save(0.2, old, ["a"], ["a"], most=0)
    with pytest.raises(VocabTransferError, match="no held-out text"):
        tokens_that_save(0.2, old, ["a"], ["", " "], most=5)
    with pytest.raises(UsageError, match="held_out has to be Iterable of str"):
        tokens_that_save(0.2, old, ["a"], ["a", 3], most=5)  # type: ignore[list-item]
    with pytest.raises(UsageError, match="tokens_that_save: share"):
        vt.tokens_that_save("20%", old, ["a"], ["a"], most=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["few", "0%", "100%", "-5%", "nan%", "%", "", "20 per cent", "1.5", "0.2"])
def test_a_number_of_new_tokens_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match=r"such as 2500, or .* such as 20%"):
        read_new_tokens(text)


def test_the_number_of_a_build(real_tokenizer: Source) -> None:
    corpus, held_out = lines("nl")
    words = {"een": 150_000.0, "twee": 50_000.0}
    usual = default_new_tokens(words)

    def ask(asked: int | str | None, held: list[str] = held_out) -> tuple[int, tuple[str, ...]]:
        return number_of_new_tokens(
            asked, real_tokenizer("smollm2"), words, lambda: corpus, held, repair_marks=True, seed=0
        )

    assert ask(None) == (usual, ()) and ask(70) == (70, ()) and ask("70") == (70, ())
    number, (note,) = ask("10%")
    assert number < usual and note.startswith(f"{number:,} new tokens save 10.") and "fewest" in note
    number, (note,) = ask("85%")
    assert number == usual and "not the 85% asked for" in note
    # Without lines that were kept apart, words are drawn by their counts.
    assert ask("5%", []) != ask("5%")
