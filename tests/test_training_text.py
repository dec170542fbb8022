"""Packed text: nothing lost, nothing invented, the same order for a seed, and any row can be got back to."""

import gzip
import lzma
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard
from adapt_samples import byte_tokenizer, write_text
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from vocabtransfer.evaluation.texts import read_documents
from vocabtransfer.files.text import read_text
from vocabtransfer.training import text as text_module
from vocabtransfer.training.objectives import IGNORED
from vocabtransfer.training.text import Mixture, PackedText, Place, Position, Row, make_batch

TOKENIZER = byte_tokenizer()


def packed(files: tuple[Path, ...], **options: Any) -> PackedText:
    return PackedText(
        options.pop("tokenizer", TOKENIZER),
        read_text(files),
        0,
        options.pop("block", 16),
        options.pop("seed", 0),
        **options,
    )


def first_epoch(packed: PackedText) -> list[list[Row]]:
    """The rows of the first epoch, by group."""
    groups: dict[int, list[Row]] = {}
    for row, place in packed.rows(Place()):
        if place.epoch:
            break
        groups.setdefault(place.group, []).append(row)
    return list(groups.values())


def documents_of(groups: list[list[Row]]) -> list[str]:
    texts = (TOKENIZER.decode([token for row in group for token in row.ids[1:].tolist()]) for group in groups)
    return [piece for text in texts for piece in text.split("<s>") if piece]


def ids_of(groups: list[list[Row]]) -> list[list[int]]:
    return [row.ids.tolist() for group in groups for row in group]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, ...]:
    plain = [write_text(tmp_path / f"{n}.txt", 40 + 20 * n, seed=n) for n in range(4)]
    packs = (lambda data: data, gzip.compress, lzma.compress, zstandard.ZstdCompressor().compress)
    for path, pack in zip(plain, packs, strict=True):
        path.write_bytes(pack(path.read_bytes()))
    return tuple(plain)


def test_an_epoch_holds_every_document_once(files: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Counter(read_documents(files))
    assert Counter(documents_of(first_epoch(packed(files)))) == wanted
    # Small pools, groups and few open files: the same documents in another order.
    for name, size in (("_POOL_CHARACTERS", 500), ("_GROUP_CHARACTERS", 700), ("_OPEN_FILES", 2)):
        monkeypatch.setattr(text_module, name, size)
    groups = first_epoch(packed(files))
    assert len(groups) > 5
    assert Counter(documents_of(groups)) == wanted
    rows = [row for group in groups for row in group]
    assert all(row.ids[0] == 0 and len(row.ids) == 17 for row in rows)
    assert all(((row.labels == row.ids) | (row.labels == IGNORED)).all() for row in rows)
    assert all(((row.labels == IGNORED) == (row.ids == 0)).all() for row in rows)


def test_files_are_mixed_and_epochs_differ(files: tuple[Path, ...]) -> None:
    own = {document: place for place, file in enumerate(files) for document in read_documents([file])}
    groups = first_epoch(packed(files))
    order = [own[document] for document in documents_of(groups)]
    assert len(set(order[: len(order) // 4])) == 4
    stream = packed(files).rows(Place())
    epochs = [[row.ids.tolist() for row, _ in islice(stream, len(ids_of(groups)))] for _ in range(2)]
    assert epochs[0] != epochs[1]
    assert sum(map(sum, epochs[0])) == sum(map(sum, epochs[1]))
    assert epochs[0] == ids_of(groups) != ids_of(first_epoch(packed(files, seed=1)))


def test_any_row_can_be_got_back_to(files: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "_POOL_CHARACTERS", 2000)
    monkeypatch.setattr(text_module, "_GROUP_CHARACTERS", 900)
    mixture = Mixture(packed(files), packed(files[:1], stream=1), 0.3)
    batches = [(batch, position) for batch, position in islice(mixture.batches(Position(), 3), 900)]
    assert batches[-1][1].target.epoch > 0
    for place in (0, 1, 57, 133, 820):
        position = Position.from_json(batches[place][1].to_json())
        again = next(mixture.batches(position, 3))
        assert again[1] == batches[place + 1][1]
        assert [row.ids.tolist() for row in again[0]] == [row.ids.tolist() for row in batches[place + 1][0]]


@given(st.floats(0.01, 0.99), st.integers(1, 400))
def test_the_share_of_the_source_is_exact(share: float, rows: int) -> None:
    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def rows(self, place: Place) -> Iterator[tuple[str, Place]]:
            while True:
                place = Place(row=place.row + 1)
                yield self.name, place

    mixture = Mixture(Named("target"), Named("source"), share)  # type: ignore[arg-type]
    batch, position = next(mixture.batches(Position(), rows))
    assert abs(batch.count("source") - rows * share) < 1  # type: ignore[arg-type]
    assert position.source.row == batch.count("source")  # type: ignore[arg-type]


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="<"), min_size=1, max_size=60)


@given(st.lists(TEXT, min_size=1, max_size=8), st.integers(1, 20))
def test_segments_are_the_text_of_their_tokens(texts: list[str], block: int) -> None:
    documents = [text for text in texts if text.strip()]
    rows = packed((), block=block, needs_text=True)._pack(documents or ["a"])
    seen = ""
    for number, row in enumerate(rows):
        for segment in row.segments:
            ids = row.ids[segment.start : segment.stop]
            assert segment.row == number and (ids != 0).all()
            assert len(segment.offsets) == len(ids)
            raw = TOKENIZER.decode(ids)
            # A character that an edge cuts belongs to both sides, and is whole in the text of each.
            assert "�" in raw or raw == segment.text
            assert segment.offsets[0, 0] == 0 and segment.offsets[-1, 1] == len(segment.text)
            assert (segment.offsets[1:, 0] <= segment.offsets[:-1, 1]).all()
            seen += segment.text
    assert set("".join(documents)) <= set(seen) or not documents


def test_segments_cover_spaces_that_tokenizers_trim(real_tokenizer: Any) -> None:
    tokenizer: PreTrainedTokenizerFast = real_tokenizer("smollm2")
    rows = packed((), tokenizer=tokenizer, block=8, needs_text=True)._pack(["the house of the wind  and\nthe moon"] * 2)
    batch = make_batch(rows, torch.device("cpu"))
    for segment in batch.segments:
        ids = batch.input_ids[segment.row, segment.start : segment.stop].tolist()
        pieces = [segment.text[begin:end] for begin, end in segment.offsets.tolist()]
        assert pieces == [tokenizer.decode([i]) for i in ids]
