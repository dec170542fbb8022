"""What the commands of `vocabtransfer tokenizer` share: opening, writing, and printing what was done."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from vocabtransfer.errors import UsageError, VocabTransferError

from .arguments import text_files
from .output import print_json, print_table, quiet_transformers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerFast

    from vocabtransfer.evaluation.compare import Comparison
    from vocabtransfer.files.text import Text
    from vocabtransfer.tokenization.reshape import Reshaped
    from vocabtransfer.tokenization.size import ModelSize

SAMPLE_LINES = 2_000


def open_tokenizer(reference: str) -> "PreTrainedTokenizerFast":
    """Open a tokenizer: a local folder or file as it is, anything else as `open_checkpoint` finds it."""
    from vocabtransfer.checkpoint import open_checkpoint
    from vocabtransfer.tokenization.load import load_tokenizer

    quiet_transformers()
    path = Path(reference).expanduser()
    if path.exists() and path.suffix.lower() != ".gguf":
        return load_tokenizer(path)
    return open_checkpoint(reference).tokenizer


def open_all(references: Sequence[str]) -> dict[str, "PreTrainedTokenizerFast"]:
    """Open tokenizers by name: ``NAME=REFERENCE``; without a name it is the folder's, or the reference itself."""
    pairs = [_named(reference) for reference in references]
    pairs = [(Path(name).name if name == path and Path(path).exists() else name, path) for name, path in pairs]
    named = dict(pairs)
    if len(named) < len(pairs):
        raise UsageError("Two tokenizers have the same name: tell them apart as NAME=FOLDER.")
    return {name: open_tokenizer(reference) for name, reference in named.items()}


def named_files(arguments: Sequence[str], option: str, field: str | None = None) -> dict[str, "Text"]:
    """Return lines by domain from ``DOMAIN=FILE`` or ``FILE``; several files of a domain follow one another."""
    from vocabtransfer.evaluation.compare import domain_name

    files: dict[str, list[Path]] = {}
    for argument in arguments:
        name, path = _named(argument)
        files.setdefault(name if name != argument else domain_name(Path(path)), []).append(Path(path))
    return {name: text_files(paths, option, field) for name, paths in files.items()}


def english_of(texts: Sequence[str], english: Sequence[str], field: str | None = None) -> dict[str, "Text"]:
    """Return the English lines by the domain of their text: named like it, or in the same order without names."""
    if all(_named(argument)[0] == argument for argument in english) and english:
        if len(english) != len(texts):
            raise UsageError("Give one --english for every --text, or name their domains as DOMAIN=FILE.")
        from vocabtransfer.evaluation.compare import domain_name

        names = [name if name != text else domain_name(Path(text)) for text in texts for name in [_named(text)[0]]]
        english = [f"{name}={path}" for name, path in zip(names, english, strict=True)]
    return named_files(english, "--english", field)


def _named(argument: str) -> tuple[str, str]:
    name, mark, rest = argument.partition("=")
    return (name, rest) if mark and name and rest and not Path(argument).exists() else (argument, argument)


def numbers(text: str | None) -> list[int] | None:
    """Return the numbers of ``8000,16000``; `UsageError` for anything else."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--sizes takes numbers with commas between them, such as 8000,16000, not {text!r}.")
    return [int(part) for part in parts]


def model_size(like: str, body: float | None, per_token: int | None) -> "ModelSize":
    """Return what a token costs: as told, or as the checkpoint has it that the tokenizer belongs to."""
    from vocabtransfer.checkpoint import open_checkpoint
    from vocabtransfer.errors import VocabTransferError
    from vocabtransfer.tokenization.size import ModelSize

    if body is not None and per_token is not None:
        return ModelSize(round(body), per_token)
    try:
        return ModelSize.of(open_checkpoint(like))
    except VocabTransferError as problem:
        raise UsageError(
            f"--vocab-size auto weighs tokens against the parameters of a model, and {like} opens as none ({problem}) "
            "Give --body-parameters and --token-parameters."
        ) from None


def check_outputs(output: Path, overwrite: bool, plot: Path | None = None) -> None:
    """Refuse what cannot be written before any work is done."""
    from vocabtransfer.checkpoint import check_target

    check_target(output.absolute(), overwrite)
    if plot is not None:
        from vocabtransfer.evaluation.plots import check_plot

        check_plot(plot, overwrite)


def count_new(
    asked: str,
    old: "PreTrainedTokenizerFast",
    lines: "Text",
    held_out: "Text | None",
    *,
    min_count: int,
    repair_marks: bool,
) -> int:
    """Return how many new tokens ``--new-tokens`` asks for: a number, or the fewest that save a share of the held-out text.

    `UsageError` for neither, and for a share without ``--held-out``; `VocabTransferError` where it cannot be saved.
    """
    from vocabtransfer.pipeline.new_tokens import MOST_NEW, read_new_tokens
    from vocabtransfer.tokenization.saving import tokens_that_save

    wanted = read_new_tokens(asked)
    if isinstance(wanted, int):
        return wanted
    if held_out is None:
        raise UsageError(
            f"--new-tokens {asked} is measured on text that new tokens are not learnt from: give --held-out."
        )
    found = tokens_that_save(
        wanted, old, lines, held_out, most=MOST_NEW, min_count=min_count, repair_marks=repair_marks
    )
    if found.share < wanted:
        raise VocabTransferError(
            f"{found.new_tokens:,} new tokens save {found.share:.1%} of the tokens of the held-out text, and no more were "
            f"tried: ask for less than {asked}, or give more text of its kind."
        )
    return max(1, found.new_tokens)


def finish(
    old: "PreTrainedTokenizerFast", made: "Reshaped", lines: "Text", output: Path, overwrite: bool, source: str
) -> dict[str, Any]:
    """Write a reshaped tokenizer and return the facts about it."""
    facts = facts_about(old, made.tokenizer, lines, made.notes)
    facts |= {"kept": int((made.kept >= 0).sum()), "new": made.new_tokens}
    return write(made.tokenizer, output, overwrite, source, facts, made.kept)


def read_counts(path: Path) -> dict[str, int]:
    """Return the words of a file of counts, as `corpus count` writes it; `VocabTransferError` naming a line that is none."""
    from vocabtransfer.files.text_files import read_lines

    counts: dict[str, int] = {}
    for number, line in read_lines(path):
        word, _, count = line.rpartition("\t")
        if not word or not (count.isascii() and count.isdecimal()):
            raise VocabTransferError(f"{path}, line {number} is no word, tab and number: {line[:40]!r}.")
        counts[word] = counts.get(word, 0) + int(count)
    return counts


def facts_about(
    old: "PreTrainedTokenizerFast", new: "PreTrainedTokenizerFast", lines: "Text", notes: Sequence[str]
) -> dict[str, Any]:
    """Return sizes, tokens per word on the first lines of the text, and notes."""
    from vocabtransfer.evaluation.fertility import tokenizer_statistics

    before, after = (tokenizer_statistics(each, islice(lines, SAMPLE_LINES)).tokens_per_word for each in (old, new))
    facts: dict[str, Any] = {"tokens_before": len(old), "tokens": len(new)}
    return facts | {"tokens_per_word_before": before, "tokens_per_word": after, "notes": list(notes)}


def write(
    tokenizer: "PreTrainedTokenizerFast",
    output: Path,
    overwrite: bool,
    source: str,
    facts: dict[str, Any],
    kept: "NDArray[np.int64] | None" = None,
) -> dict[str, Any]:
    """Write a tokenizer into its folder; return the facts with the place."""
    from vocabtransfer.tokenization.write import write_tokenizer

    write_tokenizer(tokenizer, output, kept=kept, facts={"source": source}, overwrite=overwrite)
    return {"output": str(output), **facts}


def print_facts(title: str, facts: Mapping[str, Any], as_json: bool) -> None:
    """Print what was done."""
    if as_json:
        print_json(facts)
        return
    rows = [("tokens", f"{facts['tokens']:,}, before {facts['tokens_before']:,}")]
    if "kept" in facts:
        rows.append(("of these", f"{facts['kept']:,} kept, {facts['new']:,} new"))
    figures = facts["tokens_per_word_before"], facts["tokens_per_word"]
    rows.append(("tokens per word", f"{figures[0]:.2f} before, {figures[1]:.2f} after"))
    rows.append(("written to", facts["output"]))
    rows += [("note", note) for note in facts["notes"]]
    print_table(title, rows)


def print_curve(points: Sequence[Mapping[str, Any]], chosen: int) -> None:
    """Print the sizes that were considered (the facts of each `SizePoint`) and what each would cost."""
    rows = [
        (
            f"{point['size']:,}" + (" ←" if point["size"] == chosen else ""),
            f"{point['parameters']:,}",
            f"{point['tokens_per_word']:.3f}",
            _percent(point["saved"]),
            _percent(point["grown"]),
            f"{point['work']:.3f}",
        )
        for point in points
    ]
    titles = ("size", "parameters", "tokens/\nword", "tokens\nsaved", "parameters\nmore", "tokens ×\nparameters")
    _print_columns("Vocabulary sizes", titles, rows, left=0)


def print_comparison(comparison: "Comparison") -> None:
    """Print the vocabularies and what they make of each domain."""
    vocabularies = [
        (found.tokenizer, f"{found.tokens:,}", f"{found.unreachable:,}", f"{found.unreachable_share:.2%}")
        for found in comparison.vocabularies
    ]
    _print_columns("Vocabularies", ("tokenizer", "tokens", "unreachable", "share"), vocabularies)
    several = len(comparison.vocabularies) > 1
    rows = [
        (
            found.domain,
            found.tokenizer,
            f"{found.tokens_per_word:.2f}",
            f"{found.characters_per_token:.2f}",
            f"{found.bytes_per_token:.2f}",
            *([_figure(found.parity)] + [_figure(found.parity_to_first)] * several),
            f"{found.unknown_share:.2%}",
        )
        for domain in comparison.domains
        for found in comparison.texts
        if found.domain == domain
    ]
    parity = ("parity", *(["parity\nto first"] * several))
    titles = ("domain", "tokenizer", "tokens/\nword", "chars/\ntoken", "bytes/\ntoken", *parity, "unknown")
    _print_columns("Text", titles, rows, left=2)


def _print_columns(title: str, titles: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for place, name in enumerate(titles):
        table.add_column(name, justify="left" if place < left else "right", no_wrap=place >= left, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False).print(table)


def _percent(logarithm: float | None) -> str:
    return "" if logarithm is None else f"{logarithm:.1%}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
