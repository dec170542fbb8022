"""What memory a run takes, computed before anything is loaded and said in one sentence."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.running.plan import needs_memory
from vocabtransfer.training.attention import EAGER
from vocabtransfer.training.processes import ModelShares
from vocabtransfer.training.request import AdaptRequest
from vocabtransfer.training.run import LOGITS_AT_A_TIME
from vocabtransfer.training.stage import ALL, BODY, LORA, OUTER, Stage
from vocabtransfer.training.stages import layer_number, outer_numbers
from vocabtransfer.training.throughput import head_width

_ADVICE = (
    "take `gradient_checkpointing`, `optimizer_dtype` bfloat16, a larger `passes`, a smaller `block`, or stages that train "
    "less (tables, lora), or share the model among processes (FSDP)"
)


@dataclass(frozen=True)
class Need:
    """Bytes of one process, or of the largest of several stages.

    ``weights`` are all parameters in float32, ``gradients`` and ``moments`` those of what learns, ``activations`` what one
    pass keeps for its way back, logits among it.
    """

    weights: float
    gradients: float
    moments: float
    activations: float

    @property
    def total(self) -> int:
        """All of it."""
        return int(self.weights + self.gradients + self.moments + self.activations)

    def sentence(self, name: str, accelerator: Accelerator) -> str:
        """Say what is needed and free, for all processes of this machine where they share its memory.

        Raises `VocabTransferError` when that is too little.
        """
        device = str(accelerator.device)
        sharing = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if device == "cpu" else 1
        parts = {"weights": self.weights, "gradients": self.gradients, "moments": self.moments}
        shown = [f"{what} {size * sharing / 1e9:.1f}" for what, size in parts.items()]
        said = needs_memory(f"Training {name}", self.total * sharing, device, _ADVICE)
        return f"{said[:-1]} ({', '.join(shown)}, activations {self.activations * sharing / 1e9:.1f})."


def need_of(
    request: AdaptRequest,
    checkpoint: Checkpoint,
    stages: Sequence[Stage],
    config: Any,
    size: tuple[int, int],
    accelerator: Accelerator,
) -> Need:
    """Return what the hungriest of some stages takes in one process; ``size`` is a process's rows of an update, and block.

    Weights, gradients and moments are counted. Activations are those of a Llama-like layer, from what autograd keeps
    there: of other families they are an estimate.
    """
    counts = _parameters(checkpoint)
    every = sum(counts.values())
    sharded = accelerator.distributed_type == DistributedType.FSDP
    shares = ModelShares.of(accelerator)
    parts = accelerator.num_processes if sharded or shares.tensor > 1 else 1
    copies = 2 if accelerator.num_processes > 1 and parts == 1 else 1  # DDP gathers gradients in a second place
    moments = 4 if request.optimizer_dtype == "bf16" else 8
    largest = max(_groups(counts).values(), default=0)
    found = []
    for stage in stages:
        learns, added = _learning(stage, counts, request.lora.rank, checkpoint)
        pulled = 4 * learns if request.pull else 0
        # Of what is sharded one layer, or the tables, are whole at a time.
        gathered = (8 if learns else 4) * largest if parts > 1 else 0
        found.append(
            Need(
                4 * (every + added) / parts + gathered + pulled,
                4 * copies * learns / parts,
                moments * learns / parts,
                _activations(request, stage, config, size, checkpoint.layout.rows, learns > every / 2),
            )
        )
    return max(found, key=lambda need: need.total)


def _parameters(checkpoint: Checkpoint) -> dict[str, int]:
    """Return the numbers of each parameter: of a table that is stored twice, once."""
    layout = checkpoint.layout
    twice = {tensor.name for tensor in layout.tensors if tensor.part == "output"} if layout.tied else set()
    return {name: math.prod(info.shape) for name, info in checkpoint.tensors.items() if name not in twice}


def _groups(counts: dict[str, int]) -> dict[int | None, int]:
    """Return the numbers of each layer, and under None of what is in no layer."""
    sums: dict[int | None, int] = {}
    for name, count in counts.items():
        number = layer_number(name)
        sums[number] = sums.get(number, 0) + count
    return sums


def _learning(stage: Stage, counts: dict[str, int], rank: int, checkpoint: Checkpoint) -> tuple[int, int]:
    """Return how many numbers a stage trains, and how many of them it adds to the model."""
    if stage.name == ALL:
        return sum(counts.values()), 0
    tables = sum(counts.get(tensor.name, 0) for tensor in checkpoint.layout.tensors)
    if stage.name == OUTER:
        layers = _groups(counts)
        outer = outer_numbers([number for number in layers if number is not None])
        return tables + sum(layers[number] for number in outer), 0
    if stage.name == LORA:
        names = {tensor.name for tensor in checkpoint.layout.tensors}
        shapes = [info.shape for name, info in checkpoint.tensors.items() if name not in names]
        added = rank * sum(sum(shape[-2:]) * math.prod(shape[:-2]) for shape in shapes if len(shape) > 1)
        return tables + added, added
    return tables, 0


def _activations(
    request: AdaptRequest, stage: Stage, config: Any, size: tuple[int, int], vocabulary: int, body: bool
) -> float:
    rows, block = size
    at_once = math.ceil(rows / request.passes) if request.passes else max(LOGITS_AT_A_TIME // (block * vocabulary), 1)
    places = min(at_once, rows) * block
    text = config.get_text_config(decoder=True)
    layers, hidden = (int(getattr(text, key, 0) or 0) for key in ("num_hidden_layers", "hidden_size"))
    each = layer_bytes(text, block, request.dtype == "bf16", body or stage.name in BODY, request.attention)
    kept = layers * 4 * hidden + each if request.gradient_checkpointing else layers * each
    logits = vocabulary * (16 if request.dtype == "bf16" else 12)
    return float(places * (kept + logits))


def layer_bytes(text: Any, block: int, half: bool, body: bool, attention: str | None) -> float:
    """Return what autograd keeps of a layer for a token: inputs of norms and products, attention's, the feed-forward's.

    ``text`` is the configuration of a body of text; ``body`` says that matrices of the layer learn, so that what went into
    them is kept too; ``half`` that products are computed in bfloat16.
    """
    hidden = int(getattr(text, "hidden_size", 0) or 0)
    heads = int(getattr(text, "num_attention_heads", 0) or 0)
    keys = head_width(text) * int(getattr(text, "num_key_value_heads", None) or heads)
    inner = getattr(text, "moe_intermediate_size", None) if getattr(text, "num_experts_per_tok", None) else None
    inner = int(inner or getattr(text, "intermediate_size", None) or 4 * hidden)
    inner *= int(getattr(text, "num_experts_per_tok", None) or 1)
    states, pairs, product = _KEPT[half, body]
    scores = 2 * heads * block * (2 if half else 4) if attention == EAGER else 0
    return states * hidden + pairs * keys + product * inner + scores


#: Bytes that autograd keeps of a layer of Llama for each number of its hidden state, of its keys, and of the inner side of
#: its feed-forward part, by whether products are in bfloat16 (of autocast, which keeps both precisions), and whether the
#: layer's matrices learn. Counted with torch 2.13; norms of queries and keys (Qwen 3) take up to 8 more for each number of
#: the hidden state, those behind the parts too (Gemma 3) 24.
_KEPT = {
    (False, False): (16, 8, 12),
    (False, True): (32, 8, 16),
    (True, False): (20, 12, 18),
    (True, True): (38, 12, 20),
}
