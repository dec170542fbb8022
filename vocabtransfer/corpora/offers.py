"""What every corpus source offers, in one form: pairs, text or word lists of a language, with size, domain and licence.

A source is one class in one file of `vocabtransfer.corpora.sources`, registered with `corpus_source`. It says what it
has without fetching it (`CorpusSource.offers`) and hands the content out as it is found (`CorpusSource.read`); cleaning
is not its business.
"""

from __future__ import annotations

import importlib.util
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from vocabtransfer.errors import UsageError
from vocabtransfer.languages import Language

#: Sentence pairs, running text of the target language, pairs of headwords, or text that is never trained on.
Kind = Literal["pairs", "text", "dictionary", "held-out"]
KINDS: tuple[Kind, ...] = ("pairs", "text", "dictionary", "held-out")
#: How far a person may trust that a sentence is one: prose, the strings of programs, or pairs mined from the web.
Style = Literal["prose", "strings", "mined", "words"]


@dataclass(frozen=True)
class Offer:
    """Something a source can give for a language.

    Attributes:
        source: name of the registered source.
        name: the data set within it, such as "GNOME"; the source's own name where it has but one.
        kind: pairs, text or dictionary.
        source_language: the other side of pairs and dictionaries, as a tag; "" for text.
        target_language: tag of the language asked for.
        pairs: sentence or headword pairs; None where nobody knows.
        bytes: of the download; None where nobody knows.
        domain: what the text is about, in two or three words.
        licence: of the text.
        attribution: whom to name, or what to cite.
        address: where it comes from: what would be asked.
        style: what the text is like, see `Style`.
        pivot: whether its pairs are made by way of a third language; these are taken where direct ones are few.
        refusal: why it cannot be had here and now; "" when it can.
        details: what the source needs to find it again.
    """

    source: str
    name: str
    kind: Kind
    source_language: str
    target_language: str
    licence: str
    address: str
    domain: str = ""
    attribution: str = ""
    pairs: int | None = None
    bytes: int | None = None
    style: Style = "prose"
    pivot: bool = False
    refusal: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What reports call it: the source, and the data set where the source has several."""
        return self.source if self.name == self.source else f"{self.source}:{self.name}"


@dataclass(frozen=True)
class Found:
    """One thing out of a source: a pair, or a line of text (``source`` is then empty). ``part`` says out of what."""

    part: str
    source: str
    target: str


class CorpusSource(ABC):
    """A place that has corpora. Subclasses are registered with `corpus_source` and made once."""

    #: The name users choose it by, what it is in one line, and the extra that has the library it needs ("" for none).
    name: ClassVar[str]
    summary: ClassVar[str]
    extra: ClassVar[str] = ""
    library: ClassVar[str] = ""

    @abstractmethod
    def offers(self, source: Language, target: Language) -> Sequence[Offer]:
        """Return everything there is for the target language, beside the source language where it is pairs.

        Nothing but listings may be fetched. Raises `VocabTransferError` when not even the listing can be had.
        """

    @abstractmethod
    def read(self, offer: Offer, most_bytes: int) -> Iterator[Found]:
        """Fetch an offer, ``most_bytes`` of downloads at most, and yield what is in it, not cleaned.

        Raises `VocabTransferError` when it cannot be had or read.
        """

    def missing_library(self) -> str:
        """Return a sentence saying what to install before this source can be used; "" when nothing is missing."""
        if self.library and importlib.util.find_spec(self.library) is None:
            return f"{self.name} needs {self.library}: pip install 'vocabtransfer[{self.extra}]'"
        return ""


SOURCES: dict[str, CorpusSource] = {}


def corpus_source(made: type[CorpusSource]) -> type[CorpusSource]:
    """Register a source under its name."""
    SOURCES[made.name] = made()
    return made


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of sources, or of one data set of a source (``opus:GNOME``); `UsageError` for one unknown."""
    for name in names:
        if name.split(":", 1)[0] not in SOURCES:
            raise UsageError(f"there is no source {name!r}: choose from {', '.join(sorted(SOURCES))}.")
    return tuple(names)


def is_chosen(offer: Offer, names: Sequence[str]) -> bool:
    """Tell whether an offer is among those a person named (all of them when nobody named any)."""
    return not names or offer.source in names or offer.label.lower() in [name.lower() for name in names]


def missing_client(command: str) -> str:
    """Return a phrase for a command that this machine does not have, "" when it has it."""
    return "" if shutil.which(command) else f"this machine has no {command}"
