"""AdamW whose two moments are kept in bfloat16: half the optimiser's memory, the same arithmetic."""

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor

from vocabtransfer.training.processes import own_part

#: Numbers of a parameter that are worked on at a time: three float32 pieces of these are all that a step needs besides.
NUMBERS_AT_A_TIME = 1 << 22


class HalfMomentsAdamW(torch.optim.AdamW):
    """`torch.optim.AdamW` with moments of bfloat16; parameters, gradients and all arithmetic stay as they are.

    Moments are widened to float32, moved, used, and rounded to the nearest bfloat16 at the end of a step; what the step
    itself uses is not rounded. A rounding is off by at most 2^-9 of a moment, and is forgotten as fast as the moment is:
    with betas of 0.9 and 0.95 the first moment stays within 2 % of what it would be, of the largest it lately was, and the
    second within 4 %. A beta near 1 is another matter: at 0.999 a moment would stick where it is, so it is refused.

    Parameters may be sharded (`DTensor`): each process steps its own part. The state is ``step`` float32 (), ``exp_avg``
    and ``exp_avg_sq`` in bfloat16 and the parameter's shape, as `torch.optim.AdamW` names them.
    """

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], weight_decay: float = 0.0) -> None:
        if max(betas) > 0.97:
            raise ValueError(f"moments in bfloat16 need betas up to 0.97, not {betas}")
        super().__init__(params, lr=lr, betas=betas, weight_decay=weight_decay)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Make one update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)
        return loss

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            for moment in ("exp_avg", "exp_avg_sq"):
                state[moment] = torch.zeros_like(parameter, dtype=torch.bfloat16, memory_format=torch.contiguous_format)
        state["step"] += 1
        done = float(state["step"])
        (beta1, beta2), rate = group["betas"], float(group["lr"])
        own = own_part(parameter)
        values = own.contiguous().view(-1)  # a copy where it is not contiguous
        assert parameter.grad is not None, "a parameter without a gradient is left alone"
        gradient, first, second = (
            own_part(tensor).contiguous().view(-1) for tensor in (parameter.grad, state["exp_avg"], state["exp_avg_sq"])
        )
        length = rate / (1 - beta1**done)
        root = (1 - beta2**done) ** 0.5
        values.mul_(1 - rate * group["weight_decay"])
        for start in range(0, values.numel(), NUMBERS_AT_A_TIME):
            part = slice(start, start + NUMBERS_AT_A_TIME)
            pushed = gradient[part].float()
            mean = first[part].float().lerp_(pushed, 1 - beta1)
            square = second[part].float().mul_(beta2).addcmul_(pushed, pushed, value=1 - beta2)
            first[part].copy_(mean)
            second[part].copy_(square)
            values[part].addcdiv_(mean, square.sqrt_().div_(root).add_(group["eps"]), value=-length)
        if not own.is_contiguous():
            own.copy_(values.view(own.shape))
