"""The same work on a GPU: it runs, and gives what the CPU gives, up to rounding. Skipped where there is none."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adapt_samples
import pytest
import torch
from build_samples import write_long_pairs
from hydra_samples import TEXTS, Sample

import vocabtransfer as vt
from vocabtransfer.alignment.aligner import align_corpus
from vocabtransfer.evaluation.retrieval import sentence_vectors
from vocabtransfer.leaderboard.contest import Contest, Entry
from vocabtransfer.leaderboard.measuring import load_model, run_contest
from vocabtransfer.leaderboard.untouched import add_untouched
from vocabtransfer.pipeline.build import BuildRequest, build
from vocabtransfer.running.settings import running_with
from vocabtransfer.surgery.evidence import Evidence

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")


@pytest.fixture(scope="module", autouse=True)
def exact_products() -> Iterator[None]:
    """float32 products with float32 factors, as on the CPU."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_long_pairs(tmp_path_factory.mktemp("pairs") / "en-tt.tsv")


def table(folder: Path) -> torch.Tensor:
    return vt.open_checkpoint(folder).input_table().float()


@pytest.mark.parametrize(
    "options",
    [
        {"vocabulary": "replace"},
        {"vocabulary": "extend", "new_tokens": 30},
        {"vocabulary": "swap", "new_tokens": 20},
        {"vocabulary": "replace", "untie": True},
        {"vocabulary": "extend", "new_tokens": 30, "distill": "6"},
    ],
    ids=["replace", "extend", "swap", "untie", "distill"],
)
def test_a_build_makes_the_rows_that_it_makes_on_the_cpu(
    tiny_llama: Path, pairs: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    tables = []
    for device in ("cpu", "cuda"):
        request = BuildRequest(
            *(str(tiny_llama), "tatar", tmp_path / device), parallel=(pairs,), device=device, dtype="float32", **options
        )
        build(request)
        tables.append(table(tmp_path / device))
    assert tables[0].shape == tables[1].shape
    assert (tables[0] - tables[1]).norm() < 0.02 * tables[0].norm()


def test_evaluate_gives_the_score_of_the_cpu(tiny_llama: Path, pairs: Path) -> None:
    here, there = (
        vt.evaluate(tiny_llama, [pairs], field="1", device=device, max_bytes=3_000) for device in ("cpu", "cuda")
    )
    assert abs(here.bits_per_byte - there.bits_per_byte) < 0.05


@pytest.mark.parametrize("stage", ["tables:8:1e-2", "all:8:1e-3", "lora:8:1e-2"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_adapt_learns_as_on_the_cpu(tmp_path: Path, stage: str, dtype: str) -> None:
    model = adapt_samples.make_model(tmp_path / "model", dropout=0.0)
    text = adapt_samples.write_text(tmp_path / "text.txt")
    losses = []
    for device in ("cpu", "cuda"):
        options: dict[str, Any] = {"device": device, "cpu": device == "cpu", "dtype": dtype, "held_out": (text,)}
        result = vt.adapt(adapt_samples.request(model, text, tmp_path / device, stage, **options))
        losses.append(result.losses[0])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[1][-1] < losses[1][0]


@pytest.mark.parametrize("options", [{"tables": "map"}, {"pull": 1.0}, {"documents_apart": True}])
def test_adapt_in_its_other_ways(tmp_path: Path, options: dict[str, Any]) -> None:
    model = adapt_samples.make_model(tmp_path / "model")
    text = adapt_samples.write_text(tmp_path / "text.txt")
    request = adapt_samples.request(model, text, tmp_path / "out", "tables:6:1e-2", cpu=False, device="cuda", **options)
    losses = vt.adapt(request).losses[0]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("objective", ["distill", "alm"])
def test_a_teacher_is_listened_to(tiny_llama: Path, pairs: Path, tmp_path: Path, objective: str) -> None:
    request = BuildRequest(str(tiny_llama), "tatar", tmp_path / "made", parallel=(pairs,), vocabulary="replace")
    build(request)
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(line.split("\t")[1] for line in pairs.read_text("utf-8").splitlines()), "utf-8")
    losses = []
    for device in ("cpu", "cuda"):
        adapted = adapt_samples.request(
            *(tmp_path / "made", text, tmp_path / device, "tables:3:1e-3"),
            **{"cpu": device == "cpu", "device": device, "objective": objective, "teacher": str(tiny_llama)},
            block=32,
        )
        losses.append(vt.adapt(adapted).losses[0])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    model = adapt_samples.make_model(tmp_path / "model")
    text = adapt_samples.write_text(tmp_path / "text.txt")
    options: dict[str, Any] = {"cpu": False, "device": "cuda"}
    vt.adapt(adapt_samples.request(model, text, tmp_path / "whole", "all:8:1e-3", **options))
    with adapt_samples.dying_after(5):
        vt.adapt(adapt_samples.request(model, text, tmp_path / "parts", "all:8:1e-3", **options))
    vt.adapt(adapt_samples.request(model, text, tmp_path / "parts", "all:8:1e-3", resume=True, **options))
    whole, parts = (adapt_samples.parameters(tmp_path / name) for name in ("whole", "parts"))
    assert all(torch.allclose(whole[name], parts[name], atol=1e-5) for name in whole)


def test_a_contest_before_and_after_training(tiny_llama: Path, pairs: Path) -> None:
    lines = [tuple(line.split("\t")) for line in pairs.read_text("utf-8").splitlines()]
    some: list[tuple[str, str]] = [(a, b) for a, b in lines]
    source = vt.open_checkpoint(tiny_llama)
    tokenizer = vt.train_tokenizer([b for _, b in some], like=source.tokenizer, vocab_size=400)
    evidence = Evidence.of_pairs(some, alignment=align_corpus(some))
    contest = Contest(source, tokenizer, some, evidence, [b for _, b in some[:20]], updates=(4,), batch_tokens=256)
    methods = [Entry.parse(name) for name in ("auto", "pieces+calibrate", "inner_lexicon")]
    here = [row.scores["0"] for row in run_contest(contest, methods)]
    with running_with("cuda", "float32"):
        there = run_contest(contest, methods)
        assert add_untouched(contest, [])[0].scores["4"] > 0
    assert here == pytest.approx([row.scores["0"] for row in there], rel=0.02)


def test_sentence_vectors_of_an_encoder(minilm_folder: Path) -> None:
    source = vt.open_checkpoint(minilm_folder)
    texts = ["a book on the table", "the house"]
    here = sentence_vectors(load_model(source), source.tokenizer, texts)
    with running_with("cuda"):
        there = sentence_vectors(load_model(source), source.tokenizer, texts)
    assert here == pytest.approx(there, abs=1e-3)


def test_heads_write_as_on_the_cpu(sample: Sample) -> None:
    here, there = sample.load(), sample.load()
    there.to("cuda")
    for head in here.heads:
        written = []
        for model in (here, there):
            model.set_head(head)
            ids = torch.tensor([model.tokenizer(head).encode(TEXTS[head])], device=model.device)
            with torch.no_grad():
                written.append(model(input_ids=ids).logits.cpu())
        assert torch.allclose(written[0], written[1], atol=1e-3)
