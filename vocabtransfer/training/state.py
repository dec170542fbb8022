"""What a run needs to go on after any interruption: a folder beside the output, gone when the output is there.

``settings.json`` says what is being done; ``stage-N.safetensors`` and ``.json`` hold what stage N trained and how it
went; ``update-NNNNNNNN/`` is a checkpoint inside the stage that is running. Each appears whole or not at all. No file
is a pickle.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.json_files import read_json
from vocabtransfer.files.locks import held
from vocabtransfer.files.staging import staged_folder
from vocabtransfer.files.text import Text
from vocabtransfer.files.whole import whole_path

SETTINGS, TENSORS, PROGRESS = "settings.json", "tensors.safetensors", "progress.json"
_FORMAT = "vocabtransfer adaptation 1"
#: With held-out text the best checkpoint stays beside the last and the one being written; then come values alone.
CHECKPOINTS = 3
_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16
#: What runs were begun with that know nothing of these settings.
_EARLIER = {"optimizer_dtype": "fp32", "documents_apart": False}


@dataclass
class Progress:
    """How far the stage in progress has come.

    ``position`` is that of `Mixture`; ``losses`` are nats a token (or chunk) of every update of the stage; ``curve`` has
    a point for every evaluation of the whole run; ``best`` is the update of the stage's best point and
    ``best_score`` its bits per byte, ``waited`` the evaluations since.
    """

    stage: int
    update: int
    position: dict[str, Any]
    tokens: int = 0
    losses: list[float] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    best: int | None = None
    best_score: float | None = None
    waited: int = 0

    def record(self, name: str, bits: float) -> None:
        """Add an evaluation of the stage called ``name`` to the curve; it may be the stage's best so far."""
        same = bool(self.curve) and self.curve[-1]["stage"] == self.stage
        since = self.update - (self.curve[-1]["update"] if same else 0)
        self.curve.append(
            {
                "stage": self.stage,
                "name": name,
                "update": self.update,
                "tokens": self.tokens,
                "bits_per_byte": bits,
                "loss": float(np.mean(self.losses[-since:])) if since else None,
            }
        )
        if self.best_score is None or bits < self.best_score:
            self.best, self.best_score, self.waited = self.update, bits, 0
        else:
            self.waited += 1

    def start_from_last(self) -> None:
        """Let the last evaluation be what the stage has to beat: it is of the model that the stage starts from."""
        self.best, self.best_score = 0, self.curve[-1]["bits_per_byte"]


def state_folder(output: Path) -> Path:
    """Return the folder that holds the state of a run with this output."""
    return output.with_name(f"{output.name}.adapting")


class State:
    """The folder of one run; inside `with`, what was begun or resumed is this process's alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = contextlib.ExitStack()

    def __enter__(self) -> "State":
        return self

    def __exit__(self, *_: object) -> None:
        self._release()

    def _hold(self) -> None:
        """Lock the folder where the system has locks; `VocabTransferError` when another process holds it."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(held(self.folder, only_if_free=True))
            except BlockingIOError:
                raise VocabTransferError(
                    f"{self.folder} belongs to a run that is still going on: wait for it."
                ) from None
            self._lock = stack.pop_all()

    def _release(self) -> None:
        self._lock.close()

    def exists(self) -> bool:
        """Tell whether a run was begun and not finished."""
        return (self.folder / SETTINGS).is_file()

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Make the folder anew; what an earlier run left is gone."""
        if self.folder.is_dir():
            self._hold()
        self.remove()
        with staged_folder(self.folder) as staging:
            _write_json(staging / SETTINGS, {"format": _FORMAT, **settings})
        self._hold()

    def resume(self, settings: Mapping[str, Any], *, restart_stage: bool = False) -> None:
        """Make ready to go on with these settings, by the names of the request's fields.

        ``settings["stages"]`` may differ from what the run was begun with where stages have not begun; the others may
        not differ at all. With ``restart_stage`` the stage in progress is begun again.

        Raises `UsageError` naming the first setting that differs, and `VocabTransferError` for a folder that is not a
        state.
        """
        self._hold()
        found = read_json(self.folder / SETTINGS)
        if found.get("format") != _FORMAT:
            raise VocabTransferError(f"{self.folder} is not the state of an adaptation: move it away.")
        begun = self.finished() + (bool(self._current()) and not restart_stage)
        for name, value in json.loads(json.dumps(settings)).items():
            if name == "stages":
                same = found[name][:begun] == value[:begun] and len(value) >= begun
            else:
                same = found.get(name, _EARLIER.get(name)) == value
            if not same:
                shown = isinstance(value, list | dict)
                what = f"another `{name}`" if shown else f"`{name}` {found.get(name)}, not {value}"
                again = "begin the stage in progress again with `restart_stage`, " if name == "stages" else ""
                raise UsageError(
                    f"{self.folder} was begun with {what}: resume with the same settings and files, {again}or begin anew "
                    "with `overwrite` and without `resume`."
                )
        kept = [] if restart_stage else self._current()
        for checkpoint in self._checkpoints():  # also those of a finished stage, left by a process that died
            if checkpoint not in kept:
                _discard(checkpoint)
        _replace_json(self.folder / SETTINGS, {"format": _FORMAT, **settings})

    def remove(self) -> None:
        """Remove the folder."""
        if self.folder.is_dir():
            # Without its settings it is no state any more, whatever is left when the process dies half-way.
            (self.folder / SETTINGS).unlink(missing_ok=True)
            shutil.rmtree(self.folder)
        self._release()

    def check_space(self, numbers: int, each: int = 12) -> None:
        """Raise `VocabTransferError` unless the disk has room to train so many numbers, ``each`` with its moments' bytes."""
        needed, free = numbers * (CHECKPOINTS * each + 4), shutil.disk_usage(self.folder).free
        if needed > free:
            raise VocabTransferError(
                f"{self.folder} needs {needed / 1e9:.2f} GB for checkpoints, but its disk has {free / 1e9:.2f} GB free: "
                "make room and go on with `resume`."
            )

    # Finished stages.

    def finished(self) -> int:
        """Return how many stages are finished."""
        count = 0
        while (self.folder / f"stage-{count}.json").is_file():
            count += 1
        return count

    def finish_stage(self, progress: Progress, values: Mapping[str, Tensor]) -> None:
        """Keep what a stage trained and how it went; its checkpoints are removed."""
        name = self.folder / f"stage-{progress.stage}"
        _save_tensors(name.with_suffix(".safetensors"), values)
        _replace_json(name.with_suffix(".json"), vars(progress))
        for checkpoint in self._checkpoints():
            _discard(checkpoint)

    def stage_progress(self, stage: int) -> Progress:
        """Return how a finished stage went."""
        return Progress(**read_json(self.folder / f"stage-{stage}.json"))

    def stage_values(self, stage: int) -> dict[str, Tensor]:
        """Return what a finished stage trained, by name of the parameter."""
        return _load_tensors(self.folder / f"stage-{stage}.safetensors")

    # What is dear to compute and does not change.

    def keep(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors under a name for processes that go on with the run."""
        _save_tensors(self.folder / f"{name}.safetensors", tensors)

    def kept(self, name: str) -> dict[str, Tensor] | None:
        """Return what `keep` kept; None when there is nothing of this name."""
        path = self.folder / f"{name}.safetensors"
        return _load_tensors(path) if path.is_file() else None

    # Checkpoints of the stage that is running.

    def save(self, progress: Progress, tensors: Mapping[str, Tensor], keep: int | None) -> None:
        """Write a checkpoint; earlier ones but that after ``keep`` updates are removed afterwards."""
        if not self.exists():
            raise VocabTransferError(f"{self.folder} was removed while the run went on, and with it what it had made.")
        place = self.folder / _checkpoint_name(progress.update)
        if not place.exists():
            with staged_folder(place) as staging:
                write_tensors(staging / TENSORS, tensors)
                _write_json(staging / PROGRESS, vars(progress))
        kept = {place.name, _checkpoint_name(keep if keep is not None else progress.update)}
        for checkpoint in self._checkpoints():
            if checkpoint.name not in kept:
                _discard(checkpoint)

    def latest(self) -> tuple[Progress, dict[str, Tensor]] | None:
        """Return the last checkpoint of the stage that comes after the finished ones; None when there is none."""
        current = self._current()
        if not current:
            return None
        return Progress(**read_json(current[-1] / PROGRESS)), _load_tensors(current[-1] / TENSORS)

    def tensors_of(self, update: int) -> dict[str, Tensor]:
        """Return the tensors of the checkpoint after so many updates."""
        return _load_tensors(self.folder / _checkpoint_name(update) / TENSORS)

    def _checkpoints(self) -> list[Path]:
        return sorted(self.folder.glob("update-*"))

    def _current(self) -> list[Path]:
        """Return the checkpoints of the stage that comes after the finished ones, the last one last."""
        whole = (path for path in self._checkpoints() if (path / PROGRESS).is_file())
        return [path for path in whole if read_json(path / PROGRESS)["stage"] == self.finished()]


def _discard(checkpoint: Path) -> None:
    # Without its progress it is no checkpoint any more, whatever is left when the process dies half-way.
    (checkpoint / PROGRESS).unlink(missing_ok=True)
    shutil.rmtree(checkpoint)


def _checkpoint_name(update: int) -> str:
    return f"update-{update:08}"


def fingerprint(path: Path) -> str:
    """Return size and hash of a file; of a large one, of 64 pieces spread evenly over it."""
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        if size <= _SAMPLES * _SAMPLE_BYTES:
            digest.update(stream.read())
        else:
            for number in range(_SAMPLES):
                stream.seek((size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
                digest.update(stream.read(_SAMPLE_BYTES))
    return f"{size}-{digest.hexdigest()[:32]}"


def fingerprints(text: Text) -> list[str]:
    """Return the fingerprints of the files of a text in their order, behind them the field that was named."""
    files = [file for path in text.files for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    return [fingerprint(file) for file in files if file.is_file()] + ([f"field {text.field}"] if text.field else [])


def checkpoint_tensors(values: Mapping[str, Tensor], **groups: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name the tensors of a checkpoint: ``value:NAME``, and ``GROUP:NAME`` for every further group."""
    named = {f"value:{name}": tensor.contiguous() for name, tensor in values.items()}
    for group, tensors in groups.items():
        named |= {f"{group}:{name}": tensor.contiguous() for name, tensor in tensors.items()}
    return named


def group_of(tensors: Mapping[str, Tensor], group: str = "value") -> dict[str, Tensor]:
    """Return the tensors of one group of `checkpoint_tensors` by their own names."""
    return {name.partition(":")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{group}:")}


def check_names(tensors: Mapping[str, Tensor], wanted: Sequence[str], folder: Path) -> None:
    """Raise `VocabTransferError` unless a checkpoint holds these parameters."""
    if set(group_of(tensors)) != set(wanted):
        raise VocabTransferError(
            f"{folder} holds other parameters than this stage trains: begin anew with `overwrite`."
        )


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    with whole_path(path) as part:
        write_tensors(part, tensors)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to a safetensors file and flush it; `VocabTransferError` when the disk refuses."""
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())
    except (OSError, SafetensorError) as problem:
        raise VocabTransferError(f"{path} cannot be written ({problem}): make room on the disk and resume.") from None


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as stream:
            return {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as problem:
        raise VocabTransferError(f"{path} cannot be read ({problem}): begin anew with `overwrite`.") from None


def _replace_json(path: Path, facts: Mapping[str, Any]) -> None:
    with whole_path(path) as part:
        _write_json(part, facts)


def _write_json(path: Path, facts: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(facts, ensure_ascii=False) + "\n", encoding="utf-8")
