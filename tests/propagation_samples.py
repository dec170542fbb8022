"""Tiny families of models: a base, an adapted base with another vocabulary, and an instruct model with a chat format."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from vocabtransfer.checkpoint import Checkpoint, open_checkpoint
from vocabtransfer.checkpoint.synthetic import ROLES, toy_tokenizer
from vocabtransfer.tokenization.save import save_tokenizer

HIDDEN = 8
OLD_WORDS = ["hello", " world", " the", "ing"]
NEW_WORDS = [" world", "сәлам", " дөнья", "китап", " the"]
MARKERS = ("<|im_start|>", "<|im_end|>")
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
INPUT, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
Tensors = dict[str, torch.Tensor]


def base_tokenizer() -> PreTrainedTokenizerFast:
    return toy_tokenizer(OLD_WORDS)


def adapted_tokenizer(seed: int = 3, fixed: int = 0) -> PreTrainedTokenizerFast:
    return toy_tokenizer(NEW_WORDS, seed=seed, fixed=fixed)


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """The base tokenizer with two chat markers behind it, one of which ends a turn, and a template."""
    tokenizer = toy_tokenizer(OLD_WORDS)
    tokens = [AddedToken(marker, special=True, normalized=False) for marker in MARKERS]
    tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def adapted_chat(markers: tuple[str, ...] = MARKERS) -> PreTrainedTokenizerFast:
    """The chat model's tokenizer with further words, as vocabulary expansion makes it; its template was lost."""
    tokenizer = toy_tokenizer([*OLD_WORDS, *NEW_WORDS], seed=4, fixed=4)
    tokens = [AddedToken(marker, special=True, normalized=False) for marker in markers]
    tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    return tokenizer


def arc(first: np.ndarray, second: np.ndarray, weight: float) -> np.ndarray:
    """Spherical interpolation written out."""
    cosine = (first * second).sum() / np.linalg.norm(first) / np.linalg.norm(second)
    angle = math.acos(cosine)
    return (math.sin((1 - weight) * angle) * first + math.sin(weight * angle) * second) / math.sin(angle)


def tensors_of(rows: int, *, tied: bool, seed: int, dtype: torch.dtype = torch.float64, layers: int = 2) -> Tensors:
    """Random tensors with the names and shapes of a small Llama."""
    config = _config(rows, tied=tied, dtype=dtype, layers=layers)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in LlamaForCausalLM(LlamaConfig(**config)).named_parameters()}
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for name, shape in shapes.items()
    }


def save_model(
    folder: Path,
    tensors: Mapping[str, torch.Tensor],
    tokenizer: PreTrainedTokenizerFast,
    *,
    tied: bool,
    shards: int = 3,
    generation: Mapping[str, Any] | None = None,
) -> Checkpoint:
    folder.mkdir(parents=True)
    rows = tensors[INPUT].shape[0]
    layers = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("model.layers."))
    config = _config(rows, tied=tied, dtype=tensors[INPUT].dtype, layers=layers)
    config |= {
        f"{role}_id": tokenizer.convert_tokens_to_ids(token) for role, token in ROLES.items() if role != "unk_token"
    }
    config["eos_token_id"] = tokenizer.eos_token_id
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(dict(generation)))
    names = list(tensors)
    places = {name: f"model-{i * shards // len(names):02d}.safetensors" for i, name in enumerate(names)}
    for file in sorted(set(places.values())):
        held = {name: tensors[name].contiguous() for name in names if places[name] == file}
        save_file(held, folder / file, {"format": "pt"})
    index = {"metadata": {"total_size": sum(value.nbytes for value in tensors.values())}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    save_tokenizer(tokenizer, folder)
    return open_checkpoint(folder)


def load_all(folder: Path) -> Tensors:
    tensors: Tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@dataclass(frozen=True)
class Family:
    """Three models and the tensors they were made of."""

    base: Checkpoint
    adapted: Checkpoint
    instruct: Checkpoint
    tensors: Mapping[str, Tensors]


def family(
    folder: Path,
    *,
    tied: bool = False,
    dtype: torch.dtype = torch.float64,
    maps: Mapping[str, torch.Tensor] | None = None,
    rank: int = HIDDEN,
    same_body: bool = False,
    same_instruct: bool = False,
    adapted: PreTrainedTokenizerFast | None = None,
    layers: int = 2,
) -> Family:
    """Make a family: instruct tables are ``base @ maps[name]`` with random rows for two chat markers behind them.

    ``rank`` is that of the base tables; ``same_body`` gives base and adapted the same layers, ``same_instruct`` makes
    the instruct model a copy of the base.
    """
    old, new, chat = base_tokenizer(), adapted if adapted is not None else adapted_tokenizer(), chat_tokenizer()
    base = tensors_of(len(old), tied=tied, seed=1, dtype=dtype, layers=layers)
    other = tensors_of(len(new), tied=tied, seed=2, dtype=dtype, layers=layers)
    instruct = tensors_of(len(chat), tied=tied, seed=3, dtype=dtype, layers=layers)
    for name in {INPUT, OUTPUT} & base.keys():
        if rank < HIDDEN:
            base[name] = (base[name][:, :rank].double() @ torch.randn(rank, HIDDEN, dtype=torch.float64)).to(dtype)
        if maps is not None:
            instruct[name][: len(old)] = (base[name].double() @ maps[name]).to(dtype)
    if same_body:
        other |= {name: value for name, value in base.items() if name not in (INPUT, OUTPUT)}
    if same_instruct:
        instruct, chat = base, old
    generation = {"eos_token_id": [chat.eos_token_id, 1], "temperature": 0.5}
    return Family(
        save_model(folder / "base", base, old, tied=tied),
        save_model(folder / "adapted", other, new, tied=tied),
        save_model(folder / "instruct", instruct, chat, tied=tied, generation=generation),
        {"base": base, "adapted": other, "instruct": instruct},
    )


def invertible(seed: int) -> torch.Tensor:
    """A well-conditioned map of the hidden space."""
    generator = torch.Generator().manual_seed(seed)
    return torch.eye(HIDDEN, dtype=torch.float64) + 0.1 * torch.randn(HIDDEN, HIDDEN, generator=generator).double()


def _config(rows: int, *, tied: bool, dtype: torch.dtype, layers: int) -> dict[str, Any]:
    return {
        **{"architectures": ["LlamaForCausalLM"], "vocab_size": rows, "hidden_size": HIDDEN, "intermediate_size": 12},
        **{"num_hidden_layers": layers, "num_attention_heads": 2, "num_key_value_heads": 1},
        **{"max_position_embeddings": 64, "tie_word_embeddings": tied, "dtype": str(dtype).removeprefix("torch.")},
    }
