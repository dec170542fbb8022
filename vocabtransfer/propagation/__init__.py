"""Vocabularies carried from one model to its relatives: Learned Embedding Propagation, task arithmetic, layer restore."""

from vocabtransfer.propagation.adapters import LoraDonor, open_adapted
from vocabtransfer.propagation.learned import METHODS, PropagationResult, propagate
from vocabtransfer.propagation.restore import RestoreResult, restore_layers

__all__ = [
    "METHODS",
    "LoraDonor",
    "PropagationResult",
    "RestoreResult",
    "open_adapted",
    "propagate",
    "restore_layers",
]
