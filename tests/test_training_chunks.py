"""Chunks that two tokenisations of a text share."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from vocabtransfer.checkpoint.synthetic import toy_tokenizer
from vocabtransfer.tokenization.ragged import Pieces, row_pointers
from vocabtransfer.training.chunks import Borders, Chunks, TokenBytes, common_chunks, to_pieces
from vocabtransfer.vocabulary import Vocabulary

OLD = toy_tokenizer(["китап", " the", "ing", "😀", " дө"])
NEW = toy_tokenizer(["кит", "апха", " then", " дөнья", "   "], seed=3)
VOCABULARIES = {id(tokenizer): Vocabulary.from_tokenizer(tokenizer) for tokenizer in (OLD, NEW)}
TEXTS = st.lists(st.text(st.sampled_from("китапхдөньe the😀 \n"), max_size=30), max_size=5)


def read(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> tuple[Pieces, Borders]:
    encoding = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True) if texts else {}
    pieces, offsets = to_pieces(encoding.get("input_ids", []), encoding.get("offset_mapping", []))
    vocabulary = VOCABULARIES.get(id(tokenizer)) or Vocabulary.from_tokenizer(tokenizer)
    return pieces, TokenBytes(vocabulary).borders(pieces, texts, offsets)


def spelled(tokenizer: PreTrainedTokenizerFast, pieces: Pieces, labels: np.ndarray, chunk: int) -> bytes:
    vocabulary = VOCABULARIES[id(tokenizer)]
    return b"".join(vocabulary.token_bytes[i] for i in pieces.ids[labels == chunk])


def cuts(tokenizer: PreTrainedTokenizerFast, text: str) -> set[int]:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return set(row_pointers([len(VOCABULARIES[id(tokenizer)].token_bytes[i]) for i in ids]).tolist())


@settings(max_examples=300, deadline=None)
@given(texts=TEXTS)
def test_chunks_are_the_text_in_both_tokenisations_cut_at_every_common_border(texts: list[str]) -> None:
    (old, old_borders), (new, new_borders) = read(OLD, texts), read(NEW, texts)
    chunks = common_chunks(new_borders, old_borders)
    for i in range(len(chunks)):
        content = texts[chunks.texts[i]].encode()[chunks.starts[i] : chunks.stops[i]]
        assert spelled(NEW, new, chunks.ours, i) == content == spelled(OLD, old, chunks.theirs, i) and content
    assert (chunks.ours >= 0).all() and (chunks.theirs >= 0).all()
    for number, text in enumerate(texts):
        mine = np.flatnonzero(chunks.texts == number)
        found = [0, *chunks.stops[mine].tolist()]
        assert found == sorted(cuts(OLD, text) & cuts(NEW, text))
        assert chunks.starts[mine].tolist() == found[:-1]
    for tokens, stop in zip(chunks.pairs.tolist(), chunks.stops, strict=True):
        assert new_borders.places[new_borders.before + 1][tokens[0]] == stop
        assert old_borders.places[old_borders.before + 1][tokens[1]] == stop


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.sampled_from("китап😀 th"), min_size=4, max_size=20), data=st.data())
def test_blocks_cut_inside_characters(text: str, data: st.DataObject) -> None:
    """A block holds some tokens of a text, and the text comes with all characters that any of them has a part of."""
    encoding = NEW(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
    first = data.draw(st.integers(0, len(ids) - 1))
    last = data.draw(st.integers(first + 1, len(ids)))
    begin, end = offsets[first][0], offsets[last - 1][1]
    part, spans = text[begin:end], [(a - begin, b - begin) for a, b in offsets[first:last]]
    pieces, at = to_pieces([ids[first:last]], [spans])
    ours = TokenBytes(VOCABULARIES[id(NEW)]).borders(pieces, [part], at)
    _, theirs = read(OLD, [part])
    sizes = [len(VOCABULARIES[id(NEW)].token_bytes[i]) for i in ids]
    if len(part) == 1 and sum(sizes[first:last]) < len(part.encode()):
        return  # a part of one character: where in it cannot always be told, and need not be
    assert ours.usable.all()
    before = sum(sizes[:first]) - len(text[:begin].encode())
    assert ours.places.tolist() == (row_pointers(sizes[first:last]) + before).tolist()
    chunks = common_chunks(ours, theirs)
    for i in range(len(chunks)):
        content = part.encode()[chunks.starts[i] : chunks.stops[i]]
        assert spelled(NEW, pieces, chunks.ours, i) == content


def test_a_token_that_covers_nothing_belongs_to_the_chunk_behind_it() -> None:
    ours = Borders(np.array([0, 3]), np.array([0, 0, 2, 5]), np.ones(4, bool), np.ones(3, bool))
    theirs = Borders(np.array([0, 2]), np.array([0, 2, 5]), np.ones(3, bool), np.ones(2, bool))
    chunks = common_chunks(ours, theirs)
    assert chunks.ours.tolist() == [0, 0, 1] and chunks.theirs.tolist() == [0, 1]
    assert chunks.pairs.tolist() == [[1, 0], [2, 1]]


def test_unusable_borders_join_chunks_and_unknown_tokens_remove_them() -> None:
    ours = Borders(np.array([0, 3]), np.array([0, 1, 2, 5]), np.array([True, True, False, True]), np.ones(3, bool))
    theirs = Borders(np.array([0, 3]), np.array([0, 1, 2, 5]), np.ones(4, bool), np.array([False, True, True]))
    chunks = common_chunks(ours, theirs)
    assert (chunks.starts.tolist(), chunks.stops.tolist()) == ([1], [5])
    assert chunks.ours.tolist() == chunks.theirs.tolist() == [-1, 0, 0] and chunks.pairs.tolist() == [[2, 2]]


def test_texts_without_a_common_border_are_left_out() -> None:
    first = Borders(np.array([0, 1, 2]), np.array([0, 4, 1, 3]), np.ones(4, bool), np.ones(2, bool))
    second = Borders(np.array([0, 1, 2]), np.array([0, 4, 0, 2]), np.ones(4, bool), np.ones(2, bool))
    chunks = common_chunks(first, second)
    assert chunks.ours.tolist() == [0, -1] and chunks.theirs.tolist() == [0, -1] and chunks.texts.tolist() == [0]
    nothing = common_chunks(*(Borders(np.zeros(1, np.int64), *(np.zeros(0, t) for t in (int, bool, bool))),) * 2)
    assert isinstance(nothing, Chunks) and len(nothing) == 0 and nothing.pairs.shape == (0, 2)


@pytest.mark.parametrize("name", ["mistral_v1", "tekken"])
def test_real_tokenizers(name: str, real_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> None:
    """A byte-level tokenizer against SentencePiece with its space in front, and against another byte-level one."""
    texts = ["The quick  brown fox,\n\nже китапханә 😀 ғүө.", " leading", "中文𐍈 the end ", "", "ﬁne e\u0301"]
    (ours, mine), (theirs, others) = read(real_tokenizer("smollm2"), texts), read(real_tokenizer(name), texts)
    chunks = common_chunks(mine, others)
    for number, text in enumerate(texts):
        mine_here = np.flatnonzero(chunks.texts == number)
        assert chunks.starts[mine_here].tolist() == [0, *chunks.stops[mine_here][:-1].tolist()][: len(mine_here)]
        assert not text or chunks.stops[mine_here][-1] == len(text.encode())
    for side, labels in ((ours, chunks.ours), (theirs, chunks.theirs)):
        assert len(labels) == len(side.ids) and set(labels.tolist()) == set(range(len(chunks)))
    assert len(chunks) > 20


def test_a_normaliser_that_changes_the_text(real_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> None:
    """WordPiece lower-cases and drops accents, so its bytes are not those of the text; its offsets are."""
    texts = ["Élan vital, crème BRÛLÉE", "plain text"]
    (_, mine), (theirs, others) = read(real_tokenizer("smollm2"), texts), read(real_tokenizer("minilm"), texts)
    chunks = common_chunks(mine, others)
    ends = [texts[t].encode()[:stop].decode() for t, stop in zip(chunks.texts, chunks.stops, strict=True)]
    assert "Élan vital" in ends and "Élan vital," in ends and "plain text" in ends
    assert len(theirs.ids) == len(chunks.theirs)
