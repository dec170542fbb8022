"""A little text of the target language: to run the source on, and to measure what was made of it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.files.text import Text
from vocabtransfer.running.load import cannot_run
from vocabtransfer.running.plan import cannot_fit
from vocabtransfer.running.states import SourceStates
from vocabtransfer.surgery.unigram_calibration import draw_words

#: Lines that are drawn, characters of a document, and characters of each half of a sample.
LINES, DOCUMENT, CHARACTERS = 600, 1_500, 9_000


@dataclass(frozen=True)
class Sample:
    """Documents to fit rows on, and others to measure rows on. ``running`` is False for words drawn by their counts."""

    fitting: tuple[str, ...]
    measuring: tuple[str, ...]
    running: bool


def draw_sample(words: Mapping[str, float], text: Text | None, seed: int) -> Sample | None:
    """Draw lines of running text where there is some, else words by their counts; None when there are neither.

    The same text and seed give the same sample.
    """
    lines = _lines(text, seed) if text is not None else []
    running = sum(map(len, lines)) >= DOCUMENT
    if not running:
        if not words:
            return None
        lines = draw_words(words, seed)
    documents, current = list[str](), ""
    for line in lines:
        current += line + "\n"
        if len(current) >= DOCUMENT:
            documents.append(current)
            current = ""
    documents = documents or [current]
    wanted = max(CHARACTERS // DOCUMENT, 1)
    measuring = documents[1::2][:wanted] or documents[:1]
    return Sample(tuple(documents[::2][:wanted]), tuple(measuring), running)


def _lines(text: Text, seed: int) -> list[str]:
    """Return lines drawn evenly from a text of any length, read once (reservoir sampling), in random order."""
    generator, kept = random.Random(seed), list[str]()
    for number, line in enumerate(line for line in text() if line.strip()):
        if len(kept) < LINES:
            kept.append(line.strip())
        elif (place := generator.randrange(number + 1)) < LINES:
            kept[place] = line.strip()
    generator.shuffle(kept)
    return kept


def source_states(source: Checkpoint, sample: Sample | None) -> SourceStates | None:
    """Return the source to be run on a sample; None for models that cannot be run on text alone here."""
    first = _separator(source)
    if sample is None or first is None or not source.continues_text:
        return None
    if cannot_run(source.config) or cannot_fit(source) or source.layout.odd_table is not None:
        return None

    def encoded() -> list[NDArray[np.int64]]:
        ids = source.tokenizer(list(sample.fitting), add_special_tokens=False)["input_ids"]
        return [np.array(row, np.int64) for row in ids if row]

    return SourceStates(source.path, first, encoded)


def _separator(source: Checkpoint) -> int | None:
    """Return the token that stands before a document: bos of the tokenizer or the configuration, else eos."""
    config = source.config.get("text_config") or source.config
    for role in ("bos_token_id", "eos_token_id"):
        for found in (getattr(source.tokenizer, role, None), config.get(role)):
            one = found[0] if isinstance(found, list) and found else found
            if isinstance(one, int):
                return one
    return None
