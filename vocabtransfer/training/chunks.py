"""Where two tokenisations of the same texts agree: their common borders, and the chunks between these.

Two tokenizers cut a text in different places, but some of their cuts are the same byte offsets. Up to such a border both
have read the same bytes, so what two models think there can be compared; between two of them lies a chunk that both
spell with tokens of their own. Everything is arrays over all tokens of all texts; nothing runs once a token in Python.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.tokenization.ragged import IntArray, Pieces, row_pointers, runs
from vocabtransfer.vocabulary import Kind, Vocabulary

Offsets = NDArray[np.int32]
# Bytes that a character has besides its first one: what may be missing at the edge of a block.
_PARTIAL = 3


@dataclass(frozen=True, eq=False)
class Borders:
    """Where the tokens of n texts begin and end, in bytes of their text.

    Text i with k tokens has k + 1 borders, one text after the other: ``places`` int64, ascending in a text, and
    ``usable`` bool, False where a border is not known exactly (inside a character whose bytes a normaliser changed).
    ``counted`` bool, one a token, is False for unknown tokens. ``indptr`` int64 (n + 1) counts tokens.
    """

    indptr: IntArray
    places: IntArray
    usable: NDArray[np.bool_]
    counted: NDArray[np.bool_]

    @property
    def texts(self) -> IntArray:
        """The text that each border belongs to."""
        return np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr) + 1)

    @property
    def before(self) -> IntArray:
        """The border in front of each token, as an index; the one behind it is the next."""
        return np.arange(len(self.counted)) + np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))


@dataclass(frozen=True, eq=False)
class Chunks:
    """Texts cut at the borders that two tokenisations share.

    ``ours`` and ``theirs`` int64, one a token: the number of its chunk, or -1 for tokens outside of all chunks and for
    chunks with an unknown token. Chunk c covers bytes ``starts[c]`` to ``stops[c]`` of text ``texts[c]``; chunks of a
    text follow one another in order. ``pairs`` int64 (p, 2) are the tokens, ours and theirs, that end at the same border.
    """

    ours: IntArray
    theirs: IntArray
    texts: IntArray
    starts: IntArray
    stops: IntArray
    pairs: IntArray

    def __len__(self) -> int:
        """Return the number of chunks."""
        return len(self.starts)


class TokenBytes:
    """The bytes of a vocabulary's tokens in one array, to find where the tokens of a text begin and end."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._flat = np.frombuffer(b"".join(vocabulary.token_bytes), np.uint8)
        self._starts = row_pointers(np.fromiter(map(len, vocabulary.token_bytes), np.int64, len(vocabulary)))
        self._broken = np.array([vocabulary.text(i) is None for i in range(len(vocabulary))])
        self._broken |= vocabulary.kinds == Kind.BYTE
        self._unknown = vocabulary.roles.get("unk_token", -1)

    def borders(self, pieces: Pieces, texts: Sequence[str], offsets: Offsets) -> Borders:
        """Return where tokens begin and end in their texts.

        Bytes decide where the tokens put together give the text; the first and the last token of a text may be parts
        of a character that goes on outside (a block was cut there), and a space in front may be the tokenizer's own.
        Where a normaliser changed the text, the characters that the library says a token covers decide.

        Args:
            pieces: the tokens of each text.
            texts: as many texts.
            offsets: int32 (tokens, 2), first character that a token covers and the one after the last.
        """
        widths = self._starts[pieces.ids + 1] - self._starts[pieces.ids]
        joined = self._flat[runs(self._starts[pieces.ids], widths)].tobytes()
        ends = row_pointers(widths)
        places = np.empty(len(pieces.ids) + len(texts), np.int64)
        usable = np.ones(len(places), np.bool_)
        for i, text in enumerate(texts):
            first, last = pieces.indptr[i], pieces.indptr[i + 1]
            span = slice(first + i, last + i + 1)
            encoded = text.encode("utf-8", "surrogatepass")
            start = _place_of(joined[ends[first] : ends[last]], encoded)
            if start is not None:
                places[span] = np.maximum(ends[first : last + 1] - ends[first] + start, 0)
            else:
                broken = self._broken[pieces.ids[first:last]]
                places[span], usable[span] = _by_offsets(text, offsets[first:last], broken)
        return Borders(pieces.indptr, places, usable, pieces.ids != self._unknown)


def _place_of(joined: bytes, text: bytes) -> int | None:
    """Return the byte of ``text`` at which the tokens' bytes begin (-1: a space before it); None if they differ."""
    if joined[:1] == b" " and text[:1] != b" " and joined[1:] == text:
        return -1
    cut = len(joined) - len(joined.lstrip(bytes(range(0x80, 0xC0))))
    start = _width(text[:1]) - cut if cut else 0
    same = 0 <= start <= _PARTIAL and text[start : start + len(joined)] == joined
    return start if same and 0 <= len(text) - start - len(joined) <= _PARTIAL else None


def _width(lead: bytes) -> int:
    return sum(lead >= mark for mark in (b"\x00", b"\xc0", b"\xe0", b"\xf0"))


def _by_offsets(text: str, offsets: Offsets, broken: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return borders in bytes and whether they can be used, from the characters that the tokens cover."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    bytes_before = row_pointers(1 + (codes > 0x7F) + (codes > 0x7FF).astype(np.int64) + (codes > 0xFFFF))
    ends = np.maximum.accumulate(offsets[:, 1].astype(np.int64))
    # Tokens that share a character have no border between them that could be named.
    parted = np.append(offsets[1:, 0] >= ends[:-1], not broken[-1:].any())
    usable = np.concatenate(([not broken[:1].any()], parted[: len(ends)]))
    return bytes_before[np.concatenate(([0], ends))], usable


def common_chunks(ours: Borders, theirs: Borders) -> Chunks:
    """Cut texts at all borders that both tokenisations have.

    The first of several borders at one place counts, so that a token which covers nothing belongs to what follows it.
    """
    stride = 1 + max(int(side.places.max(initial=0)) for side in (ours, theirs))
    keys, ours_at, theirs_at = np.intersect1d(_keys(ours, stride), _keys(theirs, stride), return_indices=True)
    found = keys >= 0
    keys, ours_at, theirs_at = keys[found], ours_at[found], theirs_at[found]
    text = keys // stride
    # Whether a chunk begins at each border; one False more, so that index -1 ("no border before") means none.
    follows = np.append(text[1:] == text[:-1], [False, False])[: len(keys) + 1]
    numbers = np.where(follows, np.cumsum(follows) - 1, -1)
    behind = np.flatnonzero(follows) + 1
    labels = [_labels(side, at, numbers) for side, at in ((ours, ours_at), (theirs, theirs_at))]
    kept = np.ones(len(behind), np.bool_)
    for side, label in zip((ours, theirs), labels, strict=True):
        kept[label[~side.counted & (label >= 0)]] = False
    renumbered = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)
    last = [at[behind] - 1 - text[behind] for at in (ours_at, theirs_at)]
    return Chunks(
        ours=renumbered[labels[0]],
        theirs=renumbered[labels[1]],
        texts=text[behind][kept],
        starts=(keys % stride)[behind - 1][kept],
        stops=(keys % stride)[behind][kept],
        pairs=np.stack(last, axis=1)[kept],
    )


def _keys(side: Borders, stride: int) -> IntArray:
    """Return a number for each border that tells text and place; negative, all different, for those of no use."""
    keys = -1 - np.arange(len(side.places))
    usable = np.flatnonzero(side.usable)
    named = (side.texts * stride + side.places)[usable]
    first = np.append(True, named[1:] != named[:-1])[: len(named)]
    keys[usable[first]] = named[first]
    return keys


def _labels(side: Borders, at: IntArray, numbers: IntArray) -> IntArray:
    """Return the chunk of each token: the one that begins at the last common border before it, or -1.

    Where a text has no common border before a token, that is the last one of an earlier text, where no chunk begins.
    """
    common = np.zeros(len(side.places), np.int64)
    common[at] = 1
    return numbers[np.cumsum(common)[side.before] - 1]


def to_pieces(ids: Sequence[Sequence[int]], offsets: Sequence[Sequence[tuple[int, int]]]) -> tuple[Pieces, Offsets]:
    """Put the ids and offsets that a tokenizer gives for several texts into arrays."""
    pieces = Pieces(
        row_pointers(np.fromiter(map(len, ids), np.int64, len(ids))),
        np.fromiter(chain.from_iterable(ids), np.int32),
    )
    spans = np.fromiter(chain.from_iterable(chain.from_iterable(offsets)), np.int32)
    return pieces, spans.reshape(-1, 2)
