"""The heads in memory: loaded when first used, and, under a byte budget, given up when least recently used."""

import itertools
import threading
from collections.abc import Callable, Iterator

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.hydra.loaded import LoadedHead


class HeadStore:
    """Loaded heads by name, safe from several threads.

    Looking up a loaded head takes no lock. A head that is given up stays alive for the calls that already have it and
    is freed with the last of them.
    """

    def __init__(
        self,
        load: Callable[[str], LoadedHead],
        size_of: Callable[[str], int],
        budget: int | None,
        on_drop: Callable[[LoadedHead], None],
    ) -> None:
        """Make an empty store.

        ``load`` reads a head, ``size_of`` tells the bytes it will take, ``budget`` is the bytes that all may take, and
        ``on_drop`` is called, under the lock, with every head that is given up.
        """
        self.lock = threading.RLock()
        self._load, self._size_of, self._on_drop = load, size_of, on_drop
        self._budget = budget
        self._heads: dict[str, LoadedHead] = {}
        self._clock = itertools.count(1)
        self.evictions = 0

    def get(self, name: str) -> LoadedHead:
        """Return a head, loading it and giving up others if need be; `VocabTransferError` if it cannot be had."""
        head = self._heads.get(name)
        if head is None:
            with self.lock:
                head = self._heads.get(name)
                if head is None:
                    self._make_room(name, self._size_of(name))
                    head = self._load(name)
                    self._heads[name] = head
        head.last_used = next(self._clock)
        return head

    def put(self, head: LoadedHead) -> None:
        """Keep a head that was loaded already."""
        with self.lock:
            self.drop(head.name)
            self._make_room(head.name, head.tables.bytes)
            head.last_used = next(self._clock)
            self._heads[head.name] = head

    def drop(self, name: str) -> None:
        """Give up a head, if it is loaded."""
        with self.lock:
            head = self._heads.pop(name, None)
            if head is not None:
                self._on_drop(head)

    def holds(self, head: LoadedHead) -> bool:
        """Tell whether this very head is the one that its name stands for now."""
        return self._heads.get(head.name) is head

    def loaded(self) -> tuple[str, ...]:
        """Return the names of the heads in memory."""
        return tuple(self._heads)

    def __iter__(self) -> Iterator[LoadedHead]:
        return iter(tuple(self._heads.values()))

    @property
    def bytes(self) -> int:
        """The bytes of all loaded heads' tables."""
        return sum(head.tables.bytes for head in self)

    @property
    def budget(self) -> int | None:
        """The bytes that loaded heads may take together; None for no limit."""
        return self._budget

    @budget.setter
    def budget(self, value: int | None) -> None:
        with self.lock:
            self._budget = value
            self._make_room("", 0)

    def _make_room(self, name: str, needed: int) -> None:
        if self._budget is None:
            return
        kept = [head for head in self if head.trainable and head.name != name]
        pinned = sum(head.tables.bytes for head in kept)
        if needed + pinned > self._budget and needed:
            rest = f" beside {pinned / 1e6:,.1f} MB of trainable heads" if pinned else ""
            raise VocabTransferError(
                f"the head {name!r} takes {needed / 1e6:,.1f} MB{rest}, more than the budget of "
                f"{self._budget / 1e6:,.1f} MB for heads: raise head_budget."
            )
        candidates = sorted((h for h in self if not h.trainable and h.name != name), key=lambda head: head.last_used)
        total = needed + pinned + sum(head.tables.bytes for head in candidates)
        for head in candidates:
            if total <= self._budget:
                break
            self.drop(head.name)
            self.evictions += 1
            total -= head.tables.bytes
