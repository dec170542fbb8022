"""A SentencePiece model file (``tokenizer.model``) for a tokenizer of that kind, for tools that read no tokenizer.json.

Unigram and BPE on characters are written with scores, types and normaliser. Whether SentencePiece then gives the
tokenizer's ids is tried out on the spot; where it does not, or where the tokenizer does what SentencePiece cannot, there
is no file, because a file with other ids would be a silent mistake.
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sentencepiece import SentencePieceProcessor
from transformers import PreTrainedTokenizerFast

from vocabtransfer.files.sentencepiece_model import new_model
from vocabtransfer.tokenization.carry import BYTE_TOKENS
from vocabtransfer.tokenization.from_sentencepiece import SPACE_MARK
from vocabtransfer.tokenization.merges import MergeModel
from vocabtransfer.tokenization.piece_scores import merge_scores, never_merged

#: What our files say of themselves, so that they may be written anew.
MADE_BY = "vocabtransfer"
_UNIGRAM, _BPE = 1, 2
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_TO_MARK = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE_MARK}
_PREPEND = {"type": "Prepend", "prepend": SPACE_MARK}
#: Gemma's: after spaces have become marks there is nothing for it to split at.
_NO_SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
_STRIPS = (r"\A +|[ ▁]+\z", r"^ +| +$")
_COLLAPSES = ({"Regex": " {2,}"}, {"String": "  "})
#: Texts that show every habit once, in many scripts, and how many tokens are tried besides.
PROBES = (
    *("Hello world", " x", "x ", "  x  y   z    x     y ", "\tx\n\ny", "1234.5 ①②½", "a🌈👩‍💻", "", " ", "   "),
    *(
        "é 中文 й اب कि",
        "ﬁ Å 한국어 日本語",
        "the cat's 3,141 (x)",
        "▁ x▁y",
        "E\u0301 \u200bz",
        "Привет, мир! Ещё раз.",
    ),
)
_TRIED = 2000


@dataclass(frozen=True)
class _Rules:
    """SentencePiece's normaliser: its table of characters, whether spaces are taken away, whether one is put first."""

    table: bytes
    strips: bool
    prefix: bool


def sentencepiece_model(tokenizer: PreTrainedTokenizerFast, document: Mapping[str, Any]) -> bytes | None:
    """Return the content of ``tokenizer.model`` for a tokenizer with this tokenizer.json.

    None for other kinds, and where SentencePiece would give other ids. The same tokenizer gives the same bytes.
    """
    model = document["model"]
    if model["type"] not in ("Unigram", "BPE") or not _is_sentencepiece(document):
        return None
    rules = _rules(document)
    scores = None if rules is None else _scores(document)
    if rules is None or scores is None:
        return None
    proto = _proto(tokenizer, document, rules, scores)
    if proto is None:
        return None
    content: bytes = proto.SerializeToString(deterministic=True)
    return content if _agrees(content, tokenizer, document) else None


def is_ours(content: bytes) -> bool:
    """Tell whether a SentencePiece file was written here, by what it says of its making."""
    proto: Any = new_model()
    try:
        proto.ParseFromString(content)
    except Exception:  # protobuf's own kind, which has no public name
        return False
    return bool(proto.trainer_spec.model_prefix == MADE_BY)


def _is_sentencepiece(document: Mapping[str, Any]) -> bool:
    return document["model"]["type"] == "Unigram" or SPACE_MARK in str(document["decoder"])


def _steps(part: Any, inner: str) -> list[Any]:
    if part is None:
        return []
    return [leaf for child in part[inner] for leaf in _steps(child, inner)] if inner in part else [part]


def _rules(document: Mapping[str, Any]) -> _Rules | None:
    """Return SentencePiece's rules for what normaliser and pre-tokenizer do; None where it has no such rules."""
    steps = _steps(document["normalizer"], "normalizers")
    splits = _steps(document["pre_tokenizer"], "pretokenizers")
    table, strips, prefix = b"", False, False
    if steps and steps[0]["type"] == "Precompiled":
        table = base64.b64decode(steps.pop(0)["precompiled_charsmap"])
    while steps and steps[0] != _TO_MARK and not _puts_mark(steps[0]):
        if not _takes_spaces(steps[0]):
            return None
        steps.pop(0)
        strips = True
    if steps and _puts_mark(steps[0]):
        steps.pop(0)
        prefix = True
    if steps not in ([], [_TO_MARK]):
        return None
    marks_in_text = bool(steps)
    if splits[:1] and splits[0]["type"] == "WhitespaceSplit":
        splits.pop(0)
        strips = True
    if splits and splits[0]["type"] == "Metaspace" and not marks_in_text and splits[0]["replacement"] == SPACE_MARK:
        metaspace = splits.pop(0)
        marks_in_text, prefix = True, metaspace["prepend_scheme"] != "never"
    if splits == [_NO_SPLIT]:
        splits = []
    return _Rules(table, strips, prefix) if marks_in_text and not splits else None


def _takes_spaces(step: Mapping[str, Any]) -> bool:
    """Recognise the steps that together take away needless spaces."""
    if step["type"] == "Strip":
        return True
    if step["type"] != "Replace":
        return False
    return step["pattern"] in _COLLAPSES or step["pattern"].get("Regex") in _STRIPS


def _puts_mark(step: Mapping[str, Any]) -> bool:
    if step == _PREPEND:
        return True
    expression = step.get("pattern", {}).get("Regex", "") if step["type"] == "Replace" else ""
    return bool(step.get("content") == SPACE_MARK and expression.startswith(r"\A"))


def _scores(document: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the score of every entry of the model; None where joining by scores makes other tokens than the merges."""
    model = document["model"]
    if model["type"] == "Unigram":
        return {piece: float(score) for piece, score in model["vocab"]}
    if model.get("dropout") or model.get("ignore_merges"):
        return None
    apart = {*BYTE_TOKENS, model.get("unk_token"), *(token["content"] for token in document["added_tokens"])}
    merges = MergeModel.from_document(document)
    derivations = merges.derivations()
    if never_merged(merges, derivations, {text for text in apart if text}):
        return None
    scores = merge_scores(merges, derivations)
    return {text: scores[i] for text, i in merges.ids.items()}


def _proto(
    tokenizer: PreTrainedTokenizerFast, document: Mapping[str, Any], rules: _Rules, scores: Mapping[str, float]
) -> Any | None:
    """Return the file's message, or None where a token cannot be said in it, or there is no unknown token."""
    model, ids = document["model"], tokenizer.get_vocab()
    strings = {i: text for text, i in ids.items()}
    unknown = model.get("unk_token")
    if model["type"] == "Unigram" and model.get("unk_id") is not None:
        unknown = model["vocab"][model["unk_id"]][0]
    if unknown is None or unknown not in ids:
        return None
    kinds = _kinds(document, unknown)
    proto: Any = new_model()
    for i in range(max(strings) + 1):
        text = strings.get(i)
        piece = proto.pieces.add()
        piece.piece = f"[PAD{i}]" if text is None else text
        piece.type = _UNUSED if text is None else kinds.get(text, _NORMAL)
        piece.score = scores.get(piece.piece, 0.0) if piece.type == _NORMAL else 0.0
    if len({piece.piece for piece in proto.pieces}) < len(proto.pieces):
        return None
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    trainer.model_type = _UNIGRAM if model["type"] == "Unigram" else _BPE
    trainer.model_prefix = MADE_BY
    trainer.vocab_size = len(proto.pieces)
    trainer.byte_fallback = bool(model.get("byte_fallback"))
    trainer.unk_id, trainer.unk_piece = ids[unknown], unknown
    for role in ("bos", "eos", "pad"):
        name = getattr(tokenizer, f"{role}_token", None)
        setattr(trainer, f"{role}_id", -1)
        if isinstance(name, str) and name in ids:
            setattr(trainer, f"{role}_id", ids[name])
            setattr(trainer, f"{role}_piece", name)
    normalizer.name = "nmt_nfkc" if rules.table else "identity"
    normalizer.precompiled_charsmap = rules.table
    normalizer.add_dummy_prefix, normalizer.remove_extra_whitespaces = rules.prefix, rules.strips
    normalizer.escape_whitespaces = True
    return proto


def _kinds(document: Mapping[str, Any], unknown: str) -> dict[str, int]:
    fallback = document["model"].get("byte_fallback")
    kinds: dict[str, int] = dict.fromkeys(BYTE_TOKENS, _BYTE) if fallback else {}
    for token in document["added_tokens"]:
        kinds[token["content"]] = _CONTROL if token["special"] else _USER_DEFINED
    return kinds | {unknown: _UNKNOWN}


def _agrees(content: bytes, tokenizer: PreTrainedTokenizerFast, document: Mapping[str, Any]) -> bool:
    """Tell whether SentencePiece gives the tokenizer's ids on the probes and on texts of its own tokens."""
    try:
        engine = SentencePieceProcessor(model_proto=content)
    except Exception:  # it checks what a model must have
        return False
    texts = [*PROBES, *_own_texts(tokenizer, document)]
    free = document["model"]["type"] == "Unigram"  # of several equally likely segmentations each may pick its own
    for encoding, text in zip(
        tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False), texts, strict=True
    ):
        theirs = engine.encode(text)
        if encoding.ids != theirs and not (free and sorted(encoding.ids) == sorted(theirs)):
            return False
    return True


def _own_texts(tokenizer: PreTrainedTokenizerFast, document: Mapping[str, Any]) -> Iterator[str]:
    added = {token["content"]: token["special"] for token in document["added_tokens"]}
    words = sorted(tokenizer.get_vocab())
    words = [word for word in words[:: max(1, len(words) // _TRIED)] if word not in added and word not in BYTE_TOKENS]
    chosen = [word.replace(SPACE_MARK, " ") for word in words]
    yield from ("".join(chosen[start : start + 20]) for start in range(0, len(chosen), 20))
    yield from (f"a{text}b {text} c" for text, special in list(added.items())[:50] if not special)
