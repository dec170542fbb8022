"""What every romanizer offers: text in, Latin letters out, and on request where each of them came from."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.errors import UsageError

Digits = Literal["fold", "keep"]
DIGITS: tuple[Digits, ...] = get_args(Digits)

# A stretch of the input (start, end) and what it becomes. The pieces of a text follow one another without gaps.
Piece = tuple[int, int, str]


@dataclass(frozen=True)
class Romanized:
    """A romanized text and its origin.

    ``spans`` is int64 of shape (len(text), 2): for each output character the start and end of the input it came from.
    Both columns never fall, and every input character lies in a span: one that leaves no trace (the soft sign, a
    zero-width joiner) belongs to the output before it, at the start of a text to the output after it.
    """

    text: str
    spans: NDArray[np.int64]


@runtime_checkable
class Transliterator(Protocol):
    """A romanizer for one language.

    The same text gives the same result whatever came before it. ASCII text comes back unchanged. Characters nobody can
    romanize are kept. ``digits`` says what happens to digits of other scripts: "fold" writes them 0-9 (with uroman,
    also the numerals of Chinese or Ethiopic), "keep" leaves them as they are.
    """

    @property
    def name(self) -> str:
        """The name `find_transliterator` knows it by."""

    @property
    def language(self) -> str | None:
        """The ISO 639-3 code of the language it romanizes, None for any."""

    @property
    def digits(self) -> Digits:
        """What happens to digits of other scripts."""

    @property
    def version(self) -> str:
        """What the result depends on besides the arguments, such as the release of a package."""

    def romanize(self, texts: Iterable[str]) -> Iterator[str]:
        """Yield each text romanized; texts are read one at a time."""

    def romanize_with_spans(self, texts: Iterable[str]) -> Iterator[Romanized]:
        """Yield each text romanized, with the span of the input that each output character came from."""

    def pieces(self, text: str) -> list[Piece]:
        """Return the stretches of one text and what each becomes, in order and without gaps."""


def check_digits(digits: str) -> Digits:
    """Return ``digits`` as a checked value; `UsageError` for anything but "fold" and "keep"."""
    for known in DIGITS:
        if digits == known:
            return known
    raise UsageError(f"Digits are to be {' or '.join(DIGITS)}, not {digits!r}.")


def romanized(pieces: list[Piece], length: int) -> Romanized:
    """Put the pieces of a text of ``length`` characters together."""
    text = "".join(piece[2] for piece in pieces)
    if not text:
        return Romanized("", np.zeros((0, 2), dtype=np.int64))
    counts = np.array([len(piece[2]) for piece in pieces], dtype=np.int64)
    starts = np.array([piece[0] for piece in pieces], dtype=np.int64)
    written = np.flatnonzero(counts)
    starts = starts[written]
    starts[0] = 0
    # What became nothing belongs to the piece before it, which so ends where the next one starts.
    ends = np.append(starts[1:], length)
    return Romanized(text, np.repeat(np.stack([starts, ends], axis=1), counts[written], axis=0))
