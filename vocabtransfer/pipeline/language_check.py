"""Is the text that a person gives in the language that they name? Its script by share, then the language by share.

Who tells the language is chosen in `vocabtransfer.corpora.identification`. Single lines are told wrongly, so only shares
over many are said, and nothing is refused. Of a language that nobody knows all that can be said is that most lines surely
look like another one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from vocabtransfer.corpora.cleaning import CHINESE, SCRIPT_PARTS
from vocabtransfer.corpora.identification import LEAST_LETTERS, SURE, Identifier, canonical, identifier_for, near
from vocabtransfer.errors import UsageError
from vocabtransfer.languages import Language, find_language
from vocabtransfer.scripts import SCRIPTS, character_scripts, chinese_variants

_DENSE = frozenset({"Hani", "Hans", "Hant", "Jpan", "Hang", "Kore", "Hira", "Kana"})
_VARIANTS = {"Hans": "simplified", "Hant": "traditional"}
#: Below these shares of letters in the script, and of lines in the language, a person is told.
LEAST_SCRIPT, LEAST_LANGUAGE = 0.8, 0.8
#: Another language that takes so many lines of a text in a language unknown to the identifier is named.
FOREIGN_SHARE = 0.6
#: Lines that are looked at, how much of each, and how many answers make a share.
_MOST_LINES, _MOST_CHARACTERS, _LEAST_ANSWERS = 8_192, 1_000, 10


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
    identifier: Identifier = field(init=False)

    def __post_init__(self) -> None:
        self.identifier = identifier_for(self.target)

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
        found = self._script_note() or self._variant_note() or self._language_note()
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
        ((code, probability),) = self.identifier.classify([text])
        self.asked += 1
        if code and probability >= SURE:
            self.answers[code] += 1

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

    def _variant_note(self) -> str:
        """Say where Chinese is not written with the characters that were asked for."""
        if self.target.script not in _VARIANTS or self.target.code not in CHINESE:
            return ""
        simplified, traditional = map(sum, zip(*map(chinese_variants, self.kept), strict=True)) if self.kept else (0, 0)
        own, other = (simplified, traditional) if self.target.script == "Hans" else (traditional, simplified)
        if own + other < _LEAST_ANSWERS or own >= LEAST_SCRIPT * (own + other):
            return ""
        unlike = "Hant" if self.target.script == "Hans" else "Hans"
        return (
            f"{self.what} is not in {_VARIANTS[self.target.script]} Chinese: of the characters that tell the two apart, "
            f"{_percent(other / (own + other))} are {_VARIANTS[unlike]}. Convert it (OpenCC does), or name "
            f"{self.target.code}-{unlike} as the target."
        )

    def _language_note(self) -> str:
        sure = self.answers.total()
        if not sure:
            return ""
        close, name = near(canonical(self.target.code)), self.identifier.name
        shares = {code: count / sure for code, count in self.answers.most_common()}
        own = sum(share for code, share in shares.items() if code in close)
        if self.identifier.knows(self.target):
            if own >= LEAST_LANGUAGE:
                return ""
            named = _listed({_name(code): share for code, share in shares.items()})
            mixed = (
                "is a mixture"
                if own >= 1 - LEAST_LANGUAGE
                else f"seems to be in another language than {self.target.name}"
            )
            return f"{self.what} {mixed}: of the lines that are surely in some language, {named} ({name})."
        code, count = self.answers.most_common(1)[0]
        if code in close or count / self.asked < FOREIGN_SHARE:
            return ""
        return (
            f"{self.what} may be in another language than {self.target.name}: {_percent(count / self.asked)} of its lines "
            f"are surely {_name(code)} to {name}, which does not know {self.target.name} and may take it for that."
        )


def _listed(shares: dict[str, float]) -> str:
    kept = [(name, share) for name, share in shares.items() if share >= 0.01][:4]
    return ", ".join(f"{_percent(share)} {name}" for name, share in kept)


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")
