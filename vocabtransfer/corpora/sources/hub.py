"""Text of a language out of data sets on the Hugging Face hub, streamed: only what is read is fetched.

Each data set has a configuration for every language, named by ISO 639-3 and script (``tat_Cyrl``) or by the code of its
Wikipedia (``tt``).
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from vocabtransfer.corpora.offers import CorpusSource, Found, Offer, corpus_source
from vocabtransfer.corpora.services import HUB, refusal
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.languages import Language


@dataclass(frozen=True)
class HubDataSet:
    """A data set with a configuration for every language; ``revision`` keeps what is fetched the same."""

    repository: str
    configuration: Callable[[Language], str]
    field: str
    domain: str
    licence: str
    attribution: str


def _code_and_script(language: Language) -> str:
    return f"{language.alpha3}_{language.script}"


DATA_SETS: dict[str, HubDataSet] = {
    "fineweb-2": HubDataSet(
        "HuggingFaceFW/fineweb-2",
        _code_and_script,
        "text",
        "web pages",
        "ODC-BY-1.0 (and Common Crawl's terms of use)",
        "FineWeb-2 (Penedo et al. 2025), HuggingFaceFW/fineweb-2",
    ),
    "wikipedia": HubDataSet(
        "wikimedia/wikipedia",
        lambda language: f"20231101.{language.code}",
        "text",
        "encyclopedia",
        "CC-BY-SA-3.0 and GFDL",
        "Wikipedia and its authors, dump of 2023-11-01, wikimedia/wikipedia",
    ),
    "hplt": HubDataSet(
        "HPLT/HPLT3.0", _code_and_script, "text", "web pages", "CC0-1.0", "HPLT 3.0 (HPLT project), HPLT/HPLT3.0"
    ),
    "glotcc": HubDataSet(
        "cis-lmu/GlotCC-V1",
        lambda language: f"{language.alpha3}-{language.script}",
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
                address=f"{HUB.url}/datasets/{known.repository} [{known.configuration(target)}]",
                refusal=blocked,
                details={"configuration": known.configuration(target)},
            )
            for name, known in DATA_SETS.items()
        ]

    def read(self, offer: Offer, most_bytes: int) -> Iterator[Found]:
        """Stream documents and yield their lines; it ends by itself, the caller stops when it has enough."""
        known = DATA_SETS[offer.name]
        try:
            rows = _stream(known, offer.details["configuration"])
            for row in rows:
                text = row.get(known.field)
                if not isinstance(text, str):
                    raise VocabTransferError(
                        f"{known.repository} has no text in its field {known.field!r} (it has {', '.join(row)})."
                    )
                for line in text.splitlines():
                    if line.strip():
                        yield Found(offer.label, "", line.strip())
        except VocabTransferError:
            raise
        except Exception as problem:  # datasets raises errors of a dozen libraries
            reason = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
            raise VocabTransferError(
                f"{known.repository} [{offer.details['configuration']}] cannot be streamed ({reason.rstrip('.')})."
            ) from None


def _stream(known: HubDataSet, configuration: str) -> Iterator[dict[str, Any]]:
    # Read when the library is imported first: a mirror of the hub must be known by then.
    os.environ.setdefault("HF_ENDPOINT", HUB.url)
    from datasets import load_dataset

    return iter(load_dataset(known.repository, name=configuration, split="train", streaming=True))
