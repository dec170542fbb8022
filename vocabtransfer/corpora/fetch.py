"""`fetch_corpus`: pairs, text and words of a language out of every source that can be reached, cleaned, in one folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vocabtransfer.corpora.catalogue import list_corpora, sources
from vocabtransfer.corpora.corpus_page import render_corpus
from vocabtransfer.corpora.folder import DICTIONARY, FACTS, FORMAT, HELD_OUT, PAGE, PAIRS, TEXT, Corpus, open_corpus
from vocabtransfer.corpora.held_out import HeldOutEditions
from vocabtransfer.corpora.offers import Found, Kind, Offer
from vocabtransfer.corpora.screening import PartReport, Screen
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.manifest import write_manifest
from vocabtransfer.files.staging import check_target, staged_folder
from vocabtransfer.files.text_files import open_lines
from vocabtransfer.languages import Language, find_language
from vocabtransfer.progress import track
from vocabtransfer.public import public
from vocabtransfer.version import __version__

#: What is taken unless told otherwise: sentence pairs, bytes of running text, and bytes of downloads for one data set.
MOST_PAIRS, MOST_TEXT, MOST_DOWNLOAD = 250_000, 20_000_000, 1_000_000_000
#: From so many direct pairs on, none by way of a third language are taken: a wrong sense on either side makes them worse.
ENOUGH_DIRECT = 50_000
_ORDER: dict[Kind, int] = {"held-out": 0, "pairs": 1, "text": 2, "dictionary": 3}
_FILES: dict[Kind, str] = {"pairs": PAIRS, "text": TEXT, "dictionary": DICTIONARY}


@dataclass
class _Fetching:
    """The state of one fetch."""

    source: Language
    target: Language
    limits: dict[Kind, int]
    screen: Screen
    reports: list[PartReport] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    taken: Counter[Kind] = field(default_factory=Counter)
    direct: Counter[Kind] = field(default_factory=Counter)
    held_out: HeldOutEditions = field(default_factory=HeldOutEditions)

    def left(self, kind: Kind) -> int:
        return self.limits[kind] - self.taken[kind]


@public
def fetch_corpus(
    language: str | Language,
    output: str | Path,
    *,
    source_language: str | Language = "en",
    pairs: int = MOST_PAIRS,
    text: int = MOST_TEXT,
    names: Sequence[str] = (),
    most_download: int = MOST_DOWNLOAD,
    overwrite: bool = False,
) -> Corpus:
    """Write a folder with everything that can be had for a language, cleaned, and a page that says what it is.

    ``pairs`` and ``text`` (bytes) bound what is kept (0: none), ``most_download`` each data set's download. ``names``
    are the sources to take, or single data sets (``opus:GNOME``); without them all that answer are taken, and what could
    not be had is listed. Downloads are kept in the cache, so an interrupted fetch goes on where it was.

    Raises `UsageError` for an unknown language or source and `VocabTransferError` when nothing could be fetched, with
    what would have been asked, and for a folder that must not be written to.
    """
    target = language if isinstance(language, Language) else find_language(language)
    source = source_language if isinstance(source_language, Language) else find_language(source_language)
    if source.code == target.code:
        raise UsageError(f"the source and the target language are both {target.name}: name two.")
    if min(pairs, text, most_download) < 0:
        raise UsageError("`pairs`, `text` and `most_download` cannot be less than 0.")
    folder = Path(output)
    check_target(folder.absolute(), overwrite)
    offers = list_corpora(target, source_language=source, names=names)
    limits: dict[Kind, int] = {"pairs": pairs, "text": text, "dictionary": pairs, "held-out": 1 << 40}
    state = _Fetching(source, target, limits, Screen(source, target))
    with staged_folder(folder.absolute(), overwrite) as staging:
        with ExitStack() as files:
            writers: dict[Kind, Callable[[str], object]] = {}
            for offer in sorted(offers, key=lambda offer: (_ORDER[offer.kind], offer.pivot)):
                _take(state, offer, most_download, writers, files, staging)
        if not any(state.taken[kind] for kind in ("pairs", "text", "dictionary")):
            raise VocabTransferError(_nothing(state, names))
        lines = state.held_out.choose(state.reports)
        if lines:
            (staging / HELD_OUT).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        state.taken["held-out"] = sum(len(line.encode("utf-8")) + 1 for line in lines)
        facts = _facts(state)
        (staging / FACTS).write_text(json.dumps(facts, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        (staging / PAGE).write_bytes(render_corpus(facts))
        write_manifest(staging, {"vocabtransfer": __version__})
    return open_corpus(folder)


def _take(
    state: _Fetching,
    offer: Offer,
    most_download: int,
    writers: dict[Kind, Callable[[str], object]],
    files: ExitStack,
    staging: Path,
) -> None:
    """Fetch one offer into the file of its kind; what cannot be had is noted."""
    if offer.refusal:
        state.missing.append(f"{offer.label}: {offer.refusal}; would have asked {offer.address}")
        return
    if state.left(offer.kind) <= 0:
        return
    if offer.pivot and state.direct[offer.kind] >= ENOUGH_DIRECT:
        state.missing.append(f"{offer.label}: left out, as {state.direct[offer.kind]:,} direct pairs are enough")
        return
    if offer.bytes is not None and offer.bytes > most_download:
        state.missing.append(f"{offer.label}: its {offer.bytes / 1e6:,.0f} MB are more than one data set may have")
        return
    reports: dict[str, PartReport] = {}
    found = _noted(sources()[offer.source].read(offer, most_download), state, offer)
    if offer.kind == "held-out":
        for item in found:
            state.screen.held_out.add(item.target)
            state.held_out.add(offer, item)
        return
    for line in track(_kept(state, offer, found, reports), f"reading {offer.label}"):
        if offer.kind not in writers:
            writers[offer.kind] = files.enter_context(open_lines(staging / _FILES[offer.kind]))
        writers[offer.kind](line)
    state.reports += reports.values()


def _noted(found: Iterator[Found], state: _Fetching, offer: Offer) -> Iterator[Found]:
    """Pass on what comes; a source that fails midway is noted, and what it gave before is kept."""
    try:
        yield from found
    except VocabTransferError as problem:
        state.missing.append(f"{offer.label}: {problem}")


def _kept(state: _Fetching, offer: Offer, found: Iterator[Found], reports: dict[str, PartReport]) -> Iterator[str]:
    """Yield the lines of an offer that are kept, until there is enough of their kind."""
    screen = {"pairs": state.screen.pairs, "text": state.screen.text, "dictionary": state.screen.words}[offer.kind]
    for item in screen(found, offer, reports):
        if offer.kind == "text":
            line = f"{item.target}\n"
        elif offer.kind == "pairs":
            line = f"{item.part}\t{_one_line(item.source)}\t{_one_line(item.target)}\n"
        else:
            line = f"{_one_line(item.source)}\t{_one_line(item.target)}\n"
        state.held_out.see(item.target)
        state.taken[offer.kind] += len(line.encode("utf-8")) if offer.kind == "text" else 1
        state.direct[offer.kind] += not offer.pivot
        yield line
        if state.left(offer.kind) <= 0:
            return


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _facts(state: _Fetching) -> dict[str, Any]:
    """Return ``corpus.json``: no times and no machine, so that the same sources give the same bytes."""
    parts = []
    warnings = []
    for report in state.reports:
        offer = report.offer
        parts.append(
            {
                "part": report.part,
                "kind": offer.kind,
                "source": offer.label,
                "domain": offer.domain,
                "licence": offer.licence,
                "attribution": offer.attribution,
                "address": offer.address,
                "kept": report.kept,
                "target_words": report.target_words,
                "bytes": report.bytes,
                "dropped": dict(report.dropped.most_common()),
                "languages": dict(report.languages.largest()),
                "samples": [list(sample) for sample in report.samples],
            }
        )
        warning = report.warning(state.target)
        if warning and offer.kind in ("pairs", "text"):
            warnings.append(warning)
    if state.held_out.warning(state.target):
        warnings.append(state.held_out.warning(state.target))
    identifier, knows = state.screen.identifier, state.screen.knows
    if not knows:
        warnings.append(
            f"{identifier.name} does not know {state.target.name}: of lines in other languages, only those surely in "
            f"{state.source.name} were dropped. Scripts were checked."
        )
    return {
        "format": FORMAT,
        "vocabtransfer": __version__,
        "language": {"name": state.target.name, "tag": state.target.tag, "script": state.target.script},
        "source_language": {"name": state.source.name, "tag": state.source.tag},
        "totals": {
            "pairs": state.taken["pairs"],
            "text_bytes": state.taken["text"],
            "dictionary_entries": state.taken["dictionary"],
            "held_out_bytes": state.taken["held-out"],
        },
        "held_out": state.held_out.facts(),
        "identifier": identifier.name,
        "parts": parts,
        "warnings": warnings,
        "missing": state.missing,
    }


def _nothing(state: _Fetching, names: Sequence[str]) -> str:
    among = f" from {', '.join(names)}" if names else ""
    reasons = "; ".join(state.missing[:4]) or "no source has it"
    more = f" (and {len(state.missing) - 4} more)" if len(state.missing) > 4 else ""
    return f"nothing could be fetched for {state.target.name}{among}: {reasons}{more}. Give your own files with `parallel`."
