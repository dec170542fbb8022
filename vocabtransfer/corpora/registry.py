"""The sources that are packages, and which of them have a language."""

from collections.abc import Sequence

from vocabtransfer.corpora.package_source import Source
from vocabtransfer.corpora.sources import documents, freedict, gettext_catalogues, json_strings
from vocabtransfer.errors import UsageError
from vocabtransfer.languages import Language

SOURCES: tuple[Source, ...] = (
    *json_strings.SOURCES,
    *gettext_catalogues.SOURCES,
    *documents.SOURCES,
    *freedict.SOURCES,
)


def sources_for(language: Language, names: Sequence[str] | None = None) -> tuple[Source, ...]:
    """Return the sources that carry a language, all of them or those with the given names.

    Raises `UsageError` for a name that no source has, for a named source without the language, and when no source
    carries the language at all.
    """
    known = {source.name: source for source in SOURCES}
    for name in names or ():
        if name not in known:
            raise UsageError(f"there is no source {name!r}: choose from {', '.join(known)}.")
        if known[name].locale(language) is None:
            raise UsageError(f"the source {name!r} has no {language.name}: leave it out or choose another.")
    chosen = [known[name] for name in names] if names else SOURCES
    found = tuple(source for source in chosen if source.locale(language) is not None)
    if not found:
        raise UsageError(f"no package we know carries English-{language.name} text: give your own file instead.")
    return found
