"""Small Hydras for the tests: a random Llama with an English head, and heads for two other languages."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import vocabtransfer as vt
from vocabtransfer.checkpoint import Checkpoint, open_checkpoint
from vocabtransfer.checkpoint.synthetic import toy_tokenizer
from vocabtransfer.hydra import HydraForCausalLM, add_head, create_hydra
from vocabtransfer.surgery.transfer import TransferResult
from vocabtransfer.tokenization.save import save_tokenizer

HIDDEN = 32
WORDS = {
    "english": ["hello", " world", " the", " quick", " fox"],
    "tatar": ["сәлам", " дөнья", " китап"],
    "dutch": ["hallo", " wereld", " boek", " het"],
}
LANGUAGES = {"tatar": "tt", "dutch": "nl"}
TEXTS = {"english": "hello world the fox", "tatar": "сәлам дөнья китап", "dutch": "hallo wereld het boek"}


# Other architectures: what their tables are called, biases, positions, scalings, and windows differ.
COMMON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
WIDE = {**COMMON, "intermediate_size": 48, "initializer_range": 0.3}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.3},
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "rotary_dim": 8, "initializer_range": 0.3},
    "phi": WIDE,
    "gpt_neox": WIDE,
    "opt": {**COMMON, "ffn_dim": 48, "word_embed_proj_dim": 16, "init_std": 0.3},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.3},
    "gemma": {**WIDE, "head_dim": 16, "num_key_value_heads": 1},
    "gemma3_text": {**WIDE, "head_dim": 16, "num_key_value_heads": 1, "sliding_window": 4},
    "qwen3": {**WIDE, "head_dim": 16, "num_key_value_heads": 1},
    "cohere": {**WIDE, "logit_scale": 0.5},
    "granite": {**WIDE, "embedding_multiplier": 3.0, "logits_scaling": 2.0},
}
#: Of these, the ones that differ most: learned positions, a bias, another width, ALiBi, windows, scaled logits.
FAR_APART = ("gpt2", "phi", "opt", "bloom", "gemma3_text", "granite")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models this small are far slower on several threads, above all where other work goes on."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def tokenizer(name: str) -> PreTrainedTokenizerFast:
    """The head's tokenizer, never to be changed; ids are in another order in each, the special ones too."""
    return toy_tokenizer(WORDS[name], seed=list(WORDS).index(name))


def make_source(
    folder: Path, *, tied: bool = True, bias: bool = False, seed: int = 0, shards: bool = True
) -> Checkpoint:
    """Write a Llama of two layers whose logits spread widely, so that mixing anything up changes them."""
    own = tokenizer("english")
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(own),
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
        tie_word_embeddings=tied,
        bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id,
        pad_token_id=own.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    if bias:
        model.lm_head.bias = torch.nn.Parameter(torch.randn(len(own)))
    model.save_pretrained(folder, max_shard_size="40KB" if shards else "1GB")
    save_tokenizer(own, folder)
    return open_checkpoint(folder)


def transferred(source: Checkpoint, name: str) -> TransferResult:
    """New tables for a language, as means of pieces."""
    return vt.transfer(source, tokenizer(name), method="pieces", calibrate=False)


@dataclass(frozen=True)
class Sample:
    """A Hydra on disk with three heads, and the standalone checkpoint of each."""

    hydra: Path
    standalone: dict[str, Path]

    def load(self, **settings: Any) -> HydraForCausalLM:
        """Load the Hydra in float32."""
        return HydraForCausalLM.from_pretrained(self.hydra, dtype=torch.float32, **settings)

    def plain(self, name: str) -> Any:
        """Load a standalone checkpoint in float32."""
        model = AutoModelForCausalLM.from_pretrained(self.standalone[name], dtype=torch.float32, local_files_only=True)
        return model.eval()


def make_sample(folder: Path, *, tied: bool = True) -> Sample:
    """Build the Hydra and the standalone checkpoints."""
    source = make_source(folder / "english", tied=tied)
    create_hydra(source, folder / "hydra", own_name="english")
    standalone = {"english": source.path}
    for name in ("tatar", "dutch"):
        result = transferred(source, name)
        add_head(folder / "hydra", name, result, language=LANGUAGES[name])
        standalone[name] = result.save(folder / name).path
    return Sample(folder / "hydra", standalone)


def make_architecture(folder: Path, kind: str) -> Sample:
    """Build a Hydra of another architecture with an English and a Tatar head, and the standalone checkpoints."""
    own = tokenizer("english")
    ids = {key: getattr(own, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=len(own), **ids, **CONFIGS[kind]))
    if made.get_output_embeddings().bias is not None:
        torch.nn.init.normal_(made.get_output_embeddings().bias)
    made.save_pretrained(folder / "english")
    save_tokenizer(own, folder / "english")
    source = open_checkpoint(folder / "english")
    create_hydra(source, folder / "hydra", own_name="english")
    result = transferred(source, "tatar")
    add_head(folder / "hydra", "tatar", result)
    return Sample(folder / "hydra", {"english": source.path, "tatar": result.save(folder / "tatar").path})


def ids_for(name: str, rows: int = 2, length: int = 9, seed: int = 0) -> torch.Tensor:
    """Random ids of a head, none of them special."""
    own = tokenizer(name)
    ordinary = torch.tensor(sorted(set(own.get_vocab().values()) - set(own.all_special_ids)))
    generator = torch.Generator().manual_seed(seed)
    return ordinary[torch.randint(len(ordinary), (rows, length), generator=generator)]
