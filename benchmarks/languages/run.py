"""From the name of a language to a verified checkpoint, one command each: what packages have, and what came out of it.

    python benchmarks/languages/run.py --source smollm2
    python benchmarks/languages/run.py --source smollm2 --only chuvash welsh --folder build/languages
    python benchmarks/languages/run.py --tatar

Each language is built by `vocabtransfer build --source SOURCE --target LANGUAGE --fetch`; its own report says how many
pairs there were, and bits per byte and tokens per word of the result and of the untouched model on held-out text (the
Universal Declaration of Human Rights, which is trained on nowhere). --tatar builds Tatar from today's shipped table, from
what --fetch gets, with a dictionary of single terms and with Russian as a pivot, all scored on the same text. Results
are kept in results/, and README.md is written from them.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
#: What stands above a table of languages, and above one of evidence.
LANGUAGE = (
    "Each row is one command, `vocabtransfer build --source SOURCE --target LANGUAGE --fetch` (with `--source-language`",
    'where it says "from"). "Empty": the cache was empty, so that everything came in that one command.',
)
EVIDENCE = (
    "The same language and the same text to score on with more and more evidence: the table that ships, which needs no",
    "other data, and what `corpus fetch`, `align` and `align pivot` make of the packages (`run.py --tatar`).",
)
LANGUAGES = ("yoruba", "chuvash", "quechua", "icelandic", "basque", "kyrgyz", "welsh")


def command(*arguments: object, cache: Path | None = None) -> dict[str, Any]:
    """Run a vocabtransfer command in a process of its own and return what it prints as JSON."""
    words = [sys.executable, "-m", "vocabtransfer_cli.main", *map(str, arguments), "--json"]
    environment = {**os.environ, **({"VOCABTRANSFER_CACHE": str(cache)} if cache else {})}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))}: {done.stdout or done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def built(label: str, folder: Path, *arguments: object, cache: Path | None = None) -> dict[str, Any]:
    """Build and return the row of the results; with ``cache``, an empty folder, everything is fetched anew."""
    started = time.perf_counter()
    facts = command("build", *arguments, "--output", folder, "--overwrite", cache=cache)
    held_out = facts["held_out"]
    corpus = facts["corpus"] or {}
    return {
        "label": label,
        "language": facts["language"]["name"],
        "command": "vocabtransfer build " + " ".join(map(str, arguments)),
        "pairs": (facts["alignment"] or {}).get("pairs", 0),
        "dictionary_entries": (facts["alignment"] or {}).get("dictionary_entries", 0),
        "vocabulary": facts["tokenizer"]["vocabulary"],
        "shape": (facts["vocabulary"] or {}).get("shape"),
        "notes": facts["notes"],
        "warnings": corpus.get("warnings", []),
        "edition": corpus.get("held_out"),
        "from_nothing": cache is not None,
        "held_out": held_out["text"],
        "held_out_bytes": held_out["result"]["bytes"],
        "bits_per_byte": held_out["result"]["bits_per_byte"],
        "untouched_bits_per_byte": held_out["untouched"]["bits_per_byte"],
        "tokens_per_word": held_out["result"]["tokens_per_word"],
        "untouched_tokens_per_word": held_out["untouched"]["tokens_per_word"],
        "loaded": facts["proof"]["loaded"],
        "seconds": round(time.perf_counter() - started, 1),
        "stages": facts["seconds"],
    }


def languages(source: str, names: list[str], folder: Path, from_nothing: bool, source_language: str) -> None:
    """Build every language by its name alone."""
    model = Path(source).name
    path = RESULTS / f"{model}.json"
    for name in names:
        cache = (folder / f"cache-{name}").absolute() if from_nothing else None
        if cache is not None:
            shutil.rmtree(cache, ignore_errors=True)
        arguments = ["--source", source, "--target", name, "--fetch", "--held-out-bytes", 12_000]
        label = name
        if source_language != "en":
            arguments += ["--source-language", source_language]
            label = f"{name} from {source_language}"
        row = built(label, folder / f"{model}-{label.replace(' ', '-')}", *arguments, cache=cache)
        row["command"] = row["command"].replace(source, model)
        print(json.dumps(row, ensure_ascii=False), flush=True)
        # Read again: another run may have written meanwhile.
        rows = {row["label"]: row for row in json.loads(path.read_text())["rows"]} if path.exists() else {}
        rows[label] = row
        _write(path, model, list(rows.values()))


def tatar(source: str, folder: Path) -> None:
    """Build Tatar from today's table and from everything that can be reached, scored on the same text."""
    from vocabtransfer.corpora.fetch import fetch_corpus
    from vocabtransfer.corpora.folder import open_corpus

    folder.mkdir(parents=True, exist_ok=True)
    corpora = {}
    for name, (one, other) in {"en-tt": ("en", "tt"), "ru-tt": ("ru", "tt"), "en-ru": ("en", "ru")}.items():
        where = folder / name
        corpora[name] = (
            open_corpus(where) if (where / "corpus.json").exists() else fetch_corpus(other, where, source_language=one)
        )
        if not (folder / f"{name}.tsv.xz").exists():
            pairs = corpora[name].pairs
            command(
                *("align", pairs, "--columns", "1,2", "--source", one, "--target", other),
                *("--output", folder / f"{name}.tsv.xz"),
            )
    pivot = folder / "en-ru-tt.tsv.xz"
    command("align", "pivot", folder / "en-ru.tsv.xz", folder / "ru-tt.tsv.xz", "--output", pivot, "--overwrite")
    terms = folder / "terms.tsv"
    terms.write_text("".join(f"{one}\t{other}\n" for one, other in _terms(corpora["en-tt"].pairs)), encoding="utf-8")
    common = ("--source", source, "--target", "tatar", "--held-out", corpora["en-tt"].held_out)
    table, words = folder / "en-tt.tsv.xz", ("--dictionary", terms)
    rows = [
        built("today's table", folder / "today", *common),
        built("pairs fetched", folder / "pairs", *common, "--corpus", folder / "en-tt"),
        built("pairs and terms", folder / "terms", *common, "--corpus", folder / "en-tt", *words),
        built("table and Russian", folder / "russian", *common, "--alignment", table, folder / "ru-tt.tsv.xz"),
        built("table and pivot", folder / "pivot", *common, "--alignment", table, pivot),
        built(
            "everything",
            folder / "all",
            *common,
            "--alignment",
            table,
            folder / "ru-tt.tsv.xz",
            pivot,
            "--dictionary",
            terms,
        ),
    ]
    _write(RESULTS / f"{source}-tatar.json", source, rows)


def _terms(pairs: Path) -> list[tuple[str, str]]:
    """Return the pairs of one word each: a dictionary that the same packages hold."""
    from vocabtransfer.files.text_files import read_lines

    rows = (line.split("\t")[1:] for _, line in read_lines(pairs))
    return sorted({(one, other) for one, other in rows if len(one.split()) == 1 == len(other.split())})


def _write(path: Path, source: str, rows: list[dict[str, Any]]) -> None:
    # Remarks are written by hand, and stay.
    remarks = json.loads(path.read_text(encoding="utf-8")).get("remarks", []) if path.exists() else []
    facts = {"source": source, "rows": rows} | ({"remarks": remarks} if remarks else {})
    path.write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (HERE / "README.md").write_text(readme(), encoding="utf-8")


def _vocabulary(row: dict[str, Any]) -> str:
    """Return the size of the vocabulary, and how it came about where it is not a new one."""
    shape = row.get("shape")
    return f"{row['vocabulary']:,}" + (f" ({shape}ed)" if shape == "extend" else "")


def readme() -> str:
    """Return the page of all results."""
    lines = [
        "# Languages by their names",
        "",
        "Written by `run.py` from `results/`, on a machine that reaches package registries and no other service. Pairs are",
        "what was left after cleaning. Scored on the Universal Declaration of Human Rights, which nothing was trained on;",
        "fewer bits are better, and bits can be compared between tokenizers. Nothing was trained: tables only. Seconds are",
        "of a machine shared with much other work.",
    ]
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        first = "evidence" if path.stem.endswith("-tatar") else "language"
        lines += [
            "",
            f"## {path.stem}",
            "",
            *(EVIDENCE if first == "evidence" else LANGUAGE),
            "",
            f"| {first} | pairs | entries | vocabulary | bits per byte | untouched | tokens per word | untouched "
            "| empty | seconds |",
            "|---|--:|--:|--:|--:|--:|--:|--:|---|--:|",
        ]
        for row in found["rows"]:
            empty = "yes" if row.get("from_nothing") else ""
            seconds = f"{row['seconds']:.0f}" if row["seconds"] else ""
            name = (
                row["label"] if first == "evidence" else row["label"].replace(row["label"].split()[0], row["language"])
            )
            lines.append(
                f"| {name} | {row['pairs']:,} | {row['dictionary_entries']:,} | {_vocabulary(row)} | "
                f"{row['bits_per_byte']:.3f} | {row['untouched_bits_per_byte']:.3f} | {row['tokens_per_word']:.2f} | "
                f"{row['untouched_tokens_per_word']:.2f} | {empty} | {seconds} |"
            )
        for remark in found.get("remarks", []):
            lines += ["", remark]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="smollm2")
    parser.add_argument("--only", nargs="*", default=list(LANGUAGES))
    parser.add_argument("--folder", type=Path, default=Path("build/languages"))
    parser.add_argument("--from-nothing", action="store_true", help="every language with an empty cache of its own")
    parser.add_argument("--source-language", default="en", help="the other side of pairs, as a code")
    parser.add_argument("--tatar", action="store_true")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    if options.tatar:
        tatar(options.source, options.folder / "tatar")
    else:
        languages(options.source, options.only, options.folder, options.from_nothing, options.source_language)


if __name__ == "__main__":
    main()
