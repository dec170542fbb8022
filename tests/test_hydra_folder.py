"""Hydras on disk: adding, removing, renaming, verifying and exporting heads, and everything that is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra_samples import HIDDEN, Sample, ids_for, make_sample, make_source, one_thread, tokenizer, transferred  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from vocabtransfer.checkpoint import Checkpoint, open_checkpoint
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.hydra import (
    HydraForCausalLM,
    add_head,
    add_head_from_checkpoint,
    backbone_fingerprint,
    create_hydra,
    describe_head,
    export_concatenated,
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


@pytest.fixture
def hydra(sample: Sample, tmp_path: Path) -> Path:
    """A copy to write into."""
    return Path(shutil.copytree(sample.hydra, tmp_path / "hydra"))


@pytest.fixture(scope="module")
def source(sample: Sample) -> Checkpoint:
    return open_checkpoint(sample.standalone["english"])


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def names(hydra: Path) -> list[str]:
    return [info.name for info in list_heads(hydra)]


def damaged(hydra: Path, name: str = "tatar") -> str:
    """Return what a list says about a damaged head; the same sentence meets whoever loads it."""
    problem = next(info.problem for info in list_heads(hydra) if info.name == name)
    assert problem is not None
    model = HydraForCausalLM.from_pretrained(hydra, dtype=torch.float32)
    with pytest.raises(VocabTransferError) as caught:
        model.set_head(name)
    assert str(caught.value) == problem
    assert model.active_head == "english"
    return problem


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


def test_heads_of_another_backbone_are_refused_unless_forced(hydra: Path, tmp_path: Path) -> None:
    other = make_source(tmp_path / "other", seed=1)
    with pytest.raises(VocabTransferError, match="made for another backbone"):
        add_head(hydra, "foreign", transferred(other, "tatar"))
    assert "foreign" not in names(hydra)
    add_head(hydra, "foreign", transferred(other, "tatar"), force=True)
    info = next(info for info in list_heads(hydra) if info.name == "foreign")
    assert info.forced and info.problem is None
    HydraForCausalLM.from_pretrained(hydra).set_head("foreign")


def test_a_foreign_head_smuggled_in_is_refused_when_loaded(hydra: Path, tmp_path: Path) -> None:
    other = create_hydra(make_source(tmp_path / "other", seed=1), tmp_path / "second", own_name="english")
    head = add_head(other, "foreign", transferred(other.checkpoint, "tatar"))
    shutil.copytree(head.folder, hydra / "heads/foreign")
    assert "made for another backbone" in str(next(i.problem for i in list_heads(hydra) if i.name == "foreign"))
    with pytest.raises(VocabTransferError, match="made for another backbone"):
        HydraForCausalLM.from_pretrained(hydra).set_head("foreign")
    with pytest.raises(VocabTransferError, match="made for another backbone"):
        export_head(hydra, "foreign", tmp_path / "out")


def test_heads_of_another_width_are_refused_even_when_forced(hydra: Path, tmp_path: Path) -> None:
    config = hydra / "heads/tatar/head_config.json"
    values = json.loads(config.read_text())
    tables = load_file(hydra / "heads/tatar/head.safetensors")
    save_file({"input": tables["input"][:, :16].contiguous()}, hydra / "heads/tatar/head.safetensors")
    config.write_text(json.dumps({**values, "hidden": 16, "forced": True}))
    assert "rows of width 16" in damaged_when_set(hydra)


def damaged_when_set(hydra: Path) -> str:
    with pytest.raises(VocabTransferError) as caught:
        HydraForCausalLM.from_pretrained(hydra).set_head("tatar")
    return str(caught.value)


def test_the_fingerprint_is_the_bodys(sample: Sample, source: Checkpoint, tmp_path: Path) -> None:
    known = open_hydra(sample.hydra).fingerprint
    assert backbone_fingerprint(open_checkpoint(sample.standalone["tatar"])) == known
    assert backbone_fingerprint(make_source(tmp_path / "one", shards=False)) == known
    assert backbone_fingerprint(make_source(tmp_path / "untied", tied=False, seed=1)) != known
    tuned = shutil.copytree(source.path, tmp_path / "tuned")
    file = next(f for f in sorted(tuned.glob("*.safetensors")) if "model.norm.weight" in load_file(f))
    tensors = load_file(file)
    tensors["model.norm.weight"][3] += 0.001
    save_file(tensors, file, {"format": "pt"})
    assert backbone_fingerprint(open_checkpoint(tuned)) != known


def test_a_backbone_that_was_swapped_is_noticed(hydra: Path, tmp_path: Path) -> None:
    other = make_source(tmp_path / "other", seed=1)
    for shard in other.shards:
        (hydra / shard.file.name).unlink()
        shutil.copyfile(shard.file, hydra / shard.file.name)
    with pytest.raises(VocabTransferError, match="put its weights back"):
        HydraForCausalLM.from_pretrained(hydra)
    with pytest.raises(VocabTransferError, match="put its weights back"):
        verify_head(hydra, "tatar")


def test_truncated_tensors_are_refused_at_any_length(hydra: Path) -> None:
    file = hydra / "heads/tatar/head.safetensors"
    content = file.read_bytes()
    for length in (0, 4, 8, 20, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        assert str(file) in damaged(hydra)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"input": torch.zeros(288, 16)}, "instead of floats"),
        ({"input": torch.zeros(100, HIDDEN)}, "instead of floats"),
        ({"input": torch.zeros(288 * HIDDEN)}, "instead of floats"),
        ({"input": torch.zeros(288, HIDDEN, dtype=torch.int32)}, "instead of floats"),
        ({"output": torch.zeros(288, HIDDEN)}, "lacks the tensor 'input'"),
        ({"input": torch.zeros(288, HIDDEN), "output": torch.zeros(288, HIDDEN)}, "says that it is tied"),
        ({"input": torch.zeros(288, HIDDEN), "extra": torch.zeros(1)}, "no part of a head"),
    ],
)
def test_wrong_tensors_are_refused(hydra: Path, tensors: dict[str, torch.Tensor], said: str) -> None:
    assert len(tokenizer("tatar")) == 288
    save_file(tensors, hydra / "heads/tatar/head.safetensors")
    assert said in damaged(hydra)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": 287}, "instead of floats"),
        ({"rows": "288"}, "'rows' is '288'"),
        ({"rows": -1}, "'rows' is -1"),
        ({"tied": "yes"}, "'tied' is 'yes'"),
        ({"tied": False}, "lacks the tensor 'output'"),
        ({"format": 99}, "newer version"),
        ({"format": None}, "names no format"),
        ({"backbone": None}, "'backbone' is None"),
        ({"values": []}, "'values' is []"),
    ],
)
def test_a_damaged_config_is_refused(hydra: Path, change: dict[str, object], said: str) -> None:
    config = hydra / "heads/tatar/head_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    assert said in damaged(hydra)


def test_missing_and_unreadable_files_are_refused(hydra: Path) -> None:
    folder = hydra / "heads/tatar"
    (folder / "head_config.json").write_text("{not json")
    assert "is not JSON" in damaged(hydra)
    (folder / "head_config.json").unlink()
    assert "cannot be read" in damaged(hydra)
    shutil.rmtree(folder)
    folder.symlink_to(hydra / "heads/dutch")
    assert "symbolic link" in damaged(hydra)
    remove_head(hydra, "tatar")
    assert (hydra / "heads/dutch/head.safetensors").is_file()


def test_a_tokenizer_larger_than_the_tables_is_refused(hydra: Path) -> None:
    shutil.copyfile(hydra / "heads/tatar/tokenizer.json", hydra / "heads/dutch/tokenizer.json")
    with pytest.raises(VocabTransferError, match="does not fit"):
        HydraForCausalLM.from_pretrained(hydra).tokenizer("dutch")


def test_verifying_finds_a_changed_byte(hydra: Path) -> None:
    for name in ("head.safetensors", "tokenizer.json", "token_map.safetensors"):
        file = hydra / "heads/tatar" / name
        content = file.read_bytes()
        file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        with pytest.raises(VocabTransferError, match=name):
            verify_head(hydra, "tatar")
        file.write_bytes(content)
    verify_head(hydra, "tatar")
    (hydra / "heads/tatar/tokenizer_config.json").unlink()
    with pytest.raises(VocabTransferError, match="is missing"):
        verify_head(hydra, "tatar")


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


@pytest.mark.parametrize("name", ["english", "tatar", "dutch"])
def test_an_exported_head_is_the_standalone_checkpoint(sample: Sample, tmp_path: Path, name: str) -> None:
    report = export_head(sample.hydra, name, tmp_path / "out")
    assert report.bytes_linked > 0
    exported, built = open_checkpoint(tmp_path / "out"), open_checkpoint(sample.standalone[name])
    assert exported.tensors.keys() == built.tensors.keys()
    for tensor in built.tensors:
        assert torch.equal(exported.read(tensor), built.read(tensor)), tensor
    model, ids = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32), ids_for(name)
    assert torch.equal(model(ids).logits, sample.plain(name)(ids).logits)
    assert model.config.eos_token_id == tokenizer(name).eos_token_id
    assert AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab() == tokenizer(name).get_vocab()


@pytest.mark.parametrize("tied", [True, False])
def test_heads_tied_otherwise_than_the_backbone(tmp_path: Path, tied: bool) -> None:
    """A tied head on an untied backbone, and the reverse: in the Hydra, exported, and joined with the others."""
    sample = make_sample(tmp_path / "sample", tied=tied)
    other = AutoModelForCausalLM.from_pretrained(sample.standalone["tatar"], dtype=torch.float32)
    other.config.tie_word_embeddings = not tied
    weight = other.get_input_embeddings().weight.detach()
    torch.manual_seed(1)
    other.lm_head.weight = torch.nn.Parameter(torch.randn_like(weight) if tied else weight.clone())
    other.all_tied_weights_keys = {} if tied else {"lm_head.weight": "model.embed_tokens.weight"}
    other.save_pretrained(tmp_path / "other")
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(sample.standalone["tatar"] / file, tmp_path / "other" / file)
    head = add_head_from_checkpoint(sample.hydra, "other", open_checkpoint(tmp_path / "other"))
    assert head.config.tied is not tied
    ids = ids_for("tatar")
    wanted = other.eval()(ids).logits
    model = sample.load()
    assert torch.equal(model(ids, head="other").logits, wanted)
    assert model.view("other").config.tie_word_embeddings is not tied
    export_head(sample.hydra, "other", tmp_path / "out")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert torch.equal(exported(ids).logits, wanted)
    model.view("other").save_pretrained(tmp_path / "saved")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    assert torch.equal(saved(ids).logits, wanted)
    assert_joined(sample, tmp_path / "joined", {**sample.standalone, "other": tmp_path / "other"})


def test_the_joined_checkpoint_has_every_heads_logits(sample: Sample, tmp_path: Path) -> None:
    assert_joined(sample, tmp_path / "joined", sample.standalone)


def assert_joined(sample: Sample, target: Path, standalone: dict[str, Path]) -> None:
    export_concatenated(sample.hydra, target)
    joined = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32).eval()
    table = json.loads((target / "hydra_vocabulary.json").read_text())["heads"]
    assert table.keys() == standalone.keys()
    ends = {
        name: AutoModelForCausalLM.from_pretrained(folder).config.eos_token_id for name, folder in standalone.items()
    }
    for name, folder in standalone.items():
        begin, end = table[name]["allowed"]
        plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        ids = ids_for("tatar" if name == "other" else name)
        assert table[name]["offset"] == begin and end - begin == plain.config.vocab_size
        assert table[name]["eos"] == [begin + ends[name]]
        torch.testing.assert_close(joined(ids + begin).logits[..., begin:end], plain(ids).logits, rtol=1e-5, atol=1e-5)
        settings = AutoModelForCausalLM.from_pretrained(folder).generation_config.from_pretrained(
            target / table[name]["folder"]
        )
        made = joined.generate(ids + begin, generation_config=settings, max_new_tokens=8, do_sample=False)
        wanted = plain.generate(ids, max_new_tokens=8, do_sample=False)
        assert torch.equal(made - begin, wanted)
    assert set(joined.generation_config.eos_token_id) == {table[name]["eos"][0] for name in standalone}


def test_joining_takes_the_heads_asked_for(sample: Sample, tmp_path: Path) -> None:
    export_concatenated(sample.hydra, tmp_path / "two", heads=["tatar", "english"])
    table = json.loads((tmp_path / "two/hydra_vocabulary.json").read_text())["heads"]
    assert list(table) == ["tatar", "english"] and table["tatar"]["offset"] == 0
    assert AutoTokenizer.from_pretrained(tmp_path / "two").get_vocab() == tokenizer("tatar").get_vocab()
    with pytest.raises(UsageError, match="once"):
        export_concatenated(sample.hydra, tmp_path / "twice", heads=["tatar", "tatar"])
    with pytest.raises(UsageError, match="at least one"):
        export_concatenated(sample.hydra, tmp_path / "none", heads=[])


def test_models_that_are_not_causal_are_refused(minilm_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(VocabTransferError, match="causal"):
        create_hydra(open_checkpoint(minilm_folder), tmp_path / "hydra")
    assert not (tmp_path / "hydra").exists()
