"""Text that a build sets aside before it trains anything, to score itself and its source on at the end."""

from __future__ import annotations

import hashlib
import heapq
import importlib.resources
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vocabtransfer.evaluation.against_source import HELD_OUT_BYTES
from vocabtransfer.files.text import read_text
from vocabtransfer.languages import Language

#: At most this share of the text is set aside, and no less than so many bytes: fewer say nothing.
MOST_SHARE, LEAST_BYTES = 0.05, 1_000
#: A line shorter than this is a label rather than a sentence.
LEAST_CHARACTERS = 30
CHECKOUT = Path(__file__).parents[2] / "data" / "held_out"


@dataclass(frozen=True)
class HeldOut:
    """Lines to score on and where they are from; ``keys`` are the lines that must not be trained on."""

    lines: tuple[str, ...] = ()
    origin: str = ""
    keys: frozenset[bytes] = field(default=frozenset(), repr=False)

    def allows(self, line: str) -> bool:
        """Tell whether a line may be trained on."""
        return not self.keys or _key(line) not in self.keys

    def allowed(self, lines: Iterable[str]) -> Iterator[str]:
        """Yield the lines that may be trained on."""
        return filter(self.allows, lines) if self.keys else iter(lines)

    def allowed_pairs(self, pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """Yield the pairs whose target side may be trained on."""
        return (pair for pair in pairs if self.allows(pair[1])) if self.keys else iter(pairs)


def from_files(paths: Iterable[Path], origin: str) -> HeldOut:
    """Return the text of files that a person keeps for scoring, or that came with a corpus."""
    lines = tuple(read_text(list(paths)))
    return HeldOut(lines, origin, frozenset(map(_key, lines)))


def set_aside(lines: Iterable[str], origin: str, most_bytes: int = HELD_OUT_BYTES) -> HeldOut:
    """Choose lines to hold out: those whose hashes are smallest, so that order and repeats do not matter.

    At most ``most_bytes`` and one twentieth of the text; nothing where that leaves less than 1,000 bytes. Lines of
    fewer than 30 characters are not chosen. Only the chosen lines are held in memory.
    """
    chosen: list[tuple[int, str]] = []
    members: set[str] = set()
    total = held = 0
    for line in lines:
        size = len(line.encode("utf-8", "replace"))
        total += size
        if len(line) < LEAST_CHARACTERS or line in members:
            continue
        rank = -int.from_bytes(_key(line), "big")
        if held >= most_bytes and rank < chosen[0][0]:
            continue
        heapq.heappush(chosen, (rank, line))
        members.add(line)
        held += size
        while chosen and held - _size(chosen[0][1]) >= most_bytes:
            held -= _drop(chosen, members)
    while chosen and held > MOST_SHARE * total:
        held -= _drop(chosen, members)
    if held < LEAST_BYTES:
        return HeldOut()
    kept = tuple(line for _, line in sorted(chosen, reverse=True))
    return HeldOut(kept, origin, frozenset(map(_key, kept)))


def shipped(language: Language) -> HeldOut:
    """Return the held-out text that ships for a language (the Universal Declaration of Human Rights), or nothing."""
    name = f"{language.tag}.txt"
    try:
        installed = importlib.resources.files("vocabtransfer_data") / "held_out" / name
    except ModuleNotFoundError:
        installed = CHECKOUT / name
    if not installed.is_file():
        return HeldOut()
    with importlib.resources.as_file(installed) as path:
        return from_files([path], "the Universal Declaration of Human Rights (it comes with vocabtransfer)")


def _drop(chosen: list[tuple[int, str]], members: set[str]) -> int:
    line = heapq.heappop(chosen)[1]
    members.discard(line)
    return _size(line)


def _size(line: str) -> int:
    return len(line.encode("utf-8", "replace"))


def _key(line: str) -> bytes:
    """Return what tells lines apart, whatever their case and white space."""
    return hashlib.blake2b(" ".join(line.casefold().split()).encode("utf-8", "surrogatepass"), digest_size=16).digest()
