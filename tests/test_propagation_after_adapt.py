"""Restoring a chat model after `adapt`: the whole way from a transfer to ElChat's layers and rows, by the command line."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from adapt_samples import one_thread, parameters, write_text
from propagation_samples import INPUT, MARKERS, adapted_chat, arc, chat_tokenizer, save_model, tensors_of
from transformers import AutoModelForCausalLM, AutoTokenizer

import vocabtransfer as vt

LAYERS = 5


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A chat model, and what transfer and adaptation to another vocabulary made of it."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = chat_tokenizer()
    tensors = tensors_of(len(tokenizer), tied=True, seed=2, dtype=torch.float32, layers=LAYERS)
    tensors = {name: value * 0.3 if value.dim() > 1 else torch.ones_like(value) for name, value in tensors.items()}
    chat = save_model(folder / "chat", tensors, tokenizer, tied=True)
    new = adapted_chat()
    new.chat_template, new.eos_token = tokenizer.chat_template, tokenizer.eos_token
    vt.transfer(chat, new, method="pieces").save(folder / "made")
    vt.adapt(
        vt.AdaptRequest(
            *(str(folder / "made"), (write_text(folder / "nl.txt"),), folder / "adapted"),
            *((vt.Stage.parse("tables:3:1e-2"), vt.Stage.parse("all:4:1e-2")),),
            block=16,
            batch_tokens=64,
            cpu=True,
        )
    )
    return folder / "chat", folder / "adapted"


def propagate(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, object]:
    from vocabtransfer_cli.main import run

    with pytest.raises(SystemExit) as stop:
        run(["propagate", *map(str, arguments), "--json"])
        sys.exit(0)
    facts: dict[str, object] = json.loads(capsys.readouterr().out)
    return {**facts, "code": int(stop.value.code or 0)}


def test_outer_layers_and_chat_rows_come_back(
    models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chat, adapted = models
    both = ["--adapted", adapted, "--instruct", chat, "--output", tmp_path / "out"]
    facts = propagate(capsys, *both, "--restore-layers", 1, "--restore-weight", 0.4)
    assert facts["code"] == 0 and facts["layers"] == 1 and facts["weight"] == 0.4
    before, after, out = (parameters(folder) for folder in (chat, adapted, tmp_path / "out"))
    assert out.keys() == after.keys()
    for name in after.keys() - {INPUT}:
        if ".layers.0." in name or f".layers.{LAYERS - 1}." in name:
            cosine = torch.nn.functional.cosine_similarity(after[name].flatten(), before[name].flatten(), dim=0)
            straight = 0.6 * after[name] + 0.4 * before[name]
            expected = straight if cosine > 0.9995 else arc(after[name].numpy(), before[name].numpy(), 0.4)
            np.testing.assert_allclose(out[name], expected, rtol=1e-4, atol=1e-6)
            assert not torch.equal(out[name], after[name])
        else:
            assert torch.equal(out[name], after[name]) and not torch.equal(after[name], before[name])
    ours, theirs = (AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / "out", chat))
    assert ours.chat_template == theirs.chat_template and ours.eos_token == theirs.eos_token
    moved = 0
    for token, place in ours.get_vocab().items():
        special = token in (*MARKERS, "<s>", "</s>", "<pad>", "<unk>")
        wanted = before[INPUT][theirs.get_vocab()[token]] if special else after[INPUT][place]
        assert torch.equal(out[INPUT][place], wanted), token
        moved += special and not torch.equal(out[INPUT][place], after[INPUT][place])
    assert moved == 6, "training had changed the control tokens' rows"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    said = ours.apply_chat_template([{"role": "user", "content": "het huis"}], return_tensors="pt")["input_ids"]
    assert torch.isfinite(model(said).logits).all()


def test_it_is_refused_where_it_would_do_nothing_or_harm(
    models: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chat, adapted = models
    cases = [
        ([adapted, adapted, tmp_path / "out", 1], 2, "nothing to restore"),
        ([adapted, chat, tmp_path / "out", LAYERS + 1], 2, "6 cannot be restored"),
        ([adapted, chat, adapted, 1], 1, "overlap"),
    ]
    for (model, original, output, layers), code, words in cases:
        facts = propagate(
            capsys, "--adapted", model, "--instruct", original, "--output", output, "--restore-layers", layers
        )
        assert facts["code"] == code and words in str(facts["error"])
    assert not (tmp_path / "out").exists()
