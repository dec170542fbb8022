"""`build --distill`: budgets, what the report says, going on after an end, and what is refused."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from adapt_samples import Stop, files, one_thread
from build_samples import write_long_pairs

import vocabtransfer as vt
from vocabtransfer.errors import UsageError
from vocabtransfer.pipeline import distilled as module
from vocabtransfer.pipeline.build import BuildRequest, build
from vocabtransfer.pipeline.distilled import Budget
from vocabtransfer.training import AdaptRequest
from vocabtransfer.training.rates import rate_for
from vocabtransfer.training.row_fit import RowFit


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_long_pairs(tmp_path_factory.mktemp("corpus") / "en-tt.tsv")


def request(tiny: Path, corpus: Path, output: Path, **options: Any) -> BuildRequest:
    settings = {"vocabulary": "extend", "new_tokens": 30, "method": "pieces", "distill": "6", "held_out_bytes": 0}
    return BuildRequest(str(tiny), "tatar", output, parallel=(corpus,), **(settings | options))


@pytest.mark.parametrize(
    ("text", "updates", "minutes"),
    [
        ("400", 400, None),
        ("400updates", 400, None),
        ("200k", 391, None),
        ("200ktokens", 391, None),
        ("513tokens", 2, None),
        ("1.5M", 2930, None),
        ("20min", None, 20.0),
        ("0.5h", None, 30.0),
    ],
)
def test_budgets(text: str, updates: int | None, minutes: float | None) -> None:
    assert Budget.parse(text) == Budget(updates, minutes)


@pytest.mark.parametrize("text", ["", "0", "-3", "5s", "many", "0min", "1e3"])
def test_no_budgets(text: str) -> None:
    with pytest.raises(UsageError, match="`distill`"):
        Budget.parse(text)


def test_rows_learn_and_the_report_says_what_they_were_before(tiny_llama: Path, corpus: Path, tmp_path: Path) -> None:
    held_out = tmp_path / "held.txt"
    held_out.write_text("китап өстәл өстендә . яңа файл ачылды\n" * 30, encoding="utf-8")
    scored: dict[str, Any] = {"held_out": (held_out,), "held_out_bytes": 1_000}
    build(request(tiny_llama, corpus, tmp_path / "plain", distill=None, **scored))
    found = build(request(tiny_llama, corpus, tmp_path / "out", distill="30", **scored))
    plain, made = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("plain", "out"))
    assert plain["distillation"] is None and plain["held_out"]["result"] == made["distillation"]["before"]
    assert made["distillation"]["updates"] == 30 and made["distillation"]["new_rows"] == 30
    assert made["held_out"]["untouched"] == plain["held_out"]["untouched"]
    assert made["distillation"]["learning_rate"] == rate_for(vt.open_checkpoint(tiny_llama), module.LEARNING_RATE)
    assert made["distillation"]["last_loss"] < made["distillation"]["first_loss"]
    assert made["rows_by_rule"]["made room"] == made["distillation"]["rows"] - 30 > 0
    assert found.proof is not None and not (tmp_path / "out.distilling").exists()
    for name in ("report.html", "README.md"):
        assert f"{made['distillation']['before']['bits_per_byte']:.3f}" in (tmp_path / "out" / name).read_text()
    before, after = (vt.open_checkpoint(tmp_path / name).input_table() for name in ("plain", "out"))
    moved = (before != after).any(dim=1)
    assert 0 < int(moved.sum()) <= made["distillation"]["rows"] and moved[-30:].any()


@pytest.mark.slow
def test_a_build_that_was_stopped_goes_on_with_the_same_bytes(
    tiny_llama: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAVE_EVERY", 2)
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    build(request(tiny_llama, corpus, folders[0] / "out"))
    own, calls = RowFit.update, [0]

    def dying(self: RowFit, *arguments: Any) -> float:
        calls[0] += 1
        if calls[0] == 4:
            raise Stop
        return own(self, *arguments)

    stopped = request(tiny_llama, corpus, folders[1] / "out")
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(RowFit, "update", dying)
        build(stopped)
    assert not (folders[1] / "out").exists() and (folders[1] / "out.distilling" / "rows.adapting").is_dir()
    with pytest.raises(UsageError, match="begun with other settings"):
        build(replace(stopped, distill="7"))
    build(stopped)
    assert files(folders[0] / "out") == files(folders[1] / "out")


@pytest.mark.slow
def test_a_time_becomes_updates_once(
    tiny_llama: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def within(minutes: float, request: Any) -> int:
        asked.append(minutes)
        return min(module.__dict__["measured"](minutes, request), 5)

    monkeypatch.setitem(module.__dict__, "measured", module.updates_within)
    monkeypatch.setattr(module, "updates_within", within)
    found = build(request(tiny_llama, corpus, tmp_path / "out", distill="0.05min"))
    assert asked == [0.05] and 1 <= found.facts["distillation"]["updates"] <= 5


@pytest.mark.parametrize(
    ("has_units", "dtype", "expected"),
    [(True, None, "bf16"), (False, None, "fp32"), (True, "float32", "fp32"), (False, "bfloat16", "bf16")],
)
def test_rows_are_distilled_in_what_the_machine_computes_fast_unless_told(
    tiny_llama: Path,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_units: bool,
    dtype: str | None,
    expected: str,
) -> None:
    asked = []

    def noted(request: AdaptRequest) -> Any:
        asked.append((request.dtype, request.device))
        raise Stop

    monkeypatch.setattr(module, "multiplies_bfloat16", lambda: has_units)
    monkeypatch.setattr(module, "distilled_rows", noted)
    with pytest.raises(Stop):
        build(request(tiny_llama, corpus, tmp_path / "out", dtype=dtype, held_out_bytes=0))
    assert asked == [(expected, "cpu")]


def test_heads_of_separate_models_and_dry_runs(tiny_llama: Path, corpus: Path, tmp_path: Path) -> None:
    made = request(tiny_llama, corpus, None, as_head="tatar", into=tmp_path / "hydra")  # type: ignore[arg-type]
    found = build(made)
    assert found.head is not None and found.facts["distillation"]["updates"] == 6
    dry = build(request(tiny_llama, corpus, tmp_path / "dry"), dry_run=True)
    assert dry.facts["distillation"] is None and not (tmp_path / "dry.distilling").exists()
    assert torch.isfinite(found.transfer.table("input")).all()  # type: ignore[arg-type]


def test_without_text_there_is_nothing_to_learn_from(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`distill` needs running text"):
        build(BuildRequest(str(tiny_llama), "tatar", tmp_path / "out", distill="5"))


@pytest.mark.slow
def test_a_real_model_reads_its_new_tokens_better(smollm2_folder: Path, tmp_path: Path) -> None:
    lines = (Path(__file__).parent.parent / "data" / "held_out" / "nl.txt").read_text(encoding="utf-8").splitlines()
    names = ("text.txt", "held.txt")
    parts = (lines[: len(lines) * 3 // 4], lines[len(lines) * 3 // 4 :])
    for name, part in zip(names, parts, strict=True):
        (tmp_path / name).write_text("\n".join(part) + "\n", encoding="utf-8")
    asked = BuildRequest(
        str(smollm2_folder),
        "dutch",
        tmp_path / "out",
        text=(tmp_path / "text.txt",),
        held_out=(tmp_path / "held.txt",),
        held_out_bytes=3_000,
        vocabulary="extend",
        new_tokens=100,
        method="pieces",
        distill="12",
    )
    facts = build(asked).facts
    before, after = (side["bits_per_byte"] for side in (facts["distillation"]["before"], facts["held_out"]["result"]))
    assert after < before - 0.05
    assert facts["held_out"]["result"]["tokens_per_word"] < facts["held_out"]["untouched"]["tokens_per_word"]
