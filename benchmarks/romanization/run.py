"""Characters per second of `vocabtransfer romanize` beside the plain uroman call, on the same text in the same run.

    python benchmarks/romanization/run.py --data FOLDER                        # en-ru.tsv.xz, en-kk.tsv.xz ... in there
    python benchmarks/romanization/run.py --data FOLDER --language hi --characters 100000

FOLDER holds parallel corpora (part, English, target). Lines are taken evenly from the whole corpus. Times are processor
time of one thread, loading uroman left out (it is said apart); every transliterator starts with an empty memory, and
"again" is the same text once more. "equal" is the share of lines that come out as from the package. The last columns
are the normaliser that a tokenizer gets: how many steps, on how many of the words it equals the romanizer, its speed.
"""

import argparse
import json
import lzma
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import uroman

from vocabtransfer.languages import find_language
from vocabtransfer.transliteration import find_transliterator, romanizing_normalizer
from vocabtransfer.transliteration.normalizer import count_tokens


def sample(path: Path, characters: int) -> list[str]:
    with lzma.open(path, "rt", encoding="utf-8") as stream:
        lines = [line.rstrip("\n").split("\t")[2] for line in stream]
    step = max(1, sum(map(len, lines)) // characters)
    return lines[::step]


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = run()
    return result, time.process_time() - start


def measure(plain: uroman.Uroman, code: str, lines: list[str]) -> dict[str, Any]:
    language = find_language(code)
    size = sum(map(len, lines))
    expected, plain_seconds = timed(lambda: [plain.romanize_string(line, lcode=language.alpha3) for line in lines])
    facts: dict[str, Any] = {"language": code, "lines": len(lines), "characters": size}
    facts["uroman"] = size / plain_seconds
    for name in dict.fromkeys(["uroman", find_transliterator(language).name]):
        romanizer = find_transliterator(language, name)
        made, first = timed(lambda romanizer=romanizer: list(romanizer.romanize(lines)))
        _, again = timed(lambda romanizer=romanizer: list(romanizer.romanize(lines)))
        normalizer = romanizing_normalizer(romanizer, count_tokens(lines))
        _, normalised = timed(lambda made=normalizer.normalizer: [made.normalize_str(line) for line in lines])
        facts[f"our {name}"] = {
            "characters_per_second": size / first,
            "again": size / again,
            "times_faster": plain_seconds / first,
            "equal": sum(map(str.__eq__, made, expected)) / len(lines),
            "normaliser_steps": normalizer.steps,
            "normaliser_equal_words": normalizer.equal_words,
            "context_free_equal_words": normalizer.context_free_words,
            "normaliser_characters_per_second": size / normalised,
        }
    return facts


def show(facts: Iterable[dict[str, Any]]) -> None:
    print(
        f"{'':4}{'':>9} characters/s      first    again  faster   equal   normaliser: steps  equal  no context  chars/s"
    )
    for row in facts:
        print(f"{row['language']:4}{'uroman':>9} {row['uroman']:>22,.0f}   ({row['characters']:,} characters)")
        for name, ours in row.items():
            if isinstance(ours, dict):
                print(
                    f"{'':4}{name:>12} {ours['characters_per_second']:>19,.0f}{ours['again']:>11,.0f}"
                    f"{ours['times_faster']:>7.1f}x{ours['equal']:>8.2%}{ours['normaliser_steps']:>20}"
                    f"{ours['normaliser_equal_words']:>8.2%}{ours['context_free_equal_words']:>10.1%}"
                    f"{ours['normaliser_characters_per_second']:>13,.0f}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with en-XX.tsv.xz")
    parser.add_argument("--language", action="append", help="two-letter code; repeatable (default: ru kk hi tt)")
    parser.add_argument("--characters", type=int, default=300_000, help="of text for each language")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "speed.json")
    arguments = parser.parse_args()
    plain, seconds = timed(uroman.Uroman)
    print(f"loading uroman: {seconds:.1f} s")
    facts = [
        measure(plain, code, sample(arguments.data / f"en-{code}.tsv.xz", arguments.characters))
        for code in arguments.language or ("ru", "kk", "hi", "tt")
    ]
    show(facts)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
