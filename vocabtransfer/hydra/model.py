"""`HydraForCausalLM`: one body in memory, and the vocabulary of whichever language a call asks for."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BatchEncoding, PreTrainedTokenizerFast

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.errors import UsageError
from vocabtransfer.hydra.add import add_loaded_head
from vocabtransfer.hydra.encoding import Segment, as_rows, decode_rows, encode_rows, id_rows, one_a_row
from vocabtransfer.hydra.face import HeadChoice, ModelFace
from vocabtransfer.hydra.folder import HydraFolder
from vocabtransfer.hydra.generation import generate_across, generate_joined
from vocabtransfer.hydra.loaded import LoadedHead
from vocabtransfer.hydra.mixed import Joined
from vocabtransfer.hydra.opening import open_backbone
from vocabtransfer.hydra.rack import HeadRack
from vocabtransfer.hydra.scoring import forward_joined
from vocabtransfer.hydra.selection import Selection, choose, select
from vocabtransfer.hydra.stored import StoredHead
from vocabtransfer.hydra.translate import translate_texts
from vocabtransfer.public import public


class HydraForCausalLM(ModelFace):
    """A causal language model with several vocabularies, of which each call uses one, or more.

    A head is an input table, an output table, a tokenizer and generation settings. `set_head` chooses the head for
    everybody, `use_head` for the calls of one thread or task inside a ``with`` block, and the argument ``head`` for one
    call. Threads may use different heads at the same time: each head is an ordinary transformers model (`view`) that
    shares the body with the others, so there is nothing to lock and nothing to switch. A new thread starts with the
    default head, not with that of the block it was started in: name the head in its calls.

    Whatever else is asked of this object (``device``, ``gradient_checkpointing_enable``, ``save_pretrained`` ...) the
    active head's model answers.
    """

    def __init__(
        self,
        backbone: Any,
        own: StoredHead,
        folder: HydraFolder | None = None,
        *,
        head_budget: int | None = None,
        memory_map: bool = True,
    ) -> None:
        """Wrap a loaded model whose own vocabulary is ``own``; `from_pretrained` does it all."""
        super().__init__()
        self.backbone = backbone
        self.trainable_heads = nn.ModuleDict()
        self.training = backbone.training
        self._rack = HeadRack(backbone, own, folder, head_budget, memory_map)
        self._default = Selection(own.name, own.name)

    @classmethod
    @public
    def from_pretrained(
        cls,
        reference: str | Path,
        *,
        own_name: str | None = None,
        head_budget: int | None = None,
        memory_map: bool = True,
        **settings: Any,
    ) -> HydraForCausalLM:
        """Load a Hydra, or any causal checkpoint as a Hydra that has one head so far.

        Args:
            reference: a Hydra or model folder, GGUF file, alias or hub id.
            own_name: what to call the own head of a plain checkpoint ("base" if not given).
            head_budget: bytes that all loaded heads but the backbone's own may take together; the least recently used
                are given up beyond it, and loaded again when needed.
            memory_map: map heads into memory where they are stored as they are used, instead of reading them whole.
            settings: for transformers' ``from_pretrained``: ``dtype``, ``device_map``, ``attn_implementation`` ...

        Raises:
            VocabTransferError: the folder is damaged, its backbone is not the one its heads were made for, or
                transformers cannot load it.
        """
        backbone, own, folder = open_backbone(reference, own_name, settings)
        return cls(backbone, own, folder, head_budget=head_budget, memory_map=memory_map)

    # Heads

    @property
    def heads(self) -> tuple[str, ...]:
        """The names of all heads that can be used, the backbone's own first."""
        return self._rack.names

    @property
    def folder(self) -> HydraFolder | None:
        """The Hydra on disk that this model was loaded from; None for a plain checkpoint."""
        return self._rack.folder

    @property
    def loaded_heads(self) -> tuple[str, ...]:
        """The names of the heads in memory, the backbone's own first."""
        return (self._rack.own.name, *sorted(self._rack.store.loaded()))

    @property
    def head_bytes(self) -> int:
        """The bytes that the loaded heads take, the backbone's own left out; memory-mapped ones count in full."""
        return self._rack.store.bytes

    @property
    def head_budget(self) -> int | None:
        """The bytes that loaded heads may take; setting it gives up heads at once, if need be."""
        return self._rack.store.budget

    @head_budget.setter
    def head_budget(self, value: int | None) -> None:
        self._rack.store.budget = value

    @property
    def active_head(self) -> HeadChoice:
        """The head in use here: its name, or the pair (input, output) where two are."""
        return self._selection().shown

    @public
    def load_head(
        self,
        name: str,
        source: str | Path | Checkpoint | StoredHead | None = None,
        *,
        is_trainable: bool = False,
        force: bool = False,
    ) -> None:
        """Load a head, so that it is ready when it is first used.

        Args:
            name: its name here.
            source: a head's folder, or a finished checkpoint (folder, alias ...) whose vocabulary becomes the head; the
                Hydra's own folder when not given.
            is_trainable: make its tables parameters of this model that take gradients; such heads are never given up.
            force: accept a head made for another backbone.

        Raises:
            VocabTransferError: there is no such head, it is damaged, or it was made for another backbone.
        """
        self._rack.load(name, source, is_trainable, force)
        if is_trainable and name != self._rack.own.name:
            self.trainable_heads[_key(name)] = self._rack.head(name).tables

    @public
    def delete_head(self, name: str) -> None:
        """Forget a head; its files stay. The backbone's own head and the active head cannot be deleted."""
        if name in self._default or name in self._selection():
            raise UsageError(f"{name!r} is active: set another head before it is deleted.")
        self._rack.delete(name)
        if _key(name) in self.trainable_heads:
            del self.trainable_heads[_key(name)]

    @public
    def save_head(self, name: str, new_name: str) -> StoredHead:
        """Write a loaded head's tables as they are now (after training, say) into the Hydra's folder, as a new head."""
        if self._rack.folder is None:
            raise UsageError("this model was not loaded from a Hydra folder, so there is no place for the head.")
        head = self.head(name)
        values = {"input": head.tables.input, "output": head.tables.output, "output_bias": head.tables.bias}
        tables = {table: values[table].detach() for table in head.stored.tables}  # type: ignore[union-attr]
        written = add_loaded_head(self._rack.folder, new_name, head.stored, tables)
        self._rack.know(written)
        return written

    @public
    def set_head(self, name: str | None = None, *, input: str | None = None, output: str | None = None) -> None:
        """Choose the head for all calls that do not choose one themselves: one name, or one for each side.

        With two names a prompt is read with the first and the answer written with the second; what is left out stays as
        it is. The switch is one assignment, after everything it needs is in place; if that fails, nothing changes.
        """
        selection = select(self._default, name, input, output)
        self._rack.view(selection)
        self._default = selection

    @public
    @contextlib.contextmanager
    def use_head(
        self, name: str | None = None, *, input: str | None = None, output: str | None = None
    ) -> Iterator[HydraForCausalLM]:
        """Use a head inside a ``with`` block, in this thread or task only. Arguments as for `set_head`."""
        selection = select(self._selection(), name, input, output)
        self._rack.view(selection)
        with choose(self, selection):
            yield self

    @public
    def head(self, name: str) -> LoadedHead:
        """Return a head, loading it if need be."""
        return self._rack.head(name)

    def view(self, head: HeadChoice | None = None) -> Any:
        """Return the transformers model of a head (default: the active one): same class as the backbone, body shared.

        It is what to give to anything that wants a transformers model. Its tables take gradients if the head was loaded
        with ``is_trainable``. What concerns the body (attention, LoRA) is to be set on this object or its ``backbone``.
        """
        return self._rack.view(self._selection(head))

    def mixed_view(self, joined: Joined, plan: torch.Tensor) -> Any:
        """Return a transformers model over the vocabularies of several heads laid end to end, for one make-up of a batch.

        ``plan`` int64 (rows,) says for each row the place in ``joined`` of the head that writes it; the logits of all
        others are minus infinity. Rows whose heads have LoRAs of their own cannot share a view with others.
        """
        return self._rack.mixed_views(joined)(joined.names[int(plan[0])], plan)

    # Text

    @public
    def tokenizer(self, name: str | None = None) -> PreTrainedTokenizerFast:
        """Return a head's tokenizer; by default that of the head that reads."""
        return self.head(name if name is not None else self._selection().input).tokenizer

    @public
    def encode(
        self,
        segments: Sequence[Segment] | Sequence[Sequence[Segment]],
        *,
        output: str | Sequence[str] | None = None,
        train: str | Collection[str] = (),
        end: bool = False,
        padding_side: str | None = None,
    ) -> BatchEncoding:
        """Encode text in several vocabularies into what `generate` and calling the model take.

        Args:
            segments: a row of pairs (head, text or ids), such as ``[("english", "Hello"), ("tatar", "Сәлам")]``, or a
                list of rows. A row's first text gets what its tokenizer puts in front of texts.
            output: the head that continues each row: one name or one a row; that of its last segment if not given.
            train: heads whose segments get labels; all others are masked with -100.
            end: close each row with the end token of its last segment's head.
            padding_side: "left" or "right"; left unless ``train`` is given.

        Returns:
            ``input_ids`` and ``attention_mask`` (int64, (rows, longest)), ``labels`` if asked for, and the names
            ``heads`` and ``output_heads`` that say how to read the ids.
        """
        rows = as_rows(segments)
        outputs = one_a_row(output, [row[-1][0] for row in rows])
        trained = [train] if isinstance(train, str) else list(train)
        side = padding_side or ("right" if trained else "left")
        if side not in ("left", "right"):
            raise UsageError(f"padding_side is left or right, not {side!r}.")
        return encode_rows(rows, outputs, self.head, train=trained, end=end, left=side == "left")

    @public
    def decode(self, ids: Any, head: str | Sequence[str] | None = None) -> Any:
        """Return the text of one sequence of ids, or the texts of several, without special tokens.

        ``head`` is the head whose ids they are (default: the one that writes), or, for several sequences, one for each
        or for each group of equally many neighbours.
        """
        rows = id_rows(ids)
        names = [self._selection().output] if head is None else [head] if isinstance(head, str) else list(head)
        return decode_rows(rows, names, self.head)

    @public
    def translate(
        self,
        texts: str | Sequence[str],
        *,
        source: str,
        target: str | Sequence[str],
        template: str | None = None,
        chat: bool | None = None,
        batch_size: int = 8,
        **settings: Any,
    ) -> Any:
        """Translate by asking for it in one head's language and answering in another's.

        Args:
            texts: one text or several.
            source: the head that reads; the prompt is written in its vocabulary.
            target: the head that writes, or one for each text.
            template: the prompt, with {source}, {target} (names of languages) and {text}.
            chat: whether to use the source head's chat template; if it has one and no template is given, by default.
            batch_size: texts that are generated together.
            settings: for ``generate``. Greedy by default, and answers to texts of one line end with their first line.

        Returns:
            One string for one text, else a list.
        """
        many = [texts] if isinstance(texts, str) else list(texts)
        targets = [target] * len(many) if isinstance(target, str) else list(target)
        done = translate_texts(
            self, many, source, targets, template=template, chat=chat, batch_size=batch_size, settings=settings
        )
        return done[0] if isinstance(texts, str) else done

    # Running

    @public
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        *,
        head: HeadChoice | None = None,
        heads: Sequence[str] | None = None,
        output_heads: str | Sequence[str] | None = None,
        **settings: Any,
    ) -> Any:
        """Generate with the active head, or with ``head``; all else as for transformers' ``generate``.

        With one head for both sides this is transformers' ``generate`` of its model. With two (a pair), or for what
        `encode` returned (``generate(**model.encode(...))``), the result holds the new tokens only, each row in the ids
        of the head that wrote it, which `decode` turns into text.
        """
        input_ids = settings.pop("input_ids", inputs)
        if input_ids is not None and (input_ids.dim() != 2 or input_ids.is_floating_point()):
            raise UsageError(f"ids have the shape (rows, length), not {list(input_ids.shape)} of {input_ids.dtype}.")
        if heads is not None:
            joined, outputs, mask = self._joined(input_ids, heads, output_heads, settings)
            return generate_joined(
                joined,
                outputs,
                input_ids,
                mask,
                view_of=self._rack.view_of,
                mixed_view_of=self._rack.mixed_views(joined),
                embedding=self.backbone.get_submodule(self._rack.slots.input),
                **settings,
            )
        selection = self._selection(head)
        writer = self._rack.view_of(selection.output)
        if selection.input == selection.output or input_ids is None:
            return writer.generate(input_ids, **settings)
        reader = self._rack.view_of(selection.input)
        return generate_across(reader, writer, self.head(selection.input), input_ids, **settings)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        *,
        head: HeadChoice | None = None,
        heads: Sequence[str] | None = None,
        output_heads: str | Sequence[str] | None = None,
        **settings: Any,
    ) -> Any:
        """Run the model with the active head, or with ``head``, as transformers does.

        For what `encode` returned, logits are over the joined vocabularies of its heads, minus infinity for those that
        a position cannot predict, and the loss is over the labels it made.
        """
        if heads is None:
            return self._rack.view(self._selection(head))(input_ids=input_ids, **settings)
        joined, outputs, mask = self._joined(input_ids, heads, output_heads, settings)
        labels = settings.pop("labels", None)
        mixed = self._rack.mixed_views(joined)
        return forward_joined(joined, outputs, input_ids, mask, labels, mixed_view_of=mixed, **settings)  # type: ignore[arg-type]

    # Inside

    def _joined(
        self, input_ids: Any, heads: Sequence[str], output_heads: str | Sequence[str] | None, settings: dict[str, Any]
    ) -> tuple[Joined, list[str], torch.Tensor]:
        if not isinstance(input_ids, torch.Tensor):
            raise UsageError("give input_ids with heads, as encode returns them.")
        outputs = one_a_row(output_heads, [heads[-1]] * len(input_ids))
        # More heads may write than read: laid after the others, they leave the ids of the prompt as they are.
        names = [*heads, *sorted(set(outputs) - set(heads))]
        mask = settings.pop("attention_mask", None)
        return Joined(tuple(map(self.head, names))), outputs, torch.ones_like(input_ids) if mask is None else mask


def _key(name: str) -> str:
    """The name of a trainable head among modules: a module must not be called like one of its methods."""
    return f"head_{name}"
