"""head_config.json: what a head on disk says about itself."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.json_files import read_json

CONFIG_NAME = "head_config.json"
FORMAT = 1


@dataclass(frozen=True)
class HeadConfig:
    """Everything about a head but its tensors, its tokenizer and its generation settings.

    Attributes:
        backbone: fingerprint of the backbone that the head was made for.
        backbone_name: what that backbone was called.
        tied: whether one table serves input and output.
        rows: rows of the tables, padding included.
        vocabulary: one more than the largest token id.
        hidden: width of the tables.
        values: what config.json has to say for this vocabulary (sizes and ids), nested as there.
        language: BCP 47 tag, where known.
        method: how the rows were made: name of the initialiser and its options.
        evidence: how many rows were made by which rule, and what else is known about them.
        forced: whether it was added although its backbone has another fingerprint.
        files: size in bytes and SHA-256 of every other file of the head.
        format: version of this layout.
    """

    backbone: str
    backbone_name: str
    tied: bool
    rows: int
    vocabulary: int
    hidden: int
    values: Mapping[str, Any] = field(default_factory=dict)
    language: str | None = None
    method: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    forced: bool = False
    files: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def to_json(self) -> bytes:
        """Return the file's content: the same head gives the same bytes."""
        return (json.dumps(asdict(self), ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode()


def read_head_config(folder: Path) -> HeadConfig:
    """Read and check a head's config; `VocabTransferError` when it is missing, damaged or of a newer version."""
    path = folder / CONFIG_NAME
    data = read_json(path)
    version = data.get("format")
    if not isinstance(version, int):
        raise VocabTransferError(f"{path} is damaged: it names no format; add the head again.")
    if version > FORMAT:
        raise VocabTransferError(f"{path} was written by a newer version of vocabtransfer: update vocabtransfer.")
    known = {entry.name: entry for entry in fields(HeadConfig)}
    values = {name: value for name, value in data.items() if name in known}
    for name, kinds in _KINDS.items():
        value = values.get(name, None if name in _REQUIRED else _DEFAULTS[name])
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise VocabTransferError(f"{path} is damaged: {name!r} is {value!r}; add the head again.")
        if type(value) is int and value < 1:
            raise VocabTransferError(f"{path} is damaged: {name!r} is {value}; add the head again.")
    return HeadConfig(**values)


def refuse_misfit(
    config: HeadConfig, name: str, *, hidden: int, fingerprint: str, backbone: str, force: bool = False
) -> None:
    """Refuse a head of another backbone, unless it was or is forced; of another width in any case.

    ``backbone`` is what the message calls the backbone at hand. Raises `VocabTransferError`.
    """
    if config.hidden != hidden:
        raise VocabTransferError(
            f"the head {name!r} has rows of width {config.hidden}, but the backbone {backbone} needs {hidden}."
        )
    if config.backbone != fingerprint and not (force or config.forced):
        raise VocabTransferError(
            f"the head {name!r} was made for another backbone ({config.backbone_name}) than {backbone}: force it only "
            "if you know that they fit."
        )


_REQUIRED = ("backbone", "backbone_name", "tied", "rows", "vocabulary", "hidden")
_DEFAULTS: dict[str, Any] = {"values": {}, "language": None, "method": {}, "evidence": {}, "forced": False, "files": {}}
_KINDS: dict[str, tuple[type, ...]] = {
    **{"backbone": (str,), "backbone_name": (str,), "tied": (bool,), "rows": (int,), "vocabulary": (int,)},
    **{"hidden": (int,), "values": (dict,), "language": (str, type(None)), "method": (dict,), "evidence": (dict,)},
    **{"forced": (bool,), "files": (dict,)},
}
