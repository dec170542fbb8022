"""The untouched model and what was made from it, on the same bytes."""

import math
from pathlib import Path

import pytest
from torch import Tensor

from vocabtransfer.checkpoint import Checkpoint, open_checkpoint
from vocabtransfer.checkpoint.synthetic import LLAMA3_70B, toy_tokenizer, write_hollow_checkpoint
from vocabtransfer.evaluation.against_source import (
    cannot_score,
    score_against_source,
    score_checkpoint,
    score_new_tables,
)
from vocabtransfer.running.load import load_causal_model
from vocabtransfer.running.plan import plan_run
from vocabtransfer.running.settings import running_with
from vocabtransfer.tokenization.save import save_tokenizer

DOCUMENTS = ["китап өстәл өстендә ята", "яңа файл ачылды, мин аны күрәм"] * 20


def _tables(source: Checkpoint) -> tuple[Tensor, Tensor]:
    model = load_causal_model(source.path)
    return model.get_input_embeddings().weight.data, model.get_output_embeddings().weight.data


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


def test_a_model_that_does_not_fit_is_scored_layer_by_layer(tiny_llama: Path) -> None:
    source = open_checkpoint(tiny_llama)
    whole = score_checkpoint(source, DOCUMENTS)
    with running_with(memory=1000):
        assert plan_run(source).streamed
        assert score_checkpoint(source, DOCUMENTS) == whole
        both = score_new_tables(source, source.tokenizer, (*_tables(source), None), DOCUMENTS)
    assert both.source == both.result == whole


def test_hours_are_not_spent_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_hollow_checkpoint(tmp_path / "large", {**LLAMA3_70B, "num_hidden_layers": 4}, shard_bytes=5 * 10**9)
    save_tokenizer(toy_tokenizer(["hello"]), folder)
    large = open_checkpoint(folder)
    monkeypatch.setattr("vocabtransfer.running.plan.multiplications", lambda device, dtype: 1e9)
    refusal = cannot_score(large)
    assert refusal.startswith("large was not scored: that would take")
    monkeypatch.setattr("vocabtransfer.running.plan.multiplications", lambda device, dtype: 1e15)
    assert cannot_score(large) == ""
