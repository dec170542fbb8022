"""`vocabtransfer tokenizer`: train, extend, swap, trim, optimise, compare and audit tokenizers."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import typer

from vocabtransfer.errors import UsageError
from vocabtransfer.progress import show_progress

from .arguments import FIELD, KINDS, column_pair, existing, text_files
from .output import JSON_OPTION, print_json, print_table
from .tokenizer_parts import (
    check_outputs,
    count_new,
    english_of,
    facts_about,
    finish,
    model_size,
    named_files,
    numbers,
    open_all,
    open_tokenizer,
    print_comparison,
    print_curve,
    print_facts,
    read_counts,
    write,
)

app = typer.Typer(help="Train, extend, swap, trim, optimise, compare and audit tokenizers.", no_args_is_help=True)

SOURCE = typer.Argument(..., help="Tokenizer: folder, file, alias or hub id.", show_default=False)
TEXT = typer.Option(..., "--text", help=f"Text: {KINDS}. Repeatable.")
OUTPUT = typer.Option(..., help="Folder to write.")
OVERWRITE = typer.Option(False, help="Replace an output that vocabtransfer wrote.")
MIN_COUNT = typer.Option(2, min=1, help="A new token must have been seen so often.")
NEW_TOKENS = typer.Option(
    ...,
    metavar="NUMBER|SHARE",
    help="How many new tokens, or 20%: as few as save so much of the tokens of --held-out.",
)
HELD_OUT = typer.Option([], help="Text apart from --text, to measure what new tokens save. Repeatable.")
REPAIR = typer.Option(True, help="Let words keep combining marks that the tokenizer cuts off.")


@app.command()
def train(
    like: str = typer.Option(..., help="The tokenizer to follow: folder, file, alias or hub id."),
    text: list[Path] = typer.Option([], help=f"Text in the target language: {KINDS}. Repeatable."),
    counts: Path | None = typer.Option(None, help="Counted words instead, as `corpus count` writes them."),
    field: str | None = FIELD,
    output: Path = OUTPUT,
    vocab_size: str = typer.Option(..., help="A number, or auto: where more tokens no longer pay."),
    algorithm: str | None = typer.Option(None, help="bpe, sentencepiece, unigram or wordpiece [default: as --like]."),
    keep_reserved: bool = typer.Option(False, help="Keep tokens that are reserved for later."),
    repair_marks: bool = REPAIR,
    body_parameters: float | None = typer.Option(None, min=1, help="For auto: parameters without the vocabulary."),
    token_parameters: int | None = typer.Option(None, min=1, help="For auto: hidden size, twice if untied."),
    sizes: str | None = typer.Option(None, help="For auto: the sizes to choose from, as 8000,16000,32000."),
    plot: Path | None = typer.Option(None, help="For auto: draw the curve into this .svg, .png or .pdf."),
    overwrite: bool = OVERWRITE,
    as_json: bool = JSON_OPTION,
) -> None:
    """Train a tokenizer for other text that keeps everything of its source but the ordinary tokens.

    Example: `vocabtransfer tokenizer train --like smollm2 --text tatar.txt --vocab-size auto --output tatar-tokenizer`
    """
    from vocabtransfer.files.text import Text
    from vocabtransfer.tokenization.size import choose_vocab_size
    from vocabtransfer.tokenization.train import ALGORITHMS, train_tokenizer, training_notes

    chosen = next((known for known in ALGORITHMS if known == algorithm), None)
    if algorithm is not None and chosen is None:
        raise UsageError(f"--algorithm is one of {', '.join(ALGORITHMS)}, not {algorithm!r}.")
    automatic = vocab_size == "auto"
    if not automatic and not (vocab_size.isdecimal() and int(vocab_size) > 0):
        raise UsageError(f"--vocab-size is a number or auto, not {vocab_size!r}.")
    if not automatic and (plot or sizes or token_parameters or body_parameters):
        raise UsageError("--plot, --sizes, --body-parameters and --token-parameters are for --vocab-size auto.")
    if bool(text) == (counts is not None):
        raise UsageError("Give either --text, or --counts with counted words.")
    if counts is not None and automatic:
        raise UsageError("--vocab-size auto needs --text: counted words do not say how text goes on.")
    check_outputs(output, overwrite, plot)
    lines = text_files(text, "--text", field)
    words = read_counts(*existing([counts], "--counts")) if counts is not None else {}
    with show_progress(not as_json):
        source = open_tokenizer(like)
        curve = None
        if automatic:
            model = model_size(like, body_parameters, token_parameters)
            curve = choose_vocab_size(
                lines,
                like=source,
                model=model,
                sizes=numbers(sizes),
                algorithm=chosen,
                keep_reserved=keep_reserved,
                repair_marks=repair_marks,
            )
        size = curve.size if curve else int(vocab_size)
        made = train_tokenizer(
            words or lines,
            like=source,
            vocab_size=size,
            algorithm=chosen,
            keep_reserved=keep_reserved,
            repair_marks=repair_marks,
        )
        shown = lines or Text(source=lambda: sorted(words, key=lambda word: -words[word]))
        facts = facts_about(source, made, shown, (*(curve.notes if curve else ()), *training_notes(made)))
        facts["curve"] = curve.facts()["points"] if curve else None
        if curve and plot:
            from vocabtransfer.evaluation.plots import plot_sizes

            plot_sizes(curve, plot, overwrite=overwrite)
        facts = write(made, output, overwrite, like, facts)
    if curve and not as_json:
        print_curve(facts["curve"], curve.size)
    print_facts("Trained", facts, as_json)


@app.command()
def extend(
    source: str = SOURCE,
    text: list[Path] = TEXT,
    field: str | None = FIELD,
    output: Path = OUTPUT,
    new_tokens: str = NEW_TOKENS,
    held_out: list[Path] = HELD_OUT,
    min_count: int = MIN_COUNT,
    repair_marks: bool = REPAIR,
    overwrite: bool = OVERWRITE,
    as_json: bool = JSON_OPTION,
) -> None:
    """Add tokens that merges can reach; every old token keeps its id.

    Example: `vocabtransfer tokenizer extend llama3 --text hindi.txt --new-tokens 8000 --output llama3-hindi`
    """
    from vocabtransfer.tokenization.extend import extend_tokenizer

    check_outputs(output, overwrite)
    lines = text_files(text, "--text", field)
    apart = text_files(held_out, "--held-out", field) if held_out else None
    with show_progress(not as_json):
        old = open_tokenizer(source)
        number = count_new(new_tokens, old, lines, apart, min_count=min_count, repair_marks=repair_marks)
        made = extend_tokenizer(old, lines, new_tokens=number, min_count=min_count, repair_marks=repair_marks)
        facts = finish(old, made, lines, output, overwrite, source)
    print_facts("Extended", facts, as_json)


@app.command()
def trim(
    source: str = SOURCE,
    text: list[Path] = TEXT,
    field: str | None = FIELD,
    output: Path = OUTPUT,
    keep: int | None = typer.Option(None, min=1, help="The length of the result."),
    drop_unused: bool = typer.Option(False, "--drop-unused", help="Drop exactly what the text never uses."),
    keep_reserved: bool = typer.Option(True, help="Keep tokens that are reserved for later."),
    overwrite: bool = OVERWRITE,
    as_json: bool = JSON_OPTION,
) -> None:
    """Drop the tokens that a text uses least; any text can still be written.

    Example: `vocabtransfer tokenizer trim gemma3 --text dutch.txt --keep 64000 --output gemma3-dutch`
    """
    from vocabtransfer.tokenization.trim import trim_tokenizer

    if (keep is None) is not drop_unused:
        raise UsageError("Give either --keep with a number of tokens or --drop-unused.")
    check_outputs(output, overwrite)
    lines = text_files(text, "--text", field)
    with show_progress(not as_json):
        old = open_tokenizer(source)
        made = trim_tokenizer(old, lines, keep=keep, drop_unused=drop_unused, keep_reserved=keep_reserved)
        facts = finish(old, made, lines, output, overwrite, source)
    print_facts("Trimmed", facts, as_json)


@app.command()
def optimise(
    source: str = SOURCE,
    text: list[Path] = TEXT,
    field: str | None = FIELD,
    output: Path = OUTPUT,
    vocab_size: int = typer.Option(..., min=1, help="The length of the result."),
    keep: int | None = typer.Option(
        None, min=1, help="Old tokens to keep [default: as long as they are used more than new ones would be]."
    ),
    min_count: int = MIN_COUNT,
    keep_reserved: bool = typer.Option(False, help="Keep tokens that are reserved for later."),
    repair_marks: bool = REPAIR,
    overwrite: bool = OVERWRITE,
    as_json: bool = JSON_OPTION,
) -> None:
    """Trim a tokenizer to the tokens that a text uses most, then extend it to a size.

    Example: `vocabtransfer tokenizer optimise smollm2 --text tatar.txt --vocab-size 16000 --output smollm2-tatar-16k`
    """
    from vocabtransfer.tokenization.optimise import optimise_tokenizer

    check_outputs(output, overwrite)
    lines = text_files(text, "--text", field)
    with show_progress(not as_json):
        old = open_tokenizer(source)
        made = optimise_tokenizer(
            old,
            lines,
            size=vocab_size,
            keep=keep,
            min_count=min_count,
            keep_reserved=keep_reserved,
            repair_marks=repair_marks,
        )
        facts = finish(old, made, lines, output, overwrite, source)
    print_facts("Optimised", facts, as_json)


@app.command()
def swap(
    source: str = SOURCE,
    text: list[Path] = TEXT,
    field: str | None = FIELD,
    output: Path = OUTPUT,
    new_tokens: str = NEW_TOKENS,
    held_out: list[Path] = HELD_OUT,
    keep_text: list[Path] = typer.Option([], help="Other text that must be cut as before. Repeatable."),
    min_count: int = MIN_COUNT,
    repair_marks: bool = typer.Option(False, help="Let words keep combining marks that the tokenizer cuts off."),
    overwrite: bool = OVERWRITE,
    as_json: bool = JSON_OPTION,
) -> None:
    """Give the ids of tokens that the text never uses to new ones; size, all other ids and merges stay.

    Example: `vocabtransfer tokenizer swap qwen3 --text russian.txt --new-tokens 20000 --output qwen3-russian`
    """
    from vocabtransfer.tokenization.swap import swap_tokenizer

    check_outputs(output, overwrite)
    lines = text_files(text, "--text", field)
    apart = text_files(held_out, "--held-out", field) if held_out else None
    keep = text_files(keep_text, "--keep-text", field) if keep_text else ()
    with show_progress(not as_json):
        old = open_tokenizer(source)
        number = count_new(new_tokens, old, lines, apart, min_count=min_count, repair_marks=repair_marks)
        made = swap_tokenizer(old, lines, new_tokens=number, keep=keep, min_count=min_count, repair_marks=repair_marks)
        facts = finish(old, made, lines, output, overwrite, source)
    print_facts("Swapped", facts, as_json)


@app.command()
def compare(
    tokenizers: list[str] = typer.Argument(..., help="Tokenizers: folders, files, aliases or hub ids; NAME=... too."),
    text: list[str] = typer.Option([], help="Text, DOMAIN=FILE or FILE. Repeatable."),
    english: list[str] = typer.Option([], help="The same lines in English, DOMAIN=FILE or FILE. Repeatable."),
    parallel: list[Path] = typer.Option([], help="Instead: English and the text in TSV, CSV, JSONL ... Repeatable."),
    columns: str = typer.Option(
        "0,1", help="English and the text in --parallel: two columns or fields, as 1,2 or en,nl."
    ),
    field: str | None = FIELD,
    domain_column: str | None = typer.Option(
        None, help="The column or field that names the domain, named or counted from 0 [default: the file]."
    ),
    plot: Path | None = typer.Option(None, help="Draw the figures into this .svg, .png or .pdf."),
    overwrite: bool = typer.Option(False, help="Replace the plot."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Compare tokenizers: tokens per word, characters and bytes per token, parity with English, tokens in vain.

    Example: `vocabtransfer tokenizer compare llama3 ./mine --parallel en-tt.tsv.xz --columns 1,2 --domain-column 0`
    """
    from vocabtransfer.evaluation.compare import compare_tokenizers as run_compare
    from vocabtransfer.evaluation.compare import read_domains

    if bool(parallel) == bool(text) or (english and not text):
        raise UsageError("Give either --text (with --english or without) or --parallel.")
    if plot:
        from vocabtransfer.evaluation.plots import check_plot, plot_comparison

        check_plot(plot, overwrite)
    first, second = column_pair(columns) or (0, 1)
    texts: Mapping[str, Iterable[str]]
    others: Mapping[str, Iterable[str]]
    if parallel:
        texts, others = read_domains(existing(parallel, "--parallel"), (first, second), domain_column)
    else:
        texts, others = named_files(text, "--text", field), english_of(text, english, field)
    with show_progress(not as_json):
        comparison = run_compare(open_all(tokenizers), texts, english=others)
        if plot:
            plot_comparison(comparison, plot, overwrite=overwrite)
    if as_json:
        print_json(comparison.facts())
    else:
        print_comparison(comparison)


@app.command()
def audit(
    source: str = SOURCE,
    examples: int = typer.Option(5, min=1, help="How many tokens to show for every reason."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Find the tokens that no text produces, and say why.

    Example: `vocabtransfer tokenizer audit qwen3`
    """
    from vocabtransfer.tokenization.audit import audit_tokenizer as run_audit

    with show_progress(not as_json):
        found = run_audit(open_tokenizer(source))
    shown = found.examples(examples)
    if as_json:
        facts = {"tokenizer": source, "examined": found.examined, "unreachable": len(found.unreachable)}
        facts |= {"unreachable_share": found.unreachable_share, "reasons": found.counts(), "examples": shown}
        print_json({**facts, "ids": found.unreachable.tolist()})
        return
    share = f"{len(found.unreachable):,} of {found.examined:,} ({found.unreachable_share:.2%})"
    rows = [("unreachable tokens", share)]
    rows += [(why, f"{count:,}: {' '.join(map(repr, shown[why]))}") for why, count in found.counts().items()]
    print_table(f"Audit of {source}", rows)
