"""WordPiece in GGUF: how llama.cpp cuts words, and which of BERT's ways of preparing text it has."""

import json
import unicodedata
from collections.abc import Mapping
from typing import Any

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.export.gguf_pieces import SPACE_MARK, Cutting, Notes

PREFIX = "##"
LONG_WORDS = "llama.cpp cuts words of any length; the tokenizer takes words of more than {} characters as unknown."
MARKS = (
    "llama.cpp drops all marks where the tokenizer drops accents only: Korean, and words with vowel signs of Indic and "
    "Southeast Asian scripts, get other ids."
)
FEW_MARKED = 0.02  # of the tokens: an English vocabulary has 0.2 % of them, one for such a script many


def wordpiece(state: Mapping[str, Any], name: str) -> tuple[Cutting, Notes]:
    """Return the cutting for WordPiece; `VocabTransferError` for text preparation that llama.cpp does not have."""
    model, normalizer, rules = state["model"], state["normalizer"] or {}, state["pre_tokenizer"] or {}
    known = normalizer.get("type") == "BertNormalizer" and rules.get("type") == "BertPreTokenizer"
    cleans = normalizer.get("clean_text") and normalizer.get("handle_chinese_chars")
    if not known or not cleans or model["continuing_subword_prefix"] != PREFIX:
        raise VocabTransferError(
            f"the tokenizer of {name} prepares or splits text in a way that llama.cpp's WordPiece does not: normalizer "
            f"{json.dumps(normalizer, ensure_ascii=False)[:250]}, pre-tokenizer "
            f"{json.dumps(rules, ensure_ascii=False)[:250]}."
        )
    lowercase = bool(normalizer["lowercase"])
    strips = normalizer.get("strip_accents")
    strips = lowercase if strips is None else bool(strips)
    marks = [token for token in model["vocab"] if _loses_marks(token)] if strips else []
    if len(marks) > FEW_MARKED * len(model["vocab"]):
        raise VocabTransferError(
            f"the tokenizer of {name} drops accents, and llama.cpp would drop vowel signs with them: {len(marks)} of its "
            f"tokens have some, such as {marks[0]!r}. Train a tokenizer that keeps accents."
        )
    notes = (LONG_WORDS.format(model["max_input_chars_per_word"]), *((MARKS,) if strips else ()))
    return Cutting("bert", "default", lowercase=lowercase, strip_accents=strips), notes


def _loses_marks(token: str) -> bool:
    """Tell whether a token has vowel signs that take space, or the vowels and last consonants of Korean syllables."""
    return any(unicodedata.category(char) == "Mc" or "\u1160" <= char <= "\u11ff" for char in token)


def marked(token: str) -> str:
    """Return a token as llama.cpp has it: what begins a word is marked, and what goes on with one is not.

    >>> marked("##ing"), marked("walk")
    ('ing', '▁walk')
    """
    return token.removeprefix(PREFIX) if token.startswith(PREFIX) else SPACE_MARK + token
