"""What a Hydra has like any transformers model: a config, generation settings, training mode, casts and moves."""

from __future__ import annotations

from typing import Any, Self

from torch import nn

from vocabtransfer.hydra.rack import HeadRack
from vocabtransfer.hydra.selection import Selection, chosen

HeadChoice = str | tuple[str, str]


class ModelFace(nn.Module):
    """The part of `HydraForCausalLM` that other code takes for a transformers model: the active head's model answers."""

    backbone: Any
    _rack: HeadRack
    _default: Selection

    @property
    def config(self) -> Any:
        """The active head's config: the backbone's with the head's sizes and ids."""
        return self._rack.view(self._selection()).config

    @property
    def generation_config(self) -> Any:
        """The active head's generation settings."""
        return self._rack.view(self._selection()).generation_config

    @generation_config.setter
    def generation_config(self, value: Any) -> None:
        self._rack.view(self._selection()).generation_config = value

    def train(self, mode: bool = True) -> Self:
        """Set training mode, in the views too."""
        super().train(mode)
        for view in self._rack.views():
            view.train(mode)
        return self

    def set_attn_implementation(self, *arguments: Any, **settings: Any) -> None:
        """Choose how attention is computed, for all heads: see transformers."""
        self.backbone.set_attn_implementation(*arguments, **settings)
        self._rack.renew_views()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__") or "_default" not in self.__dict__:
                raise
            return getattr(self._rack.view(self._selection()), name)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._rack.apply(fn)
        return self

    def _selection(self, head: HeadChoice | None = None) -> Selection:
        if head is None:
            return chosen(self) or self._default
        return Selection(head, head) if isinstance(head, str) else Selection(*head)
