"""Which tokens of a vocabulary no text can ever produce, and why.

A token that is never produced is never trained, and its row costs memory for nothing. Every token's own text is encoded
as it stands in running text, then in other surroundings; what is still not found is explained by the tokenizer's parts,
for BPE by its merges.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from vocabtransfer.progress import step
from vocabtransfer.public import public
from vocabtransfer.reprs import brief
from vocabtransfer.tokenization.carry import bare_tokenizer
from vocabtransfer.tokenization.merges import MergeModel
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.tokenization.save import backend_document
from vocabtransfer.vocabulary import Kind, Scheme, Vocabulary

# A token may need something before or behind it: letters inside a word, white space at the end of a text.
_BEFORE = ("", "a", " ", ".", "\n", "1", "a ", "¬")
_BEHIND = ("", "a", " ", ".", "1", "\n")
# Bytes that UTF-8 never has.
_NEVER = frozenset((0xC0, 0xC1, *range(0xF5, 0x100)))


class Reason(IntEnum):
    """Why a token is never produced; REACHED if it is, SPECIAL if it was not examined because it stands for no text."""

    REACHED = 0
    SPECIAL = 1
    NO_MERGE = 2
    OUTSCORED = 3
    PRE_TOKENIZER = 4
    NORMALIZER = 5
    ADDED_TOKEN = 6
    NEEDLESS_BYTE = 7
    OTHER = 8


EXPLANATIONS = {
    Reason.NO_MERGE: "no merges lead to it",
    Reason.OUTSCORED: "other pieces of its text are preferred",
    Reason.PRE_TOKENIZER: "the pre-tokenizer cuts its text",
    Reason.NORMALIZER: "the normaliser changes its text",
    Reason.ADDED_TOKEN: "an added token takes its text",
    Reason.NEEDLESS_BYTE: "bytes that valid text has not, or that have a token as a character",
    Reason.OTHER: "its text is cut otherwise wherever it was tried",
}


@dataclass(frozen=True, eq=False)
class Audit:
    """What `audit` found: for every id its `Reason`, uint8 (V,), and the tokens as a person reads them."""

    reasons: NDArray[np.uint8]
    names: tuple[str, ...]

    def __repr__(self) -> str:
        return brief(self, examined=self.examined, unreachable=len(self.unreachable))

    @property
    def examined(self) -> int:
        """The number of tokens that stand for text."""
        return int((self.reasons != Reason.SPECIAL).sum())

    @property
    def unreachable(self) -> NDArray[np.int64]:
        """The ids of the tokens that no text produces."""
        return np.flatnonzero(self.reasons > Reason.SPECIAL)

    @property
    def unreachable_share(self) -> float:
        """The share of unreachable tokens among those that stand for text."""
        return len(self.unreachable) / max(1, self.examined)

    def counts(self) -> dict[str, int]:
        """Return the number of unreachable tokens by reason, in plain words, the most first."""
        found = {EXPLANATIONS[reason]: int((self.reasons == reason).sum()) for reason in EXPLANATIONS}
        return {why: count for why, count in sorted(found.items(), key=lambda item: -item[1]) if count}

    def examples(self, most: int = 5) -> dict[str, list[str]]:
        """Return some unreachable tokens by reason, spread over the vocabulary."""
        shown = {}
        for reason, why in EXPLANATIONS.items():
            ids = np.flatnonzero(self.reasons == reason)
            if len(ids):
                chosen = ids[np.unique(np.linspace(0, len(ids) - 1, most).round().astype(np.int64))]
                shown[why] = [self.names[i] for i in chosen.tolist()]
        return shown


@public
def audit_tokenizer(tokenizer: PreTrainedTokenizerFast, *, ids: NDArray[np.int64] | None = None) -> Audit:
    """Find the tokens of a tokenizer that no text produces; ``ids`` restricts the search to some of them.

    Special tokens, which stand for no text, and ids without a token are not examined. A token counts as reachable as
    soon as one text gives it; parts of characters, which are no text, if the merges lead to them.

    Raises `VocabTransferError` for tokenizers that `Vocabulary` does not know.
    """
    with step("auditing the vocabulary"):
        return _Auditor(tokenizer).run(ids)


class _Auditor:
    """One audit: what it needs to know about the tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.backend = tokenizer.backend_tokenizer
        self.vocabulary = Vocabulary.from_tokenizer(tokenizer)
        self.document: dict[str, Any] = backend_document(tokenizer)
        self.bare = bare_tokenizer(self.document)
        self.added = {entry["content"]: entry["id"] for entry in self.document["added_tokens"]}
        self.encoder = PieceEncoder(tokenizer, self.vocabulary)
        self.texts = [self.vocabulary.text(i) for i in range(len(self.vocabulary))]

    def run(self, ids: NDArray[np.int64] | None) -> Audit:
        """Examine the tokens."""
        vocabulary = self.vocabulary
        reasons = np.full(len(vocabulary), Reason.SPECIAL, np.uint8)
        examined = np.flatnonzero(vocabulary.kinds <= Kind.BYTE)
        examined = examined if ids is None else np.intersect1d(examined, ids)
        reasons[examined] = Reason.REACHED
        contents = [vocabulary.context_bytes(i) for i in examined.tolist()]
        pieces = self.encoder.encode_bytes(contents)
        alone = np.diff(pieces.indptr) == 1
        same = np.zeros(len(examined), np.bool_)
        same[alone] = pieces.ids[pieces.indptr[:-1][alone]] == examined[alone]
        suspects = examined[~same]
        suspects = np.setdiff1d(suspects, self._found_in_context(suspects))
        reasons[suspects] = [self._reason(i) for i in suspects.tolist()]
        fallback = vocabulary.kinds == Kind.BYTE
        odd = [i for i in examined.tolist() if self.texts[i] is None or fallback[i]]
        reasons[[i for i in odd if self._is_needless(i)]] = Reason.NEEDLESS_BYTE
        # A token is called by its text, or by its string where the text does not tell it from another one.
        if vocabulary.scheme is Scheme.WORDPIECE:
            return Audit(reasons, vocabulary.strings)
        plain = (vocabulary.kinds == Kind.TEXT).tolist()
        named = zip(plain, self.texts, vocabulary.strings, strict=True)
        return Audit(reasons, tuple((text if is_text else None) or string for is_text, text, string in named))

    def _found_in_context(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of the ids that the tokenizer gives for their text somewhere inside another text."""
        found: set[int] = set()
        texts = {i: text for i in ids.tolist() if (text := self.texts[i]) is not None}
        for before in _BEFORE:
            for behind in _BEHIND:
                waiting = [i for i in texts if i not in found]
                around = [before + texts[i] + behind for i in waiting]
                rows = self.backend.encode_batch_fast(around, add_special_tokens=False)
                found.update(i for i, row in zip(waiting, rows, strict=True) if i in row.ids)
        return np.array(sorted(found), np.int64)

    def _is_needless(self, i: int) -> bool:
        """Tell bytes that valid UTF-8 never has, and fallback bytes of characters that have a token."""
        content = self.vocabulary.token_bytes[i]
        if len(content) == 1 and content[0] < 0x80:
            return i not in self.backend.encode(f"a{chr(content[0])}a", add_special_tokens=False).ids
        return not _can_be_in_text(content)

    def _reason(self, i: int) -> Reason:
        text = self.texts[i]
        spelled = self.vocabulary.strings[i]
        begins = 0  # the place in a word where the token can begin at the earliest
        if self.vocabulary.scheme is Scheme.WORDPIECE:
            prefix = self.document["model"]["continuing_subword_prefix"]
            begins = int(spelled.startswith(prefix) and spelled != prefix)
            spelled = spelled.removeprefix(prefix) or spelled
        if text is not None:
            if any(name in text and number != i for name, number in self.added.items()):
                return Reason.ADDED_TOKEN
            normalised = self._normalised([text, "a" + text, "a " + text, "." + text])
            plain = text if self.vocabulary.scheme is Scheme.BYTE_LEVEL else spelled
            if not any(plain in version for version in normalised):
                return Reason.NORMALIZER
            if not any(spelled in piece[begins:] for piece in self._pre_tokens(normalised)):
                return Reason.PRE_TOKENIZER
        if self.document["model"]["type"] == "BPE" and not self._merged[i]:
            return Reason.NO_MERGE
        return Reason.OUTSCORED if self.document["model"]["type"] == "Unigram" else Reason.OTHER

    @property
    def _merged(self) -> NDArray[np.bool_]:
        if not hasattr(self, "_reached"):
            reached = MergeModel.from_document(self.document).derivations().reached
            self._reached = np.append(reached, np.zeros(len(self.vocabulary) - len(reached), np.bool_))
        return self._reached

    def _normalised(self, texts: Sequence[str]) -> list[str]:
        normalizer = self.bare.normalizer
        return [normalizer.normalize_str(text) for text in texts] if normalizer is not None else list(texts)

    def _pre_tokens(self, texts: Sequence[str]) -> list[str]:
        splitter = self.bare.pre_tokenizer
        if splitter is None:
            return list(texts)
        return [piece for piece, _ in chain.from_iterable(map(splitter.pre_tokenize_str, texts))]


def _can_be_in_text(content: bytes) -> bool:
    """Tell whether valid UTF-8 can hold these bytes, the first and the last character cut off perhaps."""
    if _NEVER.intersection(content):
        return False
    start = next((at for at, byte in enumerate(content) if byte & 0xC0 != 0x80), len(content))
    body = content[start:]
    lead = next((at for at in range(len(body) - 1, -1, -1) if body[at] & 0xC0 != 0x80), 0)
    whole, last = body[:lead], body[lead:]
    try:
        whole.decode()
    except UnicodeDecodeError:
        return False
    return start <= 3 and _can_start_character(last)


def _can_start_character(content: bytes) -> bool:
    """Tell whether some character's UTF-8 begins with (or is) these bytes."""
    if not content:
        return True
    width = 1 if content[0] < 0x80 else 2 if content[0] < 0xE0 else 3 if content[0] < 0xF0 else 4
    fillers = (b"", b"\x80", b"\x80\x80", b"\x80\x80\x80", b"\xbf", b"\xbf\xbf", b"\xbf\xbf\xbf")
    for filler in fillers:
        if len(content) + len(filler) == width:
            try:
                (content + filler).decode()
            except UnicodeDecodeError:
                continue
            return True
    return False
