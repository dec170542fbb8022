"""Measuring models and tokenizers: bits per byte, tokens per word, and short probes of freshly made tables."""

from vocabtransfer.evaluation.bits_per_byte import BitsPerByte, bits_per_byte
from vocabtransfer.evaluation.checkpoint import Evaluation, evaluate
from vocabtransfer.evaluation.fertility import TokenizerStatistics, tokenizer_statistics
from vocabtransfer.evaluation.probe import ProbeResult, probe
from vocabtransfer.evaluation.suite import SuiteResult, run_suite
from vocabtransfer.evaluation.texts import read_documents

__all__ = [
    "BitsPerByte",
    "Evaluation",
    "ProbeResult",
    "SuiteResult",
    "TokenizerStatistics",
    "bits_per_byte",
    "evaluate",
    "probe",
    "read_documents",
    "run_suite",
    "tokenizer_statistics",
]
