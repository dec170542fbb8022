"""Hydras on disk: adding, removing, renaming and listing heads, and what is refused before anything is written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra_samples import HIDDEN, Sample, ids_for, one_thread, tokenizer, transferred  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from vocabtransfer.checkpoint import Checkpoint, open_checkpoint
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.hydra import (
    HydraForCausalLM,
    add_head,
    add_head_from_checkpoint,
    create_hydra,
    describe_head,
    export_head,
    list_heads,
    open_hydra,
    remove_head,
    rename_head,
    verify_head,
)
from vocabtransfer.hydra.names import check_name
from vocabtransfer.surgery.opened_map import inspect

BAD_NAMES = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "a\\b",
    "/etc",
    "x.y",
    "-x",
    "_x",
    "a b",
    "con",
    "LPT1",
    "a" * 49,
    "x\0",
    "é/",
]


@pytest.fixture(scope="module")
def source(sample: Sample) -> Checkpoint:
    return open_checkpoint(sample.standalone["english"])


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def names(hydra: Path) -> list[str]:
    return [info.name for info in list_heads(hydra)]


def test_a_hydra_is_a_checkpoint_of_its_backbone(sample: Sample) -> None:
    model = AutoModelForCausalLM.from_pretrained(sample.hydra, dtype=torch.float32)
    ids = ids_for("english")
    assert torch.equal(model(ids).logits, sample.plain("english")(ids).logits)
    text = "hello world"
    assert AutoTokenizer.from_pretrained(sample.hydra).encode(text) == tokenizer("english").encode(text)


def test_weights_are_linked(sample: Sample, source: Checkpoint) -> None:
    for shard in source.shards:
        assert (sample.hydra / shard.file.name).samefile(shard.file)
    made = create_hydra(source, sample.hydra.parent / "copied", link="copy")
    for shard in source.shards:
        assert not (made.path / shard.file.name).samefile(shard.file)
        assert (made.path / shard.file.name).read_bytes() == shard.file.read_bytes()


def test_adding_writes_the_head_and_nothing_else(sample: Sample, source: Checkpoint, tmp_path: Path) -> None:
    made = create_hydra(source, tmp_path / "hydra", own_name="english")
    before = files(made.path)
    add_head(made, "tatar", transferred(source, "tatar"), language="tt")
    after = files(made.path)
    assert {name: after[name] for name in before} == before
    assert {Path(name).parts[:2] for name in after.keys() - before.keys()} == {("heads", "tatar")}
    assert files(made.path / "heads/tatar") == files(add_again(tmp_path, source))


def add_again(tmp_path: Path, source: Checkpoint) -> Path:
    made = create_hydra(source, tmp_path / "again", own_name="english")
    return add_head(made, "tatar", transferred(source, "tatar"), language="tt").folder


def test_a_head_says_what_it_is(sample: Sample) -> None:
    facts = describe_head(sample.hydra, "tatar")
    assert (facts["rows"], facts["hidden"], facts["tied"]) == (len(tokenizer("tatar")), HIDDEN, True)
    assert facts["language"] == "tt"
    assert facts["method"] == {"name": "pieces", "calibrated": False}
    assert sum(facts["evidence"]["rows_by_rule"].values()) == facts["rows"]
    assert facts["values"]["eos_token_id"] == tokenizer("tatar").eos_token_id
    assert inspect(sample.hydra / "heads/tatar").explain("сәлам").rule == "pieces"


def test_padded_heads_have_the_rows_of_padded_checkpoints(hydra: Path, source: Checkpoint, tmp_path: Path) -> None:
    result = transferred(source, "tatar")
    add_head(hydra, "padded", result, pad_to_multiple_of=64)
    built = open_checkpoint(result.save(tmp_path / "built", pad_to_multiple_of=64).path)
    head = open_hydra(hydra).head("padded")
    assert head.config.rows == built.layout.rows == -(-len(result.tokenizer) // 64) * 64
    assert torch.equal(load_file(head.folder / "head.safetensors")["input"], built.input_table())
    assert head.generation_config == built.generation_config


def test_a_finished_checkpoint_becomes_the_same_head(sample: Sample, hydra: Path) -> None:
    add_head_from_checkpoint(hydra, "again", open_checkpoint(sample.standalone["tatar"]))
    first, second = (load_file(hydra / "heads" / name / "head.safetensors") for name in ("tatar", "again"))
    assert torch.equal(first["input"], second["input"])
    described = [describe_head(hydra, name) for name in ("tatar", "again")]
    assert described[0]["values"] == described[1]["values"]
    assert inspect(hydra / "heads/again").explain("сәлам").rule == "pieces"


def test_names_are_listed_renamed_and_removed(hydra: Path) -> None:
    assert names(hydra) == ["english", "dutch", "tatar"]
    rename_head(hydra, "tatar", "татар")
    rename_head(hydra, "english", "anglais")
    assert names(hydra) == ["anglais", "dutch", "татар"]
    remove_head(hydra, "dutch")
    assert names(hydra) == ["anglais", "татар"]
    assert not list((hydra / "heads").glob(".*"))
    for name in names(hydra):
        assert verify_head(hydra, name).problem is None


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_is_never_a_path(hydra: Path, source: Checkpoint, name: str) -> None:
    before = files(hydra.parent)
    model = HydraForCausalLM.from_pretrained(hydra)
    attempts: list[Callable[[], object]] = [
        lambda: add_head(hydra, name, transferred(source, "tatar")),
        lambda: rename_head(hydra, "tatar", name),
        lambda: rename_head(hydra, name, "fine"),
        lambda: remove_head(hydra, name),
        lambda: export_head(hydra, name, hydra.parent / "out"),
        lambda: model.load_head(name),
        lambda: model.set_head(name),
        lambda: model.generate(ids_for("english"), head=name),
    ]
    for attempt in attempts:
        with pytest.raises(VocabTransferError) as caught:
            attempt()
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
    assert files(hydra.parent) == before


@given(st.text(max_size=60))
def test_allowed_names_are_one_part_of_a_path(name: str) -> None:
    try:
        allowed = check_name(name)
    except UsageError:
        return
    assert Path(allowed).parts == (allowed,)
    assert not allowed.startswith((".", "-"))
    assert len(allowed.encode()) < 200


@pytest.mark.parametrize("name", ["tatar", "Tatar", "english", "ENGLISH"])
def test_a_taken_name_is_refused(hydra: Path, source: Checkpoint, name: str) -> None:
    before = files(hydra)
    with pytest.raises(UsageError, match="already has a head named"):
        add_head(hydra, name, transferred(source, "tatar"))
    with pytest.raises(UsageError, match="already has a head named"):
        rename_head(hydra, "dutch", name)
    assert files(hydra) == before


def test_the_own_head_stays(hydra: Path) -> None:
    with pytest.raises(UsageError, match="own head"):
        remove_head(hydra, "english")


def test_a_name_taken_meanwhile_is_refused(hydra: Path, source: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process adds ``Uzbek`` between the look at the names and the writing of ``uzbek``."""
    heads = hydra / "heads"
    before = names(hydra)
    monkeypatch.setattr(
        "vocabtransfer.hydra.add._check_room", lambda *_: shutil.copytree(heads / "tatar", heads / "Uzbek")
    )
    with pytest.raises(UsageError, match="already has a head named Uzbek"):
        add_head(hydra, "uzbek", transferred(source, "dutch"))
    assert sorted(names(hydra)) == sorted([*before, "Uzbek"])
    assert not list(heads.glob(".*"))


def test_a_stray_part_of_a_killed_process_is_cleared(hydra: Path) -> None:
    stray = hydra / ".hydra.json.999999999.part"
    stray.write_text("{")
    open_hydra(hydra)
    assert not stray.exists()


def test_a_failed_addition_leaves_nothing(hydra: Path, source: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(hydra)
    result = transferred(source, "tatar")
    with pytest.raises(UsageError, match="extra file"):
        add_head(hydra, "new", result, extra_files={"../outside": b"x"})
    with pytest.raises(UsageError, match="extra file"):
        add_head(hydra, "new", result, extra_files={"tokenizer.json": b"x"})
    monkeypatch.setattr("vocabtransfer.hydra.add.find_difference", lambda *_: "made to fail")
    with pytest.raises(VocabTransferError, match="made to fail"):
        add_head(hydra, "new", result)
    assert files(hydra) == before
    assert not list((hydra / "heads").glob(".*"))


def test_rows_that_are_not_finite_are_refused(hydra: Path, source: Checkpoint) -> None:
    result = transferred(source, "tatar")
    rows = type(result).rows

    def broken(self: object, tensor: object, start: int, stop: int) -> torch.Tensor:
        values: torch.Tensor = rows(result, tensor, start, stop)  # type: ignore[arg-type]
        values[3] = torch.nan
        return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(result), "rows", broken)
        with pytest.raises(VocabTransferError, match="not finite"):
            add_head(hydra, "new", result)
    assert "new" not in names(hydra)


def test_an_existing_folder_is_not_overwritten(hydra: Path, source: Checkpoint) -> None:
    before = files(hydra)
    for overwrite in (False, True):
        with pytest.raises(VocabTransferError, match=r"is not from the run|exists already"):
            create_hydra(source, hydra, overwrite=overwrite)
    with pytest.raises(VocabTransferError, match="overlap"):
        export_head(hydra, "tatar", hydra / "heads/out")
    assert files(hydra) == before


def test_models_that_are_not_causal_are_refused(minilm_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(VocabTransferError, match="causal"):
        create_hydra(open_checkpoint(minilm_folder), tmp_path / "hydra")
    assert not (tmp_path / "hydra").exists()
