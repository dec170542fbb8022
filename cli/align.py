"""`vocabtransfer align`: a parallel corpus becomes an alignment table; tables are merged and shown, corpora filtered."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from vocabtransfer.errors import UsageError
from vocabtransfer.progress import show_progress

from .align_parts import check_outputs, check_table, print_facts
from .align_tables import filter_corpus, merge, pivot, show
from .arguments import COLUMNS_HELP, DEVICE, PAIR_KINDS, column_pair, existing
from .output import JSON_OPTION

if TYPE_CHECKING:
    from vocabtransfer.alignment.corpora import ParallelCorpus
    from vocabtransfer.alignment.table import WordTable
    from vocabtransfer.languages import Language


class _CorpusByDefault(TyperGroup):
    """A group whose first command is meant when none is named: `align CORPUS ...` is `align corpus CORPUS ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [next(iter(self.commands)), *args]
        return super().parse_args(ctx, args)


align_group = typer.Typer(
    cls=_CorpusByDefault,
    name="align",
    help="Align the words of a parallel corpus; merge, show and filter. `align CORPUS` is short for `align corpus CORPUS`.",
    no_args_is_help=True,
)


def align(
    parallel: list[Path] = typer.Argument(..., help=f"{PAIR_KINDS}."),
    output: Path = typer.Option(..., help="The table to write: NAME.tsv.gz, .tsv.xz or .tsv.zst."),
    target: str = typer.Option(..., help="The target language."),
    source: str = typer.Option("english", help="The source language."),
    columns: str | None = typer.Option(None, help=COLUMNS_HELP),
    min_count: float = typer.Option(0.0, help="Leave out word pairs with a smaller count."),
    links: Path | None = typer.Option(None, help="Write the links too, as i-j pairs (Pharaoh), a line for each pair."),
    words: Path | None = typer.Option(None, help="Write the pairs too, split at spaces as the links count words."),
    symmetrise: str | None = typer.Option(
        None, help="posterior, intersection, union or grow-diag-final-and [default: posterior]."
    ),
    effort: str | None = typer.Option(None, help="accurate or fast [default: accurate up to 250,000 pairs]."),
    aligner: str = typer.Option("vocabtransfer", help="vocabtransfer, neural, or eflomal or thot where installed."),
    model: str | None = typer.Option(None, help="For neural: folder, alias or hub id of a model of both languages."),
    use_links: Path | None = typer.Option(
        None, help="Count the links of this Pharaoh file instead of aligning; words are split at spaces."
    ),
    dictionary: Path | None = typer.Option(
        None, help="Translations to lean on: lines of source, tab, target; or CSV, dictd, StarDict, TEI."
    ),
    dictionary_weight: float = typer.Option(3.0, help="Links that an entry of the dictionary counts; 0 for none."),
    romanize: bool = typer.Option(False, "--romanize", help="Look for cognates in romanized words too."),
    skip_damaged: bool = typer.Option(False, "--skip-damaged", help="Skip and count lines that are not UTF-8."),
    shard_pairs: int | None = typer.Option(
        None, min=1, help="Work in shards of so many pairs [default: past 250,000 pairs, as free memory allows]."
    ),
    work: Path | None = typer.Option(None, help="Folder for unfinished shards [default: beside the output]."),
    engine: str = typer.Option("local", help="Where shards are worked on: local or ray."),
    processes: int | None = typer.Option(None, min=1, help="How many [default: by cores and free memory]."),
    device: str | None = DEVICE,
    overwrite: bool = typer.Option(False, help="Replace existing outputs."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Align the words of a parallel corpus and write how often each pair was linked.

    An interrupted run over a large corpus continues where it was when the same command is given again.

    Example: `vocabtransfer align en-nl.tsv.gz --target dutch --output en-nl.tsv.xz`
    """
    from vocabtransfer.alignment.corpora import read_parallel
    from vocabtransfer.languages import find_language
    from vocabtransfer.running.settings import running_with

    if device is not None and aligner != "neural":
        raise UsageError("--device is for --aligner neural: nothing else runs a model.")
    check_outputs({"--output": output, "--links": links, "--words": words}, overwrite, parallel)
    check_table(output)
    languages = find_language(source), find_language(target)
    corpus = read_parallel(
        existing(parallel, "corpus"),
        columns=column_pair(columns),
        source=languages[0],
        target=languages[1],
        skip_damaged=skip_damaged,
    )
    with show_progress(not as_json), running_with(device):
        if use_links is not None:
            if (
                links
                or words
                or dictionary
                or romanize
                or symmetrise
                or effort
                or shard_pairs
                or aligner != "vocabtransfer"
            ):
                raise UsageError("--use-links counts finished links: leave out the options of the aligner.")
            table = _count_given(corpus, use_links, languages)
        else:
            table = _count(
                corpus,
                languages,
                dictionary,
                romanize,
                {
                    "aligner": aligner,
                    "model": model,
                    "symmetrise": symmetrise,
                    "effort": effort,
                    "links": links,
                    "words": words,
                    "shard_pairs": shard_pairs,
                    "work": work or output.with_name(f".{output.name}.work"),
                    "engine": engine,
                    "processes": processes,
                },
            )
        if dictionary is not None and dictionary_weight:
            from vocabtransfer.alignment.dictionary import with_dictionary
            from vocabtransfer.alignment.dictionary_files import read_dictionary

            table = with_dictionary(table, read_dictionary(dictionary, languages), weight=dictionary_weight)
        if min_count:
            table = table.prune(min_count)
        table.save(output)
    facts = {
        "output": str(output),
        "pairs": corpus.statistics.pairs,
        "skipped": dict(corpus.statistics.skipped),
        "source_words": len(table.source_words),
        "target_words": len(table.target_words),
        "word_pairs": int(table.counts.nnz),
        "aligner": table.metadata["aligner"],
    }
    print_facts(
        "Aligned", facts | {name: str(path) for name, path in (("links", links), ("words", words)) if path}, as_json
    )


align_group.command("corpus")(align)
align_group.command("merge")(merge)
align_group.command("pivot")(pivot)
align_group.command("show")(show)
align_group.command("filter")(filter_corpus)


def _count(
    corpus: "ParallelCorpus",
    languages: "tuple[Language, Language]",
    dictionary: Path | None,
    romanize: bool,
    options: dict[str, Any],
) -> "WordTable":
    from vocabtransfer.alignment.aligner import align_corpus

    if dictionary is not None:
        from vocabtransfer.alignment.dictionary_files import read_dictionary

        options["dictionary"] = read_dictionary(dictionary, languages)
    if romanize:
        options["romanizer"] = _romanizer(languages[1])
    if options["processes"] is None:
        from vocabtransfer.alignment.shards import default_processes

        options["processes"] = default_processes()
    return align_corpus(corpus, metadata=_codes(languages), **options)


def _count_given(corpus: "ParallelCorpus", links: Path, languages: "tuple[Language, Language]") -> "WordTable":
    from vocabtransfer.alignment.word_alignment import WordAlignment

    return WordAlignment.from_pharaoh(corpus, *existing([links], "--use-links")).table(_codes(languages))


def _codes(languages: "tuple[Language, Language]") -> dict[str, str]:
    return {"source": languages[0].code, "target": languages[1].code}


def _romanizer(language: "Language") -> Callable[[str], str]:
    from vocabtransfer.transliteration import find_transliterator

    transliterator = find_transliterator(language)
    return lambda word: next(iter(transliterator.romanize([word])))
