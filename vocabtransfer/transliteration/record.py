"""What a checkpoint says about the romanization in front of its vocabulary: romanization.json."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.whole import write_whole
from vocabtransfer.transliteration.base import Transliterator, check_digits
from vocabtransfer.transliteration.registry import find_transliterator

FILE_NAME = "romanization.json"
_FORMAT = 1


@dataclass(frozen=True)
class Romanization:
    """Which romanizer a vocabulary was made for, and how far the tokenizer's normaliser equals it.

    The normaliser itself is in tokenizer.json. ``equal_words`` and ``equal_occurrences`` are shares of the words with
    characters beyond ASCII that the corpus has; ``context_free_occurrences`` is the share that a plain table of
    characters would get right; ``merged_words`` the share of words that are written like another one afterwards.
    """

    transliterator: str
    version: str
    language: str
    digits: str
    steps: int
    words: int
    equal_words: float
    equal_occurrences: float
    context_free_occurrences: float
    merged_words: float
    notes: tuple[str, ...]

    def find_transliterator(self) -> Transliterator:
        """Return the romanizer (the installed release of it)."""
        return find_transliterator(self.language, self.transliterator, digits=check_digits(self.digits))

    def to_bytes(self) -> bytes:
        """Return the content of romanization.json."""
        return (json.dumps({"format": _FORMAT, **asdict(self)}, ensure_ascii=False, indent=2) + "\n").encode()

    def save(self, folder: Path) -> Path:
        """Write romanization.json into a folder and return its path; raises `VocabTransferError` where it cannot."""
        path = folder / FILE_NAME
        try:
            write_whole(path, self.to_bytes())
        except OSError as problem:
            raise VocabTransferError(f"{path} cannot be written ({problem.strerror or problem}).") from None
        return path


def read_romanization(folder: Path) -> Romanization | None:
    """Return what romanization.json of a folder says, None where there is none.

    Raises `VocabTransferError` for a file that is damaged or of a later format.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    try:
        facts: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = facts["format"]
        if version != _FORMAT:
            raise VocabTransferError(f"{path} has format {version}, newer than this vocabtransfer: update it.")
        known = {name: facts[name] for name in Romanization.__dataclass_fields__}
        return Romanization(**{**known, "notes": tuple(known["notes"])})
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise VocabTransferError(f"{path} is damaged ({type(problem).__name__}: {problem}): write it anew.") from None
