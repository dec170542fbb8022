"""Tokenizers that romanize: by their own normaliser, or by a wrapper where exactness matters more."""

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import regex
from numpy.typing import NDArray
from transformers import BatchEncoding, PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.tokenization.load import load_tokenizer
from vocabtransfer.tokenization.save import save_tokenizer
from vocabtransfer.transliteration.base import Piece, Romanized, Transliterator, romanized
from vocabtransfer.transliteration.normalizer import (
    RomanizingNormalizer,
    build_normalizer,
    count_tokens,
    romanizing_normalizer,
)
from vocabtransfer.transliteration.record import Romanization, read_romanization


def romanizing_tokenizer(
    tokenizer: PreTrainedTokenizerFast, transliterator: Transliterator, corpus: Iterable[str] | Mapping[str, int]
) -> PreTrainedTokenizerFast:
    """Return a copy of a tokenizer that romanizes text before everything else, in plain transformers.

    The romanizer becomes steps of the tokenizer's normaliser, learnt from what it does to the words of a corpus (lines,
    or words with counts); see `romanizing_normalizer` for how closely. Special tokens are not touched, and offsets
    refer to the text as it was. Where that is not close enough (Thai, Tibetan), use `RomanizingTokenizer`.
    Raises `VocabTransferError` where the corpus has nothing to romanize.
    """
    words = dict(corpus) if isinstance(corpus, Mapping) else count_tokens(corpus)
    return with_normalizer(tokenizer, romanizing_normalizer(transliterator, words))


def with_normalizer(tokenizer: PreTrainedTokenizerFast, first: RomanizingNormalizer) -> PreTrainedTokenizerFast:
    """Return a copy of a tokenizer whose normaliser romanizes first and then does what it did."""
    result = copy.deepcopy(tokenizer)
    own = json.loads(tokenizer.backend_tokenizer.to_str())["normalizer"]
    steps = list(first.document["normalizers"])
    if own is not None:
        steps += own["normalizers"] if own["type"] == "Sequence" else [own]
    result.backend_tokenizer.normalizer = build_normalizer({"type": "Sequence", "normalizers": steps})
    return result


class RomanizingTokenizer:
    """A tokenizer behind a romanizer that runs in Python: exactly the romanizer's output for any script.

    Calls, `encode` and `apply_chat_template` romanize all text except the tokenizer's special and added tokens;
    ``offset_mapping`` refers to the text as it was. Everything else is the tokenizer's own. `save_pretrained` writes
    the tokenizer and romanization.json; plain transformers then loads the tokenizer without the romanizer.

    Args:
        tokenizer: trained on romanized text; its own normaliser need not romanize.
        transliterator: what romanizes.
        romanization: what to write into romanization.json.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        transliterator: Transliterator,
        romanization: Romanization | None = None,
    ):
        self.tokenizer = tokenizer
        self.transliterator = transliterator
        self.romanization = romanization
        added = sorted(tokenizer.get_added_vocab(), key=lambda token: (-len(token), token))
        self._added = regex.compile("|".join(map(regex.escape, added))) if added else None

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "RomanizingTokenizer":
        """Open a folder with a tokenizer and romanization.json; `VocabTransferError` where one is missing."""
        romanization = read_romanization(Path(folder))
        if romanization is None:
            raise VocabTransferError(f"{folder} has no romanization.json: its tokenizer does not romanize.")
        return cls(load_tokenizer(Path(folder)), romanization.find_transliterator(), romanization)

    def save_pretrained(self, folder: str | Path) -> list[str]:
        """Write the tokenizer and romanization.json into a folder and return the names of the files."""
        if self.romanization is None:
            raise UsageError("This tokenizer has no record to save: give RomanizingTokenizer a Romanization.")
        return sorted([*save_tokenizer(self.tokenizer, folder), self.romanization.save(Path(folder)).name])

    def __getattr__(self, name: str) -> Any:
        if name in ("tokenizer", "__setstate__"):  # not there yet while a copy is being made
            raise AttributeError(name)
        return getattr(self.tokenizer, name)

    def __len__(self) -> int:
        return len(self.tokenizer)

    def __call__(
        self, text: str | Sequence[str], text_pair: str | Sequence[str] | None = None, **options: Any
    ) -> BatchEncoding:
        """Encode one text or several, as the tokenizer does it, with offsets into the text as given."""
        single = isinstance(text, str)
        sides = [self._romanized(side) for side in (text, text_pair) if side is not None]
        given = [[made.text for made in side] for side in sides]
        result: BatchEncoding = self.tokenizer(*[side[0] for side in given] if single else given, **options)
        if "offset_mapping" in result:
            self._restore_offsets(result, sides, single)
        return result

    def encode(self, text: str, text_pair: str | None = None, **options: Any) -> list[int]:
        """Return the ids of a text."""
        ids: list[int] = self(text, text_pair, **options)["input_ids"]
        return ids

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """Render a conversation with the tokenizer's template, then romanize and encode it."""
        wanted = options.pop("tokenize", True)
        encoded: Literal["ids", "all"] = "all" if options.pop("return_dict", True) else "ids"
        names = ("return_tensors", "padding", "truncation", "max_length")
        settings = {name: options.pop(name) for name in names if name in options}
        text: Any = self.tokenizer.apply_chat_template(conversation, tokenize=False, **options)
        if not wanted:
            return text
        result = self(text, add_special_tokens=False, **settings, **options.pop("tokenizer_kwargs", {}))
        return result if encoded == "all" else result["input_ids"]

    def _romanized(self, texts: str | Sequence[str]) -> list[Romanized]:
        return [self._romanized_text(text) for text in ([texts] if isinstance(texts, str) else texts)]

    def _romanized_text(self, text: str) -> Romanized:
        if not isinstance(text, str):
            raise UsageError(f"Text to romanize must be a string, not {type(text).__name__}.")
        pieces: list[Piece] = []
        done = 0
        for match in self._added.finditer(text) if self._added is not None else ():
            pieces += self._pieces(text, done, match.start())
            pieces += [(place, place + 1, text[place]) for place in range(*match.span())]
            done = match.end()
        return romanized(pieces + self._pieces(text, done, len(text)), len(text))

    def _pieces(self, text: str, start: int, end: int) -> list[Piece]:
        pieces = self.transliterator.pieces(text[start:end])
        return [(first + start, last + start, made) for first, last, made in pieces]

    @staticmethod
    def _restore_offsets(result: BatchEncoding, sides: Sequence[Sequence[Romanized]], single: bool) -> None:
        # With overflowing parts, several encodings belong to one text.
        encodings = result.encodings or ()
        owners = result.get("overflow_to_sample_mapping", range(len(encodings)))
        restored = [
            [
                _origin(sides[sequence][int(owner)].spans, offset) if sequence is not None else offset
                for sequence, offset in zip(encoding.sequence_ids, encoding.offsets, strict=True)
            ]
            for encoding, owner in zip(encodings, owners, strict=True)
        ]
        given = result["offset_mapping"]
        if isinstance(given, list):
            flat = single and not (given and isinstance(given[0], list))
            result["offset_mapping"] = restored[0] if flat else restored
        elif isinstance(given, np.ndarray):
            result["offset_mapping"] = np.array(restored, dtype=given.dtype).reshape(given.shape)
        else:
            result["offset_mapping"] = given.new_tensor(restored).reshape(given.shape)


def _origin(spans: NDArray[np.int64], offset: tuple[int, int]) -> tuple[int, int]:
    """Return the stretch of the original text behind a stretch of the romanized one."""
    start, end = offset
    if start >= end:
        at = int(spans[start][0]) if start < len(spans) else int(spans[-1][1]) if len(spans) else 0
        return at, at
    return int(spans[start][0]), int(spans[end - 1][1])
