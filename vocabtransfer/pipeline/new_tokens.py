"""How many tokens an extended or swapped vocabulary gets: a number, a share of the tokens to save, or by the text."""

from collections.abc import Callable, Mapping, Sequence

from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError
from vocabtransfer.pipeline.shapes import asked_lines
from vocabtransfer.surgery.unigram_calibration import draw_words
from vocabtransfer.tokenization.saving import tokens_that_save
from vocabtransfer.tokenization.train_corpus import CorpusLike

FEWEST_NEW, MOST_NEW = 500, 16_000


def default_new_tokens(words: Mapping[str, float]) -> int:
    """Return how many tokens to add to a vocabulary: about a third of what a new one would have.

    Eight times the root of the number of running words, in hundreds, from 500 to 16,000.

    >>> default_new_tokens({"a": 27_000.0}), default_new_tokens({"a": 1e6}), default_new_tokens({"a": 1e9})
    (1300, 8000, 16000)
    """
    return int(min(max(round(8 * sum(words.values()) ** 0.5, -2), FEWEST_NEW), MOST_NEW))


def read_new_tokens(asked: int | str) -> int | float:
    """Return a number of new tokens, an int, or the share of the tokens that they are to save, a float.

    >>> read_new_tokens(2500), read_new_tokens("2500"), read_new_tokens("20%")
    (2500, 2500, 0.2)

    Raises:
        UsageError: it is neither.
    """
    text = str(asked).strip()
    try:
        found = float(text[:-1]) / 100 if text.endswith("%") else int(text.replace(",", "").replace("_", ""))
    except ValueError:
        found = None
    if found is None or (isinstance(found, float) and not 0 < found < 1):
        raise UsageError(
            f"`new_tokens` is a number of tokens, such as 2500, or the share of a text's tokens that they are to save, "
            f"such as 20%, not {asked!r}."
        )
    if isinstance(found, int) and found < 1:
        raise UsageError(f"`new_tokens` must be at least 1, not {asked}.")
    return found


def number_of_new_tokens(
    asked: int | str | None,
    tokenizer: PreTrainedTokenizerFast,
    words: Mapping[str, float],
    corpus: Callable[[], CorpusLike],
    held_out: Sequence[str],
    *,
    repair_marks: bool,
    seed: int,
) -> tuple[int, tuple[str, ...]]:
    """Return how many new tokens a vocabulary is to get, and what is to be said of the number.

    A share is measured on the held-out lines; without any, on words drawn by their counts. Where it cannot be reached,
    the number is that for the amount of text.

    Args:
        asked: as a person gave it; None for the number that follows from the amount of text.
        tokenizer: the source's.
        words: counts of the words of the text.
        corpus: gives what new tokens are learnt from.
        held_out: lines that the corpus does not hold.
        repair_marks: as for `extend_tokenizer`.
        seed: for the draw of words.
    """
    usual = default_new_tokens(words)
    wanted = usual if asked is None else read_new_tokens(asked)
    if isinstance(wanted, int):
        return wanted, ()
    lines = asked_lines(held_out) or draw_words(words, seed)
    found = tokens_that_save(wanted, tokenizer, corpus(), lines, most=usual, repair_marks=repair_marks)
    count, saved = f"{found.new_tokens:,} new tokens", f"{found.share:.1%} of the tokens of held-out text"
    if found.share >= wanted:
        return max(1, found.new_tokens), (f"{count} save {saved}: the fewest that save {wanted:.0%}, as asked for.",)
    note = (
        f"{count} save {saved}, not the {wanted:.0%} asked for: no more were tried, because this much text teaches no more "
        "rows. Name a number to take more, or give more text."
    )
    return usual, (note,)
