"""Tatoeba (https://tatoeba.org): short sentences by volunteers, and which translate which, exported every week."""

import bz2
from collections.abc import Iterator
from pathlib import Path

from vocabtransfer.corpora.offers import CorpusSource, Found, Offer, corpus_source
from vocabtransfer.corpora.services import TATOEBA, refusal
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.cache import cache_folder
from vocabtransfer.files.download import Expected, download
from vocabtransfer.languages import Language

LICENCE = "CC-BY-2.0-FR"
#: Tatoeba files macrolanguages under the member that people mean.
_MEMBERS = {
    "zho": "cmn", "msa": "zsm", "nor": "nob", "fas": "pes", "lav": "lvs", "swa": "swh", "kur": "kmr",
}  # fmt: skip
ATTRIBUTION = "Tatoeba and its contributors, https://tatoeba.org"


@corpus_source
class Tatoeba(CorpusSource):
    """Sentence pairs by way of the link files, and all sentences of the language as text."""

    name = "tatoeba"
    summary = "Tatoeba: short sentences translated by volunteers, newer than the edition in OPUS"

    def offers(self, source: Language, target: Language) -> list[Offer]:
        """Offer pairs and text; whether the language is there shows when they are fetched."""
        blocked = refusal(TATOEBA.url)
        codes = tuple(_MEMBERS.get(side.alpha3, side.alpha3) for side in (source, target))
        address = _address(codes[1], f"{codes[1]}-{codes[0]}_links.tsv.bz2")
        return [
            Offer(
                source=self.name,
                name=self.name,
                kind="pairs",
                source_language=source.tag,
                target_language=target.tag,
                domain="short sentences",
                licence=LICENCE,
                attribution=ATTRIBUTION,
                address=address,
                refusal=blocked,
                details={"codes": codes},
            )
        ]

    def read(self, offer: Offer, most_bytes: int) -> Iterator[Found]:
        """Join the sentences of both languages by the links between them."""
        source, target = offer.details["codes"]
        links = _fetch(target, f"{target}-{source}_links.tsv.bz2", most_bytes)
        ours = dict(_sentences(_fetch(target, f"{target}_sentences.tsv.bz2", most_bytes)))
        wanted = [(number, other) for number, other in _columns(links, 2) if number in ours]
        others = {other for _, other in wanted}
        theirs = {
            number: text
            for number, text in _sentences(_fetch(source, f"{source}_sentences.tsv.bz2", most_bytes))
            if number in others
        }
        for number, other in wanted:
            if other in theirs:
                yield Found(offer.label, theirs[other], ours[number])


def _address(language: str, name: str) -> str:
    return f"{TATOEBA.url}/per_language/{language}/{name}"


def _fetch(language: str, name: str, most_bytes: int) -> Path:
    return download(
        _address(language, name), cache_folder("corpora", "tatoeba") / name, Expected(most_bytes=most_bytes)
    )


def _sentences(path: Path) -> Iterator[tuple[str, str]]:
    for number, _, text in _columns(path, 3):
        yield number, text


def _columns(path: Path, width: int) -> Iterator[list[str]]:
    """Yield the lines of a bzip2 table that have so many columns or more, cut to that width."""
    try:
        with bz2.open(path, "rt", encoding="utf-8", errors="replace", newline="\n") as lines:
            for line in lines:
                fields = line.rstrip("\r\n").split("\t")
                if len(fields) >= width:
                    yield fields[:width]
    except (OSError, EOFError, ValueError) as problem:
        path.unlink(missing_ok=True)
        raise VocabTransferError(f"{path.name} is damaged ({problem}); it was deleted: fetch it again.") from None
