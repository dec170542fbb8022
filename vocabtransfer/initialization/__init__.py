"""Training-free initialisers: from two vocabularies and evidence to a token map."""

from vocabtransfer.initialization import methods
from vocabtransfer.initialization.inputs import Initialization, Noise, Shift, TransferInputs
from vocabtransfer.initialization.registry import METHODS, Method, find_method

__all__ = ["METHODS", "Initialization", "Method", "Noise", "Shift", "TransferInputs", "find_method", "methods"]
