"""Is the target side of a corpus in its language? Scripts tell most languages apart, a few English words the others."""

from typing import TYPE_CHECKING

import regex

from vocabtransfer.errors import VocabTransferError

if TYPE_CHECKING:
    from vocabtransfer.languages import Language

# ISO 15924 codes that name a mixture of Unicode scripts.
_MIXED_SCRIPTS = {
    "Jpan": ("Hani", "Hira", "Kana"),
    "Hrkt": ("Hira", "Kana"),
    "Kore": ("Hang", "Hani"),
    "Hans": ("Hani",),
    "Hant": ("Hani",),
    "Hanb": ("Hani", "Bopo"),
}
# Frequent in English and no words of the other large languages in Latin script.
_ENGLISH = regex.compile(r"\b(?:the|and|with|this|that|from|which|your|been|should)\b", regex.IGNORECASE)
_LETTERS = regex.compile(r"\p{L}{2,}+")

# A name or a command stays as it is in every language; three words in a row in another script are a missing translation.
_MIN_FOREIGN_WORDS = 3
_MIN_PAIRS = 20


class SideCheck:
    """Watches the pairs of one corpus: `accepts` judges each pair by its script, `judge` the corpus as a whole."""

    def __init__(self, source: "Language | None", target: "Language | None") -> None:
        self._target = target
        self._patterns = [script_pattern(language.script) if language else None for language in (source, target)]
        english = target is not None and target.code != "en" and (source is None or source.code == "en")
        self._watch_english = english
        self._same_script = source is not None and target is not None and source.script == target.script
        self._seen = self._foreign = self._swapped = 0
        self._english = [0, 0]

    def accepts(self, source: str, target: str) -> bool:
        """Return False for a target with three or more words and not a letter in the target language's script."""
        self._seen += 1
        if self._watch_english:
            self._english[0] += _ENGLISH.search(source) is not None
            self._english[1] += _ENGLISH.search(target) is not None
        pattern = self._patterns[1]
        if pattern is None or pattern.search(target):
            return True
        words = len(_LETTERS.findall(target))
        self._foreign += words > 0
        self._swapped += words > 0 and not self._same_script and pattern.search(source) is not None
        return words < _MIN_FOREIGN_WORDS

    def judge(self, names: str) -> None:
        """Raise `VocabTransferError` when the pairs seen so far show swapped sides or a target in another language."""
        if self._target is None or self._seen < _MIN_PAIRS:
            return
        language = self._target
        if self._foreign > self._seen / 2:
            if self._swapped > self._foreign / 2:
                raise VocabTransferError(_swapped_message(names, language))
            raise VocabTransferError(
                f"{names}: most of the target side is not in the script {language.script} of {language.name}; "
                "name the right columns or files, or ask for the language with its script (as in sr-Latn)."
            )
        source, target = self._english
        if target > 0.2 * self._seen and target > 5 * source:
            raise VocabTransferError(_swapped_message(names, language))
        if target > 0.1 * self._seen and target > source / 2:
            raise VocabTransferError(
                f"{names}: the target side is mostly English, not {language.name}: name the right columns or files."
            )


def _swapped_message(names: str, language: "Language") -> str:
    return f"{names}: the sides are swapped, {language.name} must come second: change the order of columns or files."


def script_pattern(script: str) -> "regex.Pattern[str] | None":
    """Return a pattern that finds one letter of an ISO 15924 script, None where Unicode does not know the script."""
    members = "".join(rf"\p{{Script={name}}}" for name in _MIXED_SCRIPTS.get(script, (script,)))
    try:
        return regex.compile(f"[{members}]")
    except regex.error:
        return None
