"""Measuring models and tokenizers: bits per byte, tokens per word, and short probes of freshly made tables."""

from vocabtransfer.evaluation.bits_per_byte import BitsPerByte, bits_per_byte

__all__ = ["BitsPerByte", "bits_per_byte"]
