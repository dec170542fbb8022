"""The untouched model as a row of the leaderboard: with its own vocabulary, on the same text and in the same CPU time.

An update of some hundred tokens is a longer text for a vocabulary that writes it with fewer of them. So the model with its
own vocabulary is trained twice: until it has read as much text as the others, and until it has used as much CPU time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from vocabtransfer.leaderboard.contest import Contest, Row, load_rows, save_rows
from vocabtransfer.leaderboard.measuring import load_model, probed_scores, scored_in, scores_at_once

SAME_TEXT, SAME_SECONDS = "untouched", "untouched, same CPU seconds"
#: So many times the updates that the same text takes are the most for the same CPU time.
MOST = 4
SAMPLE_CHARACTERS = 200_000


def add_untouched(contest: Contest, rows: Sequence[Row], *, results: Path | None = None, seed: int = 0) -> list[Row]:
    """Return the rows of the untouched model that are not in ``results`` yet, or those that are.

    ``rows`` are those of the methods: the CPU time of the first with any is what the untouched model gets. The scores of
    both rows stand under the numbers of updates of the contest. Empty for encoders, whose source reads another language.
    """
    if not contest.source.continues_text:
        return []
    known = load_rows(results, contest) if results else []
    found = [row for row in known if row.label in (SAME_TEXT, SAME_SECONDS) and row.seed == seed]
    if found:
        return found
    model = load_model(contest.source, contest.precision)
    with scored_in(contest.precision):
        if contest.updates:
            made = _trained(contest, model, next((row.cpu_seconds for row in rows if row.cpu_seconds), {}), seed)
        else:
            made = [_scored(contest, model, seed)]
    if results is not None:
        save_rows(results, contest, [*known, *made])
    return made


def _scored(contest: Contest, model: PreTrainedModel, seed: int) -> Row:
    found = scores_at_once(contest, model, contest.source.tokenizer)
    return Row(SAME_TEXT, seed, found.scores, 0.0, 0.0, found.other, found.tokens_per_word)


def _trained(contest: Contest, model: PreTrainedModel, spent: dict[str, float] | object, seed: int) -> list[Row]:
    own = contest.source.tokenizer
    longer = _tokens(own, contest) / _tokens(contest.tokenizer, contest)
    updates = {max(1, round(count * longer)): str(count) for count in contest.updates}
    found = probed_scores(contest, model, own, list(updates), seed=seed)
    names = {"0": "0", **{str(count): name for count, name in updates.items()}}
    rows = [
        Row(
            SAME_TEXT,
            seed,
            {names[key]: value for key, value in found.scores.items()},
            0.0,
            0.0,
            {names[key]: value for key, value in found.other.items()},
            found.tokens_per_word,
            {names[key]: value for key, value in found.cpu_seconds.items()},
        )
    ]
    budgets = spent if isinstance(spent, dict) else {}
    scores, other, seconds = {"0": found.scores["0"]}, {}, {"0": 0.0}
    if "0" in found.other:
        other["0"] = found.other["0"]
    for count in contest.updates:
        if str(count) not in budgets:
            return rows
        most = MOST * max(updates)
        ended = probed_scores(contest, model, own, [most], seed=seed, until_cpu_seconds=budgets[str(count)])
        last = max(ended.scores, key=int)
        scores[str(count)], seconds[str(count)] = ended.scores[last], ended.cpu_seconds[last]
        if last in ended.other:
            other[str(count)] = ended.other[last]
    return [*rows, Row(SAME_SECONDS, seed, scores, 0.0, 0.0, other, found.tokens_per_word, seconds)]


def _tokens(tokenizer: PreTrainedTokenizerFast, contest: Contest) -> int:
    """Count the tokens of the training text, of a prefix where it is long."""
    documents: list[str] = []
    length = 0
    for document in contest.documents:
        documents.append(document)
        length += len(document)
        if length >= SAMPLE_CHARACTERS:
            break
    rows = tokenizer.backend_tokenizer.encode_batch_fast(documents, add_special_tokens=False)
    return max(1, sum(len(row.ids) for row in rows))
