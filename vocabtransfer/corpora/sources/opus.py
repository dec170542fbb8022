"""OPUS (https://opus.nlpl.eu): the largest collection of parallel corpora, asked through its interface.

The interface answers ``?source=en&target=tt&preprocessing=moses&version=latest`` with a list of files and their sizes.
Where it cannot be asked, the same list comes out of the data base that the package opustools ships, so that what there
is can be seen offline.
"""

import gzip
import sqlite3
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from vocabtransfer.corpora.licences import opus_data_set
from vocabtransfer.corpora.offers import CorpusSource, Found, Kind, Offer, corpus_source
from vocabtransfer.corpora.services import OPUS, OPUS_FILES, refusal
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.cache import cache_folder
from vocabtransfer.files.download import Expected, UnreachableError, download, read_json_answer
from vocabtransfer.files.packages import unpack_wheel
from vocabtransfer.languages import Language

LISTING_PACKAGE = "opustools==1.9.0"
CITATION = "OPUS (Tiedemann 2012), https://opus.nlpl.eu"
_PREPROCESSING: tuple[tuple[str, Kind], ...] = (("moses", "pairs"), ("dic", "dictionary"))
_FIELDS = ("corpus", "version", "url", "size", "alignment_pairs", "source", "target", "preprocessing")
#: Later editions of a data set hold the earlier ones, and these hold each other.
_CONTAINED = {"MultiCCAligned": "CCAligned", "MultiParaCrawl": "ParaCrawl"}
#: A member may unfold to so many times the archive's size before it counts as a bomb.
_MOST_UNFOLDING = 60


@corpus_source
class Opus(CorpusSource):
    """Pairs and automatic dictionaries of OPUS, and its monolingual text where it has no pairs."""

    name = "opus"
    summary = "OPUS: parallel corpora of all kinds, and dictionaries made from them"

    def offers(self, source: Language, target: Language) -> list[Offer]:
        """List the latest edition of every data set that has the pair."""
        sides = sorted((source.code, target.code))
        blocked = refusal(OPUS.url) or refusal(OPUS_FILES.url)
        offers = []
        for preprocessing, kind in _PREPROCESSING:
            query = urlencode(
                {"source": sides[0], "target": sides[1], "preprocessing": preprocessing, "version": "latest"}
            )
            asked = f"{OPUS.url}/?{query}"
            rows = _shipped_rows(sides, preprocessing) if blocked else _asked_rows(asked)
            if blocked and rows is None:
                return [_unlisted(source, target, asked, blocked)]
            for row in _without_contained(rows or []):
                known = opus_data_set(row["corpus"])
                offers.append(
                    Offer(
                        source=self.name,
                        name=row["corpus"] if kind == "pairs" else f"{row['corpus']}-dic",
                        kind=kind,
                        source_language=source.tag,
                        target_language=target.tag,
                        pairs=row["alignment_pairs"] if kind == "pairs" else None,
                        bytes=row["size"] * 1000 or None,
                        domain=known.domain,
                        licence=known.licence,
                        attribution=f"{row['corpus']} {row['version']} of {CITATION}",
                        style="words" if kind == "dictionary" else known.style,
                        address=_mirrored(row["url"]),
                        refusal=blocked,
                        details={"swapped": sides[0] != source.code, "sides": sides, "asked": asked},
                    )
                )
        return offers

    def read(self, offer: Offer, most_bytes: int) -> Iterator[Found]:
        """Fetch a zip of two Moses files, or a gzipped dictionary, and yield its pairs."""
        name = "_".join(urlsplit(offer.address).path.strip("/").split("/"))
        path = download(offer.address, cache_folder("corpora", "opus") / name, Expected(most_bytes=most_bytes))
        pairs = read_dic(path) if offer.kind == "dictionary" else read_moses_zip(path, offer.details["sides"])
        for first, second in pairs:
            source, target = (second, first) if offer.details["swapped"] else (first, second)
            yield Found(offer.label, source, target)


def read_moses_zip(path: Path, sides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of a zip that holds ``NAME.xx-yy.xx`` and ``NAME.xx-yy.yy``, one sentence a line.

    Lines that are not UTF-8 lose what cannot be read, which the filters notice. Raises `VocabTransferError` for a
    damaged archive, one that unfolds beyond measure, missing sides, and unequal line counts.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [_side(archive, side, path) for side in sides]
            if sum(member.file_size for member in members) > _MOST_UNFOLDING * max(path.stat().st_size, 1 << 20):
                raise VocabTransferError(f"{path} would unfold to {_MOST_UNFOLDING} times its size: not read.")
            with archive.open(members[0]) as first, archive.open(members[1]) as second:
                for left, right in zip_longest(first, second):
                    if left is None or right is None:
                        raise VocabTransferError(f"{path}: its two sides have unequal numbers of lines.")
                    yield left.decode("utf-8", "replace").strip(), right.decode("utf-8", "replace").strip()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as problem:
        path.unlink(missing_ok=True)
        raise VocabTransferError(f"{path.name} is damaged ({problem}); it was deleted: fetch it again.") from None


def _side(archive: zipfile.ZipFile, side: str, path: Path) -> zipfile.ZipInfo:
    found = [info for info in archive.infolist() if info.filename.endswith(f".{side}")]
    if len(found) != 1:
        names = ", ".join(archive.namelist())
        raise VocabTransferError(f"{path.name} has {len(found)} files ending in .{side} (it holds {names}): not read.")
    return found[0]


def read_dic(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the word pairs of a dictionary of OPUS: two columns, or words in the third and fourth after two scores."""
    try:
        with gzip.open(path, "rt", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                fields = line.rstrip("\n").split("\t")
                words = fields[2:4] if len(fields) >= 4 else fields
                if len(words) == 2 and words[0].strip() and words[1].strip():
                    yield words[0].strip(), words[1].strip()
    except (OSError, EOFError, zlib.error) as problem:
        path.unlink(missing_ok=True)
        raise VocabTransferError(f"{path.name} is damaged ({problem}); it was deleted: fetch it again.") from None


def _asked_rows(url: str) -> list[dict[str, Any]]:
    answer = read_json_answer(url)
    rows = answer.get("corpora") if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        raise VocabTransferError(f"{url} answers without a list of corpora: the service has changed.")
    return [_row(row) for row in rows if isinstance(row, dict) and {"corpus", "version", "url"} <= row.keys()]


def _unlisted(source: Language, target: Language, asked: str, blocked: str) -> Offer:
    """Return what stands for OPUS where not even the listing that opustools ships can be had."""
    return Offer("opus", "opus", "pairs", source.tag, target.tag, licence="", address=asked, refusal=blocked)


def _shipped_rows(sides: Sequence[str], preprocessing: str) -> list[dict[str, Any]] | None:
    """Return the same rows out of the data base of opustools; None where even that cannot be had."""
    try:
        database = shipped_listing()
    except VocabTransferError:
        return None
    query = (
        f"SELECT {', '.join(_FIELDS)} FROM opusfile "
        "WHERE source = ? AND target = ? AND preprocessing = ? AND latest = 'True' ORDER BY corpus"
    )
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        found = connection.execute(query, (*sides, preprocessing)).fetchall()
    return [_row(dict(zip(_FIELDS, row, strict=True))) for row in found]


def shipped_listing() -> Path:
    """Return the SQLite data base that opustools ships, unfolded into the cache once (132 MB)."""
    target = cache_folder("corpora", "opus") / f"{LISTING_PACKAGE.replace('==', '-')}.db"
    if not target.exists():
        folder = unpack_wheel(LISTING_PACKAGE, ["opustools/opusdata.db.gz"])
        beside = target.with_name(target.name + ".part")
        with gzip.open(folder / "opustools" / "opusdata.db.gz") as packed, beside.open("wb") as out:
            while chunk := packed.read(1 << 22):
                out.write(chunk)
        beside.replace(target)
    return target


def _row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with numbers where the service has numbers, empty strings or nothing."""
    numbers = {key: _number(row.get(key)) for key in ("size", "alignment_pairs")}
    return {**row, "size": numbers["size"] or 0, "alignment_pairs": numbers["alignment_pairs"]}


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else int(value) if isinstance(value, str) and value.isdigit() else None


def _without_contained(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = {row["corpus"] for row in rows}
    return [row for row in rows if _CONTAINED.get(row["corpus"]) not in names]


def _mirrored(url: str) -> str:
    """Return the address of a file at the mirror that stands in for OPUS' own store."""
    own = OPUS_FILES.address.rstrip("/")
    return OPUS_FILES.url + url.removeprefix(own) if url.startswith(own) else url


__all__ = ["Opus", "UnreachableError", "read_dic", "read_moses_zip", "shipped_listing"]
