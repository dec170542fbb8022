"""Which tensors of a checkpoint depend on the vocabulary, and how they hang together.

The tables below name what the published architectures call their embedding table, their output head and its bias. What
is shaped like the vocabulary but is not named there is refused by name, because leaving it as it was would break the
model without any error.
"""

import contextlib
import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from vocabtransfer.checkpoint.tensors import TensorInfo, load_rows
from vocabtransfer.errors import VocabTransferError

Part = Literal["input", "output", "shared", "output_bias"]

# In the order of preference: the first name found is the layout's input_name.
INPUT_NAMES = (
    r"(model\.|transformer\.|led\.)?shared\.weight",  # T5, BART, M2M-100, LED
    r"(.+\.)?embed_tokens\.weight",  # Llama and its relatives; OPT; a duplicate of `shared` in T5 and BART
    r"(.+\.)?wte\.weight",  # GPT-2, GPT-J, MPT
    r"(.+\.)?embed_in\.weight",  # GPT-NeoX
    r"(.+\.)?word_embeddings?\.weight",  # BERT, RoBERTa, BLOOM, Falcon; XLNet
    r"(.+\.)?tok_embeddings\.weight",  # ModernBERT, InternLM2
    r"(backbone|rwkv)\.embeddings?\.weight",  # Mamba, RWKV
    r"(.+\.)?token_embedding\.weight",  # the text towers of CLIP and SigLIP
    r"(transformer\.)?tokens_embed\.weight",  # the first GPT
    r"transformer\.(w|embeddings)\.weight",  # CTRL; XLM and FlauBERT
)
OUTPUT_NAMES = (
    r"(.+\.)?lm_head\.weight",
    r"(.+\.)?embed_out\.weight",  # GPT-NeoX
    r"(model\.)?output\.weight",  # InternLM2
    r"(.+\.)?cls\.predictions\.decoder\.weight",  # BERT, also as a decoder
    r"(.+\.)?lm_head\.decoder\.weight",  # RoBERTa, MPNet
    r"predictions\.decoder\.weight",  # ALBERT
    r"(rwkv\.)?head\.weight",  # RWKV
    r"pred_layer\.proj\.weight",  # XLM, FlauBERT
    r"(vocab_projector|generator_lm_head|lm_loss|proj_out|decoder)\.weight",  # DistilBERT, ELECTRA, XLNet, Whisper, ...
)
BIAS_NAMES = (
    r"(.+\.)?(lm_head|embed_out)\.bias",
    r"((.+\.)?cls\.)?predictions\.bias",
    r"((.+\.)?cls\.)?predictions\.decoder\.bias",
    r"pred_layer\.proj\.bias",
    r"(.+\.)?lm_head\.decoder\.bias",
    r"(vocab_projector|generator_lm_head|lm_loss|proj_out|decoder)\.bias",
    r"(.+\.)?final_logits_bias",  # BART, Marian: shape (1, vocabulary)
)
TEXT_CONFIGS = ("text_config", "language_config", "llm_config")
FLOATS = ("F64", "F32", "F16", "BF16")
HEADED = re.compile(r"For(CausalLM|ConditionalGeneration|MaskedLM|PreTraining|Seq2SeqLM)$|LM(Head)?Model$|WithLMHead")
# Their config always says "tied"; whether the head is a table of its own is seen from its content (transformers 5).
TIED_BY_CONTENT = ("t5", "mt5", "umt5")
NAME_HINTS = re.compile(r"(?!.*(position|token_type)).*(embed|head|vocab|wte|logit|token|mtp|decoder\.(weight|bias)$)")
WIDTHS = re.compile(r"hidden|intermediate|d_model|d_ff|n_embd|n_inner|ffn|dim")
PER_LAYER = re.compile(r"embed_tokens_per_layer|per_layer_token_embd")
COMPARED_ROWS = 8192


@dataclass(frozen=True)
class VocabTensor:
    """A tensor with one entry per token along ``axis``; ``shared`` serves the input and the output side."""

    name: str
    part: Part
    axis: int


@dataclass(frozen=True)
class VocabLayout:
    """The vocabulary-shaped tensors of a checkpoint.

    ``tied`` means that the output side has no table of its own: a tied head, or no head at all. ``rows`` counts the
    rows of the tables (at least the tokenizer's size), ``hidden`` is the width of the input table.
    """

    tensors: tuple[VocabTensor, ...]
    tied: bool
    rows: int
    hidden: int

    @property
    def input_name(self) -> str:
        """Name of the input table."""
        return next(tensor.name for tensor in self.tensors if tensor.part in ("input", "shared"))

    @property
    def output_name(self) -> str | None:
        """Name of the output table; None when it is the input table or when there is no head."""
        return next((tensor.name for tensor in self.tensors if tensor.part == "output"), None)

    @property
    def bias_name(self) -> str | None:
        """Name of the output bias, if the head has one."""
        return next((tensor.name for tensor in self.tensors if tensor.part == "output_bias"), None)


def find_layout(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> VocabLayout:
    """Find every tensor whose shape depends on the vocabulary.

    Raises `VocabTransferError`, naming the tensor, when no table is found, when config.json and the tables disagree
    about the vocabulary's size or about tying, when a table is quantised, and for vocabulary-shaped tensors that are
    not known (per-layer embeddings, multi-token prediction heads, a second vocabulary).
    """
    _refuse_quantised(tensors)
    inputs = _find(INPUT_NAMES, tensors)
    outputs = _find(OUTPUT_NAMES, tensors)
    says_tied = _says_tied(config, bool(outputs))
    if not inputs and says_tied:
        inputs, outputs = outputs, []
    tables = [name for name in inputs if len(tensors[name].shape) == 2]
    if not tables:
        raise VocabTransferError(f"no embedding table is among the {len(tensors)} tensors of this checkpoint.")
    rows, hidden = tensors[tables[0]].shape
    for name in tables:
        _check_table(tensors[name], rows)
    outputs = [name for name in outputs if tensors[name].shape[:1] == (rows,) and len(tensors[name].shape) == 2]
    for name in outputs:
        _check_table(tensors[name], rows)
    for name in tables[1:]:
        if not _same_table(tensors[tables[0]], tensors[name]):
            raise VocabTransferError(
                f"{name!r} and {tables[0]!r} are different embedding tables, and only models with one are supported."
            )
    _check_config_size(config, rows, tables[0])
    tied = _decide_tied(config, says_tied, tensors, tables[0], outputs)
    found = _parts(tables, outputs, tied)
    found += [VocabTensor(n, "output_bias", axis) for n, axis in _biases(tensors, rows)]
    _refuse_unknown(config, tensors, {tensor.name for tensor in found}, rows)
    return VocabLayout(tuple(found), tied, rows, hidden)


def configured_vocab_size(config: Mapping[str, Any]) -> int | None:
    """Return the vocabulary size that config.json states, also inside a nested text config; None when it is silent."""
    for part in (*(config.get(name) for name in TEXT_CONFIGS), config):
        if isinstance(part, Mapping) and isinstance(part.get("vocab_size"), int):
            return int(part["vocab_size"])
    return None


def _parts(inputs: Sequence[str], outputs: Sequence[str], tied: bool) -> list[VocabTensor]:
    if tied:
        return [VocabTensor(name, "shared", 0) for name in (*inputs, *outputs)]
    return [VocabTensor(n, "input", 0) for n in inputs] + [VocabTensor(n, "output", 0) for n in outputs]


def _find(patterns: Sequence[str], tensors: Mapping[str, TensorInfo]) -> list[str]:
    """Names that match, in the order of the patterns; tables inside numbered layers are never the model's own."""
    usable = sorted(name for name in tensors if not re.search(r"(^|\.)\d+\.", name))
    return [name for pattern in patterns for name in usable if re.fullmatch(pattern, name)]


def _biases(tensors: Mapping[str, TensorInfo], rows: int) -> Iterator[tuple[str, int]]:
    for name in _find(BIAS_NAMES, tensors):
        if tensors[name].shape in ((rows,), (1, rows)):
            yield name, len(tensors[name].shape) - 1


def _check_table(info: TensorInfo, rows: int) -> None:
    if info.dtype not in FLOATS:
        raise VocabTransferError(f"the table {info.name!r} is quantised ({info.dtype}): use an unquantised checkpoint.")
    if info.shape[0] != rows:
        raise VocabTransferError(
            f"{info.name!r} has {info.shape[0]} rows where the embedding table has {rows}: a model with two "
            "vocabularies is not supported."
        )


def _check_config_size(config: Mapping[str, Any], rows: int, table: str) -> None:
    stated = configured_vocab_size(config)
    if stated is None:
        known = model_config(config)
        stated = getattr(known.get_text_config(), "vocab_size", rows) if known is not None else rows
    if stated != rows:
        raise VocabTransferError(f"config.json says vocab_size {stated}, but {table!r} has {rows} rows.")


def _says_tied(config: Mapping[str, Any], has_output: bool) -> bool:
    for part in (config, *(config.get(name) for name in TEXT_CONFIGS)):
        if isinstance(part, Mapping) and isinstance(part.get("tie_word_embeddings"), bool):
            return bool(part["tie_word_embeddings"])
    return bool(getattr(model_config(config), "tie_word_embeddings", not has_output))


def model_config(config: Mapping[str, Any]) -> Any | None:
    """Return transformers' config object, which knows the defaults; None for a model type that it does not know."""
    from transformers import AutoConfig

    values = copy.deepcopy(dict(config))
    model_type = values.pop("model_type", "")
    # Some values may trip over a check of this transformers version; the defaults of the type are still the defaults.
    for attempt in (values, {}):
        with contextlib.suppress(Exception):
            return AutoConfig.for_model(model_type, **attempt)
    return None


def _decide_tied(
    config: Mapping[str, Any], says_tied: bool, tensors: Mapping[str, TensorInfo], table: str, outputs: Sequence[str]
) -> bool:
    if not outputs:
        headed = any(HEADED.search(name) for name in config.get("architectures") or ())
        if headed and not says_tied:
            raise VocabTransferError(
                "config.json says that the head is not tied (tie_word_embeddings false), but the weights have no head."
            )
        return True
    if not says_tied:
        return False
    different = [name for name in outputs if not _same_table(tensors[table], tensors[name])]
    if different and config.get("model_type") not in TIED_BY_CONTENT:
        raise VocabTransferError(
            f"config.json says that {different[0]!r} is tied to {table!r}, but their values differ: set "
            "tie_word_embeddings to false to keep both."
        )
    return not different


def _same_table(first: TensorInfo, second: TensorInfo) -> bool:
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    for start in range(0, first.shape[0], COMPARED_ROWS):
        stop = min(start + COMPARED_ROWS, first.shape[0])
        ours, theirs = load_rows(first, start, stop), load_rows(second, start, stop)
        if not torch.equal(ours.view(torch.uint8), theirs.view(torch.uint8)):
            return False
    return True


def _refuse_quantised(tensors: Mapping[str, TensorInfo]) -> None:
    tables = re.compile("|".join(f"(?:{pattern})" for pattern in (*INPUT_NAMES, *OUTPUT_NAMES)))
    for name in sorted(tensors):
        module, _, field = name.rpartition(".")
        if field not in ("weight", "bias") and tables.fullmatch(f"{module}.weight"):
            raise VocabTransferError(f"{name!r} shows a quantised table: use an unquantised checkpoint.")
        if PER_LAYER.search(name):
            raise VocabTransferError(f"{name!r} holds per-layer embeddings (Gemma 3n, Gemma 4), not supported.")


def _refuse_unknown(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo], known: set[str], rows: int) -> None:
    coincidence = rows in _other_sizes(config)
    for name in sorted(set(tensors) - known):
        # Another size of the model may happen to equal the vocabulary's; then only a telling name is evidence.
        if rows in tensors[name].shape and (not coincidence or NAME_HINTS.match(name)):
            raise VocabTransferError(
                f"{name!r} with shape {list(tensors[name].shape)} depends on the vocabulary in a way that is not known."
            )


def _other_sizes(config: Mapping[str, Any]) -> set[int]:
    """Sizes in the config that are not the vocabulary's; widths up to fourfold, for fused and expanding layers."""
    sizes: set[int] = set()
    for key, value in config.items():
        if isinstance(value, Mapping):
            sizes |= _other_sizes(value)
        elif type(value) is int and "vocab" not in key and "token" not in key:
            sizes |= {value * factor for factor in (range(1, 5) if WIDTHS.search(key) else (1,))}
    return sizes
