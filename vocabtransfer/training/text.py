"""Packed text as an endless stream of rows that can be taken up again at any row.

Files are read side by side, documents are shuffled in a pool as they stream by, encoded a group at a time, joined by
separators and cut into rows of one length. Everything follows from files, seed and settings, so a place in the stream
is three small numbers, and getting back to it costs reading but no encoding.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.evaluation.texts import encode_batches
from vocabtransfer.files.text import Text
from vocabtransfer.training.attention import places_in_documents
from vocabtransfer.training.cuts import Cuts
from vocabtransfer.training.objectives import IGNORED, Batch, Segment

_OPEN_FILES = 16
_POOL_CHARACTERS = 1 << 24
# A group is encoded in one go: enough for all cores, little to encode again when a run is taken up.
_GROUP_CHARACTERS = 1 << 18


@dataclass(frozen=True)
class Place:
    """How many epochs, groups of the epoch, and rows of the group lie behind."""

    epoch: int = 0
    group: int = 0
    row: int = 0


@dataclass(frozen=True, eq=False)
class Row:
    """One row: ids and labels int64 (1 + block,) as in `Batch`, and its parts of documents."""

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    segments: tuple[Segment, ...] = ()


@dataclass(frozen=True)
class PackedText:
    """Text files and how they become rows.

    ``stream`` tells the random choices of two texts apart; ``choose`` may leave out or cut the documents of an epoch, the
    same way every time; ``cuts`` take some tokens apart, others in every epoch.
    """

    tokenizer: PreTrainedTokenizerFast
    text: Text
    separator: int
    block: int
    seed: int
    needs_text: bool = False
    stream: int = 0
    choose: Callable[[Iterator[str]], Iterator[str]] | None = None
    cuts: Cuts | None = None

    def check(self, option: str) -> None:
        """Raise `VocabTransferError` when the files cannot be read or do not hold a block."""
        tokens = 0
        for _, encoding in encode_batches(self.tokenizer, self.text.documents()):
            tokens += sum(map(len, encoding["input_ids"]))
            if tokens >= self.block:
                return
        names = str(self.text)
        if not tokens:
            raise VocabTransferError(f"{option} {names}: there is no text to train on.")
        raise VocabTransferError(
            f"{option} {names}: the text has {tokens:,} tokens, less than one block of {self.block:,}: give more text or "
            "a smaller `block`."
        )

    def rows(self, place: Place) -> Iterator[tuple[Row, Place]]:
        """Yield rows without end, from ``place`` on, each with the place behind it."""
        while True:
            for group, documents in enumerate(self._groups(place.epoch)):
                if group < place.group:
                    continue
                made = self._pack(documents, (place.epoch, group))
                for number in range(place.row, len(made)):
                    place = Place(place.epoch, group, number + 1)
                    yield made[number], place
                place = Place(place.epoch, group + 1)
            place = Place(place.epoch + 1)

    def documents(self, epoch: int) -> Iterator[str]:
        """Yield the documents of an epoch in its order."""
        chance = np.random.default_rng([self.seed, self.stream, epoch])
        return _shuffled(_side_by_side(self.text, chance), chance)

    def _groups(self, epoch: int) -> Iterator[list[str]]:
        group: list[str] = []
        characters = 0
        documents = self.documents(epoch)
        for document in documents if self.choose is None else self.choose(documents):
            group.append(document)
            characters += len(document)
            if characters >= _GROUP_CHARACTERS:
                yield group
                group, characters = [], 0
        if group:
            yield group

    def _pack(self, documents: list[str], place: tuple[int, int] = (0, 0)) -> list[Row]:
        """Return the rows of documents; ``place`` is the group's, epoch and number, which decides how text is cut."""
        chance = np.random.default_rng([self.seed, self.stream, *place])
        ids: list[NDArray[np.int64]] = []
        parts: list[tuple[int, str, NDArray[np.int32]]] = []  # where a document begins, its text, its tokens' offsets
        end = np.array([self.separator], dtype=np.int64)
        begin = 0
        for batch, encoding in encode_batches(self.tokenizer, documents, offsets=self.needs_text):
            for number, document in enumerate(batch):
                own = np.array(encoding["input_ids"][number], dtype=np.int64)
                if self.cuts is not None:
                    own = self.cuts(own, chance)
                ids += [own, end]
                if self.needs_text:
                    parts.append((begin, document, _gapless(encoding["offset_mapping"][number])))
                begin += len(own) + 1
        stream = np.concatenate(ids)[:-1]  # nothing follows the last separator
        count = -(-len(stream) // self.block)
        filled = np.full((count, 1 + self.block), self.separator, dtype=np.int64)
        padded = np.full(count * self.block, self.separator, dtype=np.int64)
        padded[: len(stream)] = stream
        filled[:, 1:] = padded.reshape(count, self.block)
        # Nothing is learned about where a document ends: the evaluation does not ask for it.
        labels = np.where(filled == self.separator, IGNORED, filled)
        segments = self._segments(parts, count)
        return [Row(*row) for row in zip(filled, labels, segments, strict=True)]

    def _segments(self, parts: list[tuple[int, str, NDArray[np.int32]]], count: int) -> list[tuple[Segment, ...]]:
        found: list[list[Segment]] = [[] for _ in range(count)]
        for begin, text, offsets in parts:
            done = 0
            while done < len(offsets):
                row, column = divmod(begin + done, self.block)
                stop = min(done + self.block - column, len(offsets))
                own = offsets[done:stop]
                first, last = int(own[0, 0]), int(own[-1, 1])
                segment = Segment(row, 1 + column, 1 + column + stop - done, text[first:last], own - first)
                found[row].append(segment)
                done = stop
        return [tuple(row) for row in found]


def _gapless(offsets: list[tuple[int, int]]) -> NDArray[np.int32]:
    """Return offsets int32 (tokens, 2) in which a token also covers the space in front that tokenizers trim off."""
    found = np.array(offsets, dtype=np.int32).reshape(-1, 2)
    ends = np.maximum.accumulate(found[:, 1])
    before = np.concatenate((np.zeros(1, dtype=np.int32), ends[:-1]))
    return np.stack((np.minimum(found[:, 0], before), ends), axis=1)


def _side_by_side(text: Text, chance: np.random.Generator) -> Iterator[str]:
    """Yield the documents of all files, those of up to 16 files mixed, the larger file more often."""
    parts = text.parts()
    waiting = [parts[i] for i in chance.permutation(len(parts))]
    opened: list[tuple[Iterator[str], float]] = []
    while waiting or opened:
        while waiting and len(opened) < _OPEN_FILES:
            part = waiting.pop()
            opened.append((part.documents(), float(max(part.files[0].stat().st_size, 1))))
        if len(opened) == 1 and not waiting:
            yield from opened[0][0]
            return
        edges = np.cumsum([size for _, size in opened])
        chosen = int(np.searchsorted(edges, chance.random() * edges[-1], side="right"))
        document = next(opened[chosen][0], None)
        if document is None:
            opened.pop(chosen)
        else:
            yield document


def _shuffled(documents: Iterator[str], chance: np.random.Generator) -> Iterator[str]:
    """Yield the documents in another order: a pool of 16 Mi characters is held, and a random one leaves it."""
    pool: list[str] = []
    characters = 0
    for document in documents:
        pool.append(document)
        characters += len(document)
        while characters > _POOL_CHARACTERS and len(pool) > 1:
            place = int(chance.integers(len(pool)))
            pool[place], pool[-1] = pool[-1], pool[place]
            chosen = pool.pop()
            characters -= len(chosen)
            yield chosen
    for place in chance.permutation(len(pool)).tolist():
        yield pool[place]


@dataclass(frozen=True)
class Position:
    """A place in a mixture: rows taken in all, and the place in either text."""

    rows: int = 0
    target: Place = Place()
    source: Place = Place()

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> "Position":
        """Read what `to_json` returned."""
        return cls(facts["rows"], Place(**facts["target"]), Place(**facts["source"]))


@dataclass(frozen=True)
class Mixture:
    """Rows of the target text with a ``share`` of rows of the source-language text spread evenly among them."""

    target: PackedText
    source: PackedText | None = None
    share: float = 0.0

    def batches(self, position: Position, rows: int) -> Iterator[tuple[list[Row], Position]]:
        """Yield ``rows`` rows at a time, from ``position`` on, each batch with the position behind it."""
        target = self.target.rows(position.target)
        source = self.source.rows(position.source) if self.source is not None else None
        while True:
            batch = []
            for _ in range(rows):
                number = position.rows
                # The share is exact over any stretch, whatever the seed: row n is the one where n x share passes a whole.
                if source is not None and int((number + 1) * self.share) > int(number * self.share):
                    row, place = next(source)
                    position = replace(position, rows=number + 1, source=place)
                else:
                    row, place = next(target)
                    position = replace(position, rows=number + 1, target=place)
                batch.append(row)
            yield batch, position


def make_batch(rows: Sequence[Row], device: torch.device, apart: int | None = None) -> Batch:
    """Put rows on a device as one batch; the separator ``apart``, where documents are not to see each other."""
    segments = (replace(segment, row=number) for number, row in enumerate(rows) for segment in row.segments)
    ids, labels = np.stack([row.ids for row in rows]), np.stack([row.labels for row in rows])
    everything = torch.from_numpy(ids).to(device)
    places = places_in_documents(everything, apart) if apart is not None else None
    return Batch(everything, torch.from_numpy(labels).to(device), tuple(segments), places)
