"""A model and text small enough to train in a test, and the ways to run `adapt` on them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import vocabtransfer as vt
from vocabtransfer.token_map import MAP_FILE, TokenMap
from vocabtransfer.tokenization.save import save_tokenizer

WORDS = ("het", "huis", "van", "de", "wind", "staat", "in", "bos", "en", "maan", "schijnt", "op", "water", "nacht")
COPIED_ROWS = 200


@contextmanager
def one_thread() -> Iterator[None]:
    """Tensors this small only wait for threads, which takes long on a machine that does other things."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Stop(Exception):
    pass


@contextmanager
def dying_after(updates: int) -> Iterator[None]:
    """Inside the block, a run ends without warning at the beginning of the update after so many."""
    own, made = torch.optim.AdamW.zero_grad, [0]

    def zero_grad(self: torch.optim.AdamW, set_to_none: bool = True) -> None:
        made[0] += 1
        if made[0] > updates:
            raise Stop
        own(self, set_to_none)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(torch.optim.AdamW, "zero_grad", zero_grad)
        yield


def byte_tokenizer() -> PreTrainedTokenizerFast:
    strings = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({s: i for i, s in enumerate(strings)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", chat_template="{{ messages[0]['content'] }}"
    )


def make_model(
    folder: Path,
    *,
    tied: bool = True,
    seed: int = 3,
    dropout: float = 0.1,
    dtype: torch.dtype = torch.float32,
    key_heads: int = 1,
) -> Path:
    """Write a Llama of five layers, with the map of a transfer that copied its first rows."""
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=5,
        num_attention_heads=2,
        num_key_value_heads=key_heads,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=1,
        attention_dropout=dropout,  # so that resumption must restore the random states, too
    )
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    rows = np.arange(len(tokenizer))
    copied = TokenMap.from_pairs(rows[:COPIED_ROWS], rows[:COPIED_ROWS], (len(rows), 300), "copied")
    made = TokenMap.from_pairs(rows, rows, (len(rows), 300), "pieces")
    copied.or_else(made).save(folder / MAP_FILE)
    (folder / "report.json").write_text(json.dumps({"kept": "as it is"}))
    return folder


def write_text(path: Path, documents: int = 120, seed: int = 1) -> Path:
    chance = np.random.default_rng(seed)
    lines = (" ".join(chance.choice(WORDS, 12)) for _ in range(documents))
    path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return path


def request(model: Path, text: Path, output: Path, *stages: str, **options: Any) -> vt.AdaptRequest:
    settings: dict[str, Any] = {"block": 16, "batch_tokens": 64, "evaluate_every": 5, "save_every": 2, "cpu": True}
    return vt.AdaptRequest(
        str(model), (text,), output, tuple(vt.Stage.parse(stage) for stage in stages), **{**settings, **options}
    )


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = vt.open_checkpoint(folder)
    return {name: checkpoint.read(name).clone() for name in checkpoint.tensors}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def launch(command: list[str], *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `vocabtransfer adapt` under a launcher."""
    return subprocess.run(
        [sys.executable, *command, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
