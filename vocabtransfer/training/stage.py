"""A stage of an adaptation as a person writes it: name, budget, learning rate. Nothing heavy is imported."""

import math
import re
from dataclasses import dataclass

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.public import public, settle_fields

NEW, TABLES, OUTER, LORA, ALL = "new", "tables", "outer", "lora", "all"
STAGE_NAMES = (NEW, TABLES, OUTER, LORA, ALL)
#: Stages in which parts of the body learn beside the tables.
BODY = (OUTER, LORA, ALL)
LONGEST_WARM_UP = 100
LAST_SHARE = 0.1

_BUDGET = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>[kMG]?)(?P<tokens>t|tokens?)?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True)
class Stage:
    """One stage: a name of `STAGE_NAMES`, a budget in updates or in tokens, and the highest learning rate.

    - ``new``: the rows that the transfer did not copy, and nothing else;
    - ``tables``: input table and head (one where they are tied), and the head's bias;
    - ``outer``: tables, and the first and last two layers (as in arXiv 2408.04303);
    - ``lora``: tables, and low-rank updates of every linear layer of the body (as in arXiv 2412.07633);
    - ``all``: every parameter.
    """

    name: str
    budget: int
    in_tokens: bool
    learning_rate: float

    def __post_init__(self) -> None:
        settle_fields(self)

    @classmethod
    @public
    def parse(cls, text: str) -> "Stage":
        """Read ``NAME:BUDGET:LEARNING_RATE``; a budget is a number of updates, or of tokens as in ``5Mtokens``.

        Raises `UsageError` for anything else.

        >>> Stage.parse("tables:2k:2e-4"), Stage.parse("lora:1.5Mtokens:1e-4").budget
        (Stage(name='tables', budget=2000, in_tokens=False, learning_rate=0.0002), 1500000)
        """
        name, budget, rate = [*text.split(":"), "", ""][:3]
        found = _BUDGET.fullmatch(budget)
        if text.count(":") != 2 or found is None:
            raise UsageError(
                f"`stages` {text}: write NAME:BUDGET:LEARNING-RATE, such as tables:2000:2e-4 or tables:5Mtokens:2e-4."
            )
        if name not in STAGE_NAMES:
            raise UsageError(f"`stages` {text}: the stages are {', '.join(STAGE_NAMES)}, not {name!r}.")
        number = round(float(found["number"]) * _UNITS[found["unit"]])
        try:
            learning_rate = float(rate)
        except ValueError:
            learning_rate = math.nan
        if number < 1 or not 0 < learning_rate < math.inf:
            raise UsageError(f"`stages` {text}: the budget must be 1 or more and the learning rate a number above 0.")
        return cls(name, number, found["tokens"] is not None, learning_rate)

    def check_finite(self, number: float, what: str, update: int) -> None:
        """Raise `VocabTransferError` when a loss or gradient of an update (counted from 1) is no number any more."""
        if not math.isfinite(number):
            raise VocabTransferError(
                f"The {what} became NaN or infinite at update {update} of stage {self.name}: give the stage a lower "
                f"learning rate than {self.learning_rate:g} and go on with `resume` and `restart_stage`, which begins this "
                "stage again."
            )

    @property
    def label(self) -> str:
        """The text that `parse` reads."""
        return f"{self.name}:{self.budget}{'tokens' if self.in_tokens else ''}:{self.learning_rate:g}"

    def updates(self, tokens_per_update: int) -> int:
        """Return how many updates the budget is worth."""
        return math.ceil(self.budget / tokens_per_update) if self.in_tokens else self.budget

    def rate(self, update: int, updates: int) -> float:
        """Return the learning rate of update number ``update`` (from 0) of ``updates``.

        It rises for a tenth of the stage, at most 100 updates, and falls along a cosine to a tenth of its height.
        """
        warm_up = min(LONGEST_WARM_UP, max(updates // 10, 1))
        if update < warm_up:
            return self.learning_rate * (update + 1) / warm_up
        done = (update - warm_up) / max(updates - warm_up, 1)
        return self.learning_rate * (LAST_SHARE + (1 - LAST_SHARE) * (1 + math.cos(math.pi * done)) / 2)


def default_stages(has_map: bool, on_cpu: bool = False) -> tuple[Stage, ...]:
    """Return the stages of a run for which none were named: rows, tables, outer layers; see `Stage`.

    On a CPU they are rows and tables, and short: what brings most, in a time that one waits for.

    The rates are near those of arXiv 2412.21140, which calls tables very sensitive: on small batches, rows that a
    transfer made well are unlearned at 1e-3 before they improve.
    """
    first = (Stage(NEW, 100, False, 3e-4),) if has_map else ()
    if on_cpu:
        return (*(Stage(NEW, 50, False, 3e-4) for _ in first), Stage(TABLES, 300, False, 2e-4))
    return (*first, Stage(TABLES, 500, False, 2e-4), Stage(OUTER, 500, False, 1e-4))


@dataclass(frozen=True)
class LoraShape:
    """Rank and scale of the low-rank updates; the update counts ``alpha / rank`` times."""

    rank: int = 8
    alpha: float = 32.0
