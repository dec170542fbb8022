"""Kinds of tokenizers: which one a tokenizer.json describes, and what it becomes when another kind is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from vocabtransfer.errors import UsageError
from vocabtransfer.tokenization.carry import BYTE_TOKENS, Special, Specials, adds_boundary

Algorithm = Literal["bpe", "unigram", "wordpiece", "sentencepiece"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)

# Llama 3's pattern with marks inside words; the digit branch is filled in from the source.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|DIGITS| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Plan:
    """What a trainer works from."""

    document: Mapping[str, Any]  # tokenizer.json of the result, its model's vocabulary still to come
    specials: Specials
    size: int  # entries that the model's vocabulary may have: leading specials included, trailing ones not
    digits: int | None  # most digits in one token, None for no limit
    unknown: str | None  # the unknown token, where the kind needs one
    lender: Mapping[str, Any]  # tokenizer.json of the source, for what it can lend

    def check_room(self, strings: Sequence[str], what: str) -> None:
        """Raise `UsageError`, naming the minimum, unless ``strings`` (what every result must hold) fit."""
        if self.size < len(strings):
            raise UsageError(
                f"A vocabulary of {self.size + len(self.specials.trailing):,} has no room for the {len(self.specials)} "
                f"special tokens and the {what}: ask for at least {len(strings) + len(self.specials.trailing):,}."
            )


def kind_of(document: Mapping[str, Any]) -> Algorithm | None:
    """Return the algorithm of a tokenizer.json, None for one that cannot be trained (word-level, end-of-word marks)."""
    model = document["model"]
    if model["type"] == "Unigram":
        return "unigram"
    if model["type"] == "WordPiece":
        return "wordpiece"
    if model["type"] != "BPE" or model.get("end_of_word_suffix") or model.get("continuing_subword_prefix"):
        return None
    if _mentions_byte_level(document["pre_tokenizer"]):
        return "bpe"
    return "sentencepiece" if model["byte_fallback"] or "▁" in str(document["decoder"]) else None


def _mentions_byte_level(part: Any) -> bool:
    if not isinstance(part, dict):
        return False
    return part["type"] == "ByteLevel" or any(map(_mentions_byte_level, part.get("pretokenizers", ())))


def switched(
    document: Mapping[str, Any], specials: Specials, kind: Algorithm, digits: int | None
) -> tuple[dict[str, Any], Specials]:
    """Return the document and specials for a tokenizer of another kind than the source.

    Digit scheme, post-processor and special tokens stay; the rest becomes what that kind usually has. Added tokens that
    only make sense in the old alphabet (byte tokens, runs of "▁") are left out.
    """
    specials = replace(specials, leading=_portable(specials.leading), trailing=_portable(specials.trailing))
    if kind == "bpe":
        changed = _byte_level_pipeline(digits)
    elif kind == "wordpiece":
        changed = _wordpiece_pipeline()
    else:
        changed = _sentencepiece_pipeline(adds_boundary(document), digits)
        bpe = {**_BPE, "fuse_unk": True, "byte_fallback": True}
        unigram = {"type": "Unigram", "unk_id": None, "byte_fallback": True}
        changed["model"] = bpe if kind == "sentencepiece" else unigram
    post_processor = document["post_processor"]
    if isinstance(post_processor, dict) and post_processor["type"] == "ByteLevel":
        post_processor = None  # it only trims offsets of byte-level tokens
    return {**document, **changed, "post_processor": post_processor}, specials


def with_unknown_token(
    document: Mapping[str, Any], specials: Specials, kind: Algorithm, role: str | None
) -> tuple[Specials, str | None]:
    """Make sure of the unknown token inside the model's vocabulary, where the kind cannot do without one.

    It is the source model's own, else the token in the role, else (Unigram, WordPiece) a new one, which comes first.
    Returns the specials, that token among the leading ones, and the token.
    """
    model = document["model"]
    own = model.get("unk_token")
    if model["type"] == "Unigram" and model.get("unk_id") is not None:
        own = model["vocab"][model["unk_id"]][0]
    unknown = own if own in specials.contents else None
    if kind == "bpe" and unknown not in {special.content for special in specials.leading}:
        return specials, None  # every byte is known, so nothing needs it inside the model
    if unknown is None and kind in ("unigram", "wordpiece"):
        unknown = role if role in specials.contents else "[UNK]" if kind == "wordpiece" else "<unk>"
    if unknown is None:
        return specials, None
    leading = specials.leading
    if unknown not in {special.content for special in leading}:
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        new = Special(unknown, {"content": unknown, **flags})
        leading = (next((special for special in specials.trailing if special.content == unknown), new), *leading)
    trailing = tuple(special for special in specials.trailing if special.content != unknown)
    return replace(specials, leading=leading, trailing=trailing), unknown


def _portable(specials: tuple[Special, ...]) -> tuple[Special, ...]:
    return tuple(token for token in specials if token.content.strip("▁") and token.content not in BYTE_TOKENS)


def _byte_level_pipeline(digits: int | None) -> dict[str, Any]:
    groups = r"\p{N}" if digits == 1 else rf"\p{{N}}{{1,{digits or 3}}}"
    pattern = {"Regex": _WORDS.replace("DIGITS", groups)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "decoder": byte_level,
        "model": dict(_BPE),
    }


def _sentencepiece_pipeline(boundary: bool, digits: int | None) -> dict[str, Any]:
    """Return the pipeline of Gemma, or of Llama 2 where the source too puts a boundary mark in front of every text."""
    to_mark = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    to_space = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    normalizers: list[dict[str, Any]] = [to_mark]
    decoders: list[dict[str, Any]] = [to_space, {"type": "ByteFallback"}, {"type": "Fuse"}]
    if boundary:
        normalizers.insert(0, {"type": "Prepend", "prepend": "▁"})
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    groups = {"Regex": rf"\p{{N}}{{1,{digits}}}"}
    split = {"type": "Split", "pattern": groups, "behavior": "Isolated", "invert": False}
    return {
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        # Single digits and free digits need no rule, training sees to them; groups of two or three do.
        "pre_tokenizer": split if digits is not None and digits > 1 else None,
        "decoder": {"type": "Sequence", "decoders": decoders},
    }


def _wordpiece_pipeline() -> dict[str, Any]:
    normalizer = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": False, "lowercase": False}
    return {
        "normalizer": {"type": "BertNormalizer", **normalizer},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
    }


_BPE = {
    "type": "BPE",
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}
