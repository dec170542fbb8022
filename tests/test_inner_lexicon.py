"""Rows out of the model's inner lexicon, and the choice between ways of making rows by what they score."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

import vocabtransfer as vt
from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.errors import UsageError
from vocabtransfer.initialization import METHODS, Need
from vocabtransfer.initialization.auto import ALIGNED_AND_FUSED
from vocabtransfer.initialization.head_bias import BiasFit, competition, fitted_bias
from vocabtransfer.initialization.inner_lexicon import FUSED
from vocabtransfer.initialization.lessons import LESSONS, lessons, merged_from
from vocabtransfer.initialization.lexicon import Expected, Lexicon, serving_both, span_rows
from vocabtransfer.initialization.trans_tokenization import ALIGNED
from vocabtransfer.running.settings import running_with
from vocabtransfer.running.states import SourceStates
from vocabtransfer.surgery.choice import APART, MARGIN, best
from vocabtransfer.surgery.evidence import Evidence
from vocabtransfer.surgery.sample import draw_sample, source_states
from vocabtransfer.surgery.transfer import transfer
from vocabtransfer.surgery.unigram_calibration import telling_direction
from vocabtransfer.tokenization.extend import extend_tokenizer
from vocabtransfer.tokenization.train import train_tokenizer

LINES = [
    "The gardeners were watering the vegetables.",
    "De tuinlieden begieten de groenten.",
    "Wij lezen kranten.",
] * 40
WORDS = {word.strip("."): 40.0 for line in set(LINES) for word in line.split()}


@pytest.fixture(scope="module")
def tiny(tiny_llama: Path) -> Checkpoint:
    return vt.open_checkpoint(tiny_llama)


@pytest.fixture(scope="module")
def extended(tiny: Checkpoint) -> PreTrainedTokenizerFast:
    return extend_tokenizer(tiny.tokenizer, LINES, new_tokens=12).tokenizer


def states_of(source: Checkpoint) -> SourceStates:
    states = source_states(source, draw_sample(WORDS, lambda: LINES, 0))
    assert states is not None
    return states


def test_states_after_some_layers_are_those_of_the_whole_model(tiny: Checkpoint) -> None:
    states = states_of(tiny)
    spans = [np.array([11, 12, 13]), np.array([40]), np.array([14, 15, 16])]
    for layers in (1, states.depth - 1):
        found = states.span_states(spans, layers)
        for span, row in zip(spans, found, strict=True):
            ids = torch.tensor([[states.first, *span.tolist()]])
            with torch.inference_mode():
                hidden = states.model.base_model(input_ids=ids, output_hidden_states=True).hidden_states
            np.testing.assert_allclose(row, hidden[layers][0, -1].numpy(), atol=1e-5)


def test_states_before_the_head_give_the_models_logits(tiny: Checkpoint) -> None:
    states = states_of(tiny)
    text = states.texts()[0]
    with torch.inference_mode():
        logits = states.model(input_ids=torch.tensor([[states.first, *text.tolist()]])).logits[0].numpy()
    found = states.text_states()[: len(text) + 1] @ tiny.input_table().float().numpy().T
    np.testing.assert_allclose(found, logits, atol=1e-4)


def test_new_tokens_get_fused_rows_and_old_ones_keep_theirs(
    tiny: Checkpoint, extended: PreTrainedTokenizerFast
) -> None:
    made = transfer(tiny, extended, Evidence(words=WORDS, text=lambda: LINES), method="inner_lexicon")
    table, old = made.table("input"), tiny.input_table().float()
    assert table is not None and torch.equal(table[: len(old)], old)
    new = range(len(old), len(extended))
    assert [made.token_map.rule_of(i) for i in new] == [FUSED] * len(new)
    assert torch.isfinite(table).all() and len({tuple(row.tolist()) for row in table[len(old) :]}) == len(new)
    again = transfer(tiny, extended, Evidence(words=WORDS, text=lambda: LINES), method="inner_lexicon").table("input")
    assert again is not None and torch.equal(table, again)


def test_an_untied_head_gets_rows_of_its_own(
    tiny: Checkpoint, extended: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    from vocabtransfer.tokenization.save import save_tokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny.path)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.save_pretrained(tmp_path)
    save_tokenizer(tiny.tokenizer, tmp_path)
    made = transfer(
        vt.open_checkpoint(tmp_path), extended, Evidence(words=WORDS, text=lambda: LINES), method="inner_lexicon"
    )
    entering, leaving = made.table("input"), made.table("output")
    assert entering is not None and leaving is not None
    assert torch.equal(entering[:100], leaving[:100])
    assert not torch.isclose(entering[-1], leaving[-1]).all()


def test_without_words_or_text_it_says_what_it_needs(tiny: Checkpoint, extended: PreTrainedTokenizerFast) -> None:
    assert Need.BODY in METHODS["inner_lexicon"].needs
    with pytest.raises(UsageError, match="words or text of the target language"):
        transfer(tiny, extended, method="inner_lexicon")


def test_lessons_are_tokens_and_the_parts_that_spell_them(tiny: Checkpoint, extended: PreTrainedTokenizerFast) -> None:
    inputs = transfer(tiny, extended, method="mean").inputs
    texts = inputs.source_vocabulary.token_bytes
    counts = np.zeros(len(texts))
    favourite = inputs.source_vocabulary.index()[(b"garden", True)]
    counts[favourite] = 5
    found = lessons(inputs, counts)
    assert len(found) == LESSONS and found[0][0] == favourite
    assert all(b"".join(texts[i] for i in parts.tolist()) == texts[token] for token, parts in found)
    assert {len(parts) for _, parts in found} == {2, 3}
    assert not lessons(replace(inputs, trained=np.zeros_like(inputs.trained)), counts)


def test_a_model_without_merges_teaches_nothing() -> None:
    assert merged_from({"type": "Unigram", "vocab": [["a", 0.0]]}) == {}
    assert merged_from({"merges": ["a b", ["ab", "c"]], "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3, "abc": 4}}) == {
        2: (0, 1),
        4: (2, 3),
    }


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), min_size=1, max_size=8))
def test_rows_of_spans_are_first_last_and_mean(spans: list[list[int]]) -> None:
    table = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    found = span_rows(table, [np.array(span) for span in spans])
    for span, row in zip(spans, found, strict=True):
        wanted = np.concatenate([table[span[0]], table[span[-1]], table[span].mean(axis=0)])
        np.testing.assert_allclose(row, wanted, atol=1e-6)


def test_a_row_for_both_sides_is_the_heads_where_states_lie_and_the_inputs_elsewhere() -> None:
    random = np.random.default_rng(0)
    states = np.zeros((50, 8), np.float32)
    states[:, :2] = random.normal(size=(50, 2)) * 100
    entering, leaving = random.normal(size=(2, 5, 8)).astype(np.float32)
    found = serving_both(entering, leaving, states)
    np.testing.assert_allclose(found[:, 2:], entering[:, 2:], atol=1e-6)
    near = np.abs(found @ states.T - leaving @ states.T).mean()
    assert near < 0.5 * np.abs(entering @ states.T - leaving @ states.T).mean()


def test_the_bias_brings_new_rows_half_way_to_their_frequency() -> None:
    random = np.random.default_rng(0)
    states = (random.normal(size=(400, 16)) + 2).astype(np.float32)
    old, new = random.normal(size=(30, 16)).astype(np.float32) * 0.1, np.zeros((3, 16), np.float32)
    fit = BiasFit.on(states)
    wanted = np.array([0.1, 0.01, 0.001])

    def expected(rows: np.ndarray) -> np.ndarray:
        logits = states @ np.concatenate([old, rows]).T
        share = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (share / share.sum(axis=1, keepdims=True)).mean(axis=0)[len(old) :]

    moved = new + np.outer(fitted_bias(fit, new, competition(fit, old), wanted), fit.direction)
    before, after = np.abs(np.log(expected(new) / wanted)), np.abs(np.log(expected(moved) / wanted))
    assert (after < 0.75 * before).all()


def a_lexicon(tied: bool) -> Lexicon:
    random = np.random.default_rng(0)
    entering, leaving, states = (random.normal(size=(n, 6)).astype(np.float32) for n in (3, 3, 40))
    expected = None
    if tied:
        fit = BiasFit.on(states + 1)
        expected = Expected(fit, np.zeros(3), np.full(3, 0.1), competition(fit, states[:9]))
    return Lexicon(9, np.array([2, 5, 7]), 400, entering, leaving, tied, states, expected)


@pytest.mark.parametrize("tied", [True, False])
def test_other_rows_are_mixed_in_by_their_share(tied: bool) -> None:
    own, others = a_lexicon(tied), np.full((3, 6), 4.0, np.float32)
    share = np.zeros(9, np.float32)
    plain = own.fused()
    none = own.fused({"input": (share, others), "output": (share, others)})
    assert plain.mask.tolist() == [i in (2, 5, 7) for i in range(9)]
    for part, rows in plain.tables.items():
        np.testing.assert_allclose(none.tables[part], rows, atol=1e-6)
    share[5] = 1.0
    some = own.fused({"input": (share, others), "output": (share, others)})
    for part, rows in plain.tables.items():
        if not tied:
            np.testing.assert_array_equal(some.rows(part, np.array([5])), others[:1])
            np.testing.assert_array_equal(some.rows(part, np.array([2, 7])), rows[[0, 2]])
        assert not np.allclose(some.rows(part, np.array([5])), rows[1])


def evidence() -> Evidence:
    pairs = [("The gardeners were watering the vegetables.", "De tuinlieden begieten de groenten.")] * 30
    pairs += [("We read newspapers.", "Wij lezen kranten.")] * 30
    return Evidence.of_pairs(pairs, alignment=vt.align_corpus(pairs))


def test_auto_leans_to_translations_and_its_rival_to_the_pieces(tiny: Checkpoint) -> None:
    tokenizer = train_tokenizer(LINES, like=tiny.tokenizer, vocab_size=400)
    made = {
        name: transfer(tiny, tokenizer, evidence(), method=name, calibrate=False, measure=True)
        for name in ("auto", "lexicon_and_translations", "inner_lexicon")
    }
    rules = {name: set(result.token_map.counts_by_rule()) for name, result in made.items()}
    assert ALIGNED in rules["auto"] and ALIGNED_AND_FUSED in rules["lexicon_and_translations"]
    tables = {name: result.table("input") for name, result in made.items()}
    new = torch.from_numpy(made["inner_lexicon"].initialization.dense.mask)  # type: ignore[union-attr]
    far, near = (
        (tables[name][new] - tables["inner_lexicon"][new]).norm()  # type: ignore[index]
        for name in ("auto", "lexicon_and_translations")
    )
    assert far > 2 * near > 0


def test_where_no_text_decides_a_source_that_knows_the_language_is_asked_more_than_few_translations(
    tiny: Checkpoint,
) -> None:
    tokenizer = train_tokenizer(LINES, like=tiny.tokenizer, vocab_size=400)
    bare = replace(evidence(), text=None, source_text=None)

    def table(**options: Any) -> torch.Tensor:
        found = transfer(tiny, tokenizer, bare, calibrate=False, **options).table("input")
        assert found is not None
        return found

    read, pieces = table(known=True), table(method="lexicon_and_translations")
    assert torch.equal(read, pieces) and not torch.equal(read, table())
    # Means of pieces do not know more than translations do.
    assert torch.equal(table(known=True, measure=False), table(measure=False))
    # Where there is text, it decides.
    given, plain = (transfer(tiny, tokenizer, evidence(), known=known) for known in (True, False))
    assert given.scores == plain.scores


def test_unless_ways_are_compared_the_model_is_not_run(tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = train_tokenizer(LINES, like=tiny.tokenizer, vocab_size=400)

    def fails(*_: object) -> np.ndarray:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(SourceStates, "span_states", fails)
    plain = transfer(tiny, tokenizer, evidence(), calibrate=False, measure=False)
    assert not plain.notes and plain.initialization.dense is None
    tripped = transfer(tiny, tokenizer, evidence(), calibrate=False, measure=True)
    assert "did not run (shapes do not fit)" in tripped.notes[-1]
    own, others = tripped.table("input"), plain.table("input")
    assert own is not None and others is not None and torch.equal(own, others)


def test_a_large_model_reads_pieces_unasked_on_a_gpu_alone(tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = sys.modules[transfer.__module__]
    monkeypatch.setattr(module, "MEASURED", tiny.parameters - 1)
    found = []
    for device in (None, "cpu", "cuda", "mps"):
        with running_with(device):
            found.append(module._reads_unasked(tiny))
    assert found == [False, False, True, True]
    monkeypatch.setattr(module, "MEASURED", tiny.parameters)
    assert module._reads_unasked(tiny)


def test_a_direction_tells_two_languages_apart() -> None:
    random = np.random.default_rng(0)
    common = random.normal(size=16) * 3
    ours, others = (
        (random.normal(size=(n, 16)) + common + random.normal(size=16)).astype(np.float32) for n in (500, 900)
    )
    found = telling_direction(ours, others)
    assert found.dtype == np.float32 and found.shape == (16,)
    assert (ours @ found).mean() > 0.8 and abs((others @ found).mean()) < 0.2


def test_an_extended_vocabulary_is_calibrated_apart_where_that_is_better(
    tiny: Checkpoint, extended: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules[transfer.__module__]
    plain = transfer(tiny, extended, evidence())
    label = next(label for label in plain.scores if label.endswith(APART))
    assert label.removesuffix(APART) in plain.scores and not any(
        "+calibrate" in key for key in plain.scores if key != label
    )
    monkeypatch.setattr(module, "APART_MARGIN", 10.0)
    kept = transfer(tiny, extended, evidence())
    assert kept.initialization.shift is None and f"Taken: {label.removesuffix(APART)}." in kept.notes[-1]
    monkeypatch.setattr(module, "APART_MARGIN", -10.0)
    apart = transfer(tiny, extended, evidence())
    assert apart.initialization.shift is not None and f"Taken: {label}." in apart.notes[-1]
    # Without text of the source's language nothing tells the two apart.
    alone = transfer(tiny, extended, replace(evidence(), source_text=None))
    assert alone.initialization.shift is None and label not in alone.scores


def test_the_first_way_stays_unless_another_is_clearly_better() -> None:
    assert best({"auto": 1.0, "pieces": 1.0 - MARGIN / 2}) == "auto"
    assert best({"auto": 1.0, "pieces": 1.0 - 2 * MARGIN, "mean": 0.9}) == "mean"


def test_auto_takes_what_scores_best_and_says_so(tiny: Checkpoint) -> None:
    tokenizer = train_tokenizer(LINES, like=tiny.tokenizer, vocab_size=400)
    made = transfer(tiny, tokenizer, Evidence(words=WORDS, text=lambda: LINES))
    assert {"auto", *METHODS["auto"].rivals} >= set(made.scores) >= {"auto", "inner_lexicon+calibrate"}
    taken = best(made.scores)
    assert made.method.name == "auto" and f"Taken: {taken}." in made.notes[-1] and "untouched model" in made.notes[-1]
    plain = transfer(tiny, tokenizer, Evidence(words=WORDS, text=lambda: LINES), measure=False)
    assert not plain.scores and plain.method.name == "auto"
    assert not transfer(tiny, tokenizer, Evidence(words=WORDS)).scores, "drawn words are no running text"


def test_a_sample_is_of_running_text_where_there_is_some() -> None:
    sample = draw_sample(WORDS, lambda: LINES, 0)
    assert sample is not None and sample.running
    assert set(sample.fitting[0].splitlines()) <= set(LINES)
    assert sample == draw_sample(WORDS, lambda: LINES, 0)
    drawn = draw_sample(WORDS, lambda: ["too short"], 0)
    assert drawn is not None and not drawn.running and set(drawn.fitting[0].split()) <= set(WORDS)
    assert draw_sample({}, None, 0) is None


@pytest.mark.slow
def test_the_inner_lexicon_reads_new_tokens_better_than_means_on_a_real_model(
    smollm2_folder: Path, real_tokenizer: Callable[[str], PreTrainedTokenizerFast]
) -> None:
    from vocabtransfer.evaluation.bits_per_byte import bits_per_byte
    from vocabtransfer.running.load import load_causal_model
    from vocabtransfer.running.swap_tables import with_tables

    source = vt.open_checkpoint(smollm2_folder)
    text = ["Photosynthesis is how green plants turn sunlight into chemical energy, which they store in carbohydrates."]
    tokenizer = extend_tokenizer(real_tokenizer("smollm2"), text * 9, new_tokens=20).tokenizer
    words = {word.strip(",."): 9.0 for word in text[0].split()}
    model, scores = load_causal_model(source.path), {}
    for name in ("pieces", "inner_lexicon"):
        made = transfer(source, tokenizer, Evidence(words=words, text=lambda: text * 40), method=name)
        table = made.table("input")
        assert table is not None
        with with_tables(model, table):
            scores[name] = bits_per_byte(model, tokenizer, text).bits_per_byte
    assert scores["inner_lexicon"] < scores["pieces"]
