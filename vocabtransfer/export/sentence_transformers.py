"""A folder that sentence-transformers reads: the encoder, and the modules that make one vector of its states.

Source layouts: a plain model folder; a sentence-transformers folder with the encoder at its top, or in a folder of its own
(``0_Transformer``). The modules of the source are carried over, a plain model gets pooling and normalisation.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from vocabtransfer.checkpoint import Checkpoint, check_target, open_checkpoint
from vocabtransfer.errors import UsageError
from vocabtransfer.export.sentence_modules import MODULES, find_encoder, pooling_mode
from vocabtransfer.files.copying import place_file
from vocabtransfer.files.json_files import read_json
from vocabtransfer.files.manifest import write_manifest
from vocabtransfer.files.staging import staged_folder
from vocabtransfer.public import public
from vocabtransfer.tokenization.save import save_tokenizer

Pooling = Literal["mean", "cls", "max", "lasttoken"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
LENGTH_FILE = "sentence_bert_config.json"
TYPE = "sentence_transformers.models."
LICENCES = ("licen[cs]e*", "LICEN[CS]E*", "NOTICE*")


@dataclass(frozen=True)
class SentenceReport:
    """What was written: the folder, its modules by type, and the pooling, length and rows that it has."""

    path: Path
    modules: tuple[str, ...]
    pooling: str
    normalized: bool
    longest: int | None
    rows: int


@public
def export_sentence_transformers(
    model: str | Path,
    target: str | Path,
    *,
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    overwrite: bool = False,
) -> SentenceReport:
    """Write a folder for `SentenceTransformer(folder)`: the model at its top, ``1_Pooling`` and ``2_Normalize`` beside it.

    Modules that the source has stay as they are. ``pooling`` (default: the source's; else mean, or the last token for a
    model that continues text) and ``normalize`` (default: as the source, else True) say what a plain model gets, and
    replace the source's. Weights are hard-linked where possible. Raises `UsageError` for another pooling,
    `VocabTransferError` for a source with modules that are not understood and for a target that is in the way.
    """
    if pooling is not None and pooling not in POOLINGS:
        raise UsageError(f"there is no pooling {pooling!r}: choose one of {', '.join(POOLINGS)}.")
    folder = Path(target).expanduser()
    outer = Path(model).expanduser()
    encoder, modules = find_encoder(outer)
    source = open_checkpoint(encoder if encoder is not None else model)
    if encoder is None and (source.path / MODULES).is_file():  # an alias or hub id
        outer = source.path
        _, modules = find_encoder(outer)
    check_target(folder, overwrite)
    rest = [module for module in modules if not module["type"].endswith(".Transformer")]
    with staged_folder(folder, overwrite) as staging:
        _copy_model(source, staging)
        longest = _write_length(source, outer, staging)
        listed: list[dict[str, Any]] = [{"idx": 0, "name": "0", "path": "", "type": f"{TYPE}Transformer"}]
        for kind, given in _order(rest, normalize):
            listed.append(_place(kind, given, outer, source, staging, pooling, len(listed)))
        _dump(staging / MODULES, listed)
        _dump(staging / "config_sentence_transformers.json", _settings(outer))
        chosen = _pooling_of(staging, listed)
        write_manifest(staging, {"source": source.name})
    kinds = tuple(module["type"].rsplit(".", 1)[1] for module in listed)
    return SentenceReport(folder, kinds, chosen, "Normalize" in kinds, longest, source.layout.rows)


def _order(rest: list[dict[str, Any]], normalize: bool | None) -> list[tuple[str, dict[str, Any] | None]]:
    """Return the modules behind the encoder, in order, by type and as the source has them: None for a new one."""
    found: list[tuple[str, dict[str, Any] | None]] = [(module["type"], module) for module in rest]
    if not any(kind.endswith(".Pooling") for kind, _ in found):
        found.insert(0, (f"{TYPE}Pooling", None))
    if normalize is False:
        found = [(kind, module) for kind, module in found if not kind.endswith(".Normalize")]
    elif not any(kind.endswith(".Normalize") for kind, _ in found) and (normalize or not rest):
        found.append((f"{TYPE}Normalize", None))
    return found


def _place(
    kind: str,
    found: dict[str, Any] | None,
    outer: Path,
    source: Checkpoint,
    staging: Path,
    pooling: str | None,
    number: int,
) -> dict[str, Any]:
    """Write one module's folder and return its entry in the list."""
    name = kind.rsplit(".", 1)[1]
    path = f"{number}_{name}"
    made = staging / path
    if found is not None and found.get("path") and (outer / found["path"]).is_dir():
        shutil.copytree(outer / found["path"], made)
    made.mkdir(exist_ok=True)
    if name == "Pooling" and (pooling is not None or not (made / "config.json").is_file()):
        mode = pooling or ("lasttoken" if source.continues_text else "mean")
        kinds = {f"pooling_mode_{_FIELDS[known]}": known == mode for known in POOLINGS}
        settings = {"word_embedding_dimension": _hidden(source), **kinds, "include_prompt": True}
        _dump(made / "config.json", settings)
    return {"idx": number, "name": str(number), "path": path, "type": kind}


_FIELDS = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens", "lasttoken": "lasttoken"}


def _hidden(source: Checkpoint) -> int:
    return int(source.config.get("hidden_size") or source.config.get("d_model") or source.layout.hidden)


def _pooling_of(staging: Path, listed: list[dict[str, Any]]) -> str:
    path = next(module["path"] for module in listed if module["type"].endswith(".Pooling"))
    return pooling_mode(read_json(staging / path / "config.json"))


def _copy_model(source: Checkpoint, staging: Path) -> None:
    for shard in source.shards:
        place_file(shard.file, staging / shard.file.name, "hard")
    index = source.path / "model.safetensors.index.json"
    files = [source.path / "config.json", *([index] if source.sharded and index.is_file() else [])]
    files += [path for pattern in LICENCES for path in source.path.glob(pattern)]
    for path in dict.fromkeys(files):
        shutil.copyfile(path, staging / path.name)
    save_tokenizer(source.tokenizer, staging)


def _write_length(source: Checkpoint, outer: Path, staging: Path) -> int | None:
    """Write how long a text may be: what the source says, else what the model and its tokenizer can take."""
    given = next((path for path in (source.path / LENGTH_FILE, outer / LENGTH_FILE) if path.is_file()), None)
    if given is not None:
        settings = read_json(given)
    else:
        positions = source.config.get("max_position_embeddings")
        tokens = source.tokenizer.model_max_length
        bounds = [bound for bound in (positions, tokens) if isinstance(bound, int) and bound < 1 << 30]
        settings = {"max_seq_length": min(bounds, default=None), "do_lower_case": False}
    _dump(staging / LENGTH_FILE, settings)
    longest = settings.get("max_seq_length")
    return longest if isinstance(longest, int) else None


def _settings(outer: Path) -> dict[str, Any]:
    given = outer / "config_sentence_transformers.json"
    found: dict[str, Any] = read_json(given) if given.is_file() else {"prompts": {}, "default_prompt_name": None}
    return found


def _dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
