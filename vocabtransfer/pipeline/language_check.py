"""Is the text that a person gives in the language that they name? Its script by share, then the language by share.

The language is told by py3langid (a rework of langid.py, Lui and Baldwin 2012), which knows 140 languages. Single lines are
told wrongly, so only shares over many are said, and nothing is refused. Of a language that it does not know all it can
say is that most lines surely look like another one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from vocabtransfer.corpora.cleaning import SCRIPT_PARTS
from vocabtransfer.errors import UsageError
from vocabtransfer.languages import Language, find_language
from vocabtransfer.scripts import SCRIPTS, character_scripts

#: Letters a line needs to be asked about (fewer where one says more), and the probability at which an answer counts.
LEAST_LETTERS, SURE = 25, 0.9
_DENSE = frozenset({"Hani", "Hans", "Hant", "Jpan", "Hang", "Kore", "Hira", "Kana"})
#: Below these shares of letters in the script, and of lines in the language, a person is told.
LEAST_SCRIPT, LEAST_LANGUAGE = 0.8, 0.8
#: Another language that takes so many lines of a text in a language unknown to the identifier is named.
FOREIGN_SHARE = 0.6
#: Lines that are looked at, how much of each, and how many answers make a share.
_MOST_LINES, _MOST_CHARACTERS, _LEAST_ANSWERS = 8_192, 1_000, 10
#: Languages that nobody tells apart in short lines, or that the identifier mixes up.
_CLOSE = [
    {"sr", "hr", "bs"},
    {"nb", "nn", "da"},
    {"id", "ms", "min"},
    {"tt", "ba"},
    {"ar", "ary", "arz"},
    {"uz", "uzs"},
    {"gl", "pt"},
    {"cs", "sk"},
    {"af", "nl"},
    {"hi", "mr", "ne", "sa"},
    {"fa", "prs"},
    {"tl", "fil", "bcl"},
    {"zh", "wuu", "yue"},
    {"he", "hbo"},
    {"el", "grc"},
    {"ky", "kk"},
    {"bg", "mk"},
    {"xh", "zu"},
]


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@cache
def _code(label: str) -> str:
    try:
        code = find_language(label).code
    except UsageError:
        return label
    return "nb" if code == "no" else code


@cache
def _known() -> frozenset[str]:
    return frozenset(_code(label) for label in _identifier().labels)


@cache
def _name(code: str) -> str:
    try:
        return find_language(code).name
    except UsageError:
        return code


@dataclass
class LanguageCheck:
    """Looks at lines of text, one by one (`see`), that should be in ``target``; `notes` says what does not fit."""

    target: Language
    what: str = "The text"
    lines: int = 0
    step: int = 1
    kept: list[str] = field(default_factory=list)
    letters: Counter[int] = field(default_factory=Counter)
    asked: int = 0
    answers: Counter[str] = field(default_factory=Counter)

    def see(self, line: str) -> None:
        """Take in a line. Of very many, lines at equal distances are kept."""
        if self.lines % self.step == 0:
            self.kept.append(line[:_MOST_CHARACTERS])
            if len(self.kept) == _MOST_LINES:
                self.kept, self.step = self.kept[::2], 2 * self.step
        self.lines += 1

    def notes(self) -> tuple[str, ...]:
        """Return what a person should read, a sentence each; nothing for a text that fits."""
        short = [line for line in self.kept if not self._look_at(line)]
        # Short lines say something together.
        for start in range(0, len(short) if self.asked < _LEAST_ANSWERS else 0, 10):
            self._ask(" ".join(short[start : start + 10]))
        found = self._script_note() or self._language_note()
        return (found,) if found else ()

    def _look_at(self, line: str) -> bool:
        """Count the letters of a line by script, ask about its language; False where it is too short for that."""
        codes = character_scripts(np.frombuffer(line.encode("utf-32-le", "replace"), dtype=np.uint32))
        codes = codes[codes != 0]
        self.letters.update(codes.tolist())
        dense = len(codes) > 0 and SCRIPTS[int(np.bincount(codes).argmax())] in _DENSE
        if len(codes) * (3 if dense else 1) < LEAST_LETTERS:
            return False
        self._ask(line)
        return True

    def _ask(self, text: str) -> None:
        label, probability = _identifier().classify(text)
        self.asked += 1
        if float(probability) >= SURE and label != "zxx":
            self.answers[_code(label)] += 1

    def _script_note(self) -> str:
        total = self.letters.total()
        wanted = set(SCRIPT_PARTS.get(self.target.script, (self.target.script,)))
        shares = {SCRIPTS[code]: count / total for code, count in self.letters.most_common()}
        own = sum(share for script, share in shares.items() if script in wanted)
        if not total or own >= LEAST_SCRIPT or not wanted & set(SCRIPTS):
            return ""
        return (
            f"{self.what} is not in the script of {self.target.name}: {_percent(own)} of its letters are "
            f"{self.target.script} ({_listed(shares)}). Check that it is {self.target.name}, and name the script if it is "
            f"({self.target.code}-{next(iter(shares))})."
        )

    def _language_note(self) -> str:
        sure = self.answers.total()
        if not sure:
            return ""
        target = _code(self.target.code)
        near = next((group for group in _CLOSE if target in group), {target})
        shares = {code: count / sure for code, count in self.answers.most_common()}
        own = sum(share for code, share in shares.items() if code in near)
        if target in _known():
            if own >= LEAST_LANGUAGE:
                return ""
            named = _listed({_name(code): share for code, share in shares.items()})
            mixed = (
                "is a mixture"
                if own >= 1 - LEAST_LANGUAGE
                else f"seems to be in another language than {self.target.name}"
            )
            return f"{self.what} {mixed}: of the lines that are surely in some language, {named} (py3langid)."
        code, count = self.answers.most_common(1)[0]
        if code in near or count / self.asked < FOREIGN_SHARE:
            return ""
        return (
            f"{self.what} may be in another language than {self.target.name}: {_percent(count / self.asked)} of its lines "
            f"are surely {_name(code)} to py3langid, which does not know {self.target.name} and may take it for that."
        )


def _listed(shares: dict[str, float]) -> str:
    kept = [(name, share) for name, share in shares.items() if share >= 0.01][:4]
    return ", ".join(f"{_percent(share)} {name}" for name, share in kept)


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")
