"""Continued pre-training after a transfer: stages, exact resumption, objectives.

The names load what they need on first use: a stage is read from its words without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vocabtransfer.training.stage import LoraShape, Stage

if TYPE_CHECKING:
    from vocabtransfer.training.adaptation import AdaptResult, adapt
    from vocabtransfer.training.interruption import Interrupted
    from vocabtransfer.training.request import AdaptRequest

_HOMES = {"AdaptResult": "adaptation", "adapt": "adaptation", "Interrupted": "interruption", "AdaptRequest": "request"}

__all__ = ["AdaptRequest", "AdaptResult", "Interrupted", "LoraShape", "Stage", "adapt"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
