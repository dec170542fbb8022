"""A tiny model of every family with a vocabulary: built anew, it loads, agrees with itself, and thinks as before."""

from pathlib import Path

import pytest
from architecture_samples import families, make, tokenizers
from architecture_verdicts import judge
from build_samples import write_pairs

from vocabtransfer.errors import UnexpectedError
from vocabtransfer.pipeline.build import build
from vocabtransfer.pipeline.request import BuildRequest

QUICK = (
    *("bart", "bert", "clip", "gemma2", "gemma3_text", "gpt2", "llama", "qwen3", "roberta", "t5", "whisper", "rwkv"),
    *("deepseek_v3", "deepseek_v4", "gemma3n_text", "gemma4_text", "mllama", "t5gemma"),
)
HELD_OUT = Path(__file__).parents[1] / "data" / "held_out" / "tt.txt"
#: Whatever else changes, these must not be refused.
WORK = {
    "gemma2",
    "gemma3_text",
    "gpt2",
    "llama",
    "qwen3",
    "bert",
    "roberta",
    "bart",
    "t5",
    "deepseek_v3",
    "gemma4_text",
    "t5gemma",
}


@pytest.mark.parametrize("family", QUICK)
def test_popular_families(family: str, tmp_path: Path) -> None:
    verdict = judge(family, tmp_path)
    assert verdict.state != "wrong", verdict
    assert verdict.state == "works" or family not in WORK, verdict


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name in families() if name not in QUICK])
def test_no_family_is_silently_wrong(family: str, tmp_path: Path) -> None:
    """Works, is refused in a sentence, or cannot be made: never wrong and never a traceback."""
    verdict = judge(family, tmp_path)
    assert verdict.state != "wrong", verdict


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama4", "kosmos-2"])
def test_what_does_not_run_on_text_alone_is_built_with_a_note(family: str, tmp_path: Path) -> None:
    old, _ = tokenizers()
    source = tmp_path / "source"
    made_as = make(family, source, old)
    pairs = write_pairs(tmp_path / "en-tt.tsv")  # the shipped tables are large, and the same for any model
    result = build(BuildRequest(str(source), "tatar", output=tmp_path / "out", parallel=(pairs,), vocab_size=400))
    assert result.proof is not None and result.proof.loaded.startswith(made_as)
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_model_that_fails_while_it_is_scored_leaves_a_note(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise UnexpectedError("bits_per_byte failed") from AttributeError("no image_outputs")

    monkeypatch.setattr("vocabtransfer.pipeline.scoring.score_new_tables", fails)
    pairs = write_pairs(tmp_path / "en-tt.tsv")
    asked = {"parallel": (pairs,), "held_out": (HELD_OUT,), "vocab_size": 400}
    request = BuildRequest(str(tiny_llama), "tatar", output=tmp_path / "out", **asked)  # type: ignore[arg-type]
    notes = " ".join(build(request).facts["notes"])
    assert "The result was not scored: the model did not run (no image_outputs)." in notes
