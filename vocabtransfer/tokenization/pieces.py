"""Encode single words and tokens as they stand in running text: no prefix at the start, no special tokens.

An ordinary call of a tokenizer puts ``▁`` in front of a bare token, takes the text ``<s>`` for a control token and
turns half a character into a replacement sign. `PieceEncoder` does none of that: the pieces of an item put together
give the item's bytes.

"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from transformers import PreTrainedTokenizerFast

from vocabtransfer.tokenization.ragged import (
    IntArray,
    Pieces,
    SpannedPieces,
    drop_pieces,
    put_spanned_together,
    put_together,
    row_numbers,
    row_pointers,
    share_evenly,
    spans_by_bytes,
    take_rows,
)
from vocabtransfer.vocabulary import STANDS_ALONE, Kind, Scheme, Vocabulary, byte_alphabet, component

__all__ = ["PieceEncoder", "Pieces", "SpannedPieces"]

_CHUNK = 16_384  # texts encoded at once: bounds the memory that the library's verbose encodings take
_BROKEN = regex.compile("[\udc80-\udcff]+")
_BROKEN_OR_MARK = regex.compile("[\udc80-\udcff▁]+")
_MARKS = regex.compile(r"\p{M}+")
_WORD_START = regex.compile(rf"[^\s{STANDS_ALONE}]+")


class PieceEncoder:
    """Encodes words and token texts with a tokenizer as it would inside a text.

    Normalisers that are part of a tokenizer (NFC, lower case, accents) stay; what it does to the start of a text (the
    dummy prefix, stripped spaces) and to the names of special tokens does not. Text that the vocabulary has no token
    for gives no pieces rather than the unknown token: it is no evidence of anything.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, vocabulary: Vocabulary | None = None) -> None:
        """Prepare private pipelines that share the tokenizer's model; the tokenizer itself is left as it is."""
        self.vocabulary = vocabulary if vocabulary is not None else Vocabulary.from_tokenizer(tokenizer)
        backend = tokenizer.backend_tokenizer
        self._backend = backend
        self._text = _Pipeline(_in_context(backend, self.vocabulary), backend)
        self._bytes = _Pipeline(Tokenizer(backend.model), backend)
        self._inside = _Pipeline(_inside_words(backend, self._text.tokenizer, self.vocabulary), backend)
        self._sizes = np.fromiter(map(len, self.vocabulary.token_bytes), np.int64, len(self.vocabulary))
        self._byte_ids = _byte_ids(self.vocabulary)
        self._special = self.vocabulary.kinds >= Kind.SPECIAL
        self._unknown = _unknown_ids(tokenizer, self._text, self._special)
        # Only Unigram looks through a text for any string of its vocabulary, names of bytes and controls included.
        self._spelled = type(backend.model).__name__ == "Unigram"

    def model_json(self) -> str:
        """Return the whole tokenizer as JSON with its model under "model", such as the merges of byte-pair encoding."""
        return self._backend.to_str()

    def encode_bytes(self, items: Sequence[bytes]) -> Pieces:
        """Encode token texts given as bytes; a leading space is the word boundary, without one the item goes on a word.

        The pieces' `Vocabulary.token_bytes` together are the item (after the tokenizer's own normaliser), also for
        items that are only a part of a character: byte-level vocabularies spell them in bytes, SentencePiece ones in
        ``<0xNN>`` tokens (so too ``▁``, which would come back as a space). WordPiece gives no pieces for broken
        characters, and none for spaces.
        """
        scheme = self.vocabulary.scheme
        if scheme is Scheme.WORDPIECE:
            return self._joined(self._wordpiece_parts(items))
        if scheme is Scheme.BYTE_LEVEL:
            return self._joined(self._byte_level_parts(items))
        return self._joined(self._sentencepiece_parts(items))

    def encode_words(self, words: Sequence[str], word_initial: bool = True) -> SpannedPieces:
        """Encode words (without boundary space) and tell which part of its word each piece covers.

        ``word_initial`` says that a word boundary comes before each; otherwise the words go on from a letter.
        """
        lengths = np.fromiter(map(len, words), np.int32, len(words))
        if self.vocabulary.scheme is Scheme.WORDPIECE:
            return self._spanned_by_offsets(words, lengths, word_initial)
        texts = [" " + word for word in words] if word_initial else list(words)
        pieces = self._repaired(self._text.encode(texts), texts)
        ends = row_pointers(self._sizes[pieces.ids])
        encoded = [text.encode() for text in texts]
        wanted = np.fromiter(map(len, encoded), np.int64, len(words))
        exact = np.diff(ends[pieces.indptr]) == wanted
        kept, others = np.flatnonzero(exact), np.flatnonzero(~exact)
        exact_pieces = take_rows(pieces, kept)
        exact_sizes = self._sizes[exact_pieces.ids]
        by_bytes = spans_by_bytes(exact_pieces, exact_sizes, (encoded[i] for i in kept.tolist()), lengths[kept])
        if not len(others):
            return by_bytes
        # A normaliser changed the lengths of some words; the library's offsets know where their pieces come from.
        by_offsets = self._spanned_by_offsets([words[i] for i in others.tolist()], lengths[others], word_initial)
        return put_spanned_together((by_bytes, kept), (by_offsets, others))

    # --- items to parts, each to be encoded by one of the pipelines -------------------------------------------------

    def _byte_level_parts(self, items: Sequence[bytes]) -> "_Parts":
        alphabet = {byte: ord(char) for byte, char in byte_alphabet().items()}
        parts = _Parts(len(items))
        for i, item in enumerate(items):
            try:
                parts.add(i, self._text, item.decode())
            except UnicodeDecodeError:
                parts.add(i, self._bytes, item.decode("latin-1").translate(alphabet))
        return parts

    def _sentencepiece_parts(self, items: Sequence[bytes]) -> "_Parts":
        spelled = _BROKEN_OR_MARK if self._byte_ids is not None else _BROKEN
        parts = _Parts(len(items))
        for i, item in enumerate(items):
            text = item.decode("utf-8", "surrogateescape")
            place = 0
            for match in spelled.finditer(text):
                if match.start() > place:
                    parts.add(i, self._text, text[place : match.start()])
                if self._byte_ids is not None:
                    content = match[0].encode("utf-8", "surrogateescape")
                    parts.add_ids(i, self._byte_ids[np.frombuffer(content, np.uint8)])
                place = match.end()
            if place < len(text):
                parts.add(i, self._text, text[place:])
        return parts

    def _wordpiece_parts(self, items: Sequence[bytes]) -> "_Parts":
        parts = _Parts(len(items))
        for i, item in enumerate(items):
            try:
                text = item.decode()
            except UnicodeDecodeError:
                continue
            # The rest of a word that began before: pieces with ##, up to the next space or punctuation mark.
            match = _WORD_START.match(text)
            place = match.end() if match else 0
            if place:
                parts.add(i, self._inside, text[:place])
            if place < len(text):
                parts.add(i, self._text, text[place:])
        return parts

    def _joined(self, parts: "_Parts") -> Pieces:
        """Encode all parts, each pipeline's in one batch, and put the pieces of each item in order."""
        encoded: list[tuple[Pieces, IntArray]] = []
        for pipeline in (self._text, self._bytes, self._inside):
            texts = parts.texts.get(id(pipeline), [])
            pieces = pipeline.encode(texts)
            pieces = self._repaired(pieces, texts) if pipeline is self._text else self._without_special(pieces)
            encoded.append((pieces, np.array(parts.places.get(id(pipeline), []), np.int64)))
        given = row_pointers(np.array([len(ids) for ids in parts.given], np.int64))
        ids = np.concatenate([np.zeros(0, np.int32), *parts.given])
        encoded.append((Pieces(given, ids), np.array(parts.given_places, np.int64)))
        whole, _ = put_together(*encoded)
        first_part = np.searchsorted(np.array(parts.owners, np.int64), np.arange(parts.count + 1))
        return Pieces(whole.indptr[first_part], whole.ids)

    # --- specials and unknown text ----------------------------------------------------------------------------------

    def _repaired(self, pieces: Pieces, texts: Sequence[str]) -> Pieces:
        """Drop unknown tokens, and encode again, letter by letter, what was taken for a special or byte token."""
        special = self._special[pieces.ids]
        special &= ~np.isin(pieces.ids, sorted(self._unknown))
        taken = set(row_numbers(pieces)[special].tolist())
        if self._spelled:
            names = ["<0x", *(self.vocabulary.strings[i] for i in self._unknown)]
            taken.update(i for i, text in enumerate(texts) if any(name in text for name in names))
        pieces = self._without_special(pieces)
        if not taken:
            return pieces
        again = np.array(sorted(taken))
        letters = [letter for i in again.tolist() for letter in texts[i]]
        spelled = self._without_special(self._text.encode(letters))
        ends = row_pointers(np.array([len(texts[i]) for i in again.tolist()]))
        kept = np.setdiff1d(np.arange(len(pieces)), again)
        return put_together((take_rows(pieces, kept), kept), (Pieces(spelled.indptr[ends], spelled.ids), again))[0]

    def _without_special(self, pieces: Pieces) -> Pieces:
        return drop_pieces(pieces, self._special[pieces.ids])

    # --- spans ------------------------------------------------------------------------------------------------------

    def _spanned_by_offsets(self, words: Sequence[str], lengths: NDArray[np.int32], initial: bool) -> SpannedPieces:
        """Encode words with the offsets that the library reports; pieces with the same offsets share them evenly."""
        spaced = initial and self.vocabulary.scheme is not Scheme.WORDPIECE
        if initial or self.vocabulary.scheme is not Scheme.WORDPIECE:
            found = self._text.encode_with_offsets([" " + word if spaced else word for word in words])
        else:
            heads = [match.end() if (match := _WORD_START.match(word)) else 0 for word in words]
            front = self._inside.encode_with_offsets([word[:cut] for word, cut in zip(words, heads, strict=True)])
            back = self._text.encode_with_offsets([word[cut:] for word, cut in zip(words, heads, strict=True)])
            found = [a + [(i, s + cut, e + cut) for i, s, e in b] for a, b, cut in zip(front, back, heads, strict=True)]
        pieces = Pieces(
            row_pointers(np.fromiter(map(len, found), np.int64, len(found))),
            np.array([i for row in found for i, _, _ in row], np.int32),
        )
        numbers = row_numbers(pieces)
        spans = np.array([span for row in found for _, *span in row], np.int64).reshape(-1, 2) - int(spaced)
        inside: NDArray[np.float32] = np.clip(spans, 0, lengths[numbers][:, None]).astype(np.float32)
        starts, ends = share_evenly(inside[:, 0], inside[:, 1], numbers)
        keep = ~self._special[pieces.ids]
        pieces = drop_pieces(pieces, ~keep)
        return SpannedPieces(pieces.indptr, pieces.ids, starts[keep], ends[keep], lengths)


class _Parts:
    """Texts waiting for their pipeline, and ids that are known already, with the item each belongs to, in order."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.owners: list[int] = []
        self.texts: dict[int, list[str]] = {}
        self.places: dict[int, list[int]] = {}
        self.given: list[NDArray[np.int32]] = []
        self.given_places: list[int] = []

    def add(self, owner: int, pipeline: "_Pipeline", text: str) -> None:
        self.texts.setdefault(id(pipeline), []).append(text)
        self.places.setdefault(id(pipeline), []).append(len(self.owners))
        self.owners.append(owner)

    def add_ids(self, owner: int, ids: NDArray[np.int32]) -> None:
        self.given.append(ids)
        self.given_places.append(len(self.owners))
        self.owners.append(owner)


class _Pipeline:
    """A private tokenizer, and the ids of its added tokens in the numbering of the tokenizer it stands for."""

    def __init__(self, tokenizer: Tokenizer, original: Tokenizer) -> None:
        self.tokenizer = tokenizer
        ids = {token.content: i for i, token in original.get_added_tokens_decoder().items()}
        added = {i: ids[token.content] for i, token in tokenizer.get_added_tokens_decoder().items()}
        self._renumbered: NDArray[np.int32] | None = None
        if any(mine != theirs for mine, theirs in added.items()):
            self._renumbered = np.arange(1 + max(max(added), max(original.get_vocab().values())), dtype=np.int32)
            self._renumbered[list(added)] = list(added.values())

    def encode(self, texts: Sequence[str]) -> Pieces:
        """Encode texts; nothing is dropped."""
        lengths: list[int] = []
        ids: list[int] = []
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            for encoding in self.tokenizer.encode_batch_fast(chunk, add_special_tokens=False):
                row = encoding.ids
                lengths.append(len(row))
                ids += row
        return Pieces(row_pointers(np.array(lengths, np.int64)), self._numbered(np.array(ids, np.int32)))

    def encode_with_offsets(self, texts: Sequence[str]) -> list[list[tuple[int, int, int]]]:
        """Encode texts; return (id, start, end) of every piece, in characters of the text."""
        rows = []
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            for text, encoding in zip(chunk, self.tokenizer.encode_batch(chunk, add_special_tokens=False), strict=True):
                ids = self._numbered(np.array(encoding.ids, np.int32)).tolist()
                spans = _with_marks(text, encoding.offsets)
                rows.append([(i, *span) for i, span in zip(ids, spans, strict=True)])
        return rows

    def _numbered(self, ids: NDArray[np.int32]) -> NDArray[np.int32]:
        return ids if self._renumbered is None else self._renumbered[ids]


def _with_marks(text: str, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Give combining marks that a normaliser took away (or into the letter before) to the piece in front of them."""
    following = [start for start, _ in spans[1:]] + [len(text)] * bool(spans)
    return [
        (start, after if _MARKS.fullmatch(text, end, after) else end)
        for (start, end), after in zip(spans, following, strict=True)
    ]


# --- private copies of a tokenizer's pipeline ------------------------------------------------------------------------


def _in_context(backend: Tokenizer, vocabulary: Vocabulary) -> Tokenizer:
    """Return a tokenizer that shares the model but knows no start of text and no special tokens."""
    document: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": _in_context_part(component(backend.normalizer)),
        "pre_tokenizer": _in_context_part(component(backend.pre_tokenizer)),
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.model = backend.model
    added = sorted(backend.get_added_tokens_decoder().items())
    tokenizer.add_tokens([token for i, token in added if vocabulary.kinds[i] == Kind.TEXT])
    return tokenizer


def _in_context_part(part: dict[str, Any]) -> dict[str, Any] | None:
    """Return a part of the pipeline (as JSON) without what it does to the edges of a text; None if that is all."""
    kind = part.get("type")
    for children in ("normalizers", "pretokenizers"):
        if children in part:
            kept = [child for child in map(_in_context_part, part[children]) if child is not None]
            if any(child["type"] == "Metaspace" for child in kept):
                # It takes the spaces away before Metaspace can mark them, relying on the prefix, which is gone here.
                kept = [child for child in kept if child["type"] != "WhitespaceSplit"]
            return {**part, children: kept}
    pattern = part.get("pattern", {}).get("Regex", "")
    if kind in (None, "Prepend", "Strip") or pattern.startswith(r"\A"):
        return None
    if kind == "Metaspace":
        return {**part, "prepend_scheme": "never"}
    if kind == "ByteLevel" and "add_prefix_space" in part:
        return {**part, "add_prefix_space": False}
    return part


def _inside_words(backend: Tokenizer, text: Tokenizer, vocabulary: Vocabulary) -> Tokenizer:
    """Return a WordPiece tokenizer for the inside of words: its vocabulary is that of the ## tokens, without the ##."""
    if vocabulary.scheme is not Scheme.WORDPIECE:
        return Tokenizer(backend.model)
    model = backend.model
    prefix = model.continuing_subword_prefix
    entries = {s[len(prefix) :]: i for i, s in enumerate(vocabulary.strings) if s.startswith(prefix) and s != prefix}
    entries[model.unk_token] = vocabulary.strings.index(model.unk_token)
    tokenizer = Tokenizer(
        WordPiece(
            vocab=entries,
            unk_token=model.unk_token,
            continuing_subword_prefix="",
            max_input_chars_per_word=model.max_input_chars_per_word,
        )
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer = text.normalizer, text.pre_tokenizer
    return tokenizer


def _unknown_ids(tokenizer: PreTrainedTokenizerFast, text: "_Pipeline", special: NDArray[np.bool_]) -> set[int]:
    """Return the ids that stand for unknown text: those with that role, and what an unassigned character gives."""
    backend = tokenizer.backend_tokenizer
    names = (getattr(backend.model, "unk_token", None), tokenizer.unk_token)
    found = (backend.token_to_id(str(name)) for name in names if name is not None)
    given = text.encode(["\U000f1234"]).ids
    return {i for i in found if i is not None} | set(given[special[given]].tolist())


def _byte_ids(vocabulary: Vocabulary) -> NDArray[np.int32] | None:
    """Return the id of the fallback token of each byte (256), or None if the vocabulary does not have them all."""
    ids = np.full(256, -1, np.int32)
    for i in np.flatnonzero(vocabulary.kinds == Kind.BYTE).tolist():
        ids[vocabulary.token_bytes[i][0]] = i
    return ids if (ids >= 0).all() else None
