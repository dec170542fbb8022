"""Models that do not belong together, and requests that make no sense: one sentence naming what differs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from propagation_samples import (
    HIDDEN,
    INPUT,
    OUTPUT,
    TEMPLATE,
    Family,
    Tensors,
    adapted_tokenizer,
    base_tokenizer,
    chat_tokenizer,
    family,
    save_model,
    tensors_of,
)

from vocabtransfer.checkpoint import Checkpoint, open_checkpoint
from vocabtransfer.checkpoint.synthetic import toy_tokenizer
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.propagation import propagate


@pytest.fixture
def made(tmp_path: Path) -> Family:
    return family(tmp_path)


def refused(base: Checkpoint, adapted: Checkpoint, instruct: Checkpoint, **options: Any) -> VocabTransferError:
    with pytest.raises(VocabTransferError) as caught:
        propagate(base, adapted, instruct, **options)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    return caught.value


def changed(made: Family, role: str, folder: Path, drop: str = "", **tensors: torch.Tensor) -> Checkpoint:
    held: Tensors = {name: value for name, value in made.tensors[role].items() if name != drop}
    held |= {name.replace("__", "."): value for name, value in tensors.items()}
    return save_model(folder / f"other-{role}", held, getattr(made, role).tokenizer, tied=OUTPUT not in held)


def test_options(made: Family) -> None:
    models = made.base, made.adapted, made.instruct
    problem = refused(*models, method="procrustes")
    assert isinstance(problem, UsageError)
    assert str(problem) == "there is no method 'procrustes': choose conversion, overlap, swap."
    for ridge in (-1.0, float("nan"), float("inf")):
        assert "the ridge is a number from 0 up" in str(refused(*models, ridge=ridge))
    assert "is a finite number, not nan" in str(refused(*models, body_lambda=float("nan")))


def test_another_body(made: Family, tmp_path: Path) -> None:
    layer = "model.layers.1.mlp.up_proj.weight"
    other = changed(made, "instruct", tmp_path, **{layer: torch.zeros(13, HIDDEN)})
    said = str(refused(made.base, made.adapted, other))
    assert (
        f"{layer!r} has shape [12, 8] in the base model base and [13, 8] in the instruct model other-instruct" in said
    )
    fewer = changed(made, "adapted", tmp_path, drop=layer)
    said = str(refused(made.base, fewer, made.instruct))
    assert f"the base model base has a tensor {layer!r} that the adapted model other-adapted lacks" in said


def test_another_width(made: Family, tmp_path: Path) -> None:
    wide = {name: torch.zeros(len(chat_tokenizer()), 10).double() for name in (INPUT, OUTPUT)}
    other = changed(made, "instruct", tmp_path, **wide)
    assert "has rows of 8 numbers and the instruct model other-instruct of 10" in str(
        refused(made.base, made.adapted, other)
    )


def test_tied_and_untied(made: Family, tmp_path: Path) -> None:
    tied = changed(made, "instruct", tmp_path, drop=OUTPUT)
    said = str(refused(made.base, made.adapted, tied))
    assert said.startswith("the instruct model other-instruct ties its head to the input table and the base model base")


def test_a_bias_on_one_side(made: Family, tmp_path: Path) -> None:
    bias = torch.zeros(len(chat_tokenizer())).double()
    other = changed(made, "instruct", tmp_path, **{"lm_head.bias": bias})
    assert "the instruct model other-instruct has a bias at its head" in str(refused(made.base, made.adapted, other))


def test_another_type(made: Family, tmp_path: Path) -> None:
    config = tmp_path / "instruct" / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"mistral"'))
    other = open_checkpoint(tmp_path / "instruct")
    said = str(refused(made.base, made.adapted, other))
    assert "the base model base is of type llama and the instruct model instruct of type mistral" in said


def test_another_vocabulary(made: Family, tmp_path: Path) -> None:
    words = toy_tokenizer(["hallo", " werk"])
    tensors = tensors_of(len(words), tied=False, seed=4)
    other = save_model(tmp_path / "foreign", tensors, words, tied=False)
    said = str(refused(made.base, made.adapted, other))
    assert "the base model base and the instruct model foreign have different vocabularies: id 260 is" in said
    assert "id 260 is 'he' in base and 'ha' in foreign;" in said


def test_ordinary_tokens_that_the_base_lacks(made: Family, tmp_path: Path) -> None:
    words = toy_tokenizer(["hello", " world", " the", "ing", "extra"])
    other = save_model(tmp_path / "extended", tensors_of(len(words), tied=False, seed=4), words, tied=False)
    said = str(refused(made.base, made.adapted, other))
    assert "is nothing in base and 'ex' in extended" in said


def test_swapped_models(made: Family) -> None:
    for models, names in (
        ((made.adapted, made.base, made.instruct), "the base model adapted and the adapted model base look swapped"),
        (
            (made.base, made.instruct, made.adapted),
            "the adapted model instruct and the instruct model adapted look swapped",
        ),
        ((made.instruct, made.adapted, made.base), "look swapped"),
    ):
        problem = refused(*models)
        assert isinstance(problem, UsageError) and names in str(problem)
    said = str(refused(made.instruct, made.adapted, made.base))
    assert "the base model instruct has a chat template and the instruct model base has none" in said


def test_nothing_adapted(made: Family, tmp_path: Path) -> None:
    for adapted in (made.base, changed(made, "base", tmp_path)):
        problem = refused(made.base, adapted, made.instruct)
        assert isinstance(problem, UsageError) and "so there is nothing to propagate" in str(problem)


def test_the_same_vocabulary_may_have_been_trained_further(made: Family, tmp_path: Path) -> None:
    """Adaptation without new tokens is adaptation too."""
    tensors = tensors_of(len(base_tokenizer()), tied=False, seed=8)
    adapted = save_model(tmp_path / "further", tensors, base_tokenizer(), tied=False)
    result = propagate(made.base, adapted, made.instruct)
    assert set(result.facts["rows_by_group"]) == {"overlap", "taken from the instruct model", "appended"}


def test_nothing_in_common(tmp_path: Path) -> None:
    """A base model of which hardly a row was trained leaves nothing to fit; swap needs no fit."""
    made = family(tmp_path)
    for role in ("base", "instruct"):
        for name in (INPUT, OUTPUT):
            made.tensors[role][name][4 : len(base_tokenizer())] = 0.0
    base = changed(made, "base", tmp_path)
    instruct = changed(made, "instruct", tmp_path)
    said = str(refused(base, made.adapted, instruct, method="overlap"))
    assert "adapted has no token in common with other-base, so there is nothing to fit: take the method swap" in said
    assert "spelled with trained tokens" in str(refused(base, made.adapted, instruct))
    propagate(base, made.adapted, instruct, method="swap")


def test_holes_in_the_adapted_ids(made: Family, tmp_path: Path) -> None:
    import json

    tensors = tensors_of(len(adapted_tokenizer()) + 1, tied=False, seed=2)
    save_model(tmp_path / "holes", tensors, adapted_tokenizer(), tied=False)
    file = tmp_path / "holes" / "tokenizer.json"
    document = json.loads(file.read_text())
    vocab = document["model"]["vocab"]
    longest = max(vocab, key=vocab.__getitem__)
    vocab[longest] += 1
    file.write_text(json.dumps(document))
    said = str(refused(made.base, open_checkpoint(tmp_path / "holes"), made.instruct))
    assert "the adapted tokenizer has holes in its ids, so '<|im_" in said
    propagate(made.base, open_checkpoint(tmp_path / "holes"), made.instruct, append_missing=False)


def test_a_chat_template_is_no_reason_to_refuse(made: Family, tmp_path: Path) -> None:
    """Base models often carry their family's template."""
    tokenizer = base_tokenizer()
    tokenizer.chat_template = TEMPLATE
    base = save_model(tmp_path / "templated", made.tensors["base"], tokenizer, tied=False)
    assert propagate(base, made.adapted, made.instruct).tokenizer.chat_template == TEMPLATE
