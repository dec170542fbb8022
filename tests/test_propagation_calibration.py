"""Copy tasks, a model's own answers, and how copies are measured."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from propagation_samples import chat_tokenizer
from transformers import AutoModelForCausalLM

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.self_training.answering import Answer, ChatModel, copy_accuracy, self_answers
from vocabtransfer.self_training.dialogues import (
    COPY_REQUESTS,
    Dialogue,
    common_length,
    copy_tasks,
    judge,
    read_dialogues,
    write_dialogues,
)
from vocabtransfer.tokenization.load import load_tokenizer

LINES = [f"Бу {i} нче җөмлә, ул бераз озынрак һәм төрле сүзләрдән тора." for i in range(300)]


def table_length(first: str, second: str) -> int:
    row = [0] * (len(second) + 1)
    for a in first:
        new = [0]
        for j, b in enumerate(second):
            new.append(row[j] + 1 if a == b else max(row[j + 1], new[-1]))
        row = new
    return row[-1]


@settings(max_examples=200, deadline=None)
@given(first=st.text("abcж😀 ", max_size=40), second=st.text("abcж😀 ", max_size=40))
def test_the_longest_common_subsequence(first: str, second: str) -> None:
    assert common_length(first, second) == table_length(first, second) == common_length(second, first)


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.text("абв гд\n", max_size=80), max_size=40),
    count=st.integers(1, 12),
    shortest=st.integers(1, 20),
    more=st.integers(0, 60),
    seed=st.integers(0, 99),
)
def test_passages_have_the_wanted_lengths(lines: list[str], count: int, shortest: int, more: int, seed: int) -> None:
    try:
        tasks = copy_tasks(lines, count, seed=seed, shortest=shortest, longest=shortest + more)
    except VocabTransferError as problem:
        assert "give more text" in str(problem)
        return
    words = " ".join(" ".join(lines).split())
    assert 0 < len(tasks) <= count
    for task in tasks:
        assert shortest <= len(task.answer) <= shortest + more and task.answer in words
        request, _, text = task.request.partition("\n\n")
        assert request in COPY_REQUESTS and text == task.answer and task.kind == "copy"


def test_nothing_is_joined_to_a_line_that_was_cut() -> None:
    lines = ["аааааа ба", "а", "вввв"]
    answers = [{task.answer for task in copy_tasks(lines, 9, seed=i, shortest=1, longest=8)} for i in range(20)]
    assert all("аааааа" in found and "аааааа а" not in found for found in answers)


def test_copy_tasks_are_drawn_from_the_whole_text() -> None:
    tasks = copy_tasks(LINES, 40, seed=1, shortest=50, longest=200)
    assert tasks == copy_tasks(iter(LINES), 40, seed=1, shortest=50, longest=200)
    assert tasks != copy_tasks(LINES, 40, seed=2, shortest=50, longest=200)
    numbers = [int(task.answer.split()[1]) for task in tasks]
    assert len(tasks) == 40 and min(numbers) < 60 and max(numbers) > 240
    own = copy_tasks(LINES, 5, requests=["Кабатла:"])
    assert all(task.request.startswith("Кабатла:\n\n") for task in own)
    assert len(copy_tasks(LINES[:3], 40)) < 5


def test_contradictory_copy_tasks() -> None:
    for options in ({"shortest": 0}, {"shortest": 9, "longest": 8}, {"requests": []}):
        with pytest.raises(UsageError, match="copy tasks need"):
            copy_tasks(LINES, 3, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="copy tasks need"):
        copy_tasks(LINES, 0)


GOOD = "Казан — Татарстанның башкаласы, ул Идел буенда урнашкан борынгы шәһәр."
VERDICTS = [
    (GOOD, True, "Cyrl", "good"),
    (GOOD, False, "Cyrl", "unfinished"),
    ("Әйе.", True, "Cyrl", "too short"),
    ("12345 67890 !!! 12345 67890", True, "Cyrl", "too short"),
    (GOOD * 100, True, "Cyrl", "too long"),
    (GOOD, True, "Latn", "other script"),
    ("Kazan is the capital. " + GOOD[:15], True, "Cyrl", "other script"),
    ("мин барам һәм син барасың, " * 12, True, "Cyrl", "repetitive"),
    ("Казан турында сөйлә әле миңа, зинһар өчен дустым!", True, "Cyrl", "echo"),
    ("日本の首都は東京です。そして大きな都市です。", True, "Jpan", "good"),
]


@pytest.mark.parametrize(("answer", "finished", "script", "verdict"), VERDICTS)
def test_verdicts(answer: str, finished: bool, script: str, verdict: str) -> None:
    request = "Казан турында сөйлә әле миңа, зинһар өчен дустым."
    assert judge(request, answer, finished=finished, script=script) == verdict


def test_an_unknown_script() -> None:
    with pytest.raises(UsageError, match=r"there is no script 'Cyrillic'"):
        judge("?", GOOD, finished=True, script="Cyrillic")


def test_dialogues_survive_a_file(tmp_path: Path) -> None:
    dialogues = [Dialogue("copy", "Copy:\n\nа\u2028б", "а\u2028б"), Dialogue("answer", "Кем?", "Мин.")]
    assert write_dialogues(dialogues, tmp_path / "d.jsonl") == 2
    assert read_dialogues(tmp_path / "d.jsonl") == dialogues
    first = json.loads((tmp_path / "d.jsonl").read_text(encoding="utf-8").split("\n")[0])
    assert [message["role"] for message in first["messages"]] == ["user", "assistant"]
    with pytest.raises(VocabTransferError, match="exists already"):
        write_dialogues(dialogues, tmp_path / "d.jsonl")
    write_dialogues(dialogues[:1], tmp_path / "d.jsonl", overwrite=True)
    assert read_dialogues(tmp_path / "d.jsonl") == dialogues[:1]
    with pytest.raises(VocabTransferError, match="cannot be written"):
        write_dialogues(dialogues, tmp_path / "d.jsonl" / "e.jsonl")  # a file stands where its folder would be
    assert [path.name for path in tmp_path.iterdir()] == ["d.jsonl"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "a dialogue is a JSON object"),
        ('{"kind": "copy"}', "a dialogue is a JSON object"),
        ('{"kind": "copy", "messages": [{"content": "a"}]}', "a dialogue is a JSON object"),
        ('{"kind": "song", "messages": [{"content": "a"}, {"content": "b"}]}', "the kind is copy or answer"),
        ('{"kind": "copy", "messages": [{"content": 1}, {"content": "b"}]}', "messages have text"),
    ],
)
def test_damaged_dialogues(line: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(f"\n{line}\n")
    with pytest.raises(VocabTransferError, match=rf"d.jsonl, line 2: .*{words}"):
        read_dialogues(tmp_path / "d.jsonl")


class Copier:
    """Copies what is asked for, as far as it remembers, and says something of its own when drawn with a seed."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self.asked: list[tuple[int, int | None]] = []

    def __call__(self, requests: Sequence[str], *, max_new_tokens: int, seed: int | None = None) -> list[Answer]:
        self.asked.append((len(requests), seed))
        texts = [request.partition("\n\n")[2] or request for request in requests]
        return [Answer(GOOD if seed is not None else text[: self._memory], True) for text in texts]


def test_copy_accuracy() -> None:
    tasks = copy_tasks(LINES, 20, shortest=40, longest=120)
    perfect = copy_accuracy(Copier(1000), [*tasks, Dialogue("answer", "?", "!")])
    assert (perfect.tasks, perfect.copied, perfect.mean) == (20, 1.0, 1.0)
    short = copy_accuracy(Copier(60), tasks)
    expected = [min(60, len(task.answer)) / len(task.answer) for task in tasks]
    assert short.mean == pytest.approx(sum(expected) / 20) and 0 < short.copied < 1
    with pytest.raises(UsageError, match="no copy task"):
        copy_accuracy(Copier(1), [Dialogue("answer", "?", "!")])


def test_own_answers_are_tried_again() -> None:
    model = Copier(1000)
    requests = ["Казан турында сөйлә.", GOOD[:40], "Идел кайда?"]
    found = self_answers(model, requests, script="Cyrl", tries=3, seed=5)
    assert model.asked == [(3, None), (3, 1_000_005), (1, 2_000_005)]
    assert found.dialogues == tuple(Dialogue("answer", requests[i], GOOD) for i in (0, 2))
    assert found.verdicts == {"echo": 4, "good": 2, "too short": 1}
    with pytest.raises(UsageError, match="tried once or more"):
        self_answers(model, requests, script="Cyrl", tries=0)


def test_a_chat_model(tiny_llama: Path) -> None:
    """The real thing on random weights: batches and padding do not change an answer, seeds repeat drawn ones."""
    tokenizer = load_tokenizer(tiny_llama)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    requests = ["Say a word.", "Китап.", "Copy this text exactly as it is:\n\nthe cat sat on the mat"]
    one, three = (ChatModel(model, tokenizer, batch_size=size) for size in (1, 3))
    answers = three(requests, max_new_tokens=6)
    assert answers == one(requests, max_new_tokens=6) and len(answers) == 3
    drawn = three(requests, max_new_tokens=6, seed=3)
    assert drawn == three(requests, max_new_tokens=6, seed=3) and drawn != answers
    assert 0 <= copy_accuracy(one, copy_tasks(LINES, 2), max_new_tokens=5).mean < 0.9
    assert ChatModel.open(tiny_llama)(requests[:1], max_new_tokens=6) == answers[:1]
    turn = [{"role": "user", "content": requests[0]}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    model.generation_config.eos_token_id = int(model(ids).logits[0, -1].argmax())
    assert one(requests[:1], max_new_tokens=6) == [Answer("", True)], "the likeliest first token now ends the turn"


def test_a_model_without_template(tiny_llama: Path) -> None:
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(UsageError, match="has no chat template"):
        ChatModel(AutoModelForCausalLM.from_pretrained(tiny_llama), tokenizer)
