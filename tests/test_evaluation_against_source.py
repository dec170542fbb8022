"""The untouched model and what was made from it, on the same bytes."""

import math
from pathlib import Path

import pytest

from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.evaluation import against_source
from vocabtransfer.evaluation.against_source import score_against_source, score_checkpoint

DOCUMENTS = ["китап өстәл өстендә ята", "яңа файл ачылды, мин аны күрәм"] * 20


def test_both_are_scored_on_the_same_bytes(tiny_llama: Path) -> None:
    source = open_checkpoint(tiny_llama)
    both = score_against_source(source, source, DOCUMENTS, max_bytes=500)
    assert both.source == both.result and both.gain == 0
    assert 490 <= both.source.bytes <= 500
    # A model with random weights needs about as much as drawing tokens blindly.
    blind = both.source.tokens * math.log2(len(source.tokenizer)) / both.source.bytes
    assert both.source.bits_per_byte == pytest.approx(blind, rel=0.05)
    facts = both.facts()
    assert facts["untouched"]["bytes"] == both.source.bytes and facts["gain"] == 0


def test_a_model_that_does_not_fit_is_named(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(against_source, "fits_in_memory", lambda parameters: False)
    with pytest.raises(VocabTransferError, match="does not fit into half of the free memory"):
        score_checkpoint(open_checkpoint(tiny_llama), DOCUMENTS)
