"""The heads that one backbone can wear: which there are, which are in memory, and a model for each that is used."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.hydra.adapters import inject_adapter
from vocabtransfer.hydra.folder import HydraFolder
from vocabtransfer.hydra.head_config import refuse_misfit
from vocabtransfer.hydra.loaded import HeadTables, LoadedHead, load_head_tables
from vocabtransfer.hydra.mixed import Joined, make_mixed_view
from vocabtransfer.hydra.names import check_free, check_name
from vocabtransfer.hydra.opening import open_head, reopened
from vocabtransfer.hydra.selection import Selection
from vocabtransfer.hydra.store import HeadStore
from vocabtransfer.hydra.stored import StoredHead
from vocabtransfer.hydra.views import Slots, make_view


class HeadRack:
    """Everything that `HydraForCausalLM` knows about heads; safe from several threads."""

    def __init__(
        self, backbone: Any, own: StoredHead, folder: HydraFolder | None, budget: int | None, memory_map: bool
    ) -> None:
        """Start with the backbone's own head, and the names of those in the Hydra's folder."""
        self.backbone, self.folder = backbone, folder
        self.slots = Slots(backbone)
        self.own = LoadedHead(own, _own_tables(backbone))
        self.own.generation_config = backbone.generation_config
        self._memory_map = memory_map
        # None stands for a head in the folder that nobody has opened yet; others were opened and found to fit.
        self._known: dict[str, StoredHead | None] = dict.fromkeys(folder.names()[1:]) if folder is not None else {}
        self._views: dict[Selection, tuple[LoadedHead, LoadedHead, Any]] = {}
        self.store = HeadStore(self._load, self._size, budget, self._forget_views)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all heads, the backbone's own first."""
        return (self.own.name, *sorted(self._known))

    def head(self, name: str) -> LoadedHead:
        """Return a head, loading it if need be; `VocabTransferError` if there is none of that name."""
        return self.own if name == self.own.name else self.store.get(name)

    def load(
        self, name: str, source: str | Path | Checkpoint | StoredHead | None, trainable: bool, force: bool
    ) -> None:
        """Load a head; see `HydraForCausalLM.load_head`."""
        name = check_name(name)
        if name == self.own.name and source is None:
            return
        if source is not None:
            check_free(name, self.names, "this model")
        stored = self._find(name) if source is None else open_head(source, name)
        self._check_fits(stored, force)
        with self.store.lock:
            before = self._known.get(name)
            new = name not in self._known
            self._known[name] = stored
            try:
                if trainable and not (name in self.store.loaded() and self.store.get(name).trainable):
                    self.store.put(LoadedHead(stored, self._tables(stored, trainable=True), trainable=True))
                self.store.get(name)
            except VocabTransferError:
                if new:
                    self._known.pop(name)
                else:
                    self._known[name] = before
                raise

    def know(self, stored: StoredHead) -> None:
        """Take up a head that was just written into the Hydra's folder."""
        self._known[stored.name] = stored

    def delete(self, name: str) -> None:
        """Forget a head; its files stay."""
        if name == self.own.name:
            raise UsageError(f"{name!r} is the backbone's own head and cannot be deleted.")
        with self.store.lock:
            if name not in self._known:
                raise self._unknown(name)
            del self._known[name]
            self.store.drop(name)

    def view(self, selection: Selection) -> Any:
        """Return the model that reads and writes with the selected heads."""
        reader, writer = self.head(selection.input), self.head(selection.output)
        if reader is self.own and writer is self.own:
            return self.backbone
        found = self._views.get(selection)
        if found is not None and found[0] is reader and found[1] is writer:
            return found[2]
        view = make_view(self.backbone, self.slots, reader, writer, whole=writer.adapter is not None)
        if writer.adapter is not None:
            inject_adapter(view, self.slots, writer.adapter, writer.name)
        with self.store.lock:
            # Another thread may have made it in the meantime: everybody should get the same one.
            found = self._views.get(selection)
            if found is not None and found[0] is reader and found[1] is writer:
                return found[2]
            if all(head is self.own or self.store.holds(head) for head in (reader, writer)):
                self._views[selection] = (reader, writer, view)
        return view

    def view_of(self, name: str) -> Any:
        """Return the model that reads and writes with one head."""
        return self.view(Selection(name, name))

    def mixed_views(self, joined: Joined) -> Callable[[str, torch.Tensor], Any]:
        """Return what makes models over joined vocabularies: given a head, whose body it takes, and a plan."""

        def make(name: str, plan: torch.Tensor) -> Any:
            has_adapter = joined.heads[joined.index(name)].adapter is not None
            return make_mixed_view(self.view_of(name) if has_adapter else self.backbone, self.slots, joined, plan)

        return make

    def views(self) -> list[Any]:
        """Return the models that were made and are kept."""
        return [view for _, _, view in list(self._views.values())]

    def apply(self, function: Any) -> None:
        """Follow the backbone to another device or dtype."""
        with self.store.lock:
            for head in self.store:
                if not head.trainable:
                    head.tables._apply(function)
            self.own.tables = _own_tables(self.backbone)
            self._views.clear()

    def renew_views(self) -> None:
        """Make models anew when they are next used: the backbone's settings have changed."""
        with self.store.lock:
            self._views.clear()

    def _find(self, name: str) -> StoredHead:
        known = self._known.get(name)
        if known is not None:
            return known
        if self.folder is not None and name != self.folder.own_name and name in self.folder.names():
            return self.folder.head(name)
        raise self._unknown(name)

    def _unknown(self, name: str) -> VocabTransferError:
        return VocabTransferError(f"there is no head named {name!r}; there are {', '.join(self.names)}.")

    def _load(self, name: str) -> LoadedHead:
        stored = self._find(name)
        forced = self._known[name] is not None
        if stored.changed():
            stored = reopened(stored)
            forced = False
        self._check_fits(stored, forced)
        self._known[name] = stored
        return LoadedHead(stored, self._tables(stored))

    def _size(self, name: str) -> int:
        if name not in self._known:
            raise self._unknown(name)
        width = self.own.tables.input.element_size()
        return sum(math.prod(info.shape) for info in self._find(name).tables.values()) * width

    def _tables(self, stored: StoredHead, *, trainable: bool = False) -> HeadTables:
        own = self.own.tables
        return load_head_tables(stored, own.input, own.output, trainable=trainable, memory_map=self._memory_map)

    def _check_fits(self, stored: StoredHead, force: bool) -> None:
        own = self.own.stored.config
        refuse_misfit(
            stored.config,
            stored.name,
            hidden=own.hidden,
            fingerprint=own.backbone,
            backbone=f"{own.backbone_name} in this model",
            force=force,
        )
        if ("output_bias" in stored.tables) != (self.own.tables.bias is not None):
            raise VocabTransferError(f"the head {stored.name!r} and the backbone differ in having an output bias.")

    def _forget_views(self, head: LoadedHead) -> None:
        for selection, (reader, writer, _) in list(self._views.items()):
            if head is reader or head is writer:
                self._views.pop(selection, None)


def _own_tables(backbone: Any) -> HeadTables:
    table, output = backbone.get_input_embeddings().weight, backbone.get_output_embeddings()
    return HeadTables(table, None if output.weight is table else output.weight, getattr(output, "bias", None))
