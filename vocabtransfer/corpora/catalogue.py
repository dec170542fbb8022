"""Everything there is for a language, over all sources: `list_corpora`."""

from collections.abc import Sequence

from vocabtransfer.corpora import package_corpus
from vocabtransfer.corpora.offers import SOURCES, CorpusSource, Offer, check_names, is_chosen
from vocabtransfer.corpora.sources import hub, mtdata_index, opus, tatoeba, udhr
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.languages import Language, find_language
from vocabtransfer.progress import track
from vocabtransfer.public import public

#: Importing these registers their sources.
MODULES = (package_corpus, opus, tatoeba, mtdata_index, hub, udhr)

_STYLES = {"prose": 0, "strings": 1, "mined": 2, "words": 3}


def sources() -> dict[str, CorpusSource]:
    """Return all sources by name."""
    return dict(sorted(SOURCES.items()))


@public
def list_corpora(
    language: str | Language, *, source_language: str | Language = "en", names: Sequence[str] = ()
) -> list[Offer]:
    """Return what every source offers for a language: what can be had now first, then prose before strings before the rest.

    Only listings are fetched. A source whose listing cannot be had is there as one offer that says so. ``names`` keeps
    sources (``"opus"``) or single data sets (``"opus:GNOME"``). Raises `UsageError` for an unknown language or source.
    """
    target = language if isinstance(language, Language) else find_language(language)
    source = source_language if isinstance(source_language, Language) else find_language(source_language)
    check_names(names)
    wanted = {name.split(":", 1)[0] for name in names}
    offers: list[Offer] = []
    for place in track([place for place in sources().values() if not wanted or place.name in wanted], "asking sources"):
        try:
            offers += place.offers(source, target)
        except VocabTransferError as problem:
            offers.append(_unlisted(place, source, target, str(problem)))
    return sorted((offer for offer in offers if is_chosen(offer, names)), key=_order)


def unasked(offers: Sequence[Offer], most: int | None = None) -> list[str]:
    """Return for every source that cannot be had now what it would have been asked for, and why it was not."""
    by_source: dict[tuple[str, str], list[Offer]] = {}
    for offer in offers:
        if offer.refusal:
            by_source.setdefault((offer.source, offer.refusal), []).append(offer)
    said = []
    for (source, refusal), refused in by_source.items():
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        said.append(f"{source}: {refusal}; would have asked {refused[0].address}{more}")
    return said if most is None or len(said) <= most else [*said[:most], f"and {len(said) - most} more sources"]


def _order(offer: Offer) -> tuple[bool, int, int, str]:
    return bool(offer.refusal), _STYLES[offer.style], -(offer.pairs or 0), offer.label


def _unlisted(place: CorpusSource, source: Language, target: Language, reason: str) -> Offer:
    return Offer(
        source=place.name,
        name=place.name,
        kind="pairs",
        source_language=source.tag,
        target_language=target.tag,
        licence="",
        address="its listing",
        refusal=reason.rstrip("."),
    )
