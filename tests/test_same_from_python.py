"""What a person gets from Python is what the command writes: the same files, byte for byte where both know the same."""

import json
from pathlib import Path

import pytest
from adapt_samples import files, make_model, one_thread, request, write_text
from build_samples import write_pairs
from command_samples import command

import vocabtransfer as vt
from vocabtransfer.errors import UsageError


def test_adapt_trains_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, text = make_model(tmp_path / "tiny"), write_text(tmp_path / "nl.txt")
    held_out = write_text(tmp_path / "held-out.txt", documents=5, seed=2)
    stages, measured = ("new:3:1e-2", "tables:4:1e-2"), {"held_out": (held_out,), "held_out_bytes": 300}
    with one_thread():
        made = vt.adapt(request(model, text, tmp_path / "python", *stages, **measured))
        code, out, err = command(
            capsys,
            *("adapt", model, "--text", text, "--held-out", held_out, "--held-out-bytes", 300),
            *("--output", tmp_path / "command", "--stage", stages[0], "--stage", stages[1], "--block", 16),
            *("--batch-tokens", 64, "--eval-every", 5, "--save-every", 2, "--cpu", "--json"),
        )
    assert code == 0, out + err
    assert json.loads(out)["bits_per_byte"] == made.facts["bits_per_byte"]
    assert {"adapt.json", "README.md", "model.safetensors"} <= files(tmp_path / "python").keys()
    assert files(tmp_path / "python") == files(tmp_path / "command")


def test_the_result_of_a_transfer_gets_report_and_card_as_a_build_does(tiny_llama: Path, tmp_path: Path) -> None:
    pairs = (write_pairs(tmp_path / "en-tt.tsv"),)
    held_out = tmp_path / "kept.txt"
    held_out.write_text("китап өстәл өстендә ята\nмин яңа файл күрәм\n", encoding="utf-8")
    asked = vt.BuildRequest(str(tiny_llama), "tatar", tmp_path / "built", parallel=pairs, vocab_size=500)
    built = vt.build(asked, dry_run=True).save()
    evidence = vt.Evidence(alignment=built.transfer.inputs.table, words=built.transfer.inputs.words)
    own = vt.transfer(built.transfer.source, built.transfer.tokenizer, evidence)
    extra = vt.report_files(own, "tt", evidence, held_out=held_out)
    folder = own.save(tmp_path / "mine", extra_files=extra).path
    assert files(folder).keys() == files(tmp_path / "built").keys()
    ours, theirs = (json.loads((place / "report.json").read_text("utf-8")) for place in (folder, tmp_path / "built"))
    assert ours.keys() == theirs.keys()
    for fact in ("source", "language", "rows_by_rule", "evidence", "examples", "memory", "running"):
        assert ours[fact] == theirs[fact], fact
    assert ours["held_out"]["text"] == "kept.txt" and ours["held_out"]["untouched"]["bits_per_byte"] > 0
    page, card = (folder / "report.html").read_text("utf-8"), (folder / "README.md").read_text("utf-8")
    assert "китап" in page and "kept.txt" in page and "with a vocabulary for Tatar" in card
    plain = vt.report_files(own, "tatar")
    assert json.loads(plain["report.json"])["held_out"] is None and set(plain) == set(extra)
    with pytest.raises(UsageError, match="tattar"):
        vt.report_files(own, "tattar")
