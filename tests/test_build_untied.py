"""`build --untie`: the same model with a head of its own, whose new rows may differ from the input's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from build_samples import write_long_pairs
from transformers import AutoModelForCausalLM

from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.checkpoint.tying import with_tying
from vocabtransfer.errors import UsageError
from vocabtransfer.pipeline.build import BuildRequest, build


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_long_pairs(tmp_path_factory.mktemp("corpus") / "en-tt.tsv")


def request(tiny: Path, corpus: Path, output: Path | None, **options: Any) -> BuildRequest:
    settings = {"vocabulary": "extend", "new_tokens": 20, "method": "pieces", "untie": True, "held_out_bytes": 0}
    return BuildRequest(str(tiny), "tatar", output, parallel=(corpus,), **(settings | options))


def tables(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(folder)
    return model.get_input_embeddings().weight.detach(), model.get_output_embeddings().weight.detach()


def test_the_source_reads_the_same_with_a_head_of_its_own(tiny_llama: Path) -> None:
    tied = open_checkpoint(tiny_llama)
    assert tied.layout.tied
    untied = with_tying(tied, False)
    assert not untied.layout.tied and untied.layout.output_name not in (None, untied.layout.input_name)
    torch.testing.assert_close(untied.output_table(), tied.input_table(), rtol=0, atol=0)
    assert (untied.trained_rows() == tied.trained_rows()).all()
    assert untied.tokenizer.get_vocab() == tied.tokenizer.get_vocab()
    again = with_tying(untied, True)
    assert set(again.tensors) == set(tied.tensors) and again.layout == tied.layout


def test_equal_rows_make_the_same_model(tiny_llama: Path, corpus: Path, tmp_path: Path) -> None:
    for name, untie in (("tied", False), ("untied", True)):
        build(request(tiny_llama, corpus, tmp_path / name, untie=untie))
    for name in ("tied", "untied"):
        assert open_checkpoint(tmp_path / name).layout.tied == (name == "tied")
    ids = torch.tensor([[3, 8, 300, 301, 7]])
    with torch.no_grad():
        logits = [AutoModelForCausalLM.from_pretrained(tmp_path / name)(ids).logits for name in ("tied", "untied")]
    torch.testing.assert_close(logits[0], logits[1])


def test_a_method_may_make_two_rows_of_a_token(tiny_llama: Path, corpus: Path, tmp_path: Path) -> None:
    result = build(request(tiny_llama, corpus, tmp_path / "out", method="eeve", held_out_bytes=500))
    assert any("table of its own now" in note for note in result.facts["notes"])
    source = open_checkpoint(tiny_llama)
    entering, leaving = tables(tmp_path / "out")
    old = len(source.tokenizer)
    for table in (entering, leaving):
        torch.testing.assert_close(table[:old], source.input_table()[:old].float(), rtol=0, atol=0)
    assert len(entering) == len(leaving) == old + 20
    assert not torch.equal(entering[old:], leaving[old:])
    again = build(request(tmp_path / "out", corpus, tmp_path / "again", new_tokens=5))
    assert any("head of its own already" in note for note in again.facts["notes"])


def test_distilled_rows_of_both_sides_are_written(tiny_llama: Path, corpus: Path, tmp_path: Path) -> None:
    build(request(tiny_llama, corpus, tmp_path / "plain"))
    build(request(tiny_llama, corpus, tmp_path / "out", distill="4"))
    before, after = tables(tmp_path / "plain"), tables(tmp_path / "out")
    moved = [(a != b).any(dim=1) for a, b in zip(before, after, strict=True)]
    assert moved[0][-20:].any() and moved[1][-20:].any()
    assert not moved[0][:-20].any(), "as inputs, old tokens stay"
    assert not torch.equal(after[0][-20:], after[1][-20:])


def test_what_cannot_be_untied_is_refused(tiny_llama: Path, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`untie` is for a checkpoint"):
        build(request(tiny_llama, corpus, None, as_head="tt", into=tmp_path / "hydra"))
    assert not list(tmp_path.iterdir())
