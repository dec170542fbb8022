"""A folder with a fetched corpus: its files, and ``corpus.json``, which says where every line came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.json_files import damaged, read_json
from vocabtransfer.public import public

FORMAT = "vocabtransfer corpus 1"
FACTS, PAGE = "corpus.json", "corpus.html"
#: Columns: part, source, target.
PAIRS, TEXT, DICTIONARY, HELD_OUT = "pairs.tsv.xz", "text.txt.xz", "dictionary.tsv", "held-out.txt"
PAIR_COLUMNS = (1, 2)


#: What the facts count.
TOTALS = ("pairs", "text_bytes", "dictionary_entries", "held_out_bytes")


@dataclass(frozen=True)
class Corpus:
    """What `fetch_corpus` wrote. ``facts`` is what ``corpus.json`` holds; files that have nothing in them are not there."""

    path: Path
    facts: Mapping[str, Any]

    def _file(self, name: str) -> Path | None:
        path = self.path / name
        return path if path.is_file() else None

    @property
    def pairs(self) -> Path | None:
        """Sentence pairs: tab-separated columns part, source, target."""
        return self._file(PAIRS)

    @property
    def text(self) -> Path | None:
        """Running text in the target language, a line each."""
        return self._file(TEXT)

    @property
    def dictionary(self) -> Path | None:
        """Headword pairs: source, tab, target."""
        return self._file(DICTIONARY)

    @property
    def held_out(self) -> Path | None:
        """Text that must not be trained on."""
        return self._file(HELD_OUT)

    @property
    def parts(self) -> Sequence[Mapping[str, Any]]:
        """Every part with its licence, counts, drops and samples."""
        return tuple(self.facts["parts"])

    def licences(self) -> list[str]:
        """Return the licences of the parts that are trained on, each once."""
        return sorted({part["licence"] for part in self.parts if part["kind"] != "held-out" and part["kept"]})

    def credits(self) -> list[dict[str, Any]]:
        """Return what a model card says of every part: name, licence, whom to name, how much."""
        keys = ("part", "kind", "licence", "attribution", "kept")
        return [{key: part[key] for key in keys} for part in self.parts if part["kept"]]


@public
def open_corpus(folder: str | Path) -> Corpus:
    """Open a folder that `fetch_corpus` wrote; `VocabTransferError` when it is none."""
    path = Path(folder)
    if not (path / FACTS).is_file():
        raise VocabTransferError(f"{path} holds no {FACTS}: name a folder that `vocabtransfer corpus fetch` wrote.")
    facts = read_json(path / FACTS)
    if facts.get("format") != FORMAT:
        raise VocabTransferError(f"{path / FACTS} is not of this version's form ({FORMAT}): fetch the corpus again.")
    if not _is_whole(facts):
        raise damaged(path / FACTS, "languages or parts are not what vocabtransfer writes")
    return Corpus(path, facts)


def _is_whole(facts: Mapping[str, Any]) -> bool:
    """Tell whether facts have what is asked of them later, in the types that were written."""

    def texts(value: Any, *keys: str) -> bool:
        return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in keys)

    def counts(value: Any, *keys: str) -> bool:
        return isinstance(value, dict) and all(type(value.get(key)) is int for key in keys)

    parts, warnings = facts.get("parts"), facts.get("warnings")
    return (
        texts(facts.get("language"), "name", "tag")
        and texts(facts.get("source_language"), "name", "tag")
        and counts(facts.get("totals"), *TOTALS)
        and isinstance(parts, list)
        and all(texts(part, "part", "kind", "licence", "attribution") and counts(part, "kept") for part in parts)
        and isinstance(warnings, list)
        and all(isinstance(warning, str) for warning in warnings)
        and isinstance(facts.get("missing"), (list, dict))
    )
