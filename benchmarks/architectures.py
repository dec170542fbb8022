"""Judge tiny models of all families of the installed transformers, and write docs/architectures.md.

Usage: python benchmarks/architectures.py [FAMILY ...] [--output docs/architectures.md] [--keep verdicts.jsonl]

Verdicts are appended to ``--keep``; families that stand there are not judged again, so a run can be resumed.
"""

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import torch
import transformers
from architecture_samples import families
from architecture_verdicts import Verdict, judge

HEAD = """# Architectures

This table was made by `python benchmarks/architectures.py` with transformers {version}. For every model family with a
vocabulary, a tiny model with random weights was made, given a new vocabulary, loaded again without the hub, and
compared with the model it came from: names, sizes and ids in every part of the settings, tied tables, dtypes, hidden
states of copied tokens bit for bit, and logits at copied ids.

- **works**: all of that was right.
- **built**: the files, the loading and the settings were right; the tiny model does not run on text alone, so hidden
  states and logits were not compared.
- **refused**: nothing was written, and this is the sentence that a person reads.
- **not made**: this suite cannot make a tiny model that runs. It says nothing about the family.
- **wrong**: a mistake of ours.

{counts}

| family | made as | result | why |
|---|---|---|---|
"""


def main() -> None:
    """Judge and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*")
    parser.add_argument("--output", type=Path, default=Path("docs/architectures.md"))
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    verdicts = _kept(options.keep)
    for family in options.families or families():
        if family in verdicts:
            continue
        with tempfile.TemporaryDirectory() as place:
            verdicts[family] = judge(family, Path(place))
        if options.keep:
            with options.keep.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(vars(verdicts[family])) + "\n")
    _write(options.output, verdicts)


def _kept(path: Path | None) -> dict[str, Verdict]:
    if path is None or not path.is_file():
        return {}
    verdicts = [Verdict(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    return {verdict.family: verdict for verdict in verdicts}


def _write(path: Path, verdicts: dict[str, Verdict]) -> None:
    counts = Counter(verdict.state for verdict in verdicts.values())
    said = f"{len(verdicts)} families: " + ", ".join(f"{count} {state}" for state, count in counts.most_common()) + "."
    lines = [
        f"| {v.family} | {v.made_as} | {v.state} | {v.why.replace('|', '/')} |" for _, v in sorted(verdicts.items())
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = HEAD.format(version=transformers.__version__, counts=said) + "\n".join(lines) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
