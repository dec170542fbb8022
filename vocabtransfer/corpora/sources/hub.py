"""Text of a language out of data sets on the Hugging Face hub, streamed: only what is read is fetched.

Each data set has a configuration for every language, named by ISO 639-3 and script (``tat_Cyrl``) or by the code of its
Wikipedia (``tt``).
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from vocabtransfer.corpora.offers import CorpusSource, Found, Offer, corpus_source
from vocabtransfer.corpora.services import HUB, refusal
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.cache import cache_folder
from vocabtransfer.files.download import alone
from vocabtransfer.languages import Language, is_main_member, members

#: Documents between two notes of the place in a stream.
_NOTED_EVERY = 200


@dataclass(frozen=True)
class HubDataSet:
    """A data set with a configuration for every language, under the first of several names that it has."""

    repository: str
    configurations: Callable[[Language], Sequence[str]]
    field: str
    domain: str
    licence: str
    attribution: str


def _codes(language: Language) -> list[str]:
    """Return the codes of ISO 639-3 that a data set may use: of a macrolanguage's main member first (ekk before est)."""
    main = [code for code in members(language) if len(code) == 3 and is_main_member(code, language)]
    return [*main, language.alpha3]


def _codes_and_script(language: Language) -> list[str]:
    script = {"Hans": "Hani", "Hant": "Hani", "Jpan": "Jpan", "Kore": "Hang"}.get(language.script, language.script)
    written = dict.fromkeys((language.script, script))
    return [f"{code}_{name}" for code in _codes(language) for name in written]


DATA_SETS: dict[str, HubDataSet] = {
    "fineweb-2": HubDataSet(
        "HuggingFaceFW/fineweb-2",
        _codes_and_script,
        "text",
        "web pages",
        "ODC-BY-1.0 (and Common Crawl's terms of use)",
        "FineWeb-2 (Penedo et al. 2025), HuggingFaceFW/fineweb-2",
    ),
    "wikipedia": HubDataSet(
        "wikimedia/wikipedia",
        lambda language: [f"20231101.{language.code}"],
        "text",
        "encyclopedia",
        "CC-BY-SA-3.0 and GFDL",
        "Wikipedia and its authors, dump of 2023-11-01, wikimedia/wikipedia",
    ),
    "hplt": HubDataSet(
        "HPLT/HPLT3.0", _codes_and_script, "text", "web pages", "CC0-1.0", "HPLT 3.0 (HPLT project), HPLT/HPLT3.0"
    ),
    "glotcc": HubDataSet(
        "cis-lmu/GlotCC-V1",
        lambda language: [f"{code}-{language.script}" for code in _codes(language)],
        "content",
        "web pages",
        "CC0-1.0 (and Common Crawl's terms of use)",
        "GlotCC (Kargaran et al. 2024), cis-lmu/GlotCC-V1",
    ),
}


@corpus_source
class Hub(CorpusSource):
    """Running text, streamed by the library datasets."""

    name = "hub"
    summary = "data sets on the Hugging Face hub: FineWeb-2, Wikipedia, HPLT, GlotCC"
    extra = "hub"
    library = "datasets"

    def offers(self, source: Language, target: Language) -> list[Offer]:
        """Offer the language's configuration of every data set; whether it is there shows when it is read."""
        blocked = self.missing_library() or refusal(HUB.url)
        return [
            Offer(
                source=self.name,
                name=name,
                kind="text",
                source_language="",
                target_language=target.tag,
                domain=known.domain,
                licence=known.licence,
                attribution=known.attribution,
                style="mined" if known.domain == "web pages" else "prose",
                address=f"{HUB.url}/datasets/{known.repository} [{known.configurations(target)[0]}]",
                refusal=blocked,
                details={"configurations": known.configurations(target)},
            )
            for name, known in DATA_SETS.items()
        ]

    def read(self, offer: Offer, most_bytes: int) -> Iterator[Found]:
        """Stream documents and yield their lines; it ends by itself, the caller stops when it has enough."""
        known = DATA_SETS[offer.name]
        for text in documents(known, offer.details["configurations"]):
            for line in text.splitlines():
                if line.strip():
                    yield Found(offer.label, "", line.strip())


def documents(known: HubDataSet, configurations: Sequence[str]) -> Iterator[str]:
    """Yield the documents of the first configuration there is, those from the cache first.

    What is streamed is kept in the cache together with the place in the stream, so that a fetch that was stopped or
    killed goes on where it was, and the next one asks for nothing that has come already. Raises `VocabTransferError`
    when none of the configurations can be streamed.
    """
    name = f"{known.repository.replace('/', '_')}-{configurations[0]}"
    kept = _Kept(cache_folder("corpora", "hub") / f"{name}.jsonl")
    with alone(kept.path.with_name(f"{name}.lock")):
        yield from kept.read()
        if kept.whole:
            return
        try:
            rows = _stream(known, configurations, kept.state)
            yield from kept.written(rows, known)
        except VocabTransferError:
            raise
        except Exception as problem:  # datasets raises errors of a dozen libraries
            reason = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
            raise VocabTransferError(
                f"{known.repository} [{configurations[0]}] cannot be streamed ({reason.rstrip('.')})."
            ) from None


class _Kept:
    """The documents of a stream so far, one JSON string a line, and the place in the stream where they end."""

    def __init__(self, path: Path) -> None:
        self.path, self._note = path, path.with_suffix(".json")
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            self._bytes, self.state, self.whole = int(note["bytes"]), note["state"], bool(note["whole"])
        except (OSError, ValueError, KeyError, TypeError):
            self._bytes, self.state, self.whole = 0, None, False
        if self._bytes and (not path.exists() or path.stat().st_size < self._bytes):
            self._bytes, self.state, self.whole = 0, None, False

    def read(self) -> Iterator[str]:
        """Yield what is there."""
        if not self._bytes:
            return
        with self.path.open("rb") as lines:
            left = self._bytes
            while left > 0:
                line = lines.readline()
                left -= len(line)
                yield str(json.loads(line))

    def written(self, rows: Any, known: HubDataSet) -> Iterator[str]:
        """Yield the documents that come, each written down first; the place is noted now and then, and at the end."""
        with self.path.open("r+b" if self._bytes else "wb") as out:
            out.truncate(self._bytes)
            out.seek(self._bytes)
            try:
                for number, row in enumerate(rows, 1):
                    text = row.get(known.field)
                    if not isinstance(text, str):
                        raise VocabTransferError(
                            f"{known.repository} has no text in its field {known.field!r} (it has {', '.join(row)})."
                        )
                    out.write(json.dumps(text, ensure_ascii=True).encode() + b"\n")
                    if number % _NOTED_EVERY == 0:
                        self._save(out, rows.state_dict(), False)
                    yield text
            except GeneratorExit:  # the caller has enough
                self._save(out, rows.state_dict(), False)
                raise
            self._save(out, None, True)

    def _save(self, out: IO[bytes], state: Any, whole: bool) -> None:
        out.flush()
        os.fsync(out.fileno())
        self._bytes = out.tell()
        beside = self._note.with_name(self._note.name + ".part")
        beside.write_text(json.dumps({"bytes": self._bytes, "state": state, "whole": whole}), encoding="utf-8")
        beside.replace(self._note)


def _stream(known: HubDataSet, configurations: Sequence[str], state: Any) -> Any:
    # Read when the library is imported first: a mirror of the hub must be known by then.
    os.environ.setdefault("HF_ENDPOINT", HUB.url)
    from datasets import load_dataset

    for place, configuration in enumerate(configurations):
        try:
            rows = load_dataset(known.repository, name=configuration, split="train", streaming=True)
            break
        except ValueError:  # it has no such configuration
            if place == len(configurations) - 1:
                raise
    if state is not None:
        rows.load_state_dict(state)
    return rows
