"""Continued pre-training after a transfer: stages, exact resumption, objectives."""

from vocabtransfer.training.adaptation import AdaptResult, adapt
from vocabtransfer.training.interruption import Interrupted
from vocabtransfer.training.request import AdaptRequest
from vocabtransfer.training.stages import LoraShape, Stage

__all__ = ["AdaptRequest", "AdaptResult", "Interrupted", "LoraShape", "Stage", "adapt"]
