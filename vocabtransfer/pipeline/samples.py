"""Sentences of the target language as both tokenizers cut them, for people to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from transformers import PreTrainedTokenizerFast

from vocabtransfer.surgery.transfer import TransferResult
from vocabtransfer.vocabulary import Kind, Vocabulary

#: Sentences shown, lines they are chosen from, and their length in characters.
SHOWN, LINES, SHORTEST, LONGEST = 5, 2_000, 40, 140
WORDS_A_LINE = 9


def sample_lines(text: Iterable[str] | None, words: Mapping[str, float]) -> list[str]:
    """Return a few lines of running text, spread over its beginning; of frequent long words when there is no text."""
    lines = [line.strip() for line in islice(text, LINES)] if text is not None else []
    chosen = list(dict.fromkeys(line for line in lines if SHORTEST <= len(line) <= LONGEST))
    if not chosen:
        chosen = list(dict.fromkeys(line[:LONGEST] for line in lines if len(line) > LONGEST))
    if chosen:
        count = min(SHOWN, len(chosen))
        return [chosen[i * len(chosen) // count] for i in range(count)]
    frequent = sorted((word for word in words if len(word) > 4), key=lambda word: (-words[word], word))
    rows = [frequent[i : i + WORDS_A_LINE] for i in range(0, min(len(frequent), 3 * WORDS_A_LINE), WORDS_A_LINE)]
    return [" ".join(row) for row in rows if row]


def cut_lines(result: TransferResult, lines: Iterable[str]) -> list[dict[str, Any]]:
    """Return each line with the pieces that the source's and the new tokenizer cut it into, as plain data."""
    inputs = result.inputs
    return [
        {
            "text": line,
            "before": pieces(result.source.tokenizer, inputs.source_vocabulary, line),
            "after": pieces(result.tokenizer, result.vocabulary, line),
        }
        for line in lines
    ]


def pieces(tokenizer: PreTrainedTokenizerFast, vocabulary: Vocabulary, line: str) -> list[str]:
    """Return the tokens of a line as a person reads them; a part of a character as the hex of its bytes."""
    ids = [i for i in tokenizer(line, add_special_tokens=False)["input_ids"] if i < len(vocabulary)]
    return [vocabulary.strings[i] if vocabulary.kinds[i] == Kind.SPECIAL else vocabulary.readable(i) for i in ids]
