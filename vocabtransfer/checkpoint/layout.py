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

from vocabtransfer.checkpoint.table_names import (
    BIAS_NAMES,
    COPIED_INPUT,
    COPIED_OUTPUT,
    EAGLE_OWN,
    INPUT_NAMES,
    LOOKUP,
    MEDUSA,
    NAME_HINTS,
    OUTPUT_NAMES,
    PER_LAYER,
    find_names,
    is_draft,
    is_other,
    packed_tables,
)
from vocabtransfer.checkpoint.tensors import TensorInfo, load_rows
from vocabtransfer.errors import VocabTransferError

Part = Literal["input", "output", "shared", "output_bias", "lookup"]

TEXT_CONFIGS = ("text_config", "language_config", "llm_config")
FLOATS = ("F64", "F32", "F16", "BF16")
INTEGERS = ("I64", "I32", "I16", "U8", "I8")
HEADED = re.compile(r"For(CausalLM|ConditionalGeneration|MaskedLM|PreTraining|Seq2SeqLM)$|LM(Head)?Model$|WithLMHead")
# Their config always says "tied"; whether the head is a table of its own is seen from its content (transformers 5).
TIED_BY_CONTENT = ("t5", "mt5", "umt5")
WIDTHS = re.compile(r"hidden|intermediate|d_model|d_ff|n_embd|n_inner|ffn|dim")
COMPARED_ROWS = 8192
#: Rows that a model's class adds past the vocabulary: 8 for pictures (Mllama), 1 for silence (Moshi).
MOST_SPARE = 64


@dataclass(frozen=True)
class VocabTensor:
    """A tensor with one entry per token along ``axis``; ``shared`` serves the input and the output side.

    A ``further`` table has the same vocabulary as the model's own and other values: rows for every layer, the encoder's
    table beside the decoder's, a next-token-prediction layer's. ``spare`` counts the rows that the model's class puts
    past the vocabulary; they stay as they are. A ``lookup`` is a table of integers.
    """

    name: str
    part: Part
    axis: int
    further: bool = False
    spare: int = 0


@dataclass(frozen=True)
class VocabLayout:
    """The vocabulary-shaped tensors of a checkpoint.

    ``tied`` means that the output side has no table of its own: a tied head, or no head at all. ``rows`` counts the
    rows of the input table (at least the tokenizer's size), ``hidden`` is its width.
    """

    tensors: tuple[VocabTensor, ...]
    tied: bool
    rows: int
    hidden: int

    @property
    def input(self) -> VocabTensor:
        """The input table."""
        return next(tensor for tensor in self.tensors if tensor.part in ("input", "shared") and not tensor.further)

    @property
    def input_name(self) -> str:
        """Name of the input table."""
        return self.input.name

    @property
    def output_name(self) -> str | None:
        """Name of the output table; None when it is the input table or when there is no head."""
        return next((tensor.name for tensor in self.tensors if tensor.part == "output" and not tensor.further), None)

    @property
    def bias_name(self) -> str | None:
        """Name of the output bias, if the head has one."""
        return next((tensor.name for tensor in self.tensors if tensor.part == "output_bias"), None)

    @property
    def further(self) -> tuple[VocabTensor, ...]:
        """Tables of the same vocabulary besides the model's own input and output; of integers too."""
        return tuple(tensor for tensor in self.tensors if tensor.further or tensor.part == "lookup")

    @property
    def odd_table(self) -> str | None:
        """Name of a table that depends on the vocabulary in a way of its own: a further one, or one with spare rows."""
        if self.further:
            return self.further[0].name
        return self.input_name if self.input.spare else None

    @property
    def vocabulary_rows(self) -> int:
        """Rows without the spare ones: what config.json calls the vocabulary's size."""
        return self.rows - self.input.spare


def find_layout(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> VocabLayout:
    """Find every tensor whose shape depends on the vocabulary.

    Raises `VocabTransferError`, naming the tensor, when no table is found, when config.json and the tables disagree
    about the vocabulary's size or about tying, when a table is quantised, for a second vocabulary, and for
    vocabulary-shaped tensors that are not known.
    """
    _refuse_drafts(tensors)
    _refuse_quantised(tensors)
    inputs = find_names(INPUT_NAMES, tensors)
    outputs = find_names(OUTPUT_NAMES, tensors)
    says_tied = _says_tied(config, bool(outputs))
    if not inputs and says_tied:
        inputs, outputs = outputs, []
    tables = _decoder_first([name for name in inputs if len(tensors[name].shape) == 2])
    if not tables:
        raise VocabTransferError(f"no embedding table is among the {len(tensors)} tensors of this checkpoint.")
    rows, hidden = tensors[tables[0]].shape
    for name in tables:
        _check_table(tensors[name], rows)
    spare = _spare_rows(config, tensors, tables[0], outputs)
    outputs = [name for name in outputs if tensors[name].shape[:1] == (rows - spare,) and len(tensors[name].shape) == 2]
    for name in outputs:
        _check_table(tensors[name], rows - spare)
    same = [name for name in tables[1:] if _same_table(tensors[tables[0]], tensors[name])]
    others = [name for name in tables[1:] if name not in same]
    _refuse_two_tables(config, tables[0], others)
    tied = _decide_tied(config, says_tied, tensors, tables[0], outputs)
    found = _parts([tables[0], *same], outputs, tied, spare)
    found += [VocabTensor(name, "input", 0, further=True, spare=spare) for name in others]
    found += _copies(tensors, found, rows, spare)
    found += [VocabTensor(name, "input", 0, further=True) for name in _per_layer(config, tensors, rows)]
    found += [VocabTensor(n, "output_bias", axis) for n, axis in _biases(tensors, rows - spare)]
    found += [VocabTensor(n, "lookup", 0) for n in sorted(tensors) if _is_lookup(tensors[n], rows)]
    _refuse_unknown(config, tensors, {tensor.name for tensor in found}, rows)
    return VocabLayout(tuple(found), tied, rows, hidden)


def configured_vocab_size(config: Mapping[str, Any]) -> int | None:
    """Return the vocabulary size that config.json states, also inside a nested text config; None when it is silent."""
    for part in (*(config.get(name) for name in TEXT_CONFIGS), config):
        # Inkling pads its tables on loading: the file has the rows before that.
        for key in ("unpadded_vocab_size", "vocab_size"):
            if isinstance(part, Mapping) and isinstance(part.get(key), int):
                return int(part[key])
    return None


def _parts(inputs: Sequence[str], outputs: Sequence[str], tied: bool, spare: int) -> list[VocabTensor]:
    if tied:
        return [VocabTensor(name, "shared", 0) for name in (*inputs, *outputs)]
    return [VocabTensor(n, "input", 0, spare=spare) for n in inputs] + [VocabTensor(n, "output", 0) for n in outputs]


def _decoder_first(tables: list[str]) -> list[str]:
    """Put the decoder's table before the encoder's where there is no shared one: the head hangs on it."""
    if any(name.endswith("shared.weight") for name in tables):
        return tables
    return sorted(tables, key=lambda name: re.search(r"(^|\.)encoder\.", name) is not None)


def _refuse_two_tables(config: Mapping[str, Any], table: str, others: Sequence[str]) -> None:
    """Refuse tables that differ, unless they are known to have one vocabulary: an encoder's and a decoder's."""
    pair = re.compile(r"(^|\.)(encoder|decoder)\.")
    for name in others:
        if "tgt_vocab_size" in config:
            raise VocabTransferError(
                f"{name!r} and {table!r} have a vocabulary each, of two languages: a model with two vocabularies is not "
                "supported."
            )
        if table.endswith("shared.weight") or not (pair.search(name) and pair.search(table)):
            raise VocabTransferError(
                f"{name!r} and {table!r} are different embedding tables, and it is not known that both have the "
                "tokenizer's vocabulary."
            )


def _spare_rows(
    config: Mapping[str, Any], tensors: Mapping[str, TensorInfo], table: str, outputs: Sequence[str]
) -> int:
    """Return how many rows the input table has past the vocabulary; raise when config.json says another size."""
    rows = tensors[table].shape[0]
    stated = configured_vocab_size(config)
    if stated is None:
        known = model_config(config)
        stated = getattr(known.get_text_config(), "vocab_size", rows) if known is not None else rows
    headed = any(tensors[name].shape[:1] == (stated,) for name in outputs)
    if 0 < rows - stated <= MOST_SPARE and headed:
        return rows - stated
    if stated != rows:
        raise VocabTransferError(f"config.json says vocab_size {stated}, but {table!r} has {rows} rows.")
    return 0


def _copies(
    tensors: Mapping[str, TensorInfo], found: Sequence[VocabTensor], rows: int, spare: int
) -> Iterator[VocabTensor]:
    """Yield the tables of next-token-prediction layers: copies follow their originals, others are further tables."""
    table = next(tensor for tensor in found if tensor.part in ("input", "shared"))
    head = next((tensor for tensor in found if tensor.part == "output"), table)
    for name, info in sorted(tensors.items()):
        if is_other(name) or len(info.shape) != 2 or name in {tensor.name for tensor in found}:
            continue
        for pattern, original, part, size in (
            (COPIED_INPUT, table, "input", rows),
            (COPIED_OUTPUT, head, "output", rows - spare),
        ):
            if pattern.fullmatch(name) and info.shape[0] == size and info.dtype in FLOATS:
                follows = _same_table(tensors[original.name], info)
                kind: Part = original.part if follows else ("input" if part == "input" else "output")
                yield VocabTensor(name, kind, 0, further=not follows, spare=spare if part == "input" else 0)


def _per_layer(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo], rows: int) -> Iterator[str]:
    for name in sorted(tensors):
        if PER_LAYER.fullmatch(name):
            info = tensors[name]
            if info.dtype not in FLOATS or len(info.shape) != 2 or info.shape[0] > rows:
                raise VocabTransferError(
                    f"{name!r} holds per-layer embeddings as {info.dtype} {list(info.shape)}, which do not go with "
                    f"{rows} rows of the embedding table."
                )
            yield name


def _is_lookup(info: TensorInfo, rows: int) -> bool:
    return LOOKUP.fullmatch(info.name) is not None and info.shape[:1] == (rows,) and info.dtype in INTEGERS


def _biases(tensors: Mapping[str, TensorInfo], rows: int) -> Iterator[tuple[str, int]]:
    for name in find_names(BIAS_NAMES, tensors):
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
        if headed and not says_tied and not is_draft(tensors):
            raise VocabTransferError(
                "config.json says that the head is not tied (tie_word_embeddings false), but the weights have no head."
            )
        return True
    if not says_tied:
        return False
    different = [name for name in outputs if not _same_table(tensors[table], tensors[name])]
    if different and config.get("model_type") not in TIED_BY_CONTENT and _class_ties(config, different[0]):
        raise VocabTransferError(
            f"config.json says that {different[0]!r} is tied to {table!r}, but their values differ: set "
            "tie_word_embeddings to false to keep both."
        )
    return not different


def _class_ties(config: Mapping[str, Any], output: str) -> bool:
    """Tell whether the model's class ties that head when the config says so; True for a class that is not known."""
    import transformers

    named = next(iter(config.get("architectures") or ()), None)
    keys = getattr(getattr(transformers, named, None), "_tied_weights_keys", None) if isinstance(named, str) else None
    if not isinstance(keys, Mapping):
        return keys is None
    return any(output.endswith(str(key)) or str(key).endswith(output) for key in keys)


def _same_table(first: TensorInfo, second: TensorInfo) -> bool:
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    for start in range(0, first.shape[0], COMPARED_ROWS):
        stop = min(start + COMPARED_ROWS, first.shape[0])
        ours, theirs = load_rows(first, start, stop), load_rows(second, start, stop)
        if not torch.equal(ours.view(torch.uint8), theirs.view(torch.uint8)):
            return False
    return True


def _refuse_drafts(tensors: Mapping[str, TensorInfo]) -> None:
    """Refuse draft heads whose outputs cannot follow a map; those of EAGLE's first kinds have a plain table."""
    if own := [name for name in EAGLE_OWN if name in tensors]:
        raise VocabTransferError(
            f"{own[0]!r} shows a draft head of EAGLE-3, which predicts a choice of tokens of its own: train it anew beside "
            "the model with the new vocabulary."
        )
    if any(MEDUSA.fullmatch(name) for name in tensors):
        raise VocabTransferError(
            "these are Medusa heads, which have outputs alone and no table to make them from: train them anew beside the "
            "model with the new vocabulary."
        )


def _refuse_quantised(tensors: Mapping[str, TensorInfo]) -> None:
    for name in packed_tables(tensors):
        raise VocabTransferError(f"{name!r} shows a quantised table: use an unquantised checkpoint.")
    for name in find_names((*INPUT_NAMES, *OUTPUT_NAMES), tensors):
        if tensors[name].dtype not in FLOATS:
            _check_table(tensors[name], tensors[name].shape[0])


def _refuse_unknown(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo], known: set[str], rows: int) -> None:
    # Another size of the model may happen to equal the vocabulary's, and packed weights have sizes of their own.
    coincidence = rows in _other_sizes(config) or "quantization_config" in config
    for name in sorted(set(tensors) - known):
        if "hash" in name and "embed" in name:
            raise VocabTransferError(
                f"{name!r} is looked up by hashes of token ids, which no other vocabulary has: not supported."
            )
        # Then only a telling name is evidence.
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
