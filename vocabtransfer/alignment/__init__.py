"""Parallel text: reading it, aligning its words, and the tables of word-pair counts that this leaves."""

from vocabtransfer.alignment.aligner import WordAlignment, align, count_words

__all__ = ["WordAlignment", "align", "count_words"]
