"""Self-calibration: a chat model learns to copy, and its own answers."""

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from adapt_samples import one_thread
from propagation_samples import chat_tokenizer, load_all, save_model, snapshot, tensors_of
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

import vocabtransfer as vt
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.self_training import answers
from vocabtransfer.self_training.answers import AnswerTraining, Turn, encode_turn, train_on_answers
from vocabtransfer.self_training.dialogues import Dialogue, read_dialogues, write_dialogues
from vocabtransfer.self_training.self_calibration import CalibrateRequest, _script, calibrate
from vocabtransfer.tokenization.load import load_tokenizer
from vocabtransfer.tokenization.save import save_tokenizer
from vocabtransfer.training.stage import LoraShape

LINES = [f"Бу {i} нче, озынрак җөмлә." for i in range(40)]
COPY = "Copy this text exactly as it is:\n\nкитап"
SMALL: dict[str, Any] = {"tasks": 6, "held_out_tasks": 2, "longest": 30}
QUICK = AnswerTraining(epochs=2, batch=3, learning_rate=1e-2)


def small_model(tokens: int = 50, positions: int = 32) -> PreTrainedModel:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=tokens, num_key_value_heads=1, max_position_embeddings=positions, **shape)
    )
    with torch.no_grad():
        model.lm_head.weight.mul_(50)  # so that the body has something to say
    return model


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model of two layers with random weights, SmolLM2's way of chatting and a toy vocabulary."""
    folder = tmp_path_factory.mktemp("models") / "chat"
    tokenizer = chat_tokenizer()
    tokenizer.chat_template += "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    model = small_model(len(tokenizer), positions=512)
    model.generation_config.eos_token_id = model.config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text("\n".join(LINES), encoding="utf-8")
    return file


def request_of(model: Path, text: Path, output: Path, **options: Any) -> CalibrateRequest:
    return CalibrateRequest(str(model), (text,), output, **{"training": QUICK, **SMALL, **options})


def test_a_turn_is_what_the_template_says_up_to_the_end_of_the_answer(
    real_tokenizer: Callable[[str], PreTrainedTokenizerFast],
) -> None:
    tokenizer = real_tokenizer("smollm2")
    messages = Dialogue("copy", COPY, "китап").messages()
    turn = encode_turn(tokenizer, messages, [0, 2])
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer.decode(turn.prompt + turn.answer) == whole.removesuffix("\n")
    assert turn.answer[-1] == 2 and tokenizer.decode(turn.answer[:-1]) == "китап"
    assert list(turn.prompt) == tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True)["input_ids"]


def test_a_template_that_shows_answers_otherwise_than_it_asks_for_them() -> None:
    """Some templates open a thought in front of an answer, and leave it out of what was said before."""
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]<think>{% endif %}"
    )
    turn = encode_turn(tokenizer, Dialogue("answer", "hello", " the world").messages(), [1])
    assert tokenizer.decode(turn.prompt) == "[user]hello[assistant]<think>"
    assert tokenizer.decode(turn.answer[:-1]) == " the world" and turn.answer[-1] == 1


TURNS = [Turn((1, 5 + i, 7), (*range(10 + i, 13 + 2 * i), 2)) for i in range(5)]


def test_the_loss_is_that_of_the_answers_alone() -> None:
    model = small_model().eval()
    expected, counted = 0.0, 0
    for turn in TURNS:
        ids = [*turn.prompt, *turn.answer]
        with torch.no_grad():
            scores = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        for place in range(len(turn.prompt), len(ids)):
            expected -= scores[place - 1, ids[place]].item()
            counted += 1
    found, _ = train_on_answers(model, TURNS, AnswerTraining(batch=5, learning_rate=1e-9))
    assert found == [pytest.approx(expected / counted, rel=1e-5)]


def test_answers_are_learned_and_merged_into_linear_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    model, again = small_model(), small_model()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    how = AnswerTraining(epochs=15, batch=5, learning_rate=0.05, lora=LoraShape(4, 8.0))
    losses, changed = train_on_answers(model, TURNS, how)
    assert len(losses) == 15 and losses[-1] < 0.9 * losses[0]
    after = dict(model.named_parameters())
    assert after.keys() == before.keys(), "nothing of the low-rank layers is left"
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert moved == changed and len(moved) == 2 * 7 and all("layers" in name for name in moved)
    for name in moved:
        assert torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3) <= 4
    monkeypatch.setattr(answers, "LOGITS_AT_A_TIME", 1)  # one turn a pass
    assert train_on_answers(again, TURNS, how)[0] == pytest.approx(losses, rel=1e-2)


def test_calibration_of_a_checkpoint(chat: Path, text: Path, tmp_path: Path) -> None:
    result = vt.calibrate(request_of(chat, text, tmp_path / "out"))
    facts = json.loads((tmp_path / "out" / "calibrate.json").read_text(encoding="utf-8"))
    assert facts == result.facts and facts["copy_tasks"] == 6 and facts["self_answers"] == 0
    assert facts["copying_after"]["tasks"] == result.after.tasks == 2 and 0 <= result.after.mean <= 1
    assert facts["updates"] == 4 and "its own answers" in facts["notes"][0]
    before, after = load_all(chat), load_all(tmp_path / "out")
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(moved) == 14 and all(".layers." in name for name in moved)
    for name in ("tokenizer.json", "config.json", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (chat / name).read_bytes()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == load_tokenizer(chat).chat_template
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert "## Self-calibration" in (tmp_path / "out" / "README.md").read_text()
    vt.calibrate(request_of(chat, text, tmp_path / "again"))
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "again")
    with pytest.raises(VocabTransferError, match="exists already"):
        vt.calibrate(request_of(chat, text, tmp_path / "out"))
    vt.calibrate(request_of(chat, text, tmp_path / "out", overwrite=True))


def test_dialogues_are_kept_and_read_again(chat: Path, text: Path, tmp_path: Path) -> None:
    requests, kept = tmp_path / "requests.txt", tmp_path / "dialogues.jsonl"
    requests.write_text("Казан турында сөйлә.\n\nИдел кайда?\nИдел кайда?\n", encoding="utf-8")
    options = {"requests": requests, "dialogues": kept, "max_new_tokens": 8, "tries": 1}
    result = calibrate(request_of(chat, text, tmp_path / "out", **options))
    made = result.facts["dialogues"]
    assert made["requests"] == 2 == sum(made["verdicts"].values()) and made["script"] == "Cyrl"
    dialogues = read_dialogues(kept)
    assert len(dialogues) == 6 + made["answers"] == result.facts["turns"]
    measured = 2
    more = Dialogue("answer", "Кем син?", "Мин — ярдәмче, сораулары белән килегез.")
    write_dialogues([*dialogues, more], kept, overwrite=True)
    again = calibrate(request_of(chat, text, tmp_path / "again", dialogues=kept))
    assert (
        again.facts["dialogues"] == {"read_from": "dialogues.jsonl"}
        and again.facts["self_answers"] == 1 + made["answers"]
    )
    assert again.facts["turns"] == 7 + made["answers"] and again.before.tasks == measured


def test_no_passage_is_both_learned_and_measured(chat: Path, text: Path, tmp_path: Path) -> None:
    """Also when the dialogues come from a file that was made with another seed."""
    kept = tmp_path / "dialogues.jsonl"
    write_dialogues([Dialogue("copy", f"Copy:\n\n{line}", line) for line in LINES], kept)
    result = calibrate(request_of(chat, text, tmp_path / "out", dialogues=kept))
    assert result.facts["copy_tasks"] == len(LINES) - 2


SCRIPT_CASES = [
    ("Казан — башкала, ok", "Cyrl"),
    ("東京は日本の首都です", "Jpan"),
    ("서울은 수도", "Kore"),
    ("北京是首都", "Hani"),
]


@pytest.mark.parametrize(("words", "script"), SCRIPT_CASES)
def test_the_script_of_a_text(words: str, script: str) -> None:
    assert _script([words, words]) == script


def test_refusals(chat: Path, text: Path, tmp_path: Path) -> None:
    empty, short = tmp_path / "empty.txt", tmp_path / "short.txt"
    empty.write_text("\n")
    short.write_text("Бер генә җөмлә, башкасы юк монда.\n", encoding="utf-8")
    plain = tmp_path / "plain"
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = None
    save_model(plain, tensors_of(len(tokenizer), tied=True, seed=1, dtype=torch.float32), tokenizer, tied=True)
    cases: list[tuple[Path, Path, dict[str, Any], type[Exception], str]] = [
        (plain, text, {}, UsageError, "plain has no chat template"),
        (chat, empty, {}, VocabTransferError, r"`text` .*empty.txt: the text has no passage"),
        (chat, short, {}, VocabTransferError, "1 different passages to copy, too few"),
        (chat, text, {"tasks": 0}, UsageError, "`tasks` is 0: it must be 1 or more"),
        (chat, text, {"longest": 5}, UsageError, "lengths with 0 < shortest <= longest"),
        (chat, text, {"requests": empty}, VocabTransferError, "empty.txt: there is no request in it"),
        (chat, text, {"training": replace(QUICK, learning_rate=math.inf)}, UsageError, "`training.learning_rate`"),
        (
            chat,
            text,
            {"training": replace(QUICK, learning_rate=1e20)},
            VocabTransferError,
            "NaN or infinite at up",
        ),
        (chat, text, {"device": "tpu"}, UsageError, "There is no device .tpu."),
        (tmp_path / "nowhere", text, {}, UsageError, "nowhere"),
    ]
    for model, file, options, error, words in cases:
        with pytest.raises(error, match=words):
            calibrate(request_of(model, file, tmp_path / "out", **options))
    with pytest.raises(VocabTransferError, match="overlap"):
        calibrate(request_of(chat, text, chat / "inside"))
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_running_out_of_memory(chat: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def allocate(*_: object) -> float:
        torch.empty(1 << 60)  # more than any machine has
        return 0.0

    monkeypatch.setattr(answers, "_gradients", allocate)
    with pytest.raises(VocabTransferError, match=r"not enough memory; nothing was written: .* `training\.batch`"):
        calibrate(request_of(chat, text, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    from vocabtransfer_cli.main import run as run_command

    with pytest.raises(SystemExit) as stop:
        run_command(["calibrate", *(str(argument) for argument in arguments)])
        sys.exit(0)
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def test_the_command(chat: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--text", text, "--tasks", 4, "--held-out-tasks", 2, "--longest", 30, "--epochs", 2, "--batch", 2]
    code, out, _ = run(capsys, chat, *few, "--output", tmp_path / "out", "--copy-request", "Күчер:")
    said = " ".join(out.split())
    assert code == 0 and "4 copy tasks, 0 of its own answers" in said and "of 2 held-out passages before" in said
    code, out, _ = run(capsys, chat, *few, "--output", tmp_path / "json", "--link", "copy", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["output"] == str(tmp_path / "json") and facts["bytes_written"] > 0
    assert facts["updates"] == 4 and set(facts["copying_before"]) == {"tasks", "copied", "mean"}
    for arguments, expected, words in (
        ([chat, *few, "--output", tmp_path / "out"], 1, "exists already"),
        ([chat, *few, "--output", tmp_path / "new", "--link", "soft"], 2, "--link is hard or copy"),
        ([chat, "--text", tmp_path / "no.txt", "--output", tmp_path / "new"], 2, "there is no such file"),
    ):
        code, out, _ = run(capsys, *arguments, "--json")
        assert code == expected and words in json.loads(out)["error"]
    assert not (tmp_path / "new").exists()
