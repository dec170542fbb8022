"""The strict safetensors reader: agrees with the safetensors library on good files, refuses every bad one by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from vocabtransfer.checkpoint.tensors import (
    DTYPE_NAMES,
    INDEX_NAME,
    TORCH_DTYPES,
    build_header,
    load_rows,
    load_tensor,
    nbytes,
    raw_bytes,
    read_shard,
    read_weights,
)
from vocabtransfer.errors import VocabTransferError

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool]
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(lambda n: n != "__metadata__")
SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
ENTRIES = st.dictionaries(NAMES, st.tuples(st.sampled_from(DTYPES), SHAPES), min_size=1, max_size=6)


def make(entries: dict[str, tuple[torch.dtype, tuple[int, ...]]]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randint(0, 2 if dtype == torch.bool else 100, shape, generator=generator).to(dtype)
        for name, (dtype, shape) in entries.items()
    }


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.dtype == second.dtype and first.shape == second.shape and bool(torch.equal(first, second))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=ENTRIES)
def test_reads_what_the_library_wrote(entries: dict[str, Any], tmp_path: Path) -> None:
    tensors = make(entries)
    save_file(tensors, tmp_path / "a.safetensors", {"format": "pt"})
    shard = read_shard(tmp_path / "a.safetensors")
    assert shard.metadata == {"format": "pt"}
    assert {info.name for info in shard.tensors} == set(tensors)
    for info in shard.tensors:
        assert same(load_tensor(info), tensors[info.name])
        if info.shape and info.shape[0]:
            assert same(load_rows(info, 1, info.shape[0]), tensors[info.name][1:])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=ENTRIES)
def test_library_reads_what_we_lay_out(entries: dict[str, Any], tmp_path: Path) -> None:
    tensors = make(entries)
    listed = [(name, DTYPE_NAMES[value.dtype], tuple(value.shape)) for name, value in tensors.items()]
    head, order = build_header(listed, {"format": "pt"})
    assert len(head) % 8 == 0
    data = b"".join(bytes(raw_bytes(tensors[name])) for name, _ in order)
    (tmp_path / "b.safetensors").write_bytes(head + data)
    loaded = load_file(tmp_path / "b.safetensors")
    assert loaded.keys() == tensors.keys() and all(same(loaded[name], tensors[name]) for name in tensors)
    position = 0
    for name, length in order:
        assert position % tensors[name].element_size() == 0
        position += length


def test_writing_to_a_mapped_tensor_leaves_the_file_alone(tmp_path: Path) -> None:
    save_file({"x": torch.ones(4, 4)}, tmp_path / "a.safetensors")
    (info,) = read_shard(tmp_path / "a.safetensors").tensors
    load_tensor(info).zero_()
    assert load_tensor(info).sum() == 16


def write_raw(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(begin: int, end: int, shape: list[int] | None = None, dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


BAD_HEADERS = {
    "too long": ({"x": entry(0, 4)}, b"1234", 10_000, "does not fit"),
    "absurdly long": ({"x": entry(0, 4)}, b"1234", 2**63, "does not fit"),
    "not JSON": (b"{x", b"", None, "not JSON"),
    "not an object": ([1], b"", None, "not a JSON object"),
    "deeply nested": (b"[" * 100_000, b"", None, "not JSON"),
    "not UTF-8": (b'{"\xff": 1}', b"", None, "not JSON"),
    "twice the same name": (b'{"x":{},"x":{}}', b"", None, "'x' twice"),
    "unknown dtype": ({"x": entry(0, 4, dtype="Q4")}, b"1234", None, "'x' has the unknown dtype 'Q4'"),
    "dtype is a list": ({"x": {**entry(0, 4), "dtype": []}}, b"1234", None, "unknown dtype"),
    "entry is a number": ({"x": 3}, b"", None, "'x'"),
    "negative shape": ({"x": entry(0, 4, [-4])}, b"1234", None, "'x' has an impossible shape"),
    "shape of floats": ({"x": {**entry(0, 4), "shape": [4.0]}}, b"1234", None, "impossible"),
    "shape of booleans": ({"x": {**entry(0, 1), "shape": [True]}}, b"1", None, "impossible"),
    "ends before it begins": ({"x": {**entry(0, 0), "data_offsets": [4, 0]}}, b"1234", None, "impossible"),
    "three offsets": ({"x": {**entry(0, 4), "data_offsets": [0, 2, 4]}}, b"1234", None, "impossible"),
    "shape against bytes": ({"x": entry(0, 4, [3])}, b"1234", None, "'x' says U8 [3] but has 4 bytes"),
    "gap": ({"x": entry(0, 2), "y": entry(3, 4)}, b"1234", None, "'y' does not follow"),
    "overlap": ({"x": entry(0, 3), "y": entry(2, 4)}, b"1234", None, "'y' does not follow"),
    "does not start at 0": ({"x": entry(2, 4)}, b"1234", None, "'x' does not follow"),
    "file cut short": ({"x": entry(0, 8)}, b"1234", None, "take 8 bytes and the file has 4"),
    "trailing bytes": ({"x": entry(0, 2)}, b"1234", None, "take 2 bytes and the file has 4"),
    "metadata of numbers": ({"__metadata__": {"a": 1}, "x": entry(0, 4)}, b"1234", None, "__metadata__"),
}


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_refuses_a_bad_header(name: str, tmp_path: Path) -> None:
    header, data, length, message = BAD_HEADERS[name]
    path = write_raw(tmp_path / "bad.safetensors", header, data, length)
    with pytest.raises(VocabTransferError) as caught:
        read_shard(path)
    assert str(path) in str(caught.value) and message in str(caught.value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_refused_or_harmless(data: st.DataObject, tmp_path: Path) -> None:
    """Cutting or changing a byte anywhere never gives anything but our error or a consistent reading."""
    path = tmp_path / "a.safetensors"
    save_file({"weight": torch.arange(12.0).reshape(3, 4), "bias": torch.arange(3)}, path)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        shard = read_shard(path)
    except VocabTransferError:
        return
    assert sum(info.nbytes for info in shard.tensors) == 12 * 4 + 3 * 8
    for info in shard.tensors:
        if info.dtype in TORCH_DTYPES:
            assert load_tensor(info).numel() * load_tensor(info).element_size() == nbytes(info.dtype, info.shape)


def sharded(folder: Path) -> dict[str, str]:
    save_file({"a": torch.ones(2), "b": torch.ones(3)}, folder / "model-1.safetensors")
    save_file({"c": torch.ones(4)}, folder / "model-2.safetensors")
    weight_map = {"a": "model-1.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}
    write_index(folder, weight_map)
    return weight_map


def write_index(folder: Path, weight_map: Any) -> None:
    (folder / INDEX_NAME).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def refusal(folder: Path) -> str:
    with pytest.raises(VocabTransferError) as caught:
        read_weights(folder)
    return str(caught.value)


def test_reads_an_index(tmp_path: Path) -> None:
    sharded(tmp_path)
    weights = read_weights(tmp_path)
    assert weights.sharded and list(weights.tensors) == ["a", "b", "c"] and len(weights.shards) == 2


def test_index_naming_a_missing_file(tmp_path: Path) -> None:
    sharded(tmp_path)
    (tmp_path / "model-2.safetensors").unlink()
    assert "names model-2.safetensors, which is not in the folder" in refusal(tmp_path)


def test_index_naming_a_missing_tensor(tmp_path: Path) -> None:
    write_index(tmp_path, {**sharded(tmp_path), "lost": "model-1.safetensors"})
    assert "'lost' is in model-1.safetensors, which does not hold it" in refusal(tmp_path)


@pytest.mark.parametrize("file", ["../model-1.safetensors", "/etc/passwd", "a/b.safetensors", "x.bin", 3, ""])
def test_index_pointing_elsewhere(file: Any, tmp_path: Path) -> None:
    write_index(tmp_path, {**sharded(tmp_path), "a": file})
    assert "puts 'a' in" in refusal(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "{"])
def test_index_that_is_not_one(content: str, tmp_path: Path) -> None:
    sharded(tmp_path)
    (tmp_path / INDEX_NAME).write_text(content)
    assert INDEX_NAME in refusal(tmp_path)


def test_duplicate_outside_the_index(tmp_path: Path) -> None:
    sharded(tmp_path)
    save_file({"c": torch.ones(4), "a": torch.zeros(2)}, tmp_path / "model-2.safetensors")
    weights = read_weights(tmp_path)
    assert weights.tensors["a"].file.name == "model-1.safetensors"
    save_file({"c": torch.ones(4), "x": torch.zeros(2)}, tmp_path / "model-2.safetensors")
    save_file({"a": torch.ones(2), "b": torch.ones(3), "x": torch.zeros(2)}, tmp_path / "model-1.safetensors")
    assert "'x' is also in model-1.safetensors" in refusal(tmp_path)


def test_several_files_without_an_index(tmp_path: Path) -> None:
    sharded(tmp_path)
    (tmp_path / INDEX_NAME).unlink()
    assert "2 safetensors files but no" in refusal(tmp_path)
    assert "no safetensors weights" in refusal_of_empty(tmp_path)


def refusal_of_empty(folder: Path) -> str:
    (folder / "empty").mkdir()
    return refusal(folder / "empty")


def test_single_file_wins_over_an_index_as_in_transformers(tmp_path: Path) -> None:
    sharded(tmp_path)
    save_file({"only": torch.ones(1)}, tmp_path / "model.safetensors")
    assert list(read_weights(tmp_path).tensors) == ["only"]
