"""`vocabtransfer build`: the main job."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import typer

from vocabtransfer.errors import UsageError
from vocabtransfer.progress import show_progress

from .arguments import (
    COLUMNS_HELP,
    DEVICE,
    DTYPE,
    FIELD_HELP,
    KINDS,
    MEMORY,
    PAIR_KINDS,
    column_pair,
    existing,
    link_kind,
    memory_bytes,
)
from .output import JSON_OPTION, print_json, print_table, quiet_transformers, ran_on
from .tokenizer_parts import print_curve

if TYPE_CHECKING:
    from vocabtransfer.pipeline.build import BuildRequest, BuildResult

SOURCES, ALIGNMENT, RESULT = "Source and target", "Evidence", "Result"


def build(
    source: str = typer.Option(
        ..., help="Alias (smollm2, llama3 ...), hub id, folder or GGUF file.", rich_help_panel=SOURCES
    ),
    target: str = typer.Option(
        ..., help="The target language: name, ISO code, BCP 47 tag or endonym.", rich_help_panel=SOURCES
    ),
    output: Path | None = typer.Option(
        None, help="Folder to write [default: build/SOURCE-TARGET].", rich_help_panel=SOURCES
    ),
    as_head: str | None = typer.Option(
        None, help="Write a head of this name instead of a checkpoint.", rich_help_panel=SOURCES
    ),
    into: Path | None = typer.Option(
        None, help="The Hydra that --as-head goes into; made when there is none.", rich_help_panel=SOURCES
    ),
    revision: str | None = typer.Option(None, help="Hub revision of the source.", rich_help_panel=SOURCES),
    allow_pickle: bool = typer.Option(False, help="Accept .bin weights (they can run code).", rich_help_panel=SOURCES),
    merge_adapter: bool = typer.Option(
        False, "--merge-adapter", help="Merge a PEFT adapter into the source first.", rich_help_panel=SOURCES
    ),
    parallel: list[Path] = typer.Option(
        [],
        help=f"Parallel corpus: {PAIR_KINDS}. Repeatable.",
        rich_help_panel=ALIGNMENT,
    ),
    columns: str | None = typer.Option(None, help=COLUMNS_HELP, rich_help_panel=ALIGNMENT),
    alignment: list[Path] = typer.Option(
        [], help="An alignment table instead of a corpus. Repeatable: en-tt and ru-tt.", rich_help_panel=ALIGNMENT
    ),
    alignment_weight: list[float] = typer.Option(
        [], help="How much each table counts [default: 1].", rich_help_panel=ALIGNMENT
    ),
    source_language: str = typer.Option(
        "english", help="The language of the other side of pairs and dictionaries.", rich_help_panel=ALIGNMENT
    ),
    corpus: Path | None = typer.Option(
        None, help="A folder that `corpus fetch` wrote: its pairs, text and words.", rich_help_panel=ALIGNMENT
    ),
    fetch: bool = typer.Option(
        False, "--fetch", help="Get a corpus of the language first, where nothing ships.", rich_help_panel=ALIGNMENT
    ),
    dictionary: list[Path] = typer.Option(
        [], help="Headword pairs: lines of source, tab, target. Repeatable.", rich_help_panel=ALIGNMENT
    ),
    dictionary_weight: float = typer.Option(
        3.0, help="Links in sentences that a dictionary entry counts.", rich_help_panel=ALIGNMENT
    ),
    held_out: list[Path] = typer.Option(
        [], help="Text to score on [default: set aside from the text, or what ships].", rich_help_panel=RESULT
    ),
    held_out_bytes: int = typer.Option(
        12_000, min=0, help="How much of it is scored; 0 for no scoring.", rich_help_panel=RESULT
    ),
    text: list[Path] = typer.Option(
        [], help=f"Text in the target language: {KINDS}. Repeatable.", rich_help_panel=ALIGNMENT
    ),
    field: str | None = typer.Option(None, help=FIELD_HELP, rich_help_panel=ALIGNMENT),
    tokenizer: Path | None = typer.Option(None, help="An existing target tokenizer.", rich_help_panel=RESULT),
    vocabulary: str = typer.Option(
        "auto",
        help="replace, extend, swap (in place), optimise, or auto: by what the source knows.",
        rich_help_panel=RESULT,
    ),
    preset: str | None = typer.Option(
        None, help="What a known model did: eeve, ruadapt, tpro, bielik, lapa, ...", rich_help_panel=RESULT
    ),
    new_tokens: int | None = typer.Option(
        None,
        min=1,
        help="Tokens that extend or swap bring in [default: by the amount of text].",
        rich_help_panel=RESULT,
    ),
    vocab_size: str | None = typer.Option(
        None, help="Size of the trained vocabulary, or auto: where more tokens no longer pay.", rich_help_panel=RESULT
    ),
    algorithm: str | None = typer.Option(
        None, help="bpe, sentencepiece, unigram or wordpiece [default: the source's].", rich_help_panel=RESULT
    ),
    romanize: bool = typer.Option(
        False, help="Put a romanizer in front of the trained tokenizer.", rich_help_panel=RESULT
    ),
    method: str = typer.Option("auto", help="The initialiser; see the README.", rich_help_panel=RESULT),
    calibrate: bool | None = typer.Option(
        None, help="Match the head to the language's token frequencies [default: auto does].", rich_help_panel=RESULT
    ),
    norm: str = typer.Option("none", help="Lengths of averaged rows: none, global, script.", rich_help_panel=RESULT),
    donor: str | None = typer.Option(
        None, help="A model with the target's tokens, for omp, clp, sava, salt.", rich_help_panel=ALIGNMENT
    ),
    source_vectors: Path | None = typer.Option(
        None, help="fastText vectors of the source language.", rich_help_panel=ALIGNMENT
    ),
    target_vectors: Path | None = typer.Option(
        None, help="fastText vectors of the target language.", rich_help_panel=ALIGNMENT
    ),
    pad_to_multiple_of: int = typer.Option(1, min=1, help="Round the number of rows up.", rich_help_panel=RESULT),
    untie: bool = typer.Option(
        False, "--untie", help="Give a tied model a head of its own: better rows, more memory.", rich_help_panel=RESULT
    ),
    link: str = typer.Option("hard", help="Unchanged shards: hard (links) or copy.", rich_help_panel=RESULT),
    overwrite: bool = typer.Option(False, help="Replace an output that vocabtransfer wrote.", rich_help_panel=RESULT),
    distill: str | None = typer.Option(
        None,
        metavar="BUDGET",
        help="Let the new rows learn from the source: 400 (updates), 200k (tokens) or 20min. Needs running text.",
        rich_help_panel=RESULT,
    ),
    seed: int = typer.Option(0, help="For everything random.", rich_help_panel=RESULT),
    device: str | None = DEVICE,
    dtype: str | None = DTYPE,
    memory: str | None = MEMORY,
    dry_run: bool = typer.Option(False, help="Do everything but write.", rich_help_panel=RESULT),
    as_json: bool = JSON_OPTION,
) -> None:
    """Build a checkpoint with the vocabulary of another language.

    Example: `vocabtransfer build --source smollm2 --target tatar --output build/smollm2-tatar`
    """
    from vocabtransfer.initialization.norms import check_norm
    from vocabtransfer.languages import find_language
    from vocabtransfer.pipeline.build import BuildRequest
    from vocabtransfer.pipeline.build import build as run_build
    from vocabtransfer.tokenization.train import ALGORITHMS

    quiet_transformers()
    linked = link_kind(link)
    if algorithm is not None and algorithm not in ALGORITHMS:
        raise UsageError(f"--algorithm is one of {', '.join(ALGORITHMS)}, not {algorithm!r}.")
    name = f"{Path(source.rstrip('/')).stem or 'model'}-{find_language(target).name.lower().replace(' ', '-')}"
    request = BuildRequest(
        source=source,
        target=target,
        output=output or (Path("build") / name if as_head is None and into is None else None),
        as_head=as_head,
        into=into,
        parallel=existing(parallel, "--parallel"),
        text=existing(text, "--text"),
        alignment=existing(alignment, "--alignment"),
        alignment_weights=tuple(alignment_weight),
        tokenizer=_optional(tokenizer, "--tokenizer"),
        vocabulary=_shape(vocabulary),
        preset=preset,
        new_tokens=new_tokens,
        vocab_size=_size(vocab_size),
        romanize=romanize,
        algorithm=algorithm,
        method=method,
        calibrate=calibrate,
        norm=check_norm(norm),
        donor=donor,
        source_vectors=_optional(source_vectors, "--source-vectors"),
        target_vectors=_optional(target_vectors, "--target-vectors"),
        columns=column_pair(columns),
        field=field,
        untie=untie,
        link=linked,
        pad_to_multiple_of=pad_to_multiple_of,
        overwrite=overwrite,
        allow_pickle=allow_pickle,
        merge_adapter=merge_adapter,
        revision=revision,
        distill=distill,
        seed=seed,
        source_language=find_language(source_language).tag,
        corpus=_optional(corpus, "--corpus"),
        fetch=fetch,
        dictionary=existing(dictionary, "--dictionary"),
        dictionary_weight=dictionary_weight,
        held_out=existing(held_out, "--held-out"),
        held_out_bytes=held_out_bytes,
        device=device,
        dtype=dtype,
        memory=memory_bytes(memory),
    )
    if fetch and not as_json:
        say_what_is_fetched(request)
    with show_progress(not as_json):
        result = run_build(request, dry_run=dry_run)
    facts = summary(result)
    if as_json:
        print_json(facts)
    else:
        _print(facts)


def _shape(text: str) -> Any:
    from vocabtransfer.pipeline.shapes import SHAPES

    if text not in (*SHAPES, "auto"):
        raise UsageError(f"--vocabulary is one of {', '.join(SHAPES)} or auto, not {text!r}.")
    return text


def _size(text: str | None) -> int | Literal["auto"] | None:
    if text is None or text == "auto":
        return cast(Literal["auto"] | None, text)
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--vocab-size is a number of tokens or auto, not {text!r}.")
    return int(text)


def _optional(path: Path | None, option: str) -> Path | None:
    return existing([path], option)[0] if path is not None else None


def summary(result: "BuildResult") -> dict[str, Any]:
    """Return what a build did, as plain data."""
    facts = {key: value for key, value in result.facts.items() if key != "examples"}
    facts["seconds"] = dict(result.seconds)
    facts["plan"] = {"bytes_written": result.plan.bytes_written, "bytes_linked": result.plan.bytes_linked}
    if result.written is not None and result.proof is not None:
        folder = result.written.path
        facts["output"] = str(folder)
        facts["report"] = str(folder / "report.html")
        facts["notes"] = [*facts["notes"], *result.written.notes, *filter(None, [result.proof.note])]
        facts["padded_rows"] = result.written.padded_rows
        facts["proof"] = {
            "loaded": result.proof.loaded,
            "prompt": result.proof.prompt,
            "generated": result.proof.generated,
        }
    if result.head is not None:
        facts["output"] = str(result.head.folder)
        facts["head"] = result.head.name
        facts["head_bytes"] = result.head.bytes
    return facts


def _print(facts: dict[str, Any]) -> None:
    tokenizer = facts["tokenizer"]
    if tokenizer["sizes"]:
        print_curve(tokenizer["sizes"]["points"], tokenizer["sizes"]["size"])
    rows = [
        ("source", f"{facts['source']['name']}, {facts['source']['vocabulary']:,} tokens"),
        ("target", f"{facts['language']['name']} ({facts['language']['endonym']}), {tokenizer['vocabulary']:,} tokens"),
        (
            "method",
            facts["method"]["name"] + (", calibrated to token frequencies" if facts["method"]["calibrated"] else ""),
        ),
        ran_on(facts["running"]),
    ]
    if "tokens_per_word_before" in tokenizer:
        figures = tokenizer["tokens_per_word_before"], tokenizer["tokens_per_word_after"]
        rows.append(("tokens per word", f"{figures[0]:.2f} before, {figures[1]:.2f} after"))
    shape = facts["vocabulary"]
    if shape:
        counts = "" if shape["new"] is None else f" ({shape['kept']:,} tokens kept, {shape['new']:,} new)"
        rows += [("vocabulary", shape["shape"] + counts), ("why", shape["reason"])]
    if facts["held_out"]:
        ours, theirs = facts["held_out"]["result"], facts["held_out"]["untouched"]
        rows.append(
            (
                "held-out text",
                f"{ours['bits_per_byte']:.3f} bits per byte, {ours['tokens_per_word']:.2f} tokens per word; the untouched "
                f"model {theirs['bits_per_byte']:.3f} and {theirs['tokens_per_word']:.2f}",
            )
        )
    if facts.get("distillation"):
        taught = facts["distillation"]
        before = f"; {taught['before']['bits_per_byte']:.3f} bits per byte before" if "before" in taught else ""
        rows.append(("distilled", f"{taught['updates']:,} updates of {taught['rows']:,} rows{before}"))
    rows.append(("rows", ", ".join(f"{count:,} {rule}" for rule, count in facts["rows_by_rule"].items())))
    if "proof" in facts:
        rows.append(("loaded as", facts["proof"]["loaded"]))
        if facts["proof"]["prompt"]:
            rows.append(("generated", f"{facts['proof']['prompt']} →{_on_one_line(facts['proof']['generated'])}"))
        rows += [("checkpoint", facts["output"]), ("report", facts["report"])]
    elif "head" in facts:
        rows += [("head", f"{facts['head']}, {facts['head_bytes'] / 1e6:,.1f} MB"), ("folder", facts["output"])]
    else:
        rows.append(("dry run", f"nothing written; {facts['plan']['bytes_written'] / 1e6:,.1f} MB would be"))
    rows.append(("seconds", ", ".join(f"{name} {value:.1f}" for name, value in facts["seconds"].items())))
    rows += [("note", note) for note in facts["notes"]]
    print_table("Built" if "output" in facts else "Planned", rows)


def say_what_is_fetched(request: "BuildRequest") -> None:
    """Say on standard error what --fetch is about to get, before it does."""
    from vocabtransfer.corpora.catalogue import list_corpora, unasked
    from vocabtransfer.languages import find_language
    from vocabtransfer.pipeline.gathering import fetched_folder

    language = find_language(request.target)
    folder = fetched_folder(language, request.source_language)
    if (folder / "corpus.json").is_file():
        typer.echo(f"Using the corpus fetched before, in {folder}.", err=True)
        return
    with show_progress():
        listed = list_corpora(language, source_language=request.source_language)
    offers = [offer for offer in listed if not offer.refusal]
    known = sum(offer.bytes or 0 for offer in offers)
    unknown = sum(offer.bytes is None for offer in offers)
    if offers:
        typer.echo(
            f"Fetching {len(offers)} corpora of {language.name}: {known / 1e6:,.1f} MB, and {unknown} whose size is not "
            f"known before (packages, mostly of less than 20 MB). Ctrl-C stops it; it goes on from there the next time.",
            err=True,
        )
    for line in unasked(listed):
        typer.echo(f"Not asked: {line}.", err=True)


def _on_one_line(text: str) -> str:
    return " " + " ".join(text.split())
