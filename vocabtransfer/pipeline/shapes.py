"""Which shape a new vocabulary is to have, decided by what the untouched model makes of the language."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
from transformers import PreTrainedTokenizerFast

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.evaluation.against_source import cannot_score
from vocabtransfer.evaluation.bits_per_byte import bits_per_byte
from vocabtransfer.evaluation.fertility import tokenizer_statistics
from vocabtransfer.evaluation.texts import limit_bytes
from vocabtransfer.languages import Language
from vocabtransfer.progress import step
from vocabtransfer.running.plan import load_for_scoring
from vocabtransfer.scripts import SCRIPTS, character_scripts
from vocabtransfer.surgery.unigram_calibration import draw_words

Shape = Literal["replace", "extend", "swap", "optimise"]
SHAPES: tuple[Shape, ...] = ("replace", "extend", "swap", "optimise")

#: UTF-8 bytes of the language that the untouched model is asked about: a few seconds of a CPU core.
ASKED_BYTES, ASKED_LINES = 4_000, 2_000
#: Lines are cut after so many characters, so that a long document, which tells much of itself, is judged like short ones.
ASKED_CHARACTERS = 200
#: Bits for a character up to which a model knows the language: of running text, and of words drawn by their counts, which
#: no context tells. What was seen is in docs/shapes.md.
KNOWN_TEXT, KNOWN_WORDS = 2.1, 2.78
#: Tokens for a character from which on a script is spelled in bytes and scraps: no need to ask the model.
SPELLED = 0.6
#: Where the model cannot be run: tokens for a character up to which its tokenizer was made for the language too.
FITTING = 0.3
#: A new vocabulary that needs more than this share of the source's tokens for held-out text was made of too little text,
#: or of other text. Seen: 0.55 to 0.59 for Basque, Welsh and Icelandic, 0.83 for Quechua out of strings of programs.
LITTLE_SAVED = 0.7
#: Running words below which training on the text makes a new vocabulary no better than the source's own. Seen with SmolLM2
#: and 150 updates of 1,024 tokens: behind with 27,000 words of Tatar, ahead with 1.2 MB of Armenian, about 90,000 words.
LITTLE_TEXT = 60_000
#: A character of these scripts says as much as its UTF-8 bytes do in an alphabet.
_DENSE = [SCRIPTS.index(name) for name in ("Hani", "Hang", "Hira", "Kana")]


@dataclass(frozen=True)
class Knowledge:
    """What the untouched model makes of a language.

    ``tokens_per_word`` and ``tokens_per_character`` are its tokenizer's, ``bits_per_character`` the model's own; None
    where it was not run. Characters of Chinese, Japanese and Korean count as three. ``of`` says what was measured.
    """

    tokens_per_word: float
    tokens_per_character: float
    bits_per_character: float | None
    of: Literal["text", "words"]

    @property
    def spelled(self) -> bool:
        """Whether the script is spelled in bytes or scraps of words."""
        return self.tokens_per_character > SPELLED

    @property
    def known(self) -> bool:
        """Whether the model knows the language."""
        if self.bits_per_character is None:
            return self.tokens_per_character <= FITTING
        return self.bits_per_character <= (KNOWN_TEXT if self.of == "text" else KNOWN_WORDS)


@dataclass(frozen=True)
class ShapeChoice:
    """The shape that was taken, whether the measure chose it, and why, in one sentence."""

    shape: Shape
    measured: bool
    reason: str
    knowledge: Knowledge | None = None
    notes: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Return it as plain data."""
        known = dataclasses.asdict(self.knowledge) if self.knowledge else None
        if known:
            known = {key: round(value, 3) if isinstance(value, float) else value for key, value in known.items()}
        return {"shape": self.shape, "measured": self.measured, "reason": self.reason, "source_knows": known}


def asked_lines(lines: Sequence[str]) -> list[str]:
    """Return the lines of held-out text that a choice is measured on: the first `ASKED_LINES`, without empty ones."""
    return [line for line in islice(lines, ASKED_LINES) if line.strip()]


def ask_source(source: Checkpoint, lines: Sequence[str], words: Mapping[str, float], seed: int = 0) -> Knowledge | None:
    """Measure what the untouched model makes of held-out lines, or of words drawn by their counts; None without either.

    A script that its tokenizer spells in bytes needs no run of the model; models too large for the memory get none.
    """
    texts = asked_lines(lines)
    of: Literal["text", "words"] = "text" if texts else "words"
    if not texts:
        if not words:
            return None
        texts = draw_words(words, seed)
    statistics = tokenizer_statistics(source.tokenizer, texts)
    characters = sum(map(weighted_characters, texts))
    found = Knowledge(statistics.tokens_per_word, statistics.tokens / characters, None, of)
    if found.spelled or cannot_score(source):
        return found
    with step(f"asking {source.name} what it knows of the language"):
        asked = list(limit_bytes((text[:ASKED_CHARACTERS] for text in texts), ASKED_BYTES))
        try:
            score = bits_per_byte(load_for_scoring(source.path), source.tokenizer, asked)
        except Exception:  # whatever a model class trips over: tokens a word still say much
            return found
    bits = score.nats / math.log(2) / sum(map(weighted_characters, asked))
    return dataclasses.replace(found, bits_per_character=bits)


def weighted_characters(text: str) -> int:
    """Return the number of characters of a text, those of Chinese, Japanese and Korean counted three times."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return len(points) + 2 * int(np.isin(character_scripts(points), _DENSE).sum())


def choose_shape(
    asked: Shape | Literal["auto"], source: Checkpoint, language: Language, known: Knowledge
) -> ShapeChoice:
    """Choose by what the source knows: extend (swap, where its body is quantised) a vocabulary that serves the language.

    A shape that was asked for is taken, with a note where the measure speaks against it.
    """
    figures = f"{known.tokens_per_word:.2f} tokens for a word of {language.name}"
    if known.bits_per_character is not None:
        figures += f" and {known.bits_per_character:.2f} bits for a character"
    name = source.name
    if known.spelled:
        best: Shape = "replace"
        reason = (
            f"{name} needs {figures}: it spells the script in bytes and scraps, so a vocabulary of its own pays most"
        )
    elif not known.known:
        best = "replace"
        reason = f"{name} needs {figures}: it hardly knows the language, so its tokens for it are worth little"
    else:
        best = "swap" if "quantization_config" in source.config else "extend"
        stays = "the size and all other ids stay" if best == "swap" else "every old token stays and new ones follow"
        reason = f"{name} needs {figures}: it knows the language, so {stays}"
    if asked == "auto" or asked == best:
        return ShapeChoice(best, asked == "auto", f"{reason}.", known)
    notes: tuple[str, ...] = ()
    if asked == "replace" and known.known and not known.spelled:
        notes = (
            f"{name} needs {figures}: its vocabulary serves {language.name} already, and replacing it costs more than it "
            "saves (Gemma 3 270M on Italian news: 1.02 bits per byte untouched, 1.13 extended by 6,000 tokens, 1.86 "
            "replaced). Compare with `vocabulary='extend'`.",
        )
    return ShapeChoice(asked, False, "It was asked for.", known, notes)


def replacing_saves_little(
    choice: ShapeChoice, source: Checkpoint, tokenizer: PreTrainedTokenizerFast, lines: Sequence[str]
) -> ShapeChoice | None:
    """Return another choice where the new vocabulary, once made, spells held-out lines hardly shorter than the source's.

    None where it does well, where a person asked for the shape, and for scripts that the source spells in bytes, which
    hardly any vocabulary does worse. Quechua, 5,663 strings of programs: 3.62 bits per byte untouched, 3.98 with a
    vocabulary of its own, 3.36 with one that was extended.
    """
    if choice.shape != "replace" or not choice.measured or choice.knowledge is None or choice.knowledge.spelled:
        return None
    texts = asked_lines(lines)
    if not texts:
        return None
    new, old = (tokenizer_statistics(each, texts).tokens_per_word for each in (tokenizer, source.tokenizer))
    if new <= LITTLE_SAVED * old:
        return None
    best: Shape = "swap" if "quantization_config" in source.config else "extend"
    reason = (
        f"A vocabulary made of this text needs {new:.2f} tokens for a word of the held-out text, hardly fewer than the "
        f"{old:.2f} of {source.name}: there is too little text, or it is unlike, so the old tokens stay and new ones follow."
    )
    return dataclasses.replace(choice, shape=best, reason=reason)


def little_text_notes(source: Checkpoint, words: Mapping[str, float]) -> tuple[str, ...]:
    """Return a warning where there is so little text that a new vocabulary saves tokens, but learns less than the old."""
    count = sum(words.values())
    if count >= LITTLE_TEXT or not source.continues_text:
        return ()
    return (
        f"{count:,.0f} words of text teach few rows of a new vocabulary. It needs fewer tokens at once, but if you train "
        f"the model further on this text, the vocabulary of {source.name} may end with fewer bits per byte on other kinds "
        f"of text (SmolLM2 on 17,000 words of Tatar: 1.37 against 1.57, and on the same kind 0.95 against 0.86). With "
        f"about 90,000 words of Armenian the new one ended ahead.",
    )
