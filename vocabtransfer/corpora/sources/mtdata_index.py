"""The index of mtdata: data sets of the translation tasks of WMT, of Microsoft, Meta, Leipzig and many others.

mtdata knows where each lies and how it is laid out; the files come through our own client, which can be interrupted.
What it takes from OPUS is left to the source ``opus``, what lies on the hub to ``hub``.
"""

import logging
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vocabtransfer.corpora.licences import UNKNOWN
from vocabtransfer.corpora.offers import SOURCES, CorpusSource, Found, Kind, Offer, corpus_source
from vocabtransfer.corpora.services import refusal
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.cache import cache_folder
from vocabtransfer.files.download import Expected, download
from vocabtransfer.files.packages import unpack_tar, unpack_zip
from vocabtransfer.languages import Language, is_main_member, members

_LEFT_TO_OTHERS = {"OPUS"}
_LAYOUTS = {"zip", "tar", "tar.gz", "tgz", "tsv", "tsv.gz", "txt", "txt.gz", "tmx", "tmx.gz"}
_DOMAINS = {
    "Leipzig": "news, web and encyclopedia",
    "Facebook": "encyclopedia",
    "Statmt": "news",
    "Flores": "benchmark",
}
#: Sets that models are judged on: to train on them would spoil every comparison.
_BENCHMARKS = ("flores", "ntrex", "newstest", "newsdev", "tico", "test", "dev")

_BY_LANGUAGES: Counter[frozenset[str]] = Counter()


@corpus_source
class Mtdata(CorpusSource):
    """Pairs and text that mtdata's index names."""

    name = "mtdata"
    summary = "the index of mtdata: data sets of WMT, Leipzig, Microsoft, Meta and others; no benchmarks"
    extra = "mtdata"
    library = "mtdata"

    def offers(self, source: Language, target: Language) -> list[Offer]:
        """List what the index has; it ships with mtdata, so it is there offline too."""
        if self.missing_library():
            return []
        offers = []
        found: tuple[tuple[Kind, list[Any]], ...] = (
            ("pairs", entries_of(source, target)),
            ("text", entries_of(None, target)),
        )
        for kind, entries in found:
            offers += [self._offer(entry, kind, source, target) for entry in entries if _is_usable(entry)]
        return offers

    def _offer(self, entry: Any, kind: Kind, source: Language, target: Language) -> Offer:
        codes = [language.lang for language in entry.did.langs]
        return Offer(
            source=self.name,
            name=f"{entry.did.group}-{entry.did.name}-{entry.did.version}",
            kind=kind,
            source_language=source.tag if kind == "pairs" else "",
            target_language=target.tag,
            domain=_DOMAINS.get(entry.did.group, ""),
            licence=UNKNOWN,
            attribution=f"{entry.did.group} {entry.did.name}, by the index of mtdata",
            address=str(entry.url),
            refusal=refusal(str(entry.url)),
            details={"entry": entry, "swapped": len(codes) == 2 and codes[0] in _codes(target)},
        )

    def read(self, offer: Offer, most_bytes: int) -> Iterator[Found]:
        """Fetch the file and read it with mtdata's own parser."""
        entry = offer.details["entry"]
        name = "_".join(urlsplit(offer.address).path.strip("/").split("/"))
        path = download(offer.address, cache_folder("corpora", "mtdata") / name, Expected(most_bytes=most_bytes))
        from mtdata.parser import Parser

        try:
            for row in Parser(_members(entry, path), entry.in_ext, entry).read_segs(show_pbar=False):
                fields = [row] if isinstance(row, str) else list(row)
                if offer.kind == "text":  # Leipzig numbers its sentences
                    yield Found(offer.label, "", str(fields[-1]))
                elif len(fields) >= 2 and fields[0] and fields[1]:
                    first, second = (1, 0) if offer.details["swapped"] else (0, 1)
                    yield Found(offer.label, str(fields[first]), str(fields[second]))
        except VocabTransferError:
            raise
        except Exception as problem:  # the parser raises plain exceptions
            raise VocabTransferError(f"{offer.label} cannot be read ({str(problem).splitlines()[0]}).") from None


@cache
def _index() -> Any:
    # mtdata speaks through the root logger, and at length while it makes its index.
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    logging.disable(logging.WARNING)
    try:
        from mtdata.index import Index

        return Index.get_instance()
    finally:
        logging.disable(logging.NOTSET)
        root.setLevel(level)
        root.handlers[:] = handlers


def entries_of(source: Language | None, target: Language) -> list[Any]:
    """Return mtdata's entries of a pair of languages, or of one language alone."""
    _index()
    from mtdata.index import get_entries
    from mtdata.iso.bcp47 import bcp47

    found = {}
    for code in _codes(target):
        codes = (code,) if source is None else (source.alpha3, code)
        try:
            found.update({str(entry.did): entry for entry in get_entries(langs=tuple(bcp47(code) for code in codes))})
        except Exception:  # languages that its tables do not know
            continue
    return list(found.values())


def _codes(language: Language) -> list[str]:
    """Return the codes of a language in the index: ISO 639-3, of a macrolanguage also of the member that people mean."""
    main = (code for code in members(language) if len(code) == 3 and is_main_member(code, language))
    return [language.alpha3, *main]


def usable_entries(target: Language) -> tuple[int, int]:
    """Return how many sets of English pairs, and how many of text, the index has for a language."""
    if SOURCES["mtdata"].missing_library():
        return 0, 0
    if not _BY_LANGUAGES:
        for entry in _index().get_entries():
            if _is_usable(entry):
                _BY_LANGUAGES[frozenset(language.lang for language in entry.did.langs)] += 1
    codes = _codes(target)
    pairs, alone = (sum(_BY_LANGUAGES[frozenset((*side, code))] for code in codes) for side in (("eng",), ()))
    return pairs, alone


def _is_usable(entry: Any) -> bool:
    if entry.did.group in _LEFT_TO_OTHERS or not isinstance(entry.url, str) or entry.ext not in _LAYOUTS:
        return False
    if "huggingface.co" in entry.url:
        return False
    return not any(word in entry.did.name for word in _BENCHMARKS) and entry.did.group not in ("Flores",)


def _members(entry: Any, path: Path) -> list[Path]:
    """Return the files that hold the text: the download itself, or what its archive has at the places named."""
    if not entry.is_archive:
        return [path]
    folder = path.with_name(path.name + ".unpacked")
    patterns: Sequence[str] = entry.in_paths
    if not folder.exists():
        beside = folder.with_name(folder.name + ".part")
        if zipfile.is_zipfile(path):
            unpack_zip(path, patterns, beside)
        else:
            with path.open("rb") as stream:
                unpack_tar(stream, patterns, beside, path.name)
        beside.rename(folder)
    found = [file for pattern in patterns for file in sorted(folder.rglob(pattern.rpartition("/")[2]))]
    if not found:
        raise VocabTransferError(f"{path.name} holds no file named {' or '.join(patterns)}.")
    return found
