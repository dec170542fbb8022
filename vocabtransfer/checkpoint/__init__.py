"""Open a model, see which of its tensors depend on the vocabulary, and write it with another vocabulary."""

from vocabtransfer.checkpoint.aliases import ALIASES, Alias, find_alias
from vocabtransfer.checkpoint.checkpoint import Checkpoint, read_checkpoint
from vocabtransfer.checkpoint.layout import VocabLayout, VocabTensor
from vocabtransfer.checkpoint.plan import PlannedFile, WritePlan, check_space, plan_checkpoint
from vocabtransfer.checkpoint.rewrite import WriteReport, write_checkpoint
from vocabtransfer.checkpoint.source import open_checkpoint
from vocabtransfer.checkpoint.tensors import TensorInfo
from vocabtransfer.files.staging import check_target

__all__ = [
    "ALIASES",
    "Alias",
    "Checkpoint",
    "PlannedFile",
    "TensorInfo",
    "VocabLayout",
    "VocabTensor",
    "WritePlan",
    "WriteReport",
    "check_space",
    "check_target",
    "find_alias",
    "open_checkpoint",
    "plan_checkpoint",
    "read_checkpoint",
    "write_checkpoint",
]
