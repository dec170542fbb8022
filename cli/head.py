"""`vocabtransfer head`: the heads of a Hydra on disk."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from vocabtransfer.errors import UsageError
from vocabtransfer.progress import show_progress

from .arguments import link_kind
from .output import JSON_OPTION, print_json, print_table, quiet_transformers

head = typer.Typer(
    name="head",
    help="Manage the language heads of a Hydra: one model body with several vocabularies.",
    no_args_is_help=True,
)

HYDRA = typer.Argument(..., help="The Hydra's folder.")
NAME = typer.Argument(..., help="The head's name.")
LINK = typer.Option("hard", help="Unchanged weights: hard (links) or copy.")
OVERWRITE = typer.Option(False, help="Replace an output that vocabtransfer wrote.")


@head.command()
def create(
    hydra: Path = typer.Argument(..., help="Folder to write."),
    source: str = typer.Option(..., help="Alias, hub id, folder or GGUF file of a causal language model."),
    name: str = typer.Option("base", help="What to call the model's own head, such as english."),
    link: str = LINK,
    overwrite: bool = OVERWRITE,
    as_json: bool = JSON_OPTION,
) -> None:
    """Make a Hydra whose only head is the model's own.

    Example: `vocabtransfer head create hydra --source smollm2 --name english`
    """
    from vocabtransfer.checkpoint import open_checkpoint
    from vocabtransfer.hydra import create_hydra

    quiet_transformers()
    with show_progress(not as_json):
        made = create_hydra(open_checkpoint(source), hydra, own_name=name, link=link_kind(link), overwrite=overwrite)
    facts = {"hydra": str(made.path), "heads": list(made.names()), "backbone": made.fingerprint}
    _report("Made", facts, as_json)


@head.command()
def add(
    hydra: Path = HYDRA,
    name: str = NAME,
    checkpoint: str | None = typer.Option(
        None, "--from", help="A finished checkpoint whose vocabulary becomes the head: folder, alias or hub id."
    ),
    adapter: Path | None = typer.Option(None, help="A LoRA (PEFT folder) that is active whenever the head writes."),
    language: str | None = typer.Option(None, help="Its language: name, code or tag."),
    force: bool = typer.Option(False, help="Accept a head made for another backbone."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Add a head, or a LoRA to a head that is there; only the head is written.

    Example: `vocabtransfer head add hydra tatar --from build/smollm2-tatar`
    """
    from vocabtransfer.checkpoint import open_checkpoint
    from vocabtransfer.hydra import add_head_from_checkpoint, attach_adapter
    from vocabtransfer.languages import find_language

    if checkpoint is None and adapter is None:
        raise UsageError("say what to add: --from CHECKPOINT for a head, --adapter FOLDER for a LoRA.")
    quiet_transformers()
    tag = find_language(language).tag if language else None
    with show_progress(not as_json):
        if checkpoint is not None:
            stored = add_head_from_checkpoint(hydra, name, open_checkpoint(checkpoint), language=tag, force=force)
        if adapter is not None:
            stored = attach_adapter(hydra, name, adapter)
    facts = {
        "head": stored.name,
        "folder": str(stored.folder),
        "vocabulary": stored.config.vocabulary,
        "bytes": stored.bytes,
        "adapter": stored.adapter is not None,
    }
    _report("Added", facts, as_json)


@head.command("list")
def list_command(hydra: Path = HYDRA, as_json: bool = JSON_OPTION) -> None:
    """List the heads, damaged ones too.

    Example: `vocabtransfer head list hydra`
    """
    from vocabtransfer.hydra import list_heads

    heads = list_heads(hydra)
    if as_json:
        print_json({"hydra": str(hydra), "heads": [asdict(info) for info in heads]})
        return
    rows = []
    for info in heads:
        words = [f"{info.vocabulary:,} tokens", f"{info.bytes / 1e6:,.1f} MB"]
        words += ["the backbone's own"] if info.own else []
        words += [word for word in (info.language, info.method) if word]
        words += [mark for mark in ("adapter", "forced") if getattr(info, mark)]
        rows.append((info.name, info.problem or ", ".join(words)))
    print_table(f"{hydra}: {len(heads)} heads", rows)


@head.command()
def show(hydra: Path = HYDRA, name: str = NAME, as_json: bool = JSON_OPTION) -> None:
    """Show everything that is known about a head.

    Example: `vocabtransfer head show hydra tatar`
    """
    from vocabtransfer.hydra import describe_head

    _report(f"Head {name}", describe_head(hydra, name), as_json)


@head.command()
def remove(hydra: Path = HYDRA, name: str = NAME, as_json: bool = JSON_OPTION) -> None:
    """Delete a head's files.

    Example: `vocabtransfer head remove hydra tatar`
    """
    from vocabtransfer.hydra import remove_head

    remove_head(hydra, name)
    _report("Removed", {"hydra": str(hydra), "head": name}, as_json)


@head.command()
def rename(
    hydra: Path = HYDRA,
    name: str = NAME,
    new_name: str = typer.Argument(..., help="What to call it from now on."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Give a head another name.

    Example: `vocabtransfer head rename hydra tatar tatar-v1`
    """
    from vocabtransfer.hydra import rename_head

    rename_head(hydra, name, new_name)
    _report("Renamed", {"hydra": str(hydra), "from": name, "to": new_name}, as_json)


@head.command()
def verify(
    hydra: Path = HYDRA,
    names: list[str] = typer.Argument(None, help="Heads to verify [default: all]."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Check heads thoroughly: files against their hashes, values, ids, and the backbone they were made for.

    Example: `vocabtransfer head verify hydra`
    """
    from vocabtransfer.hydra import open_hydra, verify_head

    opened = open_hydra(hydra)
    with show_progress(not as_json):
        checked = [verify_head(opened, name) for name in (names or opened.names())]
    _report("Sound", {"hydra": str(hydra), "heads": [info.name for info in checked]}, as_json)


@head.command()
def export(
    hydra: Path = HYDRA,
    names: list[str] = typer.Argument(None, help="One head, or with --concatenate the heads to join [default: all]."),
    output: Path = typer.Option(..., help="Folder to write."),
    concatenate: bool = typer.Option(False, help="One checkpoint with the vocabularies laid end to end."),
    link: str = LINK,
    overwrite: bool = OVERWRITE,
    as_json: bool = JSON_OPTION,
) -> None:
    """Write a head as a checkpoint of its own, or several as one checkpoint with a joined vocabulary.

    Example: `vocabtransfer head export hydra tatar --output smollm2-tatar`
    """
    from vocabtransfer.hydra import export_concatenated, export_head

    quiet_transformers()
    if not concatenate and len(names or []) != 1:
        raise UsageError("name one head to export, or give --concatenate.")
    with show_progress(not as_json):
        if concatenate:
            report = export_concatenated(hydra, output, heads=names or None, link=link_kind(link), overwrite=overwrite)
        else:
            report = export_head(hydra, names[0], output, link=link_kind(link), overwrite=overwrite)
    facts = {
        "output": str(report.path),
        "bytes_written": report.bytes_written,
        "bytes_linked": report.bytes_linked,
        "seconds": round(report.seconds, 2),
    }
    _report("Exported", facts, as_json)


def _report(title: str, facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    print_table(title, [(key.replace("_", " "), _text(value)) for key, value in facts.items() if value is not None])


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return str(value)
