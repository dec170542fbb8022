"""Tiny models and packed text for what training minimises."""

from collections.abc import Sequence
from pathlib import Path

import torch
from propagation_samples import save_model, tensors_of
from transformers import PreTrainedTokenizerFast

from vocabtransfer.checkpoint import Checkpoint, open_checkpoint
from vocabtransfer.checkpoint.synthetic import toy_tokenizer
from vocabtransfer.files.text import read_text
from vocabtransfer.surgery.transfer import transfer
from vocabtransfer.training.objectives import Batch
from vocabtransfer.training.text import PackedText, Place, make_batch

OLD = ["китап", " the", "ing", " дө"]
NEW = ["кит", "апха", " then", " дөнья", " the"]
LINES = ("китапханә the дөнья, then китап", "😀 the king", "дөньялар китабы then 中文", "a thing, the китап")


def small_model(folder: Path, tokenizer: PreTrainedTokenizerFast, seed: int, *, tied: bool = True) -> Checkpoint:
    """A Llama of two layers with random weights of the usual size."""
    tensors = tensors_of(len(tokenizer), tied=tied, seed=seed, dtype=torch.float32)
    tensors = {name: value * 0.3 if value.dim() > 1 else torch.ones_like(value) for name, value in tensors.items()}
    return save_model(folder, tensors, tokenizer, tied=tied)


def old_tokenizer() -> PreTrainedTokenizerFast:
    return toy_tokenizer(OLD)


def new_tokenizer() -> PreTrainedTokenizerFast:
    return toy_tokenizer(NEW, seed=3)


def before_and_after(folder: Path, *, tied: bool) -> tuple[Checkpoint, Checkpoint]:
    """Write a model, and what a transfer makes of it."""
    old = small_model(folder / "old", old_tokenizer(), seed=1, tied=tied)
    transfer(old, new_tokenizer(), method="pieces").save(folder / "made")
    return old, open_checkpoint(folder / "made")


def text_file(folder: Path, lines: Sequence[str] = LINES, times: int = 1) -> Path:
    file = folder / "text.txt"
    file.write_text("\n\n".join([*lines] * times) + "\n", encoding="utf-8")
    return file


def packed_batch(
    file: Path, tokenizer: PreTrainedTokenizerFast, *, rows: int = 3, block: int = 16, needs_text: bool = True
) -> Batch:
    """The first rows of a file as the loop makes them."""
    assert tokenizer.bos_token_id is not None
    packed = PackedText(tokenizer, read_text(file), tokenizer.bos_token_id, block, 0, needs_text)
    stream = packed.rows(Place())
    return make_batch([next(stream)[0] for _ in range(rows)], torch.device("cpu"))
