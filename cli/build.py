"""`vocabtransfer build`: the main job."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import typer

from vocabtransfer.errors import UsageError
from vocabtransfer.progress import show_progress

from .arguments import (
    DEVICE,
    DTYPE,
    KINDS,
    MEMORY,
    PAIR_KINDS,
    column_pair,
    existing,
    link_kind,
    memory_bytes,
)
from .fields import Fields
from .output import JSON_OPTION, print_json, print_table, quiet_transformers, ran_on, written
from .tokenizer_parts import print_curve

if TYPE_CHECKING:
    from vocabtransfer.pipeline.build import BuildRequest, BuildResult

SOURCES, EVIDENCE, RESULT = "Source and target", "Evidence", "Result"
FIELDS = Fields("pipeline.request", "BuildRequest")
asked = FIELDS.option


def build(
    source: str = asked("source", ..., rich_help_panel=SOURCES),
    target: str = asked("target", ..., rich_help_panel=SOURCES),
    output: Path | None = asked("output", None, more="[default: build/SOURCE-TARGET]", rich_help_panel=SOURCES),
    as_head: str | None = asked("as_head", None, rich_help_panel=SOURCES),
    into: Path | None = asked("into", None, rich_help_panel=SOURCES),
    revision: str | None = asked("revision", None, rich_help_panel=SOURCES),
    allow_pickle: bool = asked("allow_pickle", False, rich_help_panel=SOURCES),
    merge_adapter: bool = asked("merge_adapter", False, "--merge-adapter", rich_help_panel=SOURCES),
    parallel: list[Path] = asked("parallel", [], more=f"Files: {PAIR_KINDS}. Repeatable.", rich_help_panel=EVIDENCE),
    columns: str | None = asked("columns", None, more="Such as en,nl or 1,2.", rich_help_panel=EVIDENCE),
    alignment: list[Path] = asked("alignment", [], more="Repeatable: en-tt and ru-tt.", rich_help_panel=EVIDENCE),
    alignment_weights: list[float] = asked("alignment_weights", [], "--alignment-weight", rich_help_panel=EVIDENCE),
    source_language: str = asked("source_language", "english", rich_help_panel=EVIDENCE),
    corpus: Path | None = asked("corpus", None, rich_help_panel=EVIDENCE),
    fetch: bool = asked("fetch", False, "--fetch", rich_help_panel=EVIDENCE),
    dictionary: list[Path] = asked("dictionary", [], more="Repeatable.", rich_help_panel=EVIDENCE),
    dictionary_weight: float = asked("dictionary_weight", 3.0, rich_help_panel=EVIDENCE),
    text: list[Path] = asked("text", [], more=f"Files: {KINDS}. Repeatable.", rich_help_panel=EVIDENCE),
    field: str | None = asked("field", None, rich_help_panel=EVIDENCE),
    donor: str | None = asked("donor", None, rich_help_panel=EVIDENCE),
    source_vectors: Path | None = asked("source_vectors", None, rich_help_panel=EVIDENCE),
    target_vectors: Path | None = asked("target_vectors", None, rich_help_panel=EVIDENCE),
    tokenizer: Path | None = asked("tokenizer", None, rich_help_panel=RESULT),
    vocabulary: str = asked("vocabulary", "auto", rich_help_panel=RESULT),
    preset: str | None = asked("preset", None, rich_help_panel=RESULT),
    new_tokens: str | None = asked("new_tokens", None, metavar="NUMBER|SHARE", rich_help_panel=RESULT),
    vocab_size: str | None = asked("vocab_size", None, rich_help_panel=RESULT),
    algorithm: str | None = asked("algorithm", None, rich_help_panel=RESULT),
    romanize: bool = asked("romanize", False, rich_help_panel=RESULT),
    method: str = asked("method", "auto", rich_help_panel=RESULT),
    calibrate: bool | None = asked("calibrate", None, rich_help_panel=RESULT),
    norm: str = asked("norm", "none", rich_help_panel=RESULT),
    untie: bool = asked("untie", False, "--untie", rich_help_panel=RESULT),
    distill: str | None = asked("distill", None, metavar="BUDGET", rich_help_panel=RESULT),
    held_out: list[Path] = asked("held_out", [], rich_help_panel=RESULT),
    held_out_bytes: int = asked("held_out_bytes", 12_000, min=0, rich_help_panel=RESULT),
    pad_to_multiple_of: int = asked("pad_to_multiple_of", 1, min=1, rich_help_panel=RESULT),
    link: str = asked("link", "hard", rich_help_panel=RESULT),
    overwrite: bool = asked("overwrite", False, rich_help_panel=RESULT),
    seed: int = asked("seed", 0, rich_help_panel=RESULT),
    device: str | None = DEVICE,
    dtype: str | None = DTYPE,
    memory: str | None = MEMORY,
    dry_run: bool = typer.Option(False, help="Do everything but write.", rich_help_panel=RESULT),
    as_json: bool = JSON_OPTION,
) -> None:
    """Build a checkpoint with the vocabulary of another language.

    Example: `vocabtransfer build --source smollm2 --target tatar --output build/smollm2-tatar`
    """
    given = {name: value for name, value in locals().items() if name in FIELDS.docs}
    from vocabtransfer.initialization.norms import check_norm
    from vocabtransfer.languages import find_language
    from vocabtransfer.pipeline.build import BuildRequest
    from vocabtransfer.pipeline.build import build as run_build
    from vocabtransfer.tokenization.train import ALGORITHMS

    quiet_transformers()
    if algorithm is not None and algorithm not in ALGORITHMS:
        raise UsageError(f"--algorithm is one of {', '.join(ALGORITHMS)}, not {algorithm!r}.")
    name = f"{Path(source.rstrip('/')).stem or 'model'}-{find_language(target).name.lower().replace(' ', '-')}"
    read = {
        "output": output or (Path("build") / name if as_head is None and into is None else None),
        "tokenizer": existing([tokenizer], "--tokenizer")[0] if tokenizer is not None else None,
        "vocabulary": _shape(vocabulary),
        "vocab_size": _size(vocab_size),
        "norm": check_norm(norm),
        "columns": column_pair(columns),
        "link": link_kind(link),
        "source_language": find_language(source_language).tag,
        "memory": memory_bytes(memory),
    }
    request = BuildRequest(**{**given, **read})
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
        rows += [("loaded as", facts["proof"]["loaded"]), *written(facts["proof"])]
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
