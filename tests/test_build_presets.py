"""Every preset runs, small, and does what its table says; names of the field find their methods."""

from pathlib import Path

import pytest
from thinned import first_of

from vocabtransfer.errors import UsageError
from vocabtransfer.initialization import METHODS, find_method
from vocabtransfer.initialization.registry import ALIASES
from vocabtransfer.pipeline.build import BuildRequest, build
from vocabtransfer.pipeline.presets import PRESETS, find_preset, with_preset
from vocabtransfer.training.stage import Stage

# One of each shape by default but for a whole new vocabulary, which all other tests build; the others differ in figures.
BY_DEFAULT = {preset.vocabulary: name for name, preset in PRESETS.items() if preset.vocabulary != "replace"}.values()
RUN = first_of(PRESETS, *BY_DEFAULT)


@pytest.mark.parametrize("name", RUN)
def test_each_preset_runs(name: str, tiny_llama: Path, corpus: Path, tmp_path: Path) -> None:
    preset = PRESETS[name]
    request = BuildRequest(
        str(tiny_llama), "tatar", tmp_path / "out", parallel=(corpus,), held_out_bytes=0, preset=name
    )
    found = build(request, dry_run=True)
    assert found.facts["vocabulary"]["shape"] == preset.vocabulary
    assert found.facts["method"] == {**found.facts["method"], "name": preset.method, "calibrated": False}
    notes = " ".join(found.facts["notes"])
    assert preset.source in notes and "vocabtransfer adapt" in notes
    assert preset.differs in notes


def test_what_is_asked_for_stands(tmp_path: Path) -> None:
    asked = BuildRequest("smollm2", "tatar", tmp_path, preset="tpro", new_tokens=70, method="bil", calibrate=True)
    found, _ = with_preset(asked)
    assert (found.vocabulary, found.new_tokens, found.method, found.calibrate) == ("swap", 70, "bil", True)
    unigram, _ = with_preset(BuildRequest("smollm2", "tatar", tmp_path, preset="RuAdapt"))
    assert (unigram.vocabulary, unigram.vocab_size, unigram.algorithm) == ("replace", 48_000, "unigram")
    plain = BuildRequest("smollm2", "tatar", tmp_path)
    assert with_preset(plain) == (plain, ())
    with pytest.raises(UsageError, match="of its own"):
        with_preset(BuildRequest("smollm2", "tatar", tmp_path, preset="lapa", vocabulary="extend"))
    with pytest.raises(UsageError, match="did you mean bielik"):
        find_preset("belik")


@pytest.mark.parametrize("name", PRESETS)
def test_the_training_of_a_preset_can_be_typed(name: str) -> None:
    words = PRESETS[name].training.split()
    stages = [Stage.parse(words[at + 1]) for at, word in enumerate(words) if word == "--stage"]
    assert stages and set(words[::2]) <= {"--stage", "--objective"}


def test_names_of_the_field_find_methods() -> None:
    assert set(ALIASES.values()) <= set(METHODS) and not set(ALIASES) & set(METHODS)
    assert find_method("FVT").name == "pieces" and find_method("ramen").name == "trans_tokenization"
    assert find_method("transplant-vocab").name == "transplant"
