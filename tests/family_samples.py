"""Two sizes of one family: random bodies with one real tokenizer, and how many drafts are accepted between two models."""

from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from vocabtransfer.tokenization.load import load_tokenizer
from vocabtransfer.tokenization.save import save_tokenizer


def larger_llama(folder: Path, tokenizer_folder: Path, *, extra_rows: int = 64, hidden: int = 48) -> Path:
    """Write an untied Llama of three layers with a real tokenizer and a table padded as larger sizes are."""
    tokenizer = load_tokenizer(tokenizer_folder)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + extra_rows,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder


def greedy(model: Any, ids: torch.Tensor, tokens: int, draft: Any = None) -> tuple[list[int], int]:
    """Return what a model writes, and how often it was run; with a draft model its drafts are checked in one run each."""
    runs = 0

    def count(*_: Any) -> None:
        nonlocal runs
        runs += 1

    hook = model.register_forward_hook(count)
    settings = {} if draft is None else {"assistant_model": draft}
    with torch.inference_mode():
        out = model.generate(
            ids, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0, **settings
        )
    hook.remove()
    return out[0, ids.shape[1] :].tolist(), runs
