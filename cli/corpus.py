"""`vocabtransfer corpus`: what text there is for a language, fetched, cleaned and shown."""

from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from vocabtransfer.progress import show_progress

from .align_parts import check_outputs, print_facts
from .arguments import COLUMNS_HELP, MAX_RATIO, MAX_WORDS, column_pair
from .output import JSON_OPTION, print_json, print_table, quiet_transformers

if TYPE_CHECKING:
    from vocabtransfer.corpora.folder import Corpus
    from vocabtransfer.corpora.offers import Offer

#: A smaller share of a language is not worth a word.
LEAST_SHOWN = 0.01

corpus_group = typer.Typer(
    name="corpus", help="Find, fetch and show text for a language: pairs, running text, words.", no_args_is_help=True
)
SOURCE_LANGUAGE = typer.Option("english", help="The language of the other side of pairs.")


@corpus_group.command("list")
def list_(
    language: str = typer.Argument(..., help="The language: name, ISO code, BCP 47 tag or endonym."),
    source_language: str = SOURCE_LANGUAGE,
    from_: list[str] = typer.Option([], "--from", help="Only this source (opus) or data set (opus:GNOME). Repeatable."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Show every source that has a language: kind, size, domain, licence, and whether it can be had now.

    Example: `vocabtransfer corpus list yoruba`
    """
    from vocabtransfer.corpora.catalogue import list_corpora

    with show_progress(not as_json):
        offers = list_corpora(language, source_language=source_language, names=from_)
    if as_json:
        print_json({"language": language, "offers": [_plain(offer) for offer in offers]})
        return
    table = Table(title=f"Corpora for {language}", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in ("source", "kind", "pairs", "size", "domain", "licence", "now"):
        table.add_column(name, justify="right" if name in ("pairs", "size") else "left", overflow="fold")
    for offer in offers:
        pairs = f"{offer.pairs:,}" if offer.pairs is not None else "?"
        table.add_row(
            *(offer.label, offer.kind, pairs, _size(offer.bytes), offer.domain, offer.licence),
            "no" if offer.refusal else "yes",
        )
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.print(table)
    for reason, refused in groupby(sorted(offers, key=_refusal), key=_refusal):
        if reason:
            console.print(f"\nNot now: {reason}. It would have been asked for:")
            for offer in refused:
                console.print(f"  {offer.label}: {offer.address}")


@corpus_group.command("fetch")
def fetch(
    language: str = typer.Argument(..., help="The language: name, ISO code, BCP 47 tag or endonym."),
    output: Path = typer.Option(..., help="Folder to write."),
    pairs: int | None = typer.Option(None, min=0, help="Sentence pairs to keep at most [default: 250,000]."),
    text: int | None = typer.Option(None, min=0, help="Bytes of running text to keep at most [default: 20,000,000]."),
    from_: list[str] = typer.Option([], "--from", help="Only this source (opus) or data set (opus:GNOME). Repeatable."),
    source_language: str = SOURCE_LANGUAGE,
    most_download: int | None = typer.Option(
        None, min=1, help="Bytes that one data set may download [default: 1,000,000,000]."
    ),
    overwrite: bool = typer.Option(False, help="Replace a corpus that vocabtransfer wrote."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Fetch what there is for a language, clean it, and write it into one folder with a page that credits it.

    Example: `vocabtransfer corpus fetch yoruba --output corpus-yo`
    """
    from vocabtransfer.corpora.fetch import MOST_DOWNLOAD, MOST_PAIRS, MOST_TEXT, fetch_corpus

    quiet_transformers()
    with show_progress(not as_json):
        corpus = fetch_corpus(
            language,
            output,
            source_language=source_language,
            pairs=MOST_PAIRS if pairs is None else pairs,
            text=MOST_TEXT if text is None else text,
            names=from_,
            most_download=MOST_DOWNLOAD if most_download is None else most_download,
            overwrite=overwrite,
        )
    _show(corpus, as_json)


@corpus_group.command("show")
def show(
    folder: Path = typer.Argument(..., help="A folder that `corpus fetch` wrote."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Show what a fetched corpus holds, from where, under which licences, and what was dropped.

    Example: `vocabtransfer corpus show corpus-yo`
    """
    from vocabtransfer.corpora.folder import open_corpus

    _show(open_corpus(folder), as_json)


def _show(corpus: "Corpus", as_json: bool) -> None:
    facts = {"output": str(corpus.path), **corpus.facts}
    if as_json:
        print_json(facts)
        return
    totals = corpus.facts["totals"]
    rows = [
        ("pairs", f"{totals['pairs']:,}"),
        ("running text", f"{totals['text_bytes'] / 1e6:,.2f} MB"),
        ("dictionary", f"{totals['dictionary_entries']:,} entries"),
        ("held out", f"{totals['held_out_bytes'] / 1e3:,.1f} kB"),
    ]
    for part in corpus.parts:
        dropped = sum(part["dropped"].values())
        shares = [(code, share) for code, share in part["languages"].items() if share >= LEAST_SHOWN]
        taken = ", ".join(f"{100 * share:.0f} % {code}" for code, share in shares[:3])
        told = f"; taken for {taken}" if taken else ""
        rows.append((part["part"], f"{part['kept']:,} kept, {dropped:,} dropped{told}; {part['licence']}"))
    rows += [("warning", warning) for warning in corpus.facts["warnings"]]
    missing = corpus.facts["missing"]
    if missing:
        rows.append(("not had", f"{len(missing)} sources, such as {missing[0]}"))
    rows += [("page", str(corpus.path / "corpus.html")), ("folder", str(corpus.path))]
    print_table(f"{corpus.facts['language']['name']} corpus", rows)


def _refusal(offer: "Offer") -> str:
    return offer.refusal


def _plain(offer: "Offer") -> dict[str, Any]:
    facts = asdict(offer)
    facts.pop("details")
    return facts | {"label": offer.label, "reachable": not offer.refusal}


def _size(size: int | None) -> str:
    return "?" if size is None else f"{size / 1e6:,.1f} MB"


SHARDS = typer.Argument(
    ..., help="Files or addresses (s3://, gs:// ... as fsspec knows them); part-*.tsv.zst names many."
)
ENGINE = typer.Option("local", help="Where shards are worked on: local or ray.")
PROCESSES = typer.Option(1, min=1, help="How many work here, or on a Ray cluster started here.")


@corpus_group.command("count")
def count(
    shards: list[str] = SHARDS,
    output: Path = typer.Option(
        ..., help="The counts: NAME.tsv, .tsv.gz, .tsv.xz or .tsv.zst; a word, a tab, a number."
    ),
    field: str | None = typer.Option(
        None, help="The field that holds the text, named or counted from 0: 1 is the target side of pairs."
    ),
    engine: str = ENGINE,
    processes: int = PROCESSES,
    overwrite: bool = typer.Option(False, help="Replace an existing output."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Count the words of a corpus in shards, side by side; `tokenizer train --counts` reads the result.

    Example: `vocabtransfer corpus count 'shards/part-*.tsv.zst' --field 1 --output words.tsv.zst --processes 2`
    """
    from vocabtransfer.corpora.shards import count_corpus
    from vocabtransfer.files.text_files import write_lines

    check_outputs({"--output": output}, overwrite, [Path(shard) for shard in shards])
    with show_progress(not as_json):
        counts = count_corpus(shards, field=field, engine=engine, processes=processes)
        write_lines(output, (f"{word}\t{number:.0f}\n" for word, number in counts.items()))
    facts = {"output": str(output), "words": len(counts), "running_words": round(sum(counts.values()))}
    print_facts("Counted", facts, as_json)


@corpus_group.command("filter")
def filter_(
    shards: list[str] = SHARDS,
    output: str = typer.Option(..., help="A folder or its address; part-NUMBER.tsv.zst will stand there."),
    target: str = typer.Option(..., help="The target language."),
    source: str = typer.Option("english", help="The source language."),
    columns: str | None = typer.Option(None, help=COLUMNS_HELP),
    max_ratio: float = MAX_RATIO,
    max_words: int = MAX_WORDS,
    engine: str = ENGINE,
    processes: int = PROCESSES,
    overwrite: bool = typer.Option(False, help="Replace parts that are in the output."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Drop bad sentence pairs of a corpus in shards, side by side, and duplicates among all of them.

    What is dropped, and why, is what `align filter` drops of one file.

    Example: `vocabtransfer corpus filter 'crawl/*.tsv.zst' --target tatar --output clean --engine ray --processes 2`
    """
    from vocabtransfer.alignment.filters import PairFilter
    from vocabtransfer.corpora.shards import filter_corpus
    from vocabtransfer.languages import find_language

    rules = PairFilter(find_language(source), find_language(target), max_ratio=max_ratio, max_words=max_words)
    with show_progress(not as_json):
        made = filter_corpus(
            shards,
            output,
            rules=rules,
            columns=column_pair(columns),
            engine=engine,
            processes=processes,
            overwrite=overwrite,
        )
    facts = {"output": output, "parts": len(made.files), "read": made.read, "kept": made.kept, "dropped": made.dropped}
    print_facts("Filtered", facts, as_json)
