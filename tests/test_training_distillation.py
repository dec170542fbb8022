"""Objectives with a teacher: token distillation and approximate likelihood matching."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from adapt_samples import one_thread
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from training_samples import new_tokenizer, old_tokenizer, packed_batch, small_model, text_file
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from vocabtransfer.checkpoint import Checkpoint, open_checkpoint
from vocabtransfer.checkpoint.synthetic import ROLES
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.surgery.transfer import transfer
from vocabtransfer.training import AdaptRequest, Stage, adapt
from vocabtransfer.training.alm import ChunkLikelihoods, binarised_divergence
from vocabtransfer.training.distill import TokenDistillation
from vocabtransfer.training.objectives import Batch, Objective, Surroundings, find_objective
from vocabtransfer.training.teacher import Teacher
from vocabtransfer.vocabulary import Vocabulary

Pair = tuple[Checkpoint, Checkpoint, PreTrainedModel, Batch]
DIVERGENCES = ("kl", "reverse_kl", "total_variation")


def load(checkpoint: Checkpoint) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(checkpoint.path, dtype=torch.float32)
    return model.eval()


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """An old and a new model with their own tokenizers, the new one loaded, and a batch for it."""
    folder = tmp_path_factory.mktemp("pair")
    old = small_model(folder / "old", old_tokenizer(), seed=1)
    new = small_model(folder / "new", new_tokenizer(), seed=2)
    return old, new, load(new), packed_batch(text_file(folder), new.tokenizer)


def surroundings(new: Checkpoint, old: Checkpoint | None, new_rows: np.ndarray | None = None) -> Surroundings:
    return Surroundings(new.tokenizer, new_rows, old, torch.device("cpu"), torch.float32, 0)


def coin(p: float, q: float, kind: str) -> float:
    """Divergence of two coins, written out."""
    if kind == "total_variation":
        return 0.5 * (abs(p - q) + abs((1 - p) - (1 - q)))
    if kind == "reverse_kl":
        p, q = q, p
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


@settings(max_examples=200, deadline=None)
@given(
    ours=st.floats(-200, -0.01),
    theirs=st.floats(-200, -0.01),
    temperature=st.floats(20, 500),
    kind=st.sampled_from(DIVERGENCES),
)
def test_the_divergence_of_two_coins(ours: float, theirs: float, temperature: float, kind: str) -> None:
    sides = [torch.tensor([side], dtype=torch.float64) for side in (ours, theirs)]
    found = binarised_divergence(*sides, temperature=temperature, divergence=kind).item()  # type: ignore[arg-type]
    expected = temperature * coin(math.exp(theirs / temperature), math.exp(ours / temperature), kind)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert found >= -1e-12 and binarised_divergence(sides[0], sides[0], temperature=temperature).item() == 0


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_certain_and_hopeless_chunks_have_finite_gradients(kind: str) -> None:
    ours = torch.tensor([0.0, 0.0, -1e-9, -5e4, -5e4, -3.0], dtype=torch.float64, requires_grad=True)
    theirs = torch.tensor([0.0, -40.0, -2.0, 0.0, -5e4, -1.0], dtype=torch.float64)
    loss = binarised_divergence(ours, theirs, divergence=kind)  # type: ignore[arg-type]
    loss.sum().backward()
    assert torch.isfinite(loss).all() and ours.grad is not None and torch.isfinite(ours.grad).all()
    assert ours.grad[1] > 0 > ours.grad[5], "a chunk the teacher finds less likely becomes less likely"


def log_probabilities(model: PreTrainedModel, ids: list[int]) -> list[float]:
    with torch.no_grad():
        scores = model(torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)
    return [scores[i, token].item() for i, token in enumerate(ids[1:])]


def spelled_out(pair: Pair) -> tuple[list[tuple[float, float]], list[tuple[torch.Tensor, torch.Tensor]]]:
    """Likelihoods of all chunks and hidden states at their ends, ours and the teacher's, by plain loops over tokens."""
    old, new, student, batch = pair
    teacher = load(old)
    sides = (Vocabulary.from_tokenizer(new.tokenizer), Vocabulary.from_tokenizer(old.tokenizer))
    likelihoods, states = [], []
    for row in range(len(batch.input_ids)):
        parts = [segment for segment in batch.segments if segment.row == row]
        ids = [old.tokenizer.bos_token_id]
        places = []
        for segment in parts:
            own = old.tokenizer(segment.text, add_special_tokens=False)["input_ids"]
            places.append((len(ids), own))
            ids += [*own, old.tokenizer.bos_token_id]
        theirs = log_probabilities(teacher, ids[:-1])
        ours = log_probabilities(student, batch.input_ids[row].tolist())
        with torch.no_grad():
            their_states = teacher.model(torch.tensor([ids[:-1]])).last_hidden_state[0]
            our_states = student.model(batch.input_ids[row : row + 1]).last_hidden_state[0]
        for segment, (begin, own) in zip(parts, places, strict=True):
            mine = batch.input_ids[row, segment.start : segment.stop].tolist()
            first = sides[0].token_bytes[mine[0]]
            skipped = len(segment.text[:1].encode()) - len(first) if first[0] & 0xC0 == 0x80 else 0
            borders = [{}, {}]  # type: ignore[var-annotated]
            for side, tokens, start, place in ((0, mine, segment.start, max(skipped, 0)), (1, own, begin, 0)):
                borders[side][place] = start
                for number, token in enumerate(tokens, start=start + 1):
                    place += len(sides[side].token_bytes[token])
                    borders[side][place] = number
            shared = sorted(borders[0].keys() & borders[1].keys())
            for a, b in pairwise(shared):
                spans = [(side[a], side[b]) for side in borders]
                likelihoods.append(
                    (sum(ours[spans[0][0] - 1 : spans[0][1] - 1]), sum(theirs[spans[1][0] - 1 : spans[1][1] - 1]))
                )
                states.append((our_states[spans[0][1] - 1], their_states[spans[1][1] - 1]))
    return likelihoods, states


def test_chunk_likelihoods_and_their_loss(pair: Pair) -> None:
    old, new, student, batch = pair
    likelihoods, _ = spelled_out(pair)
    objective = find_objective("alm", surroundings(new, old))
    assert isinstance(objective, ChunkLikelihoods)
    loss, count = objective.loss(student, batch)
    expected = [100 * coin(math.exp(theirs / 100), math.exp(ours / 100), "kl") for ours, theirs in likelihoods]
    assert count == len(expected) > 15
    assert loss.item() == pytest.approx(sum(expected), rel=1e-3)
    loss.backward()
    gradient = student.get_input_embeddings().weight.grad
    assert gradient is not None and float(gradient.abs().max()) > 0
    student.zero_grad()


def test_hidden_states_and_their_loss(pair: Pair) -> None:
    old, new, student, batch = pair
    _, states = spelled_out(pair)
    objective = TokenDistillation(Teacher.open(surroundings(new, old)), None, next_token=0.0)
    loss, count = objective.loss(student, batch)
    expected = sum(float((ours - theirs).square().mean()) for ours, theirs in states)
    assert count == len(states) and loss.item() == pytest.approx(expected, rel=1e-4)


def objectives(new: Checkpoint, old: Checkpoint, new_rows: np.ndarray | None = None) -> list[Objective]:
    return [find_objective(name, surroundings(new, old, new_rows)) for name in ("alm", "distill")]


def test_a_teacher_that_is_the_student_has_nothing_to_teach(pair: Pair) -> None:
    _, new, student, batch = pair
    for objective in objectives(new, new):
        loss, count = objective.loss(student, batch)
        assert count == sum(segment.stop - segment.start for segment in batch.segments)
        assert abs(loss.item()) < 1e-6


def test_next_token_loss_counts_as_much_as_distillation(pair: Pair) -> None:
    old, new, student, batch = pair
    teacher = Teacher.open(surroundings(new, old))
    alone, with_both = (TokenDistillation(teacher, None, next_token=share).loss(student, batch) for share in (0, 0.5))
    assert with_both[1] == alone[1] and with_both[0].item() == pytest.approx(1.5 * alone[0].item(), rel=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_of_its_own_learns_from_the_next_token(tied: bool, pair: Pair, tmp_path: Path) -> None:
    old, new, _, batch = pair
    student = load(small_model(tmp_path / "student", new.tokenizer, seed=5, tied=tied))
    teacher = Teacher.open(surroundings(new, old))
    loss, _ = TokenDistillation(teacher, None).loss(student, batch)
    loss.backward()
    alone, _ = TokenDistillation(teacher, None, next_token=0).loss(student, batch)
    assert loss.item() == pytest.approx((1 if tied else 2) * alone.item(), rel=1e-5)
    gradient = student.get_output_embeddings().weight.grad
    assert gradient is not None and float(gradient.abs().max()) > 0


def test_rows_do_not_depend_on_their_batch(pair: Pair) -> None:
    old, new, student, batch = pair
    objective = find_objective("alm", surroundings(new, old))
    whole, count = objective.loss(student, batch)
    parts = []
    for row in range(len(batch.input_ids)):
        own = [replace(segment, row=0) for segment in batch.segments if segment.row == row]
        parts.append(Batch(batch.input_ids[row : row + 1], batch.labels[row : row + 1], tuple(own)))
    found = [objective.loss(student, part) for part in parts]
    assert sum(number for _, number in found) == count
    assert sum(loss.item() for loss, _ in found) == pytest.approx(whole.item(), rel=1e-5)


def test_only_places_from_the_first_new_token_on_count(pair: Pair) -> None:
    old, new, student, batch = pair
    first = int(batch.input_ids[1, 9])
    new_rows = np.zeros(len(new.tokenizer), dtype=bool)
    new_rows[first] = True
    teacher = Teacher.open(surroundings(new, old))
    everywhere, total = TokenDistillation(teacher, None, next_token=0).loss(student, batch)
    some, count = TokenDistillation(teacher, new_rows, next_token=0).loss(student, batch)
    assert 0 < count < total and 0 < some.item() < everywhere.item()
    nowhere, none = TokenDistillation(teacher, np.zeros_like(new_rows)).loss(student, batch)
    assert (nowhere.item(), none) == (0.0, 0) and nowhere.requires_grad


def test_a_batch_without_text(pair: Pair) -> None:
    old, new, student, batch = pair
    empty = Batch(torch.full_like(batch.input_ids, 0), torch.full_like(batch.labels, -100))
    for objective in objectives(new, old):
        loss, count = objective.loss(student, empty)
        loss.backward()
        assert (loss.item(), count) == (0.0, 0)
    student.zero_grad()


def test_text_that_the_teacher_cannot_reach_is_left_out(pair: Pair, tmp_path: Path) -> None:
    """The old model has 64 positions; long rows of the new one take more of its tokens."""
    old, new, student, _ = pair
    batch = packed_batch(text_file(tmp_path, times=4), new.tokenizer, rows=2, block=60)
    reading = Teacher.open(surroundings(new, old)).read(batch)
    assert max(map(len, reading.sequences)) == 64
    counted = reading.chunks.theirs >= 0
    assert counted.any() and (reading.teacher_columns[counted] < 64).all() and not counted.all()
    for objective in objectives(new, old):
        loss, count = objective.loss(student, batch)
        assert count == len(reading.chunks) and loss.item() > 0


def test_a_teacher_of_another_width(pair: Pair, tiny_llama: Path) -> None:
    _, new, student, batch = pair
    wide = open_checkpoint(tiny_llama)
    likelihoods, states = objectives(new, wide)
    assert likelihoods.loss(student, batch)[1] > 0
    with pytest.raises(
        VocabTransferError, match=r"have 32 numbers and the model's 8: token distillation needs the model"
    ):
        states.loss(student, batch)


def test_a_teacher_that_cannot_read_the_text(pair: Pair, tmp_path: Path) -> None:
    """Its tokenizer knows Latin letters only, and no bytes to fall back on."""
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", "<pad>", "<unk>", "▁", *"abcdehinst"])}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    latin = PreTrainedTokenizerFast(tokenizer_object=backend, **ROLES)
    _, new, student, _ = pair
    teacher = Teacher(load(small_model(tmp_path / "latin", latin, seed=4)), latin, new.tokenizer)
    batch = packed_batch(text_file(tmp_path, ["китапханәдөньякитабы中文"], times=6), new.tokenizer, block=20)
    with pytest.raises(VocabTransferError, match="or knows none of its characters: give the model that the transfer"):
        ChunkLikelihoods(teacher).loss(student, batch)


@pytest.mark.parametrize("name", ["distill", "alm"])
def test_an_adaptation_learns_from_its_teacher(name: str, pair: Pair, tmp_path: Path) -> None:
    """Tables of a model that has its teacher's body come closer to what the teacher does with its own tokens."""
    old, _, _, _ = pair
    made = transfer(old, new_tokenizer(), method="pieces")
    made.save(tmp_path / "made")
    file = text_file(tmp_path, times=3)
    request = AdaptRequest(
        model=str(tmp_path / "made"),
        text=(file,),
        output=tmp_path / "out",
        stages=(Stage("new", 30, False, 1e-2),),
        block=16,
        batch_tokens=64,
        objective=name,
        teacher=str(old.path),
        cpu=True,
    )
    adapt(request)
    batch = packed_batch(file, made.tokenizer, rows=12)
    objective = find_objective(name, surroundings(open_checkpoint(tmp_path / "made"), old))
    scores = [objective.loss(load(open_checkpoint(tmp_path / folder)), batch)[0].item() for folder in ("made", "out")]
    assert scores[1] < 0.9 * scores[0]
    before, after = (load_file(folder / "model-00.safetensors") for folder in (tmp_path / "made", tmp_path / "out"))
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert changed == ["model.embed_tokens.weight"]
    kept = (before[changed[0]] == after[changed[0]]).all(dim=1)
    the, new_row = (made.tokenizer(text)["input_ids"][0] for text in (" the", "апха"))
    assert not kept[new_row]
    # Rows that the transfer copied stay; where rows are distilled, those that new tokens begin with make room.
    assert kept[the] if name == "alm" else kept[: old.layout.rows].any()
