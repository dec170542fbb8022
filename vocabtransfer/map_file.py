"""A token map as a file: sparse arrays and facts in safetensors, the same map in the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors
from scipy import sparse

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.map_name import no_map

FORMAT = "vocabtransfer token map 1"


def packed(
    matrices: Mapping[str, sparse.csr_array], arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
) -> bytes:
    """Return the content of a file: CSR matrices (float32), plain arrays, and facts that JSON can hold."""
    said = {name: json.dumps(fact, ensure_ascii=False, sort_keys=name == "metadata") for name, fact in facts.items()}
    tensors: dict[str, NDArray[Any]] = {}
    for name, matrix in matrices.items():
        tensors[f"{name}.indptr"] = matrix.indptr.astype(np.int64)
        tensors[f"{name}.indices"] = matrix.indices.astype(np.int32)
        tensors[f"{name}.data"] = matrix.data.astype(np.float32)
    # safetensors orders the metadata map by hash; one entry keeps the file's bytes the same from run to run.
    header = {"vocabtransfer": json.dumps({"format": FORMAT, **said}, ensure_ascii=False, sort_keys=True)}
    return bytes(to_safetensors({**tensors, **arrays}, metadata=header))


def unpacked(path: str | Path) -> dict[str, Any]:
    """Read what `packed` made, as the fields of a `TokenMap`; see `damage_said` for what is raised around it."""
    with safe_open(str(path), framework="numpy") as file:
        said = json.loads((file.metadata() or {}).get("vocabtransfer", "{}"))
        if said.get("format") != FORMAT:
            raise VocabTransferError(
                f"{path} is not a token map; choose the token_map.safetensors of a built checkpoint."
            )
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    names = tuple(json.loads(said["group_names"]))
    n_target, n_source = json.loads(said["shape"])
    rule, rules = arrays["rule"], tuple(json.loads(said["rule_names"]))
    if rule.dtype != np.uint8 or (rule.size and rule.max() >= len(rules)):
        raise ValueError("it has rules without a name")
    return {
        "weights": _csr(arrays, "weights", (n_target, n_source + len(names))),
        "groups": _csr(arrays, "groups", (len(names), n_source)),
        "group_names": names,
        "rule": rule,
        "rule_names": rules,
        "evidence": arrays["evidence"],
        "metadata": json.loads(said["metadata"]),
    }


@contextmanager
def damage_said(path: str | Path) -> Iterator[None]:
    """Turn what a missing or damaged file raises within the block into a `VocabTransferError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise no_map(Path(path)) from error
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, UsageError) as error:
        raise VocabTransferError(f"The token map {path} is damaged ({error}); build the checkpoint again.") from error


def _csr(arrays: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, int]) -> sparse.csr_array:
    parts = (arrays[f"{name}.data"], arrays[f"{name}.indices"], arrays[f"{name}.indptr"])
    matrix = sparse.csr_array(parts, shape=shape)
    matrix.check_format(full_check=True)  # ValueError for columns that there are not
    return matrix
