"""SentencePiece's precompiled map from characters to text."""

import base64
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sentencepiece

from vocabtransfer.files.sentencepiece_model import new_model

_WARNING = 1
_QUIET = 2


def charsmap(texts: Mapping[str, str]) -> str:
    """Return the map from single characters to non-empty texts as tokenizer.json holds it, in base64.

    A map that deletes characters would shift offsets in the `tokenizers` library: delete with a `Replace` instead.
    """
    if not all(len(character) == 1 and text for character, text in texts.items()):
        raise ValueError("The keys of a character map are single characters, and its texts are not empty.")
    rows = (
        f"{ord(character):X}\t{' '.join(f'{ord(c):X}' for c in text)}\n" for character, text in sorted(texts.items())
    )
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "rules.tsv"
        table.write_text("".join(rows), encoding="ascii")
        sentencepiece.set_min_log_level(_QUIET)
        try:
            built = sentencepiece.SentencePieceNormalizer(rule_tsv=str(table))
        finally:
            sentencepiece.set_min_log_level(_WARNING)
        proto: Any = new_model()
        proto.ParseFromString(built.serialized_model_proto())
    return base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode("ascii")
