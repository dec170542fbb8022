"""A whole leaderboard: the inputs read, every method measured, the untouched model beside them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vocabtransfer.errors import UsageError
from vocabtransfer.initialization import METHODS, Need
from vocabtransfer.leaderboard.contest import Contest, Entry, summary
from vocabtransfer.leaderboard.inputs import LeaderboardRequest, open_contest
from vocabtransfer.leaderboard.measuring import run_contest
from vocabtransfer.leaderboard.untouched import add_untouched
from vocabtransfer.public import public

#: What is compared where nothing is named.
COMPARED = ("auto", "trans_tokenization", "pieces", "mean")


@public
def run_leaderboard(
    request: LeaderboardRequest,
    methods: Sequence[str] = COMPARED,
    *,
    seeds: int = 1,
    results: str | Path | None = None,
) -> tuple[Contest, list[dict[str, Any]]]:
    """Compare methods of making rows on the same text; the untouched model stands among them.

    Args:
        request: source, language and text.
        methods: such as ``"auto"`` or ``"mean+calibrate"``; ``("all",)`` are those that need no donor, unless the request
            names one.
        seeds: how often each is measured, with another seed each time.
        results: a file that keeps what was measured; what is in it is not measured again.

    Returns the contest, and a line for each method with its scores, as the command prints it with ``--json``.

    Raises:
        UsageError: an unknown method, or a file of results of another contest.
        VocabTransferError: what reading, aligning, the methods and the scoring raise.
    """
    if request.vocabulary not in ("replace", "extend", "swap", "auto"):
        raise UsageError(f"vocabulary is replace, extend, swap or auto, not {request.vocabulary!r}.")
    if request.precision not in ("float32", "bfloat16"):
        raise UsageError(f"a leaderboard runs in float32 or bfloat16, not in {request.precision!r}.")
    contest = open_contest(request)
    if list(methods) == ["all"]:
        methods = [name for name, method in METHODS.items() if contest.evidence.donor or Need.DONOR not in method.needs]
    kept = Path(results) if results is not None else None
    rows = run_contest(contest, [Entry.parse(text) for text in methods], seeds=range(seeds), results=kept)
    rows += add_untouched(contest, rows, results=kept)
    return contest, summary(rows)
