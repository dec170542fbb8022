"""Distillation that trains new rows alone: what it computes, what it holds, and that it can be stopped anywhere."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapt_samples import Stop, files, one_thread, parameters
from hypothesis import given
from hypothesis import strategies as st
from training_samples import LINES, before_and_after, old_tokenizer, small_model, text_file

import vocabtransfer as vt
from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.running.load import load_causal_model
from vocabtransfer.training.early_layers import EarlyLayers, load_early
from vocabtransfer.training.request import new_rows_of
from vocabtransfer.training.row_distiller import RowDistiller, leading_rows, same_body
from vocabtransfer.training.row_fit import RowFit, foretold
from vocabtransfer.training.row_head import HeadPlaces, RowHead
from vocabtransfer.training.row_lessons import Cutter, Snippets, choose_texts, take_lessons, worthiest
from vocabtransfer.training.snippets import SnippetChooser

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def pair(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Checkpoint]:
    """A model, and what a transfer made of it."""
    return before_and_after(tmp_path_factory.mktemp("rows"), tied=request.param)


def adaptation(old: Checkpoint, made: Checkpoint, folder: Path, **options: Any) -> vt.AdaptRequest:
    settings: dict[str, Any] = {"block": 16, "batch_tokens": 64, "save_every": 2, "cpu": True, "evaluate_every": 4}
    return vt.AdaptRequest(
        model=str(made.path),
        text=(text_file(folder, times=5),),
        output=folder / "out",
        stages=(vt.Stage("new", 8, False, 1e-2),),
        objective="distill",
        teacher=str(old.path),
        **(settings | options),
    )


def lessons_of(old: Checkpoint, made: Checkpoint) -> tuple[np.ndarray, Snippets, RowHead, EarlyLayers]:
    new_rows = new_rows_of(made)
    assert new_rows is not None
    texts, counts = choose_texts(LINES, SnippetChooser(made.tokenizer, new_rows), new_rows, 10_000)
    snippets = Cutter(made.tokenizer, old.tokenizer)(texts, new_rows, new_rows, counts)
    head = RowHead(made, np.flatnonzero(new_rows), torch.float32, CPU)
    return new_rows, snippets, head, EarlyLayers(load_causal_model(old.path), 1)


def fit_of(old: Checkpoint, made: Checkpoint) -> tuple[RowFit, Snippets]:
    """Return a fit of the new rows at its start, and what it is fitted on."""
    new_rows, snippets, head, teacher = lessons_of(old, made)
    separator = int(old.tokenizer.bos_token_id or 0)
    lessons = take_lessons(snippets, teacher, head, separator)
    layers = EarlyLayers(load_early(made, 1, torch.float32, CPU), 1)
    return RowFit(made, np.flatnonzero(new_rows), layers, head, snippets, lessons, separator, 0), snippets


@given(
    found=st.lists(st.lists(st.integers(0, 29), min_size=1, max_size=8, unique=True), min_size=1, max_size=60),
    tokens=st.integers(1, 800),
    chance=st.randoms(use_true_random=False),
)
def test_snippets_are_chosen_within_what_is_asked_for(found: list[list[int]], tokens: int, chance: Any) -> None:
    sizes, counts = [chance.randint(len(ids), 20) for ids in found], np.zeros(30, np.int64)
    for ids in found:
        counts[ids] += 1
    arrays = [np.array(sorted(ids)) for ids in found]
    chosen = worthiest(arrays, sizes, counts, tokens)
    taken = int(np.array(sizes)[chosen].sum())
    assert chosen.all() or tokens <= taken < tokens + max(sizes)
    assert (chosen == worthiest(arrays, sizes, counts, tokens)).all()


def test_room_for_few_snippets_meets_most_new_tokens() -> None:
    # Each of the first 100 snippets has one token that no other snippet has, each of the next ten has ten of those.
    found = [np.array([i]) for i in range(100)] + [np.arange(10 * i, 10 * i + 10) for i in range(10)]
    chosen = worthiest(found, [20] * len(found), np.full(100, 2), 200)
    assert chosen.sum() == 10 and chosen[100:].all()
    # A second meeting is worth less than the first one of a token that is met nowhere else.
    found = [np.array([0, 1, 2])] * 30 + [np.array([3])] * 30
    chosen = worthiest(found, [20] * len(found), np.array([30, 30, 30, 30]), 600)
    assert chosen[:30].any() and chosen[30:].any()


def test_places_are_where_both_have_read_the_same_bytes(pair: tuple[Checkpoint, Checkpoint]) -> None:
    old, made = pair
    new_rows, snippets, _, _ = lessons_of(old, made)
    assert len(snippets.text) > 20 and snippets.matched.any() and not snippets.matched.all()
    for text, column, old_column, following, matched in zip(
        snippets.text, snippets.column, snippets.old_column, snippets.following, snippets.matched, strict=True
    ):
        read = [
            b"".join(each.vocabulary.token_bytes[i] for i in side[text][:end])
            for each, side, end in ((made, snippets.new, column), (old, snippets.old, old_column))
        ]
        assert read[0] == read[1]
        assert matched == new_rows[snippets.new[text][:column]].any()
        rest = snippets.new[text][column:]
        assert following == (rest[0] if len(rest) else -1)


def test_what_is_kept_is_what_the_untouched_model_says(pair: tuple[Checkpoint, Checkpoint]) -> None:
    old, made = pair
    new_rows, snippets, head, teacher = lessons_of(old, made)
    separator = old.tokenizer.bos_token_id
    assert separator is not None
    lessons = take_lessons(snippets, teacher, head, separator)
    model, asked, matched = load_causal_model(old.path), 0, 0
    table = made.output_table().float()
    for place, text in enumerate(snippets.text):
        ids = torch.tensor([[separator, *snippets.old[text].tolist()]])
        with torch.no_grad():
            states = model.base_model(ids, output_hidden_states=True)
        column = int(snippets.old_column[place])
        if snippets.matched[place]:
            torch.testing.assert_close(lessons.early[matched], states.hidden_states[1][0, column], rtol=1e-4, atol=1e-5)
            matched += 1
        if snippets.following[place] >= 0:
            last = states.last_hidden_state[0, column]
            torch.testing.assert_close(lessons.last[asked], last, rtol=1e-4, atol=1e-5)
            expected = torch.logsumexp((table @ last)[~torch.from_numpy(new_rows)], 0)
            torch.testing.assert_close(lessons.log_sum[asked], expected, rtol=1e-4, atol=1e-4)
            asked += 1
    assert (matched, asked) == (len(lessons.early), len(lessons.last))


def test_layers_above_are_neither_run_nor_loaded(pair: tuple[Checkpoint, Checkpoint]) -> None:
    _, made = pair
    whole, cut = load_causal_model(made.path), load_early(made, 1, torch.float32, CPU)
    names = {name for name, _ in cut.named_parameters()}
    assert not any(".layers.1." in name for name in names) and any(".layers.0." in name for name in names)
    ids = torch.tensor([[0, 5, 9, 7, 260]])
    with torch.no_grad():
        expected = whole.base_model(ids, output_hidden_states=True).hidden_states[1]
        table = whole.get_input_embeddings().weight
        for model in (whole, cut):
            torch.testing.assert_close(EarlyLayers(model, 1).states(ids, table), expected)
        assert len(whole.model.layers) == 2, "the layers are all back"
    with pytest.raises(VocabTransferError, match="layers 1 to 2"):
        EarlyLayers(whole, 3)


def test_only_new_rows_are_parameters_and_both_sides_get_better(pair: tuple[Checkpoint, Checkpoint]) -> None:
    old, made = pair
    fit, snippets = fit_of(old, made)
    held = [parameter for group in fit.optimizer.param_groups for parameter in group["params"]]
    sides = 1 if made.layout.output_name is None else 2
    new_rows = new_rows_of(made)
    assert new_rows is not None
    assert [tuple(parameter.shape) for parameter in held] == [(new_rows.sum(), made.input_table().shape[1])] * sides
    everything = np.arange(len(snippets))
    before = [float(fit._state_loss(everything).detach()), float(fit._word_loss(0, 400).detach())]
    for number, texts in enumerate(fit.plan(64, 60)):
        fit.update(number, texts, 3e-3)
    after = [float(fit._state_loss(everything).detach()), float(fit._word_loss(0, 400).detach())]
    assert after[0] < 0.9 * before[0] and after[1] < before[1]
    for side, counts in fit.counts.items():
        moved = (fit.changes[side].detach() != 0).any(dim=1).numpy()
        assert (moved == (counts > 0)).all(), "rows that no snippet holds stay for `foretold`"


def test_rows_are_pulled_to_their_start(pair: tuple[Checkpoint, Checkpoint]) -> None:
    old, made = pair
    norms = []
    for pull in (0.0, 50.0):
        fit, _ = fit_of(old, made)
        for number, texts in enumerate(fit.plan(64, 20)):
            fit.update(number, texts, 1e-3, pull)
        norms.append([float(change.detach().norm()) for change in fit.changes.values()])
    assert all(0 < held < 0.9 * free for free, held in zip(*norms, strict=True))


def test_the_pull_of_a_stage_is_one_where_none_is_given(pair: tuple[Checkpoint, Checkpoint], tmp_path: Path) -> None:
    old, made = pair
    stage = vt.Stage("new", 8, False, 1e-2)
    one = 1 / sum(stage.rate(number, 8) for number in range(8))
    moved: list[float] = []
    written = []
    for name, pull in (("left", None), ("one", one), ("strong", 30 * one)):
        result = vt.adapt(replace(adaptation(old, made, tmp_path), output=tmp_path / name, pull=pull))
        before, after = parameters(made.path), parameters(result.output)
        moved.append(sum(float((after[key] - before[key]).norm()) for key in before))
        written.append(after)
        assert [each["pull"] for each in result.facts["stages"]] == [one if pull is None else pull]
    assert all(torch.equal(written[0][key], written[1][key]) for key in written[0])
    assert 0 < moved[2] < 0.5 * moved[0]


@pytest.mark.parametrize("settings", [(None, 1.0), (5.0, 0.5)], ids=["plain", "capped and scaled"])
def test_nats_and_their_gradient_are_those_of_all_logits(
    settings: tuple[float | None, float], pair: tuple[Checkpoint, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, made = pair
    numbers = np.array([2, 5, 250, 251, 252, 253])
    head, chance = RowHead(made, numbers, torch.float32, CPU), torch.Generator().manual_seed(3)
    (cap, scale), size = settings, 40
    monkeypatch.setattr(head, "_cap", cap)
    monkeypatch.setattr(head, "_scale", scale)
    states = torch.randn(size, head.width, generator=chance) * 3
    following = torch.randint(len(made.output_table()), (size,), generator=chance)
    following[: len(numbers)] = torch.from_numpy(numbers)
    weight = torch.rand(size, generator=chance)
    table = made.output_table().float().requires_grad_()
    logits = states @ table.T * scale
    logits = logits if cap is None else torch.tanh(logits / cap) * cap
    stays = torch.ones(len(table), dtype=torch.bool)
    stays[torch.from_numpy(numbers)] = False
    log_sum = torch.logsumexp(logits[:, stays], dim=1).detach()
    # What the rows that stay cost among themselves is left out.
    own = torch.where(stays[following], log_sum, logits.gather(1, following[:, None])[:, 0])
    expected = (weight * (torch.logaddexp(log_sum, torch.logsumexp(logits[:, ~stays], dim=1)) - own)).mean()
    expected.backward()
    torch.testing.assert_close(head.log_sum(states), log_sum)
    rows = head.start().requires_grad_()
    place = torch.full((len(table),), -1).index_put((torch.from_numpy(numbers),), torch.arange(len(numbers)))
    monkeypatch.setattr("vocabtransfer.training.row_head._LEARNT_AT_A_TIME", 16)
    nats = head.nats(rows, HeadPlaces(states, log_sum, place[following], weight))
    (2 * nats).backward()
    torch.testing.assert_close(nats, expected)
    assert table.grad is not None and rows.grad is not None
    torch.testing.assert_close(rows.grad, 2 * table.grad[torch.from_numpy(numbers)])


@pytest.mark.parametrize("held_out", [False, True])
def test_a_stopped_run_goes_on_with_the_same_bytes(
    held_out: bool, pair: tuple[Checkpoint, Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, made = pair
    folders = [tmp_path / name for name in ("whole", "stopped")]
    for folder in folders:
        folder.mkdir()
    options = {"held_out": (text_file(tmp_path),), "patience": 5} if held_out else {}
    whole = adaptation(old, made, folders[0], **options)
    result = vt.adapt(whole)
    assert result.facts["teacher_layer"] == 1 and len(result.losses[0]) == 8
    stopped = adaptation(old, made, folders[1], **options)
    own, calls = RowFit.update, [0]

    def dying(self: RowFit, *arguments: Any) -> float:
        calls[0] += 1
        if calls[0] == 6:
            raise Stop
        return own(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(RowFit, "update", dying)
        vt.adapt(stopped)
    vt.adapt(replace(stopped, resume=True))
    ours, theirs = files(folders[0] / "out"), files(folders[1] / "out")
    assert ours == theirs
    before, after = (parameters(folder) for folder in (made.path, folders[0] / "out"))
    new_rows = new_rows_of(made)
    assert new_rows is not None
    trained = new_rows | leading_rows(made, old, new_rows)
    tables = {tensor.name for tensor in made.layout.tensors}
    for name, value in before.items():
        same = (value == after[name]).reshape(len(value), -1).all(dim=1).numpy()
        assert same[~trained].all() if name in tables else same.all()
    assert not torch.equal(before[made.layout.input_name], after[made.layout.input_name])


def test_a_later_stage_goes_on_from_the_rows(pair: tuple[Checkpoint, Checkpoint], tmp_path: Path) -> None:
    old, made = pair
    stages = (vt.Stage("new", 4, False, 1e-2), vt.Stage("tables", 2, False, 1e-9))
    result = vt.adapt(replace(adaptation(old, made, tmp_path), stages=stages))
    assert [stage["updates"] for stage in result.facts["stages"]] == [4, 2]
    alone = tmp_path / "alone"
    alone.mkdir()
    vt.adapt(replace(adaptation(old, made, alone), stages=(vt.Stage("new", 4, False, 1e-2),)))
    # The rate of a stage is shaped by its own length, so the first stages are the same.
    tables = [parameters(path) for path in (tmp_path / "out", alone / "out")]
    torch.testing.assert_close(tables[0], tables[1], rtol=1e-5, atol=1e-6)


def test_another_body_cannot_teach_rows(pair: tuple[Checkpoint, Checkpoint], tmp_path: Path) -> None:
    old, made = pair
    tied = made.layout.output_name is None
    other = small_model(tmp_path / "other", old_tokenizer(), seed=7, tied=tied)
    assert same_body(made, old) and not same_body(made, other)
    assert RowDistiller.find(made, other, None, torch.float32, CPU) is None
    with pytest.raises(VocabTransferError, match="leave out `teacher_layer`"):
        vt.adapt(adaptation(other, made, tmp_path, teacher_layer=1))
    with pytest.raises(VocabTransferError, match="has layers 1 to 2"):
        vt.adapt(adaptation(old, made, tmp_path, teacher_layer=3))
    with pytest.raises(UsageError, match="`teacher_layer` is for"):
        vt.adapt(replace(adaptation(old, made, tmp_path, teacher_layer=1), objective="clm", teacher=None))


def test_rows_that_were_not_met_follow_those_that_were() -> None:
    chance = torch.Generator().manual_seed(1)
    start = torch.randn(400, 8, generator=chance)
    change = start @ torch.randn(8, 8, generator=chance) * 0.3 + 0.2
    counts = np.ones(400, np.int64)
    counts[::5] = 0
    met = torch.from_numpy(counts > 0)
    found, explained = foretold(start, change * met[:, None], counts)
    assert explained > 0.9
    assert (found - change[~met]).square().sum() < 0.1 * change[~met].square().sum()
    noise = torch.randn(400, 8, generator=chance) * met[:, None]
    unknown, explained = foretold(start, noise, counts)
    assert explained < 0.05 and not unknown.any()
    assert foretold(start[:20], noise[:20], counts[:20])[1] == 0
