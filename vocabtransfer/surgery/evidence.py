"""What links a model's tokens to another language, in one piece: a build gathers it, methods make rows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from vocabtransfer.alignment.table import WordTable
from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.files.text import Text, TextLike, as_text
from vocabtransfer.initialization import VectorFiles
from vocabtransfer.public import settle_fields
from vocabtransfer.reprs import brief


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that says which tokens of a model the new ones are like; methods say what of it they need.

    Attributes:
        alignment: word-pair counts from the source model's language into the target language.
        words: counts of target-language words; the alignment's own when not given.
        text: running text in the target language: a path or paths (`Path`), lines, a `Text`, or what gives lines.
        source_text: running text in the source model's language, given the same ways.
        donor: another model with good rows for the target tokens, for the methods that learn from one.
        vectors: files of word vectors, for the methods that otherwise train them.
    """

    alignment: WordTable | None = None
    words: Mapping[str, float] | None = None
    text: TextLike | None = None
    source_text: TextLike | None = None
    donor: Checkpoint | None = None
    vectors: VectorFiles = field(default_factory=VectorFiles)

    def __post_init__(self) -> None:
        settle_fields(self)
        for name in ("text", "source_text"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else as_text(value))

    def __repr__(self) -> str:
        return brief(
            self,
            alignment=self.alignment,
            words=len(self.words) if self.words is not None else None,
            text=self.text,
            source_text=self.source_text,
            donor=self.donor.name if self.donor is not None else None,
            vectors=self.vectors if self.vectors != VectorFiles() else None,
        )

    @classmethod
    def of_pairs(cls, pairs: Sequence[tuple[str, str]], **others: Any) -> Evidence:
        """Return evidence whose two texts are the sides of sentence pairs (source language, target language)."""
        return cls(
            text=lambda: (target for _, target in pairs), source_text=lambda: (source for source, _ in pairs), **others
        )

    @cached_property
    def word_counts(self) -> Mapping[str, float]:
        """Counts of target-language words: those given, or those of the alignment, or none."""
        if self.words is not None:
            return self.words
        return target_words(self.alignment) if self.alignment is not None else {}

    @property
    def running(self) -> Text | None:
        """The running text in the target language."""
        return self.text if isinstance(self.text, Text) else None

    @property
    def source_running(self) -> Text | None:
        """The running text in the source model's language."""
        return self.source_text if isinstance(self.source_text, Text) else None


def target_words(table: WordTable) -> dict[str, float]:
    """Return the target-language words of a table with their counts."""
    return dict(zip(table.target_words, table.target_totals.astype(float).tolist(), strict=True))
