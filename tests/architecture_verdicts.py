"""A family's tiny model, given a new vocabulary and looked at from all sides."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from architecture_samples import OTHER_VOCABULARIES, class_name, make, tokenizers
from transformers import PreTrainedTokenizerFast

import vocabtransfer as vt
from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.languages import find_language
from vocabtransfer.pipeline.proof import prove
from vocabtransfer.running.blank_inputs import blank_inputs
from vocabtransfer.surgery.transfer import TransferResult


@dataclass(frozen=True)
class Verdict:
    """What became of a family, and why.

    ``works``; ``built`` (files, loading and settings are right, but the tiny model does not run on text alone);
    ``refused``; ``wrong``; ``not made`` (this suite makes no tiny model of it).
    """

    family: str
    made_as: str
    state: str
    why: str = ""


def judge(family: str, folder: Path) -> Verdict:
    """Make a family's tiny model, build it with a new vocabulary, load the result as a stranger would, and look."""
    old, new = tokenizers()
    made_as = class_name(family)
    source, target = folder / "source", folder / "built"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            make(family, source, old)
        except Exception as problem:
            return Verdict(family, made_as, "not made", f"{type(problem).__name__}: {_first_line(problem)}")
        said = ""
        try:
            result = vt.transfer(open_checkpoint(source), new, method="pieces", calibrate=False)
            result.save(target, check=lambda place: prove(place, {}, find_language("tt"), tokens=2))
        except VocabTransferError as refusal:
            if refusal.__cause__ is None or not (said := _source_fails(source)):
                return Verdict(family, made_as, "refused", str(refusal).replace(str(source), family))
            result.save(target)
        except Exception as problem:
            return Verdict(family, made_as, "wrong", f"traceback, {type(problem).__name__}: {_first_line(problem)}")
        try:
            _load(source, made_as)
        except Exception as problem:
            return Verdict(family, made_as, "not made", f"the tiny source does not load back ({_first_line(problem)})")
        try:
            faults = list(_faults(source, target, made_as, result))
        except NotRun as reason:
            if "Error" in said and any(mark in said for mark in DOES_NOT_RUN):
                return Verdict(family, made_as, "not made", f"the tiny source does not run either ({reason})")
            return Verdict(family, made_as, "built", str(reason))
        except Exception as problem:
            return Verdict(family, made_as, "wrong", f"traceback, {type(problem).__name__}: {_first_line(problem)}")
    if faults:
        return Verdict(family, made_as, "wrong", "; ".join(faults))
    note = f"it does not generate from made-up input, neither before nor after ({said})" if said else ""
    return Verdict(family, made_as, "works", note)


#: Errors of a tiny model whose sizes do not go together, unlike those of one that wants more input.
DOES_NOT_RUN = ("size", "shape", "out of", "split", "dimension", "Could not find", "get_seq_length")


class NotRun(Exception):
    """The source's tiny model itself does not run on text alone."""


def _source_fails(source: Path) -> str:
    """Return how the untouched tiny model fails the same proof; "" when it does not."""
    try:
        prove(source, {}, find_language("tt"), tokens=2)
    except Exception as problem:
        cause = problem.__cause__ or problem
        return f"{type(cause).__name__}: {_first_line(cause)}"
    return ""


def _faults(source: Path, target: Path, made_as: str, result: TransferResult) -> Iterator[str]:
    old, new = result.source.tokenizer, result.tokenizer
    loaded = [_load(folder, made_as) for folder in (source, target)]
    (before, before_info), (after, after_info) = loaded
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if sorted(map(str, before_info[kind])) != sorted(map(str, after_info[kind])):
            yield f"{kind}: {sorted(map(str, after_info[kind]))[:2]}"
    yield from _config_faults(source, target, old, new)
    first, second = before.state_dict(), after.state_dict()
    mapped = {_tail(tensor.name) for tensor in result.source.layout.tensors}
    if first.keys() != second.keys():
        yield f"parameters differ: {sorted(first.keys() ^ second.keys())[:2]}"
    for name in first.keys() & second.keys():
        if first[name].dtype != second[name].dtype:
            yield f"{name} is {second[name].dtype}"
        if first[name].shape == second[name].shape and not torch.equal(first[name], second[name]):
            if not any(_tail(name).endswith(end) or end.endswith(_tail(name)) for end in mapped):
                yield f"{name} changed"
        elif len(old) in first[name].shape[:1] and first[name].shape == second[name].shape:
            yield f"{name} still has {len(old)} rows"
    pairs = [_ends(model) for model in (before, after)]
    tied = [
        one is not None and two is not None and one.weight.data_ptr() == two.weight.data_ptr() for one, two in pairs
    ]
    if tied[0] != tied[1]:
        yield f"tied {tied[0]} before, {tied[1]} after"
    if pairs[1][0] is not None and pairs[1][0].weight.shape[0] != len(new) + result.source.layout.input.spare:
        yield f"{pairs[1][0].weight.shape[0]} rows for {len(new)} tokens"
    yield from _numeric_faults(before, after, old, new)


def _ends(model: Any) -> tuple[Any, Any]:
    try:
        ends = model.get_input_embeddings(), model.get_output_embeddings()
    except NotImplementedError:  # models of two towers have no input table of their own
        return None, None
    first, last = (end if hasattr(end, "weight") else None for end in ends)  # Perceiver's are no tables
    return first, last


def _tail(name: str) -> str:
    return ".".join(name.split(".")[-2:])


def _load(folder: Path, made_as: str) -> tuple[Any, dict[str, Any]]:
    model, info = getattr(transformers, made_as).from_pretrained(
        folder, local_files_only=True, output_loading_info=True
    )
    return model.eval(), info


def _config_faults(
    source: Path, target: Path, old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast
) -> Iterator[str]:
    for file in ("config.json", "generation_config.json"):
        if not (source / file).is_file():
            continue
        first = json.loads((source / file).read_text())
        second = json.loads((target / file).read_text())
        for path, value in _leaves(first):
            now = _at(second, path)
            where = ".".join(map(str, path))
            key = str(path[-1])
            inside = str(path[-2]) if len(path) > 1 else ""
            if "vocab_size" in key and value == len(old) and now != len(new) and not OTHER_VOCABULARIES.match(inside):
                yield f"{where} is {now}, not {len(new)}"
            if re.search(r"_token_(id|index)$", key) and type(value) is int and 0 <= value < len(old):
                wanted = new.convert_tokens_to_ids(old.convert_ids_to_tokens(value))
                if now != wanted:
                    yield f"{where} of {file} is {now}, not {wanted}"


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(part, (*path, key))
    elif path:
        yield path, value


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _numeric_faults(
    before: Any, after: Any, old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast
) -> Iterator[str]:
    """Text of tokens that both vocabularies have: hidden states bit for bit, logits at copied ids equal."""
    text = "hello the world, he said"
    strings = [token for token in old.tokenize(text) if token in new.get_vocab()][:12]
    shared = sorted(set(old.get_vocab()) & set(new.get_vocab()))
    ids = [torch.tensor([tokenizer.convert_tokens_to_ids(strings)]) for tokenizer in (old, new)]
    columns = [tokenizer.convert_tokens_to_ids(shared) for tokenizer in (old, new)]
    try:
        expected = _outputs(before, ids[0])
    except Exception as problem:
        raise NotRun(f"{type(problem).__name__}: {_first_line(problem)}") from None
    outputs = [expected, _outputs(after, ids[1])]
    if outputs[0].keys() != outputs[1].keys() or not outputs[0]:
        yield f"gives {sorted(outputs[0])} before and {sorted(outputs[1])} after"
        return
    for name, value in outputs[0].items():
        other = outputs[1][name]
        if value.shape[-1:] == (len(old),) and other.shape[-1:] == (len(new),):
            value, other = value[..., columns[0]], other[..., columns[1]]
            if not torch.allclose(value, other, rtol=1e-4, atol=1e-5, equal_nan=True):
                yield f"{name} at copied ids differ by {float((value - other).abs().max()):.2g}"
        elif value.shape != other.shape or not torch.equal(value.nan_to_num(), other.nan_to_num()):
            yield f"{name} differ"


def _outputs(model: Any, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Run a model on text alone, or else with whatever its class insists on made of zeros."""
    if type(model).__name__ in ("CLIPModel", "SiglipModel", "AltCLIPModel", "ClapModel", "Siglip2Model"):
        model = model.text_model
    first: Exception | None = None
    for options in _tries(model, ids):
        try:
            with torch.no_grad():
                return _floats(model(**options))
        except Exception as problem:
            first = first or problem
    assert first is not None
    raise first


def _tries(model: Any, ids: torch.Tensor) -> Iterator[dict[str, Any]]:
    takes, config = _parameters(model), model.config
    text: dict[str, Any] = {"input_ids": ids}
    if "kwargs" in takes or "output_hidden_states" in takes:
        text["output_hidden_states"] = True
    if getattr(config, "is_encoder_decoder", False) or "decoder_input_ids" in takes:
        text["decoder_input_ids"] = ids
    if model.main_input_name == "input_ids":
        yield text
    blank = blank_inputs(model) or {}
    writes = {"decoder_input_ids": ids} if "decoder_input_ids" in takes else {"input_ids": ids}
    yield {**blank, **writes, **({"output_hidden_states": True} if "output_hidden_states" in text else {})}
    more: dict[str, Any] = {}
    size = getattr(getattr(config, "vision_config", config), "image_size", None) or 32
    if "pixel_values" in takes:
        more["pixel_values"] = torch.zeros(1, 3, *(size if isinstance(size, list | tuple) else (size, size)))
    if "bbox" in takes:
        more["bbox"] = torch.zeros(1, ids.shape[1], 4, dtype=torch.long)
    if "flattened_patches" in takes:
        patch = getattr(config.vision_config, "patch_embed_hidden_size", 768)
        more["flattened_patches"] = torch.ones(1, 4, patch + 2)
    if "qformer_input_ids" in takes:
        more["qformer_input_ids"] = torch.ones(1, 2, dtype=torch.long)
    yield {**text, **more, **blank}
    yield {**blank, **more, **writes}


def _floats(output: Any) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for name, value in output.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            found[name] = value
        elif name.endswith("hidden_states") and isinstance(value, tuple) and isinstance(value[-1], torch.Tensor):
            found[f"{name}[-1]"] = value[-1]
    return found


def _parameters(model: Any) -> Mapping[str, Any]:
    import inspect

    return inspect.signature(model.forward).parameters


def _first_line(problem: BaseException) -> str:
    return (str(problem).strip().splitlines() or [""])[0][:160]
