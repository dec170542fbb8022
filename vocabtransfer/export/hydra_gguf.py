"""A Hydra as GGUF: each head a model that llama.cpp loads, and the body once on the disk.

llama.cpp reads a model that is split into files named NAME-00001-of-00002.gguf and so on; settings and vocabulary are in
the first. So each head gets a first file with its tables and vocabulary, and its second file, the body, is one file under
several names (hard links). A program that copies a head elsewhere copies both.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from vocabtransfer.checkpoint import check_target
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.export.gguf import GgufReport, plan_gguf, write_part
from vocabtransfer.files.copying import place_file
from vocabtransfer.files.manifest import write_manifest
from vocabtransfer.files.staging import staged_folder
from vocabtransfer.hydra import HydraFolder, export_head, open_hydra
from vocabtransfer.public import public


@public
def export_hydra_gguf(
    hydra: str | Path | HydraFolder,
    target: str | Path,
    *,
    heads: Sequence[str] | None = None,
    kind: str = "auto",
    pre_tokenizer: str | None = None,
    overwrite: bool = False,
) -> dict[str, GgufReport]:
    """Write a folder with two files for each head (default: all): give llama.cpp ``HEAD-00001-of-00002.gguf``.

    The second files are one file, hard-linked where the disk allows. ``kind`` and ``pre_tokenizer`` are those of
    `export_gguf`. Returns the report of each head, whose ``path`` is its first file and whose ``size`` counts both.
    Raises what `export_gguf` and `export_head` raise, and `VocabTransferError` for a head with a LoRA of its own.
    """
    folder = hydra if isinstance(hydra, HydraFolder) else open_hydra(hydra)
    names = list(heads if heads is not None else folder.names())
    if not names or len(set(names)) < len(names):
        raise UsageError("give each head to export once, and at least one.")
    for name in names:
        if folder.head(name).adapter is not None:
            raise VocabTransferError(f"the head {name!r} has a LoRA of its own: merge it, then export that model.")
    place = Path(target).expanduser()
    check_target(place, overwrite)
    reports = {}
    body: Path | None = None
    with staged_folder(place, overwrite) as staging, TemporaryDirectory(dir=place.parent, prefix=".heads-") as scratch:
        for name in names:
            export_head(folder, name, Path(scratch) / name)
            plan = plan_gguf(Path(scratch) / name, kind=kind, pre_tokenizer=pre_tokenizer)
            first, second = (staging / f"{name}-0000{number}-of-00002.gguf" for number in (1, 2))
            write_part(first, plan, plan.tables, 0, 2)
            if body is None:
                write_part(second, plan, [other for other in plan.parts if other not in plan.tables], 1, 2)
                body = second
            else:
                place_file(body, second, "hard")
            reports[name] = plan.report(place / first.name, first.stat().st_size + second.stat().st_size)
            shutil.rmtree(Path(scratch) / name)
        write_manifest(staging, {"source": folder.checkpoint.name})
    return reports
