"""Vocabulary shapes in the main command: what stays, what `auto` chooses and says, what is refused."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from build_samples import TATAR
from command_samples import command
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

import vocabtransfer as vt
from vocabtransfer.errors import UsageError
from vocabtransfer.languages import find_language
from vocabtransfer.pipeline.build import BuildRequest, build
from vocabtransfer.pipeline.shapes import (
    Knowledge,
    ShapeChoice,
    ask_source,
    choose_shape,
    little_text_notes,
    replacing_saves_little,
    weighted_characters,
)
from vocabtransfer.pipeline.target_tokenizer import TargetTokenizer
from vocabtransfer.tokenization.swap import swap_tokenizer
from vocabtransfer.tokenization.train import train_tokenizer
from vocabtransfer.tokenization.write import write_tokenizer


def request(tiny: Path, corpus: Path, output: Path, **options: object) -> BuildRequest:
    return BuildRequest(str(tiny), "tatar", output, parallel=(corpus,), held_out_bytes=0, **options)  # type: ignore[arg-type]


def test_a_vocabulary_out_of_unlike_text_extends_instead(tiny_llama: Path) -> None:
    source = vt.open_checkpoint(tiny_llama)
    unknown = ShapeChoice("replace", True, "It hardly knows the language.", Knowledge(4.0, 0.5, 3.7, "text"))
    same = [f"Мәктәп укытучылары {number} яңа китап ачты, балалар укый башлады." for number in range(300)]
    alike = train_tokenizer(same, like=source.tokenizer, vocab_size=600)
    unlike = train_tokenizer(["xyzzy qwrtp zzxcv plugh"] * 300, like=source.tokenizer, vocab_size=600)
    lines = ["Укытучылар китап ачты, балалар мәктәп яңа укый."]
    assert replacing_saves_little(unknown, source, alike, lines) is None
    better = replacing_saves_little(unknown, source, unlike, lines)
    assert better is not None and better.shape == "extend" and "there is too little text" in better.reason
    # Asked for, spelled in bytes, or nothing to measure on: the choice stands.
    for known in (dataclasses.replace(unknown, measured=False), dataclasses.replace(unknown, knowledge=None)):
        assert replacing_saves_little(known, source, unlike, lines) is None
    spelled = dataclasses.replace(unknown, knowledge=Knowledge(7.0, 0.9, None, "text"))
    assert replacing_saves_little(spelled, source, unlike, lines) is None
    assert replacing_saves_little(unknown, source, unlike, ["", " "]) is None


@pytest.mark.parametrize("shape", ["extend", "swap"])
def test_kept_rows_are_the_source_s_bit_for_bit(shape: str, tiny_llama: Path, corpus: Path, tmp_path: Path) -> None:
    found = build(request(tiny_llama, corpus, tmp_path / "out", vocabulary=shape, new_tokens=30))
    source, made = vt.open_checkpoint(tiny_llama), vt.open_checkpoint(tmp_path / "out")
    old, new = source.input_table(), made.input_table()
    vocabularies = source.tokenizer.get_vocab(), made.tokenizer.get_vocab()
    kept = {i: vocabularies[1][text] for text, i in vocabularies[0].items() if text in vocabularies[1]}
    assert all(here == there for here, there in kept.items())
    ids = torch.tensor(sorted(kept))
    assert torch.equal(old[ids], new[ids])
    facts = found.facts["vocabulary"]
    assert facts["shape"] == shape and facts["kept"] == len(kept) and 0 < facts["new"] <= 30
    assert len(new) == len(old) + (facts["new"] if shape == "extend" else 0)
    assert found.facts["tokenizer"]["tokens_per_word_after"] < found.facts["tokenizer"]["tokens_per_word_before"]
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(tmp_path / "out"),
        AutoTokenizer.from_pretrained(tmp_path / "out"),
    )
    assert model.config.vocab_size == len(new)
    assert tokenizer.decode(tokenizer.encode("китап өстәл 漢字")) == "китап өстәл 漢字"


def test_untrained_rows_stay_too(tiny_llama: Path, corpus: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    with torch.no_grad():
        model.get_input_embeddings().weight[[5_000, 6_000]] = 0
    model.save_pretrained(source)
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(source)
    build(request(source, corpus, tmp_path / "out", vocabulary="extend", new_tokens=10, method="pieces"))
    assert not vt.open_checkpoint(tmp_path / "out").input_table()[[5_000, 6_000]].any()


def test_a_tokenizer_that_was_swapped_before_keeps_its_rows_too(tiny_llama: Path, corpus: Path, tmp_path: Path) -> None:
    source = vt.open_checkpoint(tiny_llama)
    made = swap_tokenizer(source.tokenizer, TATAR.split("|") * 9, new_tokens=12)
    write_tokenizer(made.tokenizer, tmp_path / "tokenizer", kept=made.kept)
    found = build(request(tiny_llama, corpus, tmp_path / "out", tokenizer=tmp_path / "tokenizer"))
    assert found.facts["vocabulary"] is None
    old, new = source.input_table(), vt.open_checkpoint(tmp_path / "out").input_table()
    kept = torch.from_numpy(made.kept >= 0)
    assert len(old) == len(new) and torch.equal(old[kept], new[kept]) and not torch.equal(old[~kept], new[~kept])


def test_optimise_and_auto(tiny_llama: Path, corpus: Path, tmp_path: Path) -> None:
    best = build(request(tiny_llama, corpus, tmp_path / "a", vocabulary="optimise", vocab_size=900), dry_run=True)
    assert best.facts["tokenizer"]["vocabulary"] == 900 and best.facts["vocabulary"]["new"] > 0
    auto = build(request(tiny_llama, corpus, tmp_path / "b"), dry_run=True)
    chosen = auto.facts["vocabulary"]
    assert chosen["shape"] == "replace" and chosen["measured"] and chosen["kept"] is None
    assert "Tatar" in chosen["reason"] and chosen["source_knows"]["tokens_per_word"] > 4
    implied = build(request(tiny_llama, corpus, tmp_path / "c", new_tokens=10), dry_run=True)
    assert implied.facts["vocabulary"]["shape"] == "extend"


def test_a_share_of_the_tokens_to_save(
    tiny_llama: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = ("build", "--source", tiny_llama, "--target", "tt", "--parallel", corpus, "--dry-run", "--json")
    found = {}
    for share in ("20%", "40%"):
        code, out, err = command(capsys, *usual, "--new-tokens", share)
        assert code == 0, err
        found[share] = json.loads(out)
        assert any(f"save {share}, as asked for" in note for note in found[share]["notes"])
    assert 0 < found["20%"]["vocabulary"]["new"] < found["40%"]["vocabulary"]["new"]
    code, out, _ = command(capsys, *usual, "--new-tokens", "some")
    assert code == 2 and "--new-tokens is a number of tokens, such as 2500" in json.loads(out)["error"]


def test_the_command_line_says_what_was_chosen_and_why(
    tiny_llama: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = ("build", "--source", tiny_llama, "--target", "tt", "--parallel", corpus, "--output", tmp_path / "out")
    code, out, err = command(capsys, *usual, "--vocabulary", "swap", "--new-tokens", 20)
    assert code == 0, err
    assert "swap" in out and "asked for" in out and "gave their ids" in out
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| vocabulary | swap" in card and "swap" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["vocabulary"]["shape"] == "swap"
    code, out, _ = command(capsys, *usual, "--vocabulary", "stretch", "--json")
    assert code == 2 and "replace, extend, swap" in json.loads(out)["error"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocabulary": "extend", "vocab_size": 500}, "takes `new_tokens`"),
        ({"vocabulary": "replace", "new_tokens": 5}, "extend and swap"),
        ({"vocabulary": "swap", "romanize": True}, "takes `new_tokens`"),
        ({"vocabulary": "optimise", "algorithm": "bpe"}, "optimise"),
        ({"new_tokens": 0}, "at least 1"),
        ({"new_tokens": "all of them"}, "such as 20%"),
        ({"vocabulary": "extend", "tokenizer": Path("x")}, "leave them out"),
    ],
)
def test_options_that_exclude_each_other(
    options: dict[str, object], message: str, tiny_llama: Path, corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        build(request(tiny_llama, corpus, tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("knowledge", "knows"),
    [
        (Knowledge(1.53, 0.25, 1.02, "text"), True),
        (Knowledge(1.53, 0.25, 3.0, "text"), False),
        (Knowledge(7.0, 0.9, None, "words"), False),
        (None, False),
    ],
)
def test_rows_are_told_whether_the_source_knows_the_language(
    real_tokenizer: Callable[[str], PreTrainedTokenizerFast], knowledge: Knowledge | None, knows: bool
) -> None:
    choice = ShapeChoice("extend", False, "It was asked for.", knowledge)
    assert TargetTokenizer(real_tokenizer("smollm2"), choice=choice).source_knows == knows
    assert not TargetTokenizer(real_tokenizer("smollm2")).source_knows


def test_auto_goes_by_what_the_source_knows(tiny_llama: Path) -> None:
    source, italian = vt.open_checkpoint(tiny_llama), find_language("italian")
    knows = Knowledge(1.53, 0.25, 1.02, "text")
    assert choose_shape("auto", source, italian, knows).shape == "extend"
    quantised = dataclasses.replace(source, config={**source.config, "quantization_config": {"bits": 4}})
    assert choose_shape("auto", quantised, italian, knows).shape == "swap"
    english_only = Knowledge(2.4, 0.37, 2.9, "text")
    assert choose_shape("auto", source, italian, english_only).shape == "replace"
    in_bytes = Knowledge(14.7, 2.0, None, "text")
    assert choose_shape("auto", source, italian, in_bytes).shape == "replace"
    too_large_to_run = Knowledge(1.57, 0.25, None, "text")
    assert choose_shape("auto", source, italian, too_large_to_run).shape == "extend"
    warned = choose_shape("replace", source, italian, knows)
    assert warned.shape == "replace" and "1.53 tokens" in warned.notes[0] and "1.86" in warned.notes[0]
    assert not choose_shape("replace", source, italian, english_only).notes


def test_little_text_is_warned_about(tiny_llama: Path, corpus: Path, tmp_path: Path) -> None:
    source = vt.open_checkpoint(tiny_llama)
    (said,) = little_text_notes(source, {"китап": 27_000.0})
    assert said.startswith("27,000 words") and "90,000 words" in said
    assert little_text_notes(source, {"a": 50_000.0, "b": 10_000.0}) == ()
    result = build(request(tiny_llama, corpus, tmp_path / "out", vocabulary="replace"), dry_run=True)
    assert any("teach few rows" in note for note in result.facts["notes"])
    extended = build(request(tiny_llama, corpus, tmp_path / "out", vocabulary="extend"), dry_run=True)
    assert not any("teach few rows" in note for note in extended.facts["notes"])


def test_the_source_is_asked_by_running_it(tiny_llama: Path) -> None:
    source = vt.open_checkpoint(tiny_llama)
    lines = ["The close of the book is on the table, and a window is open."] * 5
    found = ask_source(source, lines, {})
    assert found is not None and found.of == "text" and not found.spelled and not found.known
    assert found.bits_per_character is not None and found.bits_per_character > 2.5  # its weights are random
    by_words = ask_source(source, [], {"table": 3.0, "book": 2.0})
    assert by_words is not None and by_words.of == "words"
    assert ask_source(source, [], {}) is None
    tatar = ask_source(source, TATAR.split("|"), {})
    assert tatar is not None and tatar.spelled and tatar.bits_per_character is None


def test_dense_characters_count_as_their_bytes() -> None:
    assert weighted_characters("abc é") == 5 and weighted_characters("漢字") == 6
    assert np.isclose(weighted_characters("漢字a"), 7)
