"""Learned Embedding Propagation: what must hold exactly, what is kept, what is written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from propagation_samples import (
    HIDDEN,
    INPUT,
    MARKERS,
    NEW_WORDS,
    OUTPUT,
    TEMPLATE,
    Family,
    adapted_tokenizer,
    base_tokenizer,
    chat_tokenizer,
    family,
    invertible,
    load_all,
    save_model,
    snapshot,
)
from transformers import AutoModelForCausalLM, AutoTokenizer

from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.checkpoint.layout import VocabTensor
from vocabtransfer.propagation import METHODS, PropagationResult, propagate
from vocabtransfer.propagation.facts import APPENDED, NO_PIECES, OVERLAP, TAKEN
from vocabtransfer.vocabulary import Kind

MAPS = {INPUT: invertible(11), OUTPUT: invertible(12)}
TABLES = (INPUT, OUTPUT)


def ordinary(made: Family) -> list[int]:
    ids: list[int] = np.flatnonzero(made.adapted.vocabulary.kinds <= Kind.BYTE).tolist()
    return ids


def table(result: PropagationResult, name: str) -> torch.Tensor:
    part = {tensor.name: tensor for tensor in result.plan.instruct.layout.tensors}
    return result.rows(part[name], 0, len(result.joined.vocabulary))


# --- the formulas ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("method", ["conversion", "overlap"])
def test_a_linear_move_is_found(method: Any, tied: bool, tmp_path: Path) -> None:
    made = family(tmp_path, tied=tied, maps=MAPS)
    result = propagate(made.base, made.adapted, made.instruct, method=method)
    written = load_all(result.save(tmp_path / "out").path)
    assert (OUTPUT in written) is not tied
    rows = ordinary(made)
    for name in TABLES[: 1 if tied else 2]:
        expected = made.tensors["adapted"][name] @ MAPS[name]
        torch.testing.assert_close(written[name][rows], expected[rows], rtol=1e-10, atol=1e-10)
    for part, facts in result.facts["tables"].items():
        assert facts["rank"] == HIDDEN and facts["residual_after"] < 1e-10 < facts["residual_before"]
        np.testing.assert_allclose(result.maps[part].matrix, MAPS[OUTPUT if part == "output" else INPUT], atol=1e-10)


def test_each_method_computes_its_formula(tmp_path: Path) -> None:
    """Against lstsq on tables that no linear map explains, with T and C written out by hand."""
    made = family(tmp_path)
    base, adapted, instruct = (made.tensors[name] for name in ("base", "adapted", "instruct"))
    old = made.base.vocabulary.token_bytes
    texts = {i: made.adapted.vocabulary.token_bytes[i] for i in ordinary(made)}
    shared = {i: old.index(text) for i, text in texts.items() if text in old}
    # The base tokenizer knows only English words, so all that the two do not share is spelled in single bytes.
    spelled = {i: [shared[i]] if i in shared else [old.index(bytes([b])) for b in texts[i]] for i in texts}
    for name in TABLES:
        x, y = base[name].numpy(), instruct[name].numpy()
        pieces = (np.array([table[ids].mean(axis=0) for ids in spelled.values()]) for table in (x, y))
        columns = sorted(shared.values())
        wanted = {
            "conversion": np.linalg.lstsq(*pieces, rcond=None)[0],
            "overlap": np.linalg.lstsq(x[columns], y[columns], rcond=None)[0],
            "swap": np.eye(HIDDEN),
        }
        for method in METHODS:
            rows = table(propagate(made.base, made.adapted, made.instruct, method=method), name)
            expected = adapted[name].numpy() @ wanted[method]
            np.testing.assert_allclose(rows[list(texts)], expected[list(texts)], atol=1e-7)  # T is kept in float32


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_an_instruct_model_that_is_the_base_gets_the_adapted_tables(
    tied: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    made = family(tmp_path, tied=tied, dtype=dtype, same_instruct=True)
    for method in METHODS:
        result = propagate(made.base, made.adapted, made.instruct, method=method)
        written = load_all(result.save(tmp_path / method).path)
        for name in TABLES[: 1 if tied else 2]:
            assert torch.equal(written[name], made.tensors["adapted"][name]), method


def test_swap_takes_the_adapted_rows_as_they_are(tmp_path: Path) -> None:
    made = family(tmp_path, dtype=torch.bfloat16)
    result = propagate(made.base, made.adapted, made.instruct, method="swap")
    written = load_all(result.save(tmp_path / "out").path)
    rows = ordinary(made)
    for name in TABLES:
        assert torch.equal(written[name][rows], made.tensors["adapted"][name][rows])
    assert not result.maps and "rank" not in result.facts["tables"]["input"]


@pytest.mark.parametrize("method", ["conversion", "overlap"])
def test_the_order_of_the_target_ids_does_not_matter(method: Any, tmp_path: Path) -> None:
    made = family(tmp_path)
    other = adapted_tokenizer(seed=9)
    before, after = made.adapted.tokenizer.get_vocab(), other.get_vocab()
    moved = {name: value.clone() for name, value in made.tensors["adapted"].items()}
    for token, i in before.items():
        for name in TABLES:
            moved[name][after[token]] = made.tensors["adapted"][name][i]
    permuted = save_model(tmp_path / "permuted", moved, other, tied=False)
    first = propagate(made.base, made.adapted, made.instruct, method=method)
    second = propagate(made.base, permuted, made.instruct, method=method)
    tokens = list(before)
    for name in TABLES:
        ours = table(first, name)[[before[token] for token in tokens]]
        theirs = table(second, name)[[after[token] for token in tokens]]
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("method", ["conversion", "overlap"])
def test_rank_deficient_tables(method: Any, tmp_path: Path) -> None:
    made = family(tmp_path, maps=MAPS, rank=5)
    result = propagate(made.base, made.adapted, made.instruct, method=method)
    for part, name in (("input", INPUT), ("output", OUTPUT)):
        found = result.maps[part]
        assert found.rank == 5 and found.condition < 1e4
        x = made.tensors["base"][name]
        inside = x[4:40].numpy()
        np.testing.assert_allclose(inside @ found.matrix, inside @ MAPS[name].numpy(), atol=1e-9)
        outside = np.linalg.svd(x.numpy())[2][5:]
        np.testing.assert_allclose(outside @ found.matrix, outside, atol=1e-9)
        assert result.facts["tables"][part]["residual_after"] < 1e-8
    assert any("determine 5 of 8 directions of the input table" in note for note in result.notes)


def test_too_few_common_tokens_leave_the_rest_alone(tmp_path: Path) -> None:
    """Fewer rows than dimensions: the fit is exact on them and the identity where they say nothing."""
    made = family(tmp_path)
    result = propagate(made.base, made.adapted, made.instruct, method="overlap", ridge=0.5)
    assert result.facts["ridge"] == 0.5
    free = propagate(made.base, made.adapted, made.instruct, method="overlap")
    assert result.maps["input"].distance < free.maps["input"].distance


# --- what is kept ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_chat_tokens_are_appended_with_their_rows(method: Any, tmp_path: Path) -> None:
    made = family(tmp_path, dtype=torch.float32)
    result = propagate(made.base, made.adapted, made.instruct, method=method)
    count = len(made.adapted.vocabulary)
    assert result.joined.appended == MARKERS and result.facts["appended"] == list(MARKERS)
    out = result.save(tmp_path / "out").path
    written = load_all(out)
    theirs = made.instruct.tokenizer.convert_tokens_to_ids(list(MARKERS))
    for name in TABLES:
        assert written[name].shape[0] == count + 2
        assert torch.equal(written[name][count:], made.tensors["instruct"][name][theirs])
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.chat_template == TEMPLATE and tokenizer.eos_token == "<|im_end|>"
    text = tokenizer.apply_chat_template([{"role": "user", "content": "сәлам"}], tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert [i for i in ids if i >= count] == [count, count + 1]
    assert tokenizer.decode(ids) == text
    before = made.adapted.tokenizer
    assert all(tokenizer(text)["input_ids"] == before(text)["input_ids"] for text in ("сәлам дөнья", "hello", "ю"))
    generation = json.loads((out / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [count + 1, tokenizer.convert_tokens_to_ids("</s>")]
    assert generation["temperature"] == 0.5
    assert json.loads((out / "config.json").read_text())["eos_token_id"] == count + 1
    model = AutoModelForCausalLM.from_pretrained(out)
    assert torch.isfinite(model(torch.tensor([ids])).logits).all()


def test_tokens_may_stay_unappended(tmp_path: Path) -> None:
    made = family(tmp_path)
    result = propagate(made.base, made.adapted, made.instruct, append_missing=False)
    assert result.joined.appended == () and result.joined.missing == MARKERS
    assert result.tokenizer.get_vocab() == made.adapted.tokenizer.get_vocab()
    assert result.tokenizer.eos_token == "</s>", "a role whose token is missing falls back to the adapted model's"
    assert any("lacks 2 tokens" in note and MARKERS[0] in note for note in result.notes)
    out = open_checkpoint(result.save(tmp_path / "out").path)
    assert out.layout.rows == len(made.adapted.vocabulary)


def test_control_tokens_that_the_instruct_model_learnt_keep_its_rows(tmp_path: Path) -> None:
    made = family(tmp_path, maps=MAPS)
    tensors = {name: value.clone() for name, value in made.tensors["instruct"].items()}
    bos, eos = (made.base.tokenizer.convert_tokens_to_ids(token) for token in ("<s>", "</s>"))
    for name in TABLES:
        tensors[name][bos] = made.tensors["base"][name][bos]  # not learnt: as the base model has it
    instruct = save_model(tmp_path / "chat", tensors, chat_tokenizer(), tied=False)
    result = propagate(made.base, made.adapted, instruct)
    ids = made.adapted.tokenizer.get_vocab()
    for part, name in (("input", INPUT), ("output", OUTPUT)):
        rows = table(result, name)
        assert torch.equal(rows[ids["</s>"]], tensors[name][eos])
        mapped = made.tensors["adapted"][name][ids["<s>"]].numpy() @ result.maps[part].matrix
        np.testing.assert_allclose(rows[ids["<s>"]], mapped, atol=1e-12)
    assert result.facts["rows_by_group"][TAKEN] == 3


def test_a_marker_that_the_adapted_tokenizer_has_is_not_appended_twice(tmp_path: Path) -> None:
    words = adapted_tokenizer()
    words.add_special_tokens({"additional_special_tokens": [MARKERS[0]]})
    made = family(tmp_path, adapted=words)
    result = propagate(made.base, made.adapted, made.instruct)
    assert result.joined.appended == (MARKERS[1],)
    place = words.convert_tokens_to_ids(MARKERS[0])
    theirs = made.instruct.tokenizer.convert_tokens_to_ids(MARKERS[0])
    assert torch.equal(table(result, INPUT)[place], made.tensors["instruct"][INPUT][theirs])


def test_same_bytes_twice(tmp_path: Path) -> None:
    made = family(tmp_path, dtype=torch.bfloat16)
    for name in ("one", "two"):
        models = (open_checkpoint(tmp_path / role) for role in ("base", "adapted", "instruct"))
        propagate(*models, body_lambda=0.5).save(tmp_path / name)
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")
    assert made.base.name == "base"


def test_padding_to_a_multiple(tmp_path: Path) -> None:
    made = family(tmp_path)
    report = propagate(made.base, made.adapted, made.instruct).save(tmp_path / "out", pad_to_multiple_of=64)
    assert report.padded_rows > 0 and open_checkpoint(report.path).layout.rows % 64 == 0


def test_tables_saved_in_other_dtypes(tmp_path: Path) -> None:
    """Base in float32, instruct model in bfloat16: rounding is no learning, and the result has the latter's dtype."""
    made = family(tmp_path, dtype=torch.float32, same_instruct=True)
    coarse = {name: value.bfloat16() for name, value in made.tensors["base"].items()}
    instruct = save_model(tmp_path / "chat", coarse, base_tokenizer(), tied=False)
    result = propagate(made.base, made.adapted, instruct)
    assert TAKEN not in result.facts["rows_by_group"]
    written = load_all(result.save(tmp_path / "out").path)
    assert written[INPUT].dtype == torch.bfloat16
    torch.testing.assert_close(written[INPUT].float(), made.tensors["adapted"][INPUT], rtol=0.05, atol=0.05)


# --- heads with a bias, tokens without a row ------------------------------------------------------------------------


def test_a_bias_moves_with_its_pieces(tmp_path: Path) -> None:
    made = family(tmp_path)
    models = {}
    tokenizers = {"base": base_tokenizer(), "adapted": adapted_tokenizer(), "instruct": chat_tokenizer()}
    torch.manual_seed(5)
    biases = {name: torch.randn(len(tokenizer)).double() for name, tokenizer in tokenizers.items()}
    for name, tokenizer in tokenizers.items():
        tensors = {**made.tensors[name], "lm_head.bias": biases[name]}
        models[name] = save_model(tmp_path / f"{name}-biased", tensors, tokenizer, tied=False)
    result = propagate(models["base"], models["adapted"], models["instruct"])
    bias = result.rows(VocabTensor("lm_head.bias", "output_bias", 0), 0, len(result.joined.vocabulary))
    ids, old = models["adapted"].tokenizer.get_vocab(), models["base"].tokenizer
    token = old.backend_tokenizer.pre_tokenizer.pre_tokenize_str("сәлам")[0][0]
    pieces = old("сәлам", add_special_tokens=False)["input_ids"]
    move = (biases["instruct"][: len(old)] - biases["base"])[pieces].mean()
    assert len(pieces) > 3
    torch.testing.assert_close(bias[ids[token]], biases["adapted"][ids[token]] + move)
    assert torch.equal(bias[len(ids) :], biases["instruct"][-2:])
    swapped = propagate(models["base"], models["adapted"], models["instruct"], method="swap")
    bias = swapped.rows(VocabTensor("lm_head.bias", "output_bias", 0), 0, len(ids))
    assert torch.equal(bias[ordinary(made)], biases["adapted"][ordinary(made)])


def test_a_token_without_a_row_is_left_out(tmp_path: Path) -> None:
    """Gemma's text models have a special token past the end of their table."""
    words = adapted_tokenizer()
    made = family(tmp_path, maps=MAPS, adapted=words)
    longer = adapted_tokenizer()
    longer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    adapted = save_model(tmp_path / "longer", made.tensors["adapted"], longer, tied=False)
    assert adapted.rowless_tokens == ("<image>",)
    result = propagate(made.base, adapted, made.instruct)
    assert "<image>" not in result.joined.vocabulary.strings


# --- facts ----------------------------------------------------------------------------------------------------------


def test_facts_cover_every_row(tmp_path: Path) -> None:
    made = family(tmp_path, maps=MAPS)
    result = propagate(made.base, made.adapted, made.instruct)
    groups = result.facts["rows_by_group"]
    assert sum(groups.values()) == result.facts["vocabulary"] == len(result.joined.vocabulary)
    assert groups[APPENDED] == 2 and groups[TAKEN] == 4 and NO_PIECES not in groups
    assert groups[OVERLAP] > 256 and groups["new, 4 pieces or more"] > len(NEW_WORDS)
    for facts in result.facts["tables"].values():
        assert facts["rows_fitted"] == len(ordinary(made))
        assert set(facts["groups"]) == set(groups)
        for name, group in facts["groups"].items():
            assert group["rows"] == groups[name] and group["norm_after"] > 0
            assert ("residual_after" in group) is (name not in (APPENDED, TAKEN))
            assert ("cosine" in group) is (name != APPENDED)
    written = json.loads((result.save(tmp_path / "out").path / "propagation.json").read_text())
    assert written == json.loads(json.dumps(result.facts)) and str(tmp_path) not in json.dumps(written)


def test_swap_says_how_far_the_models_are_apart(tmp_path: Path) -> None:
    made = family(tmp_path, maps=MAPS)
    facts = {m: propagate(made.base, made.adapted, made.instruct, method=m).facts["tables"]["input"] for m in METHODS}
    assert facts["swap"]["residual_after"] == facts["swap"]["residual_before"]
    assert facts["swap"]["residual_before"] == pytest.approx(facts["conversion"]["residual_before"], rel=1e-5)
    overlap = facts["swap"]["groups"][OVERLAP]
    assert overlap["norm_after"] == overlap["norm_before"] and overlap["cosine"] == pytest.approx(1.0)
