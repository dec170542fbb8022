"""Rows that learn together, text cut in several ways, the pull to the start, and the learned map."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapt_samples import dying_after, files, make_model, one_thread, parameters
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from torch import nn
from training_samples import LINES, before_and_after, new_tokenizer, text_file

import vocabtransfer as vt
from vocabtransfer.checkpoint import Checkpoint, open_checkpoint
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.training.cuts import Cuts
from vocabtransfer.training.learned_map import LearnedRows, candidates
from vocabtransfer.training.request import new_rows_of
from vocabtransfer.training.table_forms import SharedRows, map_shares, pieces_shares

INPUT, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def pair(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Checkpoint]:
    """A model, and what a transfer made of it."""
    return before_and_after(tmp_path_factory.mktemp("forms"), tied=request.param)


def adaptation(made: Checkpoint, folder: Path, *stages: str, **options: Any) -> vt.AdaptRequest:
    folder.mkdir(exist_ok=True)
    settings: dict[str, Any] = {"block": 16, "batch_tokens": 64, "save_every": 2, "cpu": True}
    wanted = tuple(vt.Stage.parse(stage) for stage in stages)
    return vt.AdaptRequest(str(made.path), (text_file(folder, times=5),), folder / "out", wanted, **settings | options)


def steps(table: nn.Parameter, parameters: list[nn.Parameter], form: Any, made: Any, aim: torch.Tensor) -> torch.Tensor:
    """Make some updates towards ``aim`` of what ``made`` computes; return what it computes then."""
    optimizer = torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.0)
    for _ in range(5):
        optimizer.zero_grad(set_to_none=True)
        table.grad = None
        ((made() - aim) ** 3).abs().sum().backward()
        if form is not None:
            form.collect()
        optimizer.step()
        if form is not None:
            form.apply()
    return made().detach().clone()


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_forms_are_what_autograd_makes_of_their_formulas(seed: int) -> None:
    """A form works on the table's gradient; written out, the same formulas give the same tables."""
    torch.manual_seed(seed)
    dense = (torch.rand(6, 4) < 0.5).float() * torch.rand(6, 4)
    shares = sparse.csr_array(dense.numpy())
    start, aim, source = torch.randn(6, 3), torch.randn(6, 3), torch.randn(4, 3)

    table = nn.Parameter(start.clone())
    form = SharedRows({"t": table}, shares)
    ours = steps(table, [table, *form.parameters.values()], form, lambda: table, aim)
    own, parts = nn.Parameter(torch.zeros(6, 3)), nn.Parameter(torch.zeros(4, 3))
    theirs = steps(own, [own, parts], None, lambda: start + own + dense @ parts, aim)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)

    table = nn.Parameter(start.clone())
    learned = LearnedRows({"t": table}, {"t": shares}, {"t": source})
    ours = steps(table, list(learned.parameters.values()), learned, lambda: table, aim)
    entries, places = nn.Parameter(torch.from_numpy(shares.data.copy())), torch.from_numpy(dense.numpy()).nonzero().T
    full = lambda: torch.sparse_coo_tensor(places, entries, (6, 4), check_invariants=False).to_dense() @ source  # noqa: E731
    rest = start - full().detach()
    theirs = steps(entries, [entries], None, lambda: rest + full(), aim)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_tokens_share_what_they_were_merged_from(pair: tuple[Checkpoint, Checkpoint]) -> None:
    made = pair[1]
    new_rows = np.ones(made.layout.rows, np.bool_)
    shares = pieces_shares(made, new_rows)
    np.testing.assert_allclose(np.asarray(shares.sum(axis=1))[: len(made.vocabulary)].max(), 1, rtol=1e-6)
    key = {made.tokenizer.convert_tokens_to_string([token]): i for token, i in made.tokenizer.get_vocab().items()}
    then, the, kit = (shares[[key[word]]].toarray()[0] for word in (" then", " the", "кит"))
    assert (then * the).sum() > 0 == (then * kit).sum(), "the parts of ' the' are parts of ' then', none of 'кит'"
    frozen = np.zeros(made.layout.rows, np.bool_)
    assert pieces_shares(made, frozen).nnz == 0 == map_shares(made, frozen).nnz


@pytest.mark.parametrize("form", ["pieces", "map"])
def test_new_rows_learn_together_and_old_ones_stay(
    pair: tuple[Checkpoint, Checkpoint], tmp_path: Path, form: str
) -> None:
    made = pair[1]
    kept = ~new_rows_of(made)  # type: ignore[operator]
    result = vt.adapt(adaptation(made, tmp_path / form, "new:8:1e-2", tables=form))
    alone = vt.adapt(adaptation(made, tmp_path / "rows", "new:8:1e-2"))
    before, after, other = (parameters(path) for path in (made.path, result.output, alone.output))
    assert result.facts["tables"] == form and result.losses[0][-1] < result.losses[0][0]
    for name in before:
        same = torch.from_numpy(kept) if name in (INPUT, HEAD) else ...
        assert torch.equal(before[name][same], after[name][same])
    assert not torch.equal(after[INPUT], other[INPUT])


def test_a_run_that_dies_goes_on_with_the_same_bytes(pair: tuple[Checkpoint, Checkpoint], tmp_path: Path) -> None:
    options: dict[str, Any] = {"tables": "pieces", "bpe_dropout": 0.2, "pull": 5.0, "resume": True}
    stages = ("new:4:1e-2", "all:5:1e-2")
    whole = vt.adapt(adaptation(pair[1], tmp_path / "whole", *stages, **options))
    wanted = adaptation(pair[1], tmp_path / "parts", *stages, **options)
    for life in (3, 2, 3):
        with dying_after(life):
            vt.adapt(wanted)
    result = vt.adapt(wanted)
    assert result.losses == whole.losses and files(result.output) == files(whole.output)


def test_the_pull_keeps_what_learns_near_its_start(pair: tuple[Checkpoint, Checkpoint], tmp_path: Path) -> None:
    made, moved = pair[1], []
    for pull in (0.0, 30.0):
        result = vt.adapt(adaptation(made, tmp_path / str(pull), "tables:10:1e-2", tables="pieces", pull=pull))
        moved.append((parameters(result.output)[INPUT] - parameters(made.path)[INPUT]).norm())
    assert 0 < moved[1] < 0.7 * moved[0]


def test_tables_take_so_many_times_the_rate_of_the_body(pair: tuple[Checkpoint, Checkpoint], tmp_path: Path) -> None:
    made, before = pair[1], parameters(pair[1].path)

    def moved(name: str, stage: str, **options: Any) -> dict[str, float]:
        """How far the input table and all matrices of the body went in one update."""
        after = parameters(vt.adapt(adaptation(made, tmp_path / name, stage, **options)).output)
        ways = {key: float((after[key] - before[key]).norm()) for key in before if before[key].dim() > 1}
        return {"table": ways[INPUT], "body": sum(way for key, way in ways.items() if ".layers." in key)}

    plain, faster = (moved(str(rate), "all:1:1e-3", table_rate=rate) for rate in (1.0, 4.0))
    assert faster["table"] == pytest.approx(4 * plain["table"], rel=1e-3)
    assert faster["body"] == pytest.approx(plain["body"], rel=1e-5) and plain["body"] > 0
    # What draws back follows the rate of each: a fifth of the body's way, four fifths of the tables'.
    drawn = moved("drawn", "all:1:1e-3", table_rate=4.0, pull=200.0)
    assert drawn["body"] == pytest.approx(0.8 * faster["body"], rel=1e-3)
    assert drawn["table"] == pytest.approx(0.2 * faster["table"], rel=1e-3)


@pytest.mark.parametrize(("new", "faster"), [(0.45, 1.0), (0.55, 5.0)])
def test_tables_are_faster_by_themselves_where_all_learns_and_most_rows_are_new(
    pair: tuple[Checkpoint, Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: float, faster: float
) -> None:
    rows = np.arange(pair[1].layout.rows) < new * pair[1].layout.rows
    monkeypatch.setattr("vocabtransfer.training.adaptation.new_rows_of", lambda checkpoint: rows)
    stages = ("tables:1:1e-3", "outer:1:1e-3", "all:1:1e-3")
    facts = vt.adapt(adaptation(pair[1], tmp_path / "out", *stages)).facts
    assert [stage["table_rate"] for stage in facts["stages"]] == [1.0, 1.0, faster]
    given = vt.adapt(adaptation(pair[1], tmp_path / "given", *stages, table_rate=2.0)).facts
    assert [stage["table_rate"] for stage in given["stages"]] == [1.0, 2.0, 2.0]


@given(
    st.lists(st.sampled_from([*LINES, " ", "中", "then the king"])).map("".join), st.floats(0, 0.95), st.integers(0, 9)
)
@settings(max_examples=60, deadline=None)
def test_cut_text_is_the_same_text(text: str, chance: float, seed: int) -> None:
    tokenizer = new_tokenizer()
    ids = np.array(tokenizer(text, add_special_tokens=False)["input_ids"], np.int64)
    cuts = Cuts.of(tokenizer, chance)
    cut = cuts(ids, np.random.default_rng(seed))
    assert tokenizer.decode(cut.tolist()) == tokenizer.decode(ids.tolist())
    np.testing.assert_array_equal(cut, cuts(ids, np.random.default_rng(seed)))
    assert len(cut) >= len(ids) and (chance > 0 or len(cut) == len(ids))


def test_half_of_the_tokens_come_apart() -> None:
    tokenizer = new_tokenizer()
    then = tokenizer(" then", add_special_tokens=False)["input_ids"]
    assert len(then) == 1
    cut = Cuts.of(tokenizer, 0.5)(np.array(then * 4000), np.random.default_rng(0))
    assert 0.45 < (cut == then[0]).mean() * len(cut) / 4000 < 0.55


def test_only_the_map_is_learned(pair: tuple[Checkpoint, Checkpoint], tmp_path: Path) -> None:
    old, made = pair
    new_rows = new_rows_of(made)
    assert new_rows is not None
    options: dict[str, Any] = {"objective": "learned_map", "teacher": str(old.path), "resume": True}
    whole = vt.adapt(adaptation(made, tmp_path / "whole", "new:20:0.05", **options))
    assert np.mean(whole.losses[0][-5:]) < np.mean(whole.losses[0][:5])
    before, after = parameters(made.path), parameters(whole.output)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {INPUT, HEAD} & set(before)
    changes = (after[INPUT] - before[INPUT]).numpy()
    assert not changes[~new_rows].any() and changes[new_rows].any()
    # A row moves only in the directions of the old rows that it may take.
    maps, source = candidates(made, old, new_rows), old.input_table().numpy()
    for row in np.flatnonzero(new_rows)[:12]:
        own = source[maps[[row]].indices]
        weights = np.linalg.lstsq(own.T, changes[row], rcond=None)[0]
        np.testing.assert_allclose(weights @ own, changes[row], atol=2e-5)
    wanted = adaptation(made, tmp_path / "parts", "new:20:0.05", **options)
    with dying_after(7):
        vt.adapt(wanted)
    assert files(vt.adapt(wanted).output) == files(whole.output)


def test_what_cannot_be_is_refused(pair: tuple[Checkpoint, Checkpoint], tmp_path: Path) -> None:
    old, made = pair
    teacher: dict[str, Any] = {"objective": "learned_map", "teacher": str(old.path)}
    distill = teacher | {"objective": "distill"}
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("new:2:1e-2", {"tables": "letters"}, "`tables` is one of rows, pieces, map"),
        ("new:2:1e-2", {"bpe_dropout": 1.0}, "`bpe_dropout` is 1.0"),
        ("new:2:1e-2", {"pull": -1.0}, "`pull` is -1.0"),
        ("all:2:1e-2", {"table_rate": 0.0}, "`table_rate` is 0.0"),
        ("tables:2:1e-2", {"table_rate": 5.0}, "`table_rate` is 5, but no stage trains the body"),
        ("tables:2:1e-2", teacher, "trains nothing but new rows"),
        ("new:2:1e-2", {**teacher, "tables": "map"}, "no `tables`"),
        ("new:2:1e-2", {**teacher, "pull": 1.0}, "no `tables` and `pull`"),
        ("new:2:1e-2", {**distill, "tables": "pieces"}, "`tables` is pieces: .* each for itself"),
        ("new:2:1e-2", {"objective": "learned_map"}, "`teacher`"),
        ("all:2:1e-2", {"objective": "alm", "teacher": str(old.path), "bpe_dropout": 0.1}, "compares two tokenizers"),
    ]
    for number, (stage, options, said) in enumerate(wrong):
        with pytest.raises(UsageError, match=said):
            vt.adapt(adaptation(made, tmp_path / str(number), stage, **options))
    # A vocabulary of bytes has nothing to share and nothing to cut, and without a map it is not known what came from where.
    bytes_only = make_model(tmp_path / "bytes")
    (bytes_only / "token_map.safetensors").unlink()
    for options, said in (({"tables": "pieces"}, "no merges"), ({"tables": "map"}, "no token_map")):
        with pytest.raises(VocabTransferError, match=said):
            vt.adapt(adaptation(open_checkpoint(bytes_only), tmp_path / "no", "all:2:1e-2", **options))
    with pytest.raises(UsageError, match="needs a tokenizer with merges"):
        vt.adapt(adaptation(open_checkpoint(bytes_only), tmp_path / "no", "all:2:1e-2", bpe_dropout=0.1))
