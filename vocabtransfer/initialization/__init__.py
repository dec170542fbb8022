"""Training-free initialisers: from two vocabularies and evidence to a token map."""

from vocabtransfer.initialization import auto, baselines, clp, merge_tree, omp, presets, sava, trans_tokenization
from vocabtransfer.initialization.inputs import (
    DenseRows,
    Donor,
    Initialization,
    Noise,
    Part,
    Shift,
    Tables,
    TransferInputs,
    VectorFiles,
)
from vocabtransfer.initialization.registry import METHODS, Method, Need, find_method

__all__ = [
    "METHODS",
    "DenseRows",
    "Donor",
    "Initialization",
    "Method",
    "Need",
    "Noise",
    "Part",
    "Shift",
    "Tables",
    "TransferInputs",
    "VectorFiles",
    "auto",
    "baselines",
    "clp",
    "find_method",
    "merge_tree",
    "omp",
    "presets",
    "sava",
    "trans_tokenization",
]
