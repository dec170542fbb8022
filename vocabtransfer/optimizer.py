"""AdamW for models whose tables are what is trained: rows that a text says nothing about are held, moments may be halved."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

#: Numbers of a parameter that are worked on at a time: a few float32 pieces of these are all that a step needs besides.
NUMBERS_AT_A_TIME = 1 << 22
#: The same on a CPU, where pieces should stay in its cache.
NUMBERS_IN_CACHE = 1 << 18
#: The key of a group of parameters whose rows are held.
HELD = "held"


class TableAdamW(torch.optim.AdamW):
    """`torch.optim.AdamW` that holds rows of tables which a text says nothing about, and may keep moments in bfloat16.

    Adam divides a number's gradient by the root of its second moment, so its step is about as long as the rate however
    small the gradient is. Every row of a head has a gradient in every update: it is pushed down by what the model wrongly
    expects of it, hardly at all if that is a millionth, but always in the same direction. Under Adam such rows go as far as
    those that the text teaches; in a tied table they are then read wrongly too. In groups with ``held`` set, what is divided
    by is the root of the number's own second moment *plus the mean of its column*, over rows that ever had a gradient. A
    row that was taught moves as under Adam, a row that was not stays nearly where it is. Coupled Adam (arXiv 2502.08441)
    takes the mean alone, which moves frequent rows by many times the rate.

    Groups without ``held`` are stepped by torch, as ``fused`` says, unless ``moments`` is bfloat16. Then moments are widened
    to float32, moved, used, and rounded to the nearest bfloat16 at the end of a step. A rounding is off by at most 2^-9 of
    a moment, and is forgotten as fast as the moment is: with betas of 0.9 and 0.95 the first moment stays within 2 % of
    what it would be, of the largest it lately was, and the second within 4 %. A beta near 1 is another matter: at 0.999 a
    moment would stick where it is, so it is refused.

    Parameters may be sharded (`DTensor`): each process steps its own part, and columns are averaged over all. The state is
    ``step`` float32 (), ``exp_avg`` and ``exp_avg_sq`` in the parameter's shape, as `torch.optim.AdamW` names them.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float = 0.0,
        *,
        moments: torch.dtype = torch.float32,
        fused: bool | None = None,
    ) -> None:
        if moments != torch.float32 and max(betas) > 0.97:
            raise ValueError(f"moments in bfloat16 need betas up to 0.97, not {betas}")
        self._moments = moments
        super().__init__(params, lr=lr, betas=betas, weight_decay=weight_decay, fused=fused)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Make one update of every parameter that has a gradient."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not self._is_ours(group)]
        try:
            loss: float | None = super().step(closure)
        finally:
            self.param_groups = groups
        for group in filter(self._is_ours, groups):
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)
        return loss

    def _is_ours(self, group: dict[str, Any]) -> bool:
        return bool(group.get(HELD)) or self._moments != torch.float32

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            for moment in ("exp_avg", "exp_avg_sq"):
                state[moment] = torch.zeros_like(parameter, dtype=self._moments, memory_format=torch.contiguous_format)
        state["step"] += 1
        done = float(state["step"])
        (beta1, beta2), rate = group["betas"], float(group["lr"])
        held = bool(group.get(HELD)) and parameter.dim() == 2
        own = own_part(parameter)
        width = own.shape[1] if held else 1
        assert parameter.grad is not None, "a parameter without a gradient is left alone"
        lying = (parameter, _as_it_lies(parameter.grad, parameter), state["exp_avg"], state["exp_avg_sq"])
        # A copy where one is not contiguous.
        values, gradient, first, second = (own_part(tensor).contiguous().view(-1, width) for tensor in lying)
        root = (1 - beta2**done) ** 0.5
        length, least = rate * root / (1 - beta1**done), group["eps"] * root
        if group["weight_decay"]:
            values.mul_(1 - rate * group["weight_decay"])
        if held:
            held_rows = HeldRows(values, gradient, first, second)
            sums = _over_all(held_rows.take_in(1 - beta1, 1 - beta2), parameter)
            held_rows.move(sums, length, least)
        else:
            for part in _parts(values):
                mean, square = _taken_in(gradient[part], first[part], second[part], 1 - beta1, 1 - beta2)
                values[part].addcdiv_(mean, square.sqrt().add_(least), value=-length)
        if not own.is_contiguous():
            own.copy_(values.view(own.shape))


class HeldRows:
    """A table's part in this process and what a step of it needs, all (rows, columns); moments are changed in place.

    On a CPU, where all is float32, loops are compiled: a few passes over memory instead of a dozen. Sums are over the same
    parts in the same order whatever the number of threads.
    """

    def __init__(self, values: Tensor, gradient: Tensor, first: Tensor, second: Tensor) -> None:
        self.values, self.gradient, self.first, self.second = values, gradient, first, second

    def _can_be_compiled(self) -> bool:
        every = (self.values, self.gradient, self.first, self.second)
        return all(each.device.type == "cpu" and each.dtype == torch.float32 for each in every)

    def take_in(self, new1: float, new2: float) -> Tensor:
        """Let the moments take in the gradient by these shares of it.

        Return the sums of the second moments over rows, and last how many rows ever had a gradient: (1 + columns,), in
        float64 where there is that, since a float32 sum can depend on where in memory the numbers lie.
        """
        if self._can_be_compiled():
            return self._take_in_compiled(new1, new2)
        wide = torch.float32 if self.values.device.type == "mps" else torch.float64
        sums = torch.zeros(self.values.shape[1] + 1, dtype=wide, device=self.values.device)
        for part in _parts(self.values):
            _, square = _taken_in(self.gradient[part], self.first[part], self.second[part], new1, new2)
            sums[:-1] += square.sum(0, dtype=wide)
            sums[-1] += (square.amax(1) > 0).sum()
        return sums

    def move(self, sums: Tensor, length: float, least: float) -> None:
        """Move the values against the first moments; ``sums`` are those of `take_in`, over all processes."""
        means = (sums[:-1] / sums[-1].clamp(min=1)).float()
        if self._can_be_compiled():
            self._move_compiled(means.numpy(), length, least)
            return
        for part in _parts(self.values):
            divisor = (self.second[part].float() + means).sqrt_().add_(least)
            self.values[part].addcdiv_(self.first[part].float(), divisor, value=-length)

    def _take_in_compiled(self, new1: float, new2: float) -> Tensor:
        from vocabtransfer.held_kernels import take_in  # numba takes half a second to import

        gradient, first, second = (each.detach().numpy() for each in (self.gradient, self.first, self.second))
        parts = list(_parts(self.values))
        sums = np.zeros((len(parts), self.values.shape[1] + 1))

        def one(number: int, part: slice) -> None:
            take_in(gradient[part], first[part], second[part], np.float32(new1), np.float32(new2), sums[number])

        _in_threads(one, parts)
        return torch.from_numpy(sums.sum(0))

    def _move_compiled(self, means: NDArray[np.float32], length: float, least: float) -> None:
        from vocabtransfer.held_kernels import move

        values, first, second = (each.detach().numpy() for each in (self.values, self.first, self.second))

        def one(number: int, part: slice) -> None:
            move(values[part], first[part], second[part], means, np.float32(least), np.float32(length))

        _in_threads(one, list(_parts(self.values)))


def _in_threads(work: Callable[[int, slice], None], parts: list[slice]) -> None:
    """Work on every part, given its number too, in as many threads as torch has; the work leaves Python's lock alone."""
    if torch.get_num_threads() == 1 or len(parts) == 1:
        for number, part in enumerate(parts):
            work(number, part)
        return
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(work, range(len(parts)), parts))


def _taken_in(gradient: Tensor, first: Tensor, second: Tensor, new1: float, new2: float) -> tuple[Tensor, Tensor]:
    """Let a part of the moments take in the gradient; return them in float32, before they are rounded."""
    pushed = gradient.float()
    mean = first.float().lerp_(pushed, new1)
    square = second.float().mul_(1 - new2).addcmul_(pushed, pushed, value=new2)
    if first.dtype != torch.float32:  # else they are where they belong
        first.copy_(mean)
        second.copy_(square)
    return mean, square


def numbers_at_a_time(tensor: Tensor) -> int:
    """Return how many numbers of a tensor are worked on at a time, where it lies."""
    return NUMBERS_IN_CACHE if tensor.device.type == "cpu" else NUMBERS_AT_A_TIME


def own_part(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor, the whole of one that is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _as_it_lies(gradient: Tensor, parameter: Tensor) -> Tensor:
    """Return a gradient shared out among processes as its parameter is; models cut in parts get some in other pieces."""
    if isinstance(gradient, DTensor) and isinstance(parameter, DTensor):
        return gradient.redistribute(placements=parameter.placements)
    return gradient


def _parts(values: Tensor) -> Iterator[slice]:
    """Yield some rows at a time."""
    rows = max(numbers_at_a_time(values) // max(values.shape[1], 1), 1)
    for start in range(0, len(values), rows):
        yield slice(start, start + rows)


def _over_all(sums: Tensor, parameter: Tensor) -> Tensor:
    """Return sums over the rows of this process's part as sums over all rows."""
    if isinstance(parameter, DTensor):
        for dimension, placement in enumerate(parameter.placements):
            if isinstance(placement, Shard) and placement.dim == 0:
                torch.distributed.all_reduce(sums, group=parameter.device_mesh.get_group(dimension))
    return sums
