"""What a sentence-transformers folder says of its modules: where the encoder is, and how its states become one vector."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from vocabtransfer.checkpoint import Checkpoint, open_checkpoint
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.json_files import read_json

MODULES = "modules.json"


def find_encoder(folder: Path) -> tuple[Path | None, list[dict[str, Any]]]:
    """Return the model folder inside a sentence-transformers folder, and its modules; (None, []) for anything else."""
    listing = folder / MODULES
    if not listing.is_file():
        return None, []
    modules = read_json(listing, kind=list)
    for module in modules:
        if not isinstance(module, dict) or not isinstance(module.get("type"), str):
            raise VocabTransferError(f"{listing} is not a list of modules with types.")
        path = PurePosixPath(module.get("path", ""))
        if path.is_absolute() or ".." in path.parts:
            raise VocabTransferError(f"{listing} points outside its folder: {module['path']!r}.")
    encoders = [module for module in modules if module["type"].endswith(".Transformer")]
    if len(encoders) != 1 or modules[0] is not encoders[0]:
        raise VocabTransferError(f"{listing} does not begin with one Transformer module, so the model is not found.")
    return folder / encoders[0].get("path", ""), modules


def pooling_mode(settings: Mapping[str, Any]) -> str:
    """Return how a pooling module makes one vector: mean, cls, max, lasttoken ..., joined by "+" where it does several."""
    modes = [
        key.removeprefix("pooling_mode_")
        for key, value in settings.items()
        if key.startswith("pooling_mode_") and value is True
    ]
    named = settings.get("pooling_mode")
    return "+".join([mode.removesuffix("_tokens").removesuffix("_token") for mode in modes]) or str(named or "mean")


def open_with_pooling(model: str | Path | Checkpoint) -> tuple[Checkpoint, str | None]:
    """Open a model, or the encoder of a sentence-transformers folder, and return its pooling: None where nothing says.

    Raises `VocabTransferError` for modules that do more than pool and normalise.
    """
    if isinstance(model, Checkpoint):
        source, outer = model, model.path
    else:
        outer = Path(model).expanduser()
        encoder, _ = find_encoder(outer)
        source = open_checkpoint(encoder if encoder is not None else model)
        outer = outer if encoder is not None else source.path
    _, modules = find_encoder(outer)
    found = None
    for module in modules[1:]:
        kind = module["type"].rsplit(".", 1)[-1]
        if kind == "Pooling":
            found = pooling_mode(read_json(outer / module.get("path", "") / "config.json"))
        elif kind != "Normalize":
            raise VocabTransferError(
                f"{source.name} has a module {kind!r} behind its encoder, which GGUF has no place for."
            )
    return source, found
