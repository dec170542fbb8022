"""Make one head of a Hydra an ordinary checkpoint that any tool can load."""

from pathlib import Path

import torch

from vocabtransfer.checkpoint import VocabTensor, WriteReport, plan_checkpoint
from vocabtransfer.checkpoint.plan import Link
from vocabtransfer.checkpoint.rewrite import NewTables, write_planned
from vocabtransfer.checkpoint.tensors import load_rows
from vocabtransfer.checkpoint.tying import with_tying
from vocabtransfer.hydra.add import PROVENANCE_FILES
from vocabtransfer.hydra.folder import HydraFolder, open_hydra
from vocabtransfer.hydra.settings import with_values
from vocabtransfer.hydra.stored import StoredHead, Table
from vocabtransfer.public import public


@public
def export_head(
    hydra: str | Path | HydraFolder,
    name: str,
    target: str | Path,
    *,
    link: Link = "hard",
    overwrite: bool = False,
) -> WriteReport:
    """Write one head with the backbone as a standalone checkpoint; its logits are those of the head in the Hydra.

    Shards without a table are hard-linked (or, with ``link="copy"``, copied). A LoRA bound to the head lies in the
    folder ``adapter`` of the result, unmerged. Raises `VocabTransferError` as `write_checkpoint` does.
    """
    folder = hydra if isinstance(hydra, HydraFolder) else open_hydra(hydra)
    head = folder.head(name)
    folder.check_fits(head.config, name)
    source = with_tying(folder.checkpoint, head.config.tied)
    kept = (*PROVENANCE_FILES, "adapter/adapter_config.json", "adapter/adapter_model.safetensors")
    extras = {file: (head.folder / file).read_bytes() for file in kept if (head.folder / file).is_file()}
    target = Path(target).expanduser()
    plan = plan_checkpoint(
        source, target, vocabulary_size=head.config.rows, link=link, extra_bytes=sum(map(len, extras.values()))
    )
    tables = NewTables(
        head.tokenizer,
        lambda tensor, start, stop: head_rows(head, tensor, start, stop),
        with_values(source.config, head.config.values),
        head.generation_config,
    )
    facts = {"source": source.name}
    return write_planned(source, plan, tables=tables, extra_files=extras, facts=facts, overwrite=overwrite)


def head_rows(head: StoredHead, tensor: VocabTensor, start: int, stop: int) -> torch.Tensor:
    """Read rows of the head's table that a tensor of the model needs: storage dtype, (stop - start, hidden) or flat."""
    table: Table = "output_bias" if tensor.part == "output_bias" else "input"
    if tensor.part == "output" and "output" in head.tables:
        table = "output"
    rows = load_rows(head.tables[table], start, stop) if table != "output_bias" else _bias(head, start, stop)
    return rows


def _bias(head: StoredHead, start: int, stop: int) -> torch.Tensor:
    return load_rows(head.tables["output_bias"], start, stop).reshape(-1)
