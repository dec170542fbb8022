"""Parallel text: reading it, aligning its words, and the tables of word-pair counts that this leaves."""

from vocabtransfer.alignment.aligner import align, align_corpus
from vocabtransfer.alignment.word_alignment import WordAlignment

__all__ = ["WordAlignment", "align", "align_corpus"]
