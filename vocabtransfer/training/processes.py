"""Where training runs: one process, or several under `accelerate launch` or torchrun (DDP, FSDP, tensor parallel).

accelerate finds the device and the processes and wraps the model; what is needed beyond it is here. Sharding is FSDP2
(`fully_shard`), whatever version the launcher's settings name: its parameters keep their names and rows. Where the launcher
names a size of tensor parallelism, transformers cuts the model as it loads it; see `ModelShares`.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from vocabtransfer.errors import UsageError
from vocabtransfer.optimizer import numbers_at_a_time, own_part
from vocabtransfer.running.plan import find_device

Precision = Literal["fp32", "bf16"]

#: The launcher's settings of parallelism, as accelerate names them, and those that are not for training here.
_TENSOR, _SETTINGS = "PARALLELISM_CONFIG_TP_SIZE", "ACCELERATE_USE_PARALLELISM_CONFIG"
_REFUSED = {"CP_SIZE": "context parallelism", "SP_SIZE": "sequence parallelism", "DP_REPLICATE_SIZE": "replicas"}


@dataclass(frozen=True)
class ModelShares:
    """How processes share a model and the text: ``tensor`` neighbours hold one model together and read the same text.

    ``data`` groups of such neighbours read different text, ``place`` is the number of this process's group.
    """

    tensor: int = 1
    data: int = 1
    place: int = 0

    @classmethod
    def of(cls, accelerator: Accelerator) -> "ModelShares":
        """Return what the launcher asked for; `UsageError` where the processes cannot be shared out so."""
        processes, tensor = accelerator.num_processes, int(os.environ.get(_TENSOR, "1"))
        for key, what in _REFUSED.items():
            if tensor > 1 and int(os.environ.get(f"PARALLELISM_CONFIG_{key}", "1")) > 1:
                raise UsageError(f"Tensor parallelism does not go with {what}: leave that out.")
        if processes % tensor:
            raise UsageError(
                f"{processes} processes cannot hold a model in {tensor} parts: give a multiple of {tensor}."
            )
        return cls(tensor, processes // tensor, accelerator.process_index // tensor)

    def check(self, config: Any) -> None:
        """Raise `UsageError` where a model cannot be held so; ``config`` is transformers'.

        Models that are cut and sharded at once are refused: a tied table then gets other gradients than in one process
        (transformers 5.24: losses differ from the second update on), and rows alone do not train.
        """
        if self.tensor > 1 and self.data > 1:
            raise UsageError(
                f"A model cut in {self.tensor} parts needs {self.tensor} processes, not {self.tensor * self.data}: cutting "
                "and sharding at once is not there."
            )
        text = config.get_text_config(decoder=True)
        for key in ("num_attention_heads", "num_key_value_heads"):
            count = getattr(text, key, None)
            if isinstance(count, int) and count % self.tensor:
                raise UsageError(f"The model's {key} is {count}, which cannot be held in {self.tensor} parts.")

    def config(self) -> Any:
        """Return what transformers loads a model by, None where it is not to cut it."""
        if self.tensor == 1:
            return None
        try:
            from transformers.distributed.configuration_utils import DistributedConfig

            return DistributedConfig(tp_size=self.tensor)
        except (ImportError, TypeError):
            raise UsageError("Training with tensor parallelism needs transformers 5.24 or newer.") from None


#: Where accelerate reads which device a lone process takes.
_DEVICE = "ACCELERATE_TORCH_DEVICE"


def open_accelerator(
    dtype: Precision, *, cpu: bool = False, device: str | None = None, unused_parameters: bool = False
) -> Accelerator:
    """Return accelerate's handle on device and processes; parameters stay float32, ``bf16`` computes in bfloat16.

    Raises `UsageError` when the launcher asks for anything but one process, DDP or FSDP, for a device that is not there,
    and for one named to several processes.
    """
    place = None if device in (None, "auto") else find_device(device)
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    if place is not None and ":" in place and not alone:
        raise UsageError(f"Each process gets a device of its own from its launcher: leave out `device='{place}'`.")
    if cpu and place not in (None, "cpu"):
        raise UsageError(f"`cpu` and `device='{place}'` exclude each other.")
    cpu = cpu or place == "cpu"
    # A process may adapt several models, one after the other, in different precisions and places.
    AcceleratorState._reset_state(reset_partial_state=alone)
    GradientState._reset_state()
    named = {_DEVICE: place} if place is not None and alone else {}
    before = os.environ.get(_DEVICE)
    os.environ.update(named)
    try:
        return _accelerator(dtype, cpu, unused_parameters)
    finally:
        if named:
            os.environ.pop(_DEVICE)
            os.environ.update({} if before is None else {_DEVICE: before})


def _accelerator(dtype: Precision, cpu: bool, unused_parameters: bool) -> Accelerator:
    cut = int(os.environ.get(_TENSOR, "1")) > 1
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" and not cut
    with _without(_SETTINGS, *(["ACCELERATE_USE_FSDP"] if cut else [])):
        return _sharing(dtype, cpu, sharded, unused_parameters)


@contextmanager
def _without(*names: str) -> Iterator[None]:
    """Take variables out of the environment for as long as accelerate looks at it."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _sharing(dtype: Precision, cpu: bool, sharded: bool, unused_parameters: bool) -> Accelerator:
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2) if sharded else None
    if plugin is not None and plugin.cpu_ram_efficient_loading:
        plugin.cpu_ram_efficient_loading = False  # every process reads the weights: they are memory-mapped
    accelerator = Accelerator(
        mixed_precision="bf16" if dtype == "bf16" else "no",
        cpu=cpu,
        fsdp_plugin=plugin,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=unused_parameters)],
    )
    if plugin is not None and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # accelerate shards on accelerators only; torch does it on CPUs too, which is how the tests run it.
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = plugin
    if accelerator.distributed_type not in (
        *(DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.FSDP),
        *(DistributedType.MULTI_XPU, DistributedType.MULTI_NPU, DistributedType.MULTI_MLU),
    ):
        raise UsageError(f"Training runs in one process, with DDP or with FSDP, not {accelerator.distributed_type}.")
    return accelerator


def is_first_process() -> bool:
    """Tell whether this process speaks for all; launchers number their processes in the environment."""
    return os.environ.get("RANK", "0") == "0"


def leave_group() -> None:
    """Take leave of the other processes at the end of a program."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def computed_in(accelerator: Accelerator) -> torch.dtype:
    """Return the precision that products are computed in."""
    return torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32


def whole(tensor: Tensor, wanted: bool = True) -> Tensor | None:
    """Return a tensor as one piece on the CPU, itself where it is that, None where this process does not want it.

    All processes must call this for sharded tensors.
    """
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().to("cpu") if wanted else None


def like(full: Tensor, parameter: Tensor) -> Tensor:
    """Return a tensor of a parameter's shape as the parameter lies: on its device, and sharded as it is.

    Where it has one column or row for all of the parameter's, it stays whole along that side.
    """
    if isinstance(parameter, DTensor):
        mesh = parameter.device_mesh
        placements = [
            Replicate() if isinstance(place, Shard) and full.shape[place.dim] != parameter.shape[place.dim] else place
            for place in parameter.placements
        ]
        return distribute_tensor(full.to(mesh.device_type), mesh, placements)
    return full.to(parameter.device)


def summed(accelerator: Accelerator, *numbers: float) -> list[float]:
    """Return the sums of numbers over all processes."""
    if accelerator.num_processes == 1:
        return list(numbers)
    total = accelerator.reduce(torch.tensor(numbers, dtype=torch.float64, device=accelerator.device), "sum")
    return cast(list[float], cast(Tensor, total).tolist())


def gradient_norm(accelerator: Accelerator, gradients: Sequence[Tensor]) -> float:
    """Return the length of all gradients as one vector, the same in every process."""
    if not gradients:
        return 0.0
    own = [own_part(gradient) for gradient in gradients]
    # Summed in one order in float64, so that a resumed run cuts gradients to the same bit.
    norms = torch.stack([_length(piece) for piece in own])
    if not any(isinstance(gradient, DTensor) for gradient in gradients):
        return math.sqrt(float(norms.square().sum()))
    # A piece that several processes hold counts once.
    held = torch.tensor([_holders(gradient, accelerator.num_processes) for gradient in gradients]).to(norms)
    return math.sqrt(summed(accelerator, float((norms.square() / held).sum()))[0])


def _length(vector: Tensor) -> Tensor:
    """Return the length of all numbers of a tensor as one vector, float64 (); few of them at a time are float64."""
    pieces = vector.reshape(-1).split(numbers_at_a_time(vector))
    lengths: list[Tensor] = [torch.linalg.vector_norm(piece, dtype=torch.float64) for piece in pieces]
    return torch.linalg.vector_norm(torch.stack(lengths)) if len(lengths) > 1 else lengths[0]


def _holders(gradient: Tensor, processes: int) -> int:
    """Return how many of the processes hold the same piece of a gradient."""
    if not isinstance(gradient, DTensor):
        return processes
    mesh = gradient.device_mesh
    pieces = [mesh.size(side) for side, place in enumerate(gradient.placements) if not place.is_replicate()]
    return processes // math.prod(pieces)


def random_states(accelerator: Accelerator) -> dict[str, Tensor]:
    """Return the state of torch's random generators of every process, uint8, by name."""
    own = {"cpu": torch.get_rng_state()}
    if accelerator.device.type == "cuda":
        own["cuda"] = torch.cuda.get_rng_state(accelerator.device)
    everyone: list[Any] = [own]
    if accelerator.num_processes > 1:
        everyone = [None] * accelerator.num_processes
        torch.distributed.all_gather_object(everyone, own)
    return {f"{rank}.{kind}": state for rank, states in enumerate(everyone) for kind, state in states.items()}


def restore_random_states(accelerator: Accelerator, states: Mapping[str, Tensor]) -> None:
    """Set this process's generators as `random_states` found them; one that was not there then stays as it is."""
    own = f"{accelerator.process_index}."
    if f"{own}cpu" in states:
        torch.set_rng_state(states[f"{own}cpu"])
    if f"{own}cuda" in states and accelerator.device.type == "cuda":
        torch.cuda.set_rng_state(states[f"{own}cuda"], accelerator.device)


def named_trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by their names in the unwrapped model."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
