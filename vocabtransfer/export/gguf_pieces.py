"""SentencePiece kinds in GGUF: how llama.cpp joins pieces, and whether it then gives the tokenizer's ids.

llama.cpp's SentencePiece joins by scores, which merges are turned into (`vocabtransfer.tokenization.piece_scores`). Where
that cannot be, or where nothing is put before a text, llama.cpp's BPE on plain text (named "gemma4" there) takes the
merges as they are.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vocabtransfer.checkpoint.gguf_tokenizer import BYTE, UNKNOWN
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.tokenization.carry import BYTE_TOKENS
from vocabtransfer.tokenization.merges import MergeModel
from vocabtransfer.tokenization.piece_scores import NEVER, merge_scores, never_merged

SPACE_MARK = "▁"
TO_MARK = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE_MARK}
PREPEND = {"type": "Prepend", "prepend": SPACE_MARK}
GEMMA_SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
PREFIX_NOTE = (
    "llama.cpp puts a space before every stretch of text after a special token, and before text that begins with a "
    "space; the tokenizer only before a text that begins otherwise: such texts get another first id."
)
SPACES_NOTE = "llama.cpp puts no space before a text of nothing but spaces, as the tokenizer does."
Notes = tuple[str, ...]


@dataclass(frozen=True)
class Cutting:
    """How the engine cuts text: the kind of tokenizer, the name of its rules, and what the kind needs.

    ``types`` are those of tokens that are neither text nor added; ``least`` is the score of padding.
    """

    model: str
    pre_tokenizer: str
    merges: list[str] | None = None
    scores: list[float] | None = None
    least: float = NEVER
    space_prefix: bool | None = None
    space_mark: str = ""
    types: Mapping[str, int] = field(default_factory=dict)
    lowercase: bool | None = None
    strip_accents: bool | None = None


def sentencepiece_bpe(state: Mapping[str, Any], name: str) -> tuple[Cutting, Notes]:
    """Return the cutting for BPE on characters with byte fallback; `VocabTransferError` for what llama.cpp lacks."""
    model = state["model"]
    if not model["byte_fallback"] or any(token not in model["vocab"] for token in BYTE_TOKENS):
        raise VocabTransferError(f"the tokenizer of {name} cannot fall back to bytes, which llama.cpp needs.")
    prefix, notes = _prefix(state, name)
    merges = MergeModel.from_document(state)
    types = _types(model.get("unk_token"))
    derivations = merges.derivations()
    astray = never_merged(merges, derivations, set(types) | {added["content"] for added in state["added_tokens"]})
    if not astray:
        scores = merge_scores(merges, derivations)
        return Cutting(
            "llama", "default", scores=scores, space_prefix=prefix, space_mark=SPACE_MARK, types=types
        ), notes
    breaks = [text for text in merges.ids if "\n" in text and text.strip("\n")]
    if prefix or breaks:
        raise VocabTransferError(
            f"the tokenizer of {name} has {len(astray)} tokens that its merges never make and llama.cpp would, such as "
            f"{astray[0]!r}: train it anew, or trim it."
        )
    joined = [" ".join(merge) for merge in model["merges"]]
    return Cutting("gpt2", "gemma4", merges=joined, space_mark=SPACE_MARK, types=types), notes


def _prefix(state: Mapping[str, Any], name: str) -> tuple[bool, Notes]:
    """Tell whether a space goes before a text, and refuse rules that llama.cpp does not have."""
    normalizer, rules = state["normalizer"], state["pre_tokenizer"]
    steps = _steps(normalizer)
    if rules in (None, GEMMA_SPLIT) and steps in ([TO_MARK], [PREPEND, TO_MARK]):
        return PREPEND in steps, ()
    if rules is None and len(steps) == 2 and _puts_mark_first(steps[0]) and steps[1] == TO_MARK:
        return True, ()
    if not steps and (rules or {}).get("type") == "Metaspace" and rules["replacement"] == SPACE_MARK:
        # Without splitting, a merge may cross a space, as in SentencePiece; with it, tokens begin with their space.
        scheme = rules["prepend_scheme"]
        if not rules.get("split", True):
            return scheme != "never", () if scheme == "never" else (PREFIX_NOTE,)
    raise VocabTransferError(
        f"the tokenizer of {name} prepares or splits text in a way that llama.cpp's SentencePiece does not: normalizer "
        f"{json.dumps(normalizer, ensure_ascii=False)[:250]}, pre-tokenizer {json.dumps(rules, ensure_ascii=False)[:250]}."
    )


def _steps(normalizer: Any) -> list[Any]:
    """Return what a normaliser does, one after the other; nothing for none."""
    steps = normalizer["normalizers"] if (normalizer or {}).get("type") == "Sequence" else [normalizer]
    return [step for step in steps if step is not None]


def _puts_mark_first(step: Mapping[str, Any]) -> bool:
    """Recognise the prefix of `from_sentencepiece`, which passes over texts that are one user-defined token."""
    expression = step.get("pattern", {}).get("Regex", "")
    spares = expression.startswith(r"\A(?!(?:") and expression.endswith(r")\z)")
    return bool(step["type"] == "Replace" and step["content"] == SPACE_MARK and (spares or expression == r"\A"))


def _types(unknown: str | None) -> dict[str, int]:
    return dict.fromkeys(BYTE_TOKENS, BYTE) | ({unknown: UNKNOWN} if unknown else {})


def unigram(state: Mapping[str, Any], name: str) -> tuple[Cutting, Notes]:
    """Return the cutting for Unigram without byte fallback; `VocabTransferError` for what llama.cpp lacks."""
    model = state["model"]
    if model.get("byte_fallback"):
        raise VocabTransferError(
            f"the tokenizer of {name} is Unigram with byte fallback, and llama.cpp's Unigram has none: unknown characters "
            "would be lost. Train it with the algorithm sentencepiece or bpe."
        )
    prefix, notes = _unigram_rules(state, name)
    unknown = model["vocab"][model["unk_id"]][0] if model.get("unk_id") is not None else None
    scores = [float(score) for _, score in model["vocab"]]
    return Cutting(
        "t5",
        "default",
        scores=scores,
        least=min(scores),
        space_prefix=prefix,
        space_mark=SPACE_MARK,
        types={unknown: UNKNOWN} if unknown else {},
    ), notes


def _unigram_rules(state: Mapping[str, Any], name: str) -> tuple[bool, Notes]:
    """Tell whether a space goes before a text, and refuse what llama.cpp does otherwise.

    Tables of characters and the merging of spaces are refused as well: llama.cpp strips the ends of a text with them.
    """
    normalizer, rules = state["normalizer"], state["pre_tokenizer"]
    steps = _steps(normalizer)
    if rules is None and steps in ([TO_MARK], [PREPEND, TO_MARK]):
        return PREPEND in steps, (SPACES_NOTE,) if PREPEND in steps else ()
    if not steps and (rules or {}).get("type") == "Metaspace" and rules["replacement"] == SPACE_MARK:
        prefix = rules["prepend_scheme"] != "never"
        return prefix, (PREFIX_NOTE,) if prefix else ()
    raise VocabTransferError(
        f"the tokenizer of {name} prepares or splits text in a way that llama.cpp's Unigram does not: normalizer "
        f"{json.dumps(steps, ensure_ascii=False)[:250]}, pre-tokenizer {json.dumps(rules, ensure_ascii=False)[:250]}."
    )
