"""Dialogues that calibrate a propagated chat model: copy tasks, and the model's own good answers.

Learned Embedding Propagation (arXiv 2412.21140) ends with a light calibration on what the model can say by itself:
copying a text, the skill that new rows damage most, and its own answers in the target language, as far as they are
sound. Nothing here needs instruction data; a passage of the target language is enough.
"""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import regex

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.files.staging import settled
from vocabtransfer.files.whole import write_whole
from vocabtransfer.scripts import SCRIPTS, character_scripts

Kind = Literal["copy", "answer"]
Verdict = Literal["good", "unfinished", "too short", "too long", "other script", "repetitive", "echo"]

#: How a copy is asked for; a caller who knows the target language gives requests in it.
COPY_REQUESTS = (
    "Repeat the following text word for word:",
    "Copy this text exactly as it is:",
    "Write down the text below without changing anything:",
)
FEWEST_LETTERS = 10
LONGEST_ANSWER = 4000
# Shares beyond which an answer is of no use: letters in the wrong script, repeated runs of words, copied request.
LEAST_IN_SCRIPT = 0.7
LEAST_DISTINCT = 0.5
MOST_COPIED = 0.8
RUN = 4
# Names of ISO 15924 for writing systems that mix scripts or are kinds of one.
MIXED_SCRIPTS = {
    "Jpan": ("Hani", "Hira", "Kana"),
    "Kore": ("Hang", "Hani"),
    "Hans": ("Hani",),
    "Hant": ("Hani",),
}

_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")


@dataclass(frozen=True)
class Dialogue:
    """One request and the answer to learn; the answer of a copy task is the text that its request holds."""

    kind: Kind
    request: str
    answer: str

    def messages(self) -> list[dict[str, str]]:
        """Return the dialogue in the form that chat templates take."""
        return [{"role": "user", "content": self.request}, {"role": "assistant", "content": self.answer}]


def copy_tasks(
    texts: Iterable[str],
    count: int,
    *,
    seed: int = 0,
    requests: Sequence[str] = COPY_REQUESTS,
    shortest: int = 20,
    longest: int = 400,
) -> list[Dialogue]:
    """Make copy tasks from passages of running text.

    Lines are put together, each passage up to a length drawn between ``shortest`` and ``longest`` characters; of all
    passages, ``count`` are drawn evenly from the whole text in one pass, in memory for that many only.

    Args:
        texts: lines of text.
        count: number of tasks; fewer when the text has not so many passages.
        seed: of all that is drawn.
        requests: sentences that ask for a copy.
        shortest: characters a passage has at least.
        longest: characters a passage has at most; longer lines are cut at a space.

    Raises:
        UsageError: lengths that contradict each other, or no request.
        VocabTransferError: the text has no passage of that length.
    """
    if not 0 < shortest <= longest or count < 1 or not requests:
        raise UsageError("copy tasks need a request, a count of 1 or more, and lengths with 0 < shortest <= longest.")
    generator = random.Random(seed)
    chosen: list[str] = []
    for seen, passage in enumerate(_passages(texts, generator, shortest, longest)):
        if len(chosen) < count:
            chosen.append(passage)
        elif (place := generator.randrange(seen + 1)) < count:
            chosen[place] = passage
    if not chosen:
        raise VocabTransferError(f"the text has no passage of {shortest} to {longest} characters: give more text.")
    return [Dialogue("copy", f"{generator.choice(requests)}\n\n{passage}", passage) for passage in chosen]


def judge(request: str, answer: str, *, finished: bool, script: str) -> Verdict:
    """Say whether a model's own answer is worth learning from, or the first reason why it is not.

    Args:
        request: what was asked, in the target language.
        answer: what the model said.
        finished: whether it ended its turn by itself.
        script: ISO 15924 name of the script the target language is written in.

    Raises `UsageError` for a script that does not exist.
    """
    wanted = _codes_of(script)
    if not finished:
        return "unfinished"
    codes = character_scripts(np.frombuffer(answer.encode("utf-32-le", "surrogatepass"), dtype=np.uint32))
    letters = int((codes != 0).sum())
    if letters < FEWEST_LETTERS:
        return "too short"
    if len(answer) > LONGEST_ANSWER:
        return "too long"
    if np.isin(codes, wanted).sum() < LEAST_IN_SCRIPT * letters:
        return "other script"
    words = [word.lower() for word in _WORD.findall(answer)]
    runs = [tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1)]
    if runs and len(set(runs)) < LEAST_DISTINCT * len(runs):
        return "repetitive"
    if common_length(request, answer) >= MOST_COPIED * min(len(request), len(answer)):
        return "echo"
    return "good"


def _codes_of(script: str) -> list[int]:
    names = MIXED_SCRIPTS.get(script, (script,))
    if any(name not in SCRIPTS for name in names):
        raise UsageError(f"there is no script {script!r}: give its ISO 15924 name, such as Cyrl or Latn.")
    return [SCRIPTS.index(name) for name in names]


def common_length(first: str, second: str) -> int:
    """Return the length of the longest common subsequence of two texts, in characters.

    One row of the usual table is a bit string, so a row costs a few additions of whole numbers (Hyyrö 2004).

    >>> common_length("кит яши", "китап яшь")
    6
    """
    places: dict[str, int] = {}
    for i, character in enumerate(first):
        places[character] = places.get(character, 0) | 1 << i
    full = (1 << len(first)) - 1
    row = full
    for character in second:
        match = row & places.get(character, 0)
        row = (row + match | row - match) & full
    return len(first) - row.bit_count()


def write_dialogues(dialogues: Iterable[Dialogue], path: str | Path, *, overwrite: bool = False) -> int:
    """Write dialogues as JSON lines with ``kind`` and ``messages``, whole or not at all; return how many.

    Raises `VocabTransferError` when the file exists already (unless ``overwrite``) or cannot be written.
    """
    target = settled(Path(path))
    if target.exists() and not overwrite:
        raise VocabTransferError(f"{path} exists already: choose another name, or allow overwriting (`overwrite`).")
    lines = [
        json.dumps({"kind": item.kind, "messages": item.messages()}, ensure_ascii=False) + "\n" for item in dialogues
    ]
    try:
        write_whole(target, "".join(lines))
    except OSError as problem:
        raise VocabTransferError(f"{path} cannot be written: {problem.strerror or problem}.") from None
    return len(lines)


def read_dialogues(path: str | Path) -> list[Dialogue]:
    """Read what `write_dialogues` wrote; `VocabTransferError` names the file and the line that is wrong."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as problem:
        raise VocabTransferError(f"{path} cannot be read as text ({problem}).") from None
    dialogues = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            dialogues.append(_parse(line, f"{path}, line {number}"))
    return dialogues


def _parse(line: str, place: str) -> Dialogue:
    try:
        entry = json.loads(line)
        request, answer = (message["content"] for message in entry["messages"])
        kind = entry["kind"]
    except (ValueError, KeyError, TypeError):
        raise VocabTransferError(f"{place}: a dialogue is a JSON object with kind and two messages.") from None
    if kind not in ("copy", "answer") or not isinstance(request, str) or not isinstance(answer, str):
        raise VocabTransferError(f"{place}: the kind is copy or answer, and messages have text as their content.")
    return Dialogue(kind, request, answer)


def _passages(texts: Iterable[str], generator: random.Random, shortest: int, longest: int) -> Iterator[str]:
    """Put lines together into passages of drawn lengths; a line that is too long is cut at its last space."""
    passage = ""
    wanted = generator.randint(shortest, longest)
    for text in texts:
        line = " ".join(text.split())
        if passage and len(passage) + 1 + len(line) > longest:
            if len(passage) >= shortest:
                yield passage
            passage = ""
        passage = f"{passage} {line}".strip()
        if len(passage) > longest:
            cut = passage.rfind(" ", 0, longest + 1)
            passage = passage[: cut if cut > 0 else longest].rstrip()
            wanted = min(wanted, len(passage))  # what follows does not go on from where the line was cut
        if len(passage) >= wanted:
            if len(passage) >= shortest:
                yield passage
            passage, wanted = "", generator.randint(shortest, longest)
    if len(passage) >= shortest:
        yield passage
