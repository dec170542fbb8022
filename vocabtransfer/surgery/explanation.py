"""Why a row of a new vocabulary is what it is, in words a person can read."""

from __future__ import annotations

from dataclasses import dataclass

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.token_map import TokenMap
from vocabtransfer.vocabulary import Vocabulary

SOURCE_STRINGS = "source_tokens.json"


@dataclass(frozen=True)
class Explanation:
    """Why a row of the new vocabulary is what it is."""

    id: int
    token: str
    text: str
    rule: str
    evidence: float
    sources: tuple[tuple[str, float], ...]


def source_names(vocabulary: Vocabulary) -> list[str]:
    """Return a readable name for every source token: see `Vocabulary.readable`."""
    return [vocabulary.readable(i) for i in range(len(vocabulary))]


def explain(token_map: TokenMap, vocabulary: Vocabulary, names: list[str], token: int | str) -> Explanation:
    """Explain a row by id, or by text: as a word after a space first, then as it stands, then as a raw string."""
    row = token if isinstance(token, int) else _find(vocabulary, token)
    if not 0 <= row < token_map.n_target:
        raise VocabTransferError(f"There is no token {row}: the vocabulary has ids 0 to {token_map.n_target - 1}.")
    columns = token_map.row(row)
    labels = [column_name(token_map, names, column) for column, _ in columns]
    return Explanation(
        id=row,
        token=vocabulary.strings[row],
        text=vocabulary.text(row) or "",
        rule=token_map.rule_of(row),
        evidence=float(token_map.evidence[row]),
        sources=tuple((label, weight) for label, (_, weight) in zip(labels, columns, strict=True)),
    )


def column_name(token_map: TokenMap, names: list[str], column: int) -> str:
    """Return the readable name of a column of a token map."""
    if column >= token_map.n_source:
        return token_map.group_names[column - token_map.n_source]
    return names[column] if column < len(names) else f"<row {column}>"


def _find(vocabulary: Vocabulary, text: str) -> int:
    index = vocabulary.index()
    content = text.strip() or text
    for key in ((content.encode(), True), (text.encode(), False)):
        if key in index:
            return index[key]
    if text in vocabulary.strings:
        return vocabulary.strings.index(text)
    raise VocabTransferError(f"{text!r} is not one token of the new vocabulary; try one of its pieces.")
