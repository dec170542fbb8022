"""What all stages of a training run share."""

from dataclasses import dataclass, field

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from vocabtransfer.training.interruption import StopSign
from vocabtransfer.training.objectives import Objective
from vocabtransfer.training.processes import ModelShares
from vocabtransfer.training.row_distiller import RowDistiller
from vocabtransfer.training.stage import ALL, BODY, LoraShape, Stage
from vocabtransfer.training.state import State
from vocabtransfer.training.table_forms import FormMaker
from vocabtransfer.training.text import Mixture
from vocabtransfer.training.throughput import Meter

#: How many times the body's rate tables take where most rows are new: SmolLM2 gained in three languages (docs/tried.md).
FASTER = 5.0
# What a change of rows that train alone has shrunk to at the end of their stage if nothing renews it, as the exponent: e to
# the minus PULL. By the stage, not by the update, so that a longer stage on more text holds rows less.
PULL = 1.0
# Logits and their gradients of one pass: 128 Mi float32 numbers are 512 MiB, which 1,024 x 131,072 just fits.
LOGITS_AT_A_TIME = 1 << 27


@dataclass(frozen=True)
class Pace:
    """How updates are made: none of it changes what is trained on.

    ``rows`` is what all processes together take for an update; ``passes`` cuts a process's share (None: so that logits
    take 512 MiB at most); ``evaluate_every`` and ``save_every`` are in updates; ``patience`` ends a stage after so many
    evaluations without a new best; ``keeps_best`` hands a stage's best point on, not its last. ``pull`` draws what learns
    towards where its stage began: it goes back by ``pull`` times the learning rate of the way at every update (L2-SP,
    arXiv 1802.01483); None leaves it to the stage. ``table_rate`` is how many times the stage's rate tables take where the
    body learns beside them; None leaves it to `Run.table_rate`. ``half_moments`` keeps AdamW's moments in bfloat16;
    ``apart`` is the separator of documents that are not to see each other, None where they may.
    """

    rows: int
    passes: int | None = None
    gradient_checkpointing: bool = False
    evaluate_every: int = 100
    save_every: int = 100
    patience: int | None = None
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    pull: float | None = None
    table_rate: float | None = None
    keeps_best: bool = False
    half_moments: bool = False
    apart: int | None = None


@dataclass(frozen=True, eq=False)
class Run:
    """What all stages of a run share.

    ``form`` makes what tables (rows, hidden), by name, are made of; None where every row learns for itself. ``shares`` says
    what this process holds and reads, ``memory`` what it needs. ``meters`` has the speed of the stages that this process
    trained, by their number.
    """

    accelerator: Accelerator
    tokenizer: PreTrainedTokenizerFast
    objective: Objective
    mixture: Mixture
    held_out: tuple[str, ...]
    state: State
    pace: Pace
    stages: tuple[Stage, ...]
    lora: LoraShape
    new_rows: NDArray[np.bool_] | None
    seed: int
    rows: RowDistiller | None = None
    form: FormMaker | None = None
    attention: str | None = None
    shares: ModelShares = field(default_factory=ModelShares)
    memory: str = ""
    stop: StopSign = field(default_factory=StopSign)
    meters: dict[int, Meter] = field(default_factory=dict)

    @property
    def tokens_per_update(self) -> int:
        """Places of an update, separators among them."""
        return self.pace.rows * self.mixture.target.block

    def pull(self, number: int) -> float:
        """Return by how many times its learning rate what stage ``number`` trains goes back at every update; see `Pace`.

        Left to itself, 0, but where rows are distilled alone (the first stage of a run with ``rows``) what makes `PULL` over
        the stage.
        """
        if self.pace.pull is not None:
            return self.pace.pull
        if self.rows is None or number > 0:
            return 0.0
        stage = self.stages[number]
        updates = stage.updates(self.tokens_per_update)
        return PULL / sum(stage.rate(update, updates) for update in range(updates))

    def table_rate(self, stage: Stage) -> float:
        """Return how many times a stage's rate tables take: 1 where they learn alone; see `Pace`.

        Left to itself, `FASTER` where all parameters learn and a transfer made more than half of the rows: such rows have
        more to learn than the body, and rows that the body knows do not.
        """
        if stage.name not in BODY:
            return 1.0
        if self.pace.table_rate is not None:
            return self.pace.table_rate
        mostly_new = self.new_rows is not None and bool(self.new_rows.mean() > 0.5)
        return FASTER if stage.name == ALL and mostly_new else 1.0
