"""The vocabulary of a GGUF file: tokens, types, merges, special ids, and the name of the pre-tokenizer.

llama.cpp knows pre-tokenizers by name only. A name is given when the tokenizer's rules equal those that the name stands
for; a tokenizer that no name fits is refused, because its ids would silently be others.
"""

import json
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerFast

from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.checkpoint.gguf_tokenizer import (
    COMPOSED,
    CONTROL,
    IGNORE_MERGES,
    PRE_TOKENIZERS,
    UNUSED,
    USER_DEFINED,
)
from vocabtransfer.errors import VocabTransferError

NORMAL = 1
# The fields for several ends of a text, in the order in which generation settings list them.
END_FIELDS = ("eos", "eot", "eom")


@dataclass(frozen=True)
class GgufVocabulary:
    """What the file says of the vocabulary; ``tokens`` has one entry for each row of the table."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    pre_tokenizer: str
    ids: dict[str, int]
    adds_bos: bool
    adds_eos: bool
    chat_template: str | None

    def add_to(self, writer: Any) -> None:
        """Put the fields into a `gguf.GGUFWriter`."""
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre_tokenizer)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_merges(self.merges)
        for name, i in self.ids.items():
            writer.add_uint32(f"tokenizer.ggml.{name}_token_id", i)
        writer.add_add_bos_token(self.adds_bos)
        writer.add_add_eos_token(self.adds_eos)
        if self.chat_template:
            writer.add_chat_template(self.chat_template)


def gguf_vocabulary(source: Checkpoint) -> GgufVocabulary:
    """Return the vocabulary of a checkpoint with byte-level BPE; `VocabTransferError` for any other kind."""
    tokenizer = source.tokenizer
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    name = _pre_tokenizer(state, source.name)
    tokens, types = _tokens(tokenizer, source)
    adds_bos, adds_eos = _ends(tokenizer)
    template = tokenizer.chat_template
    return GgufVocabulary(
        tokens=tokens,
        types=types,
        merges=[merge if isinstance(merge, str) else " ".join(merge) for merge in state["model"]["merges"]],
        pre_tokenizer=name,
        ids=_ids(tokenizer, source),
        adds_bos=adds_bos,
        adds_eos=adds_eos,
        chat_template=template if isinstance(template, str) else (template or {}).get("default"),
    )


def _pre_tokenizer(state: dict[str, Any], name: str) -> str:
    model, rules, normalizer = state["model"], state["pre_tokenizer"], state["normalizer"]
    if model["type"] != "BPE" or model.get("byte_fallback") or '"ByteLevel"' not in json.dumps(rules):
        raise VocabTransferError(
            f"the tokenizer of {name} is not byte-level BPE: only that can be written as GGUF yet."
        )
    composed = normalizer == {"type": "NFC"}
    for known, build in PRE_TOKENIZERS.items():
        if _plain(rules) != _plain(_state(build())):
            continue
        ignores = bool(model.get("ignore_merges"))
        if ignores == (known in IGNORE_MERGES) and (normalizer is None or (composed and known in COMPOSED)):
            return known
    raise VocabTransferError(
        f"the tokenizer of {name} splits text in a way that llama.cpp has no name for here (known: "
        f"{', '.join(PRE_TOKENIZERS)}): {json.dumps(_plain(rules), ensure_ascii=False)[:300]}, normalizer "
        f"{json.dumps(normalizer, ensure_ascii=False)[:100]}."
    )


def _state(rules: Any) -> Any:
    from tokenizers import Tokenizer, models

    holder = Tokenizer(models.BPE())
    holder.pre_tokenizer = rules
    return json.loads(holder.to_str())["pre_tokenizer"]


def _plain(rules: Any) -> Any:
    """Leave out what changes no token: offsets, and a sequence of one."""
    if isinstance(rules, dict):
        if rules.get("type") == "Sequence" and len(rules["pretokenizers"]) == 1:
            return _plain(rules["pretokenizers"][0])
        return {key: _plain(value) for key, value in rules.items() if key != "trim_offsets"}
    return [_plain(rule) for rule in rules] if isinstance(rules, list) else rules


def _tokens(tokenizer: PreTrainedTokenizerFast, source: Checkpoint) -> tuple[list[str], list[int]]:
    rows = source.layout.rows
    tokens = [f"[PAD{i}]" for i in range(rows)]
    types = [UNUSED] * rows
    for token, i in tokenizer.get_vocab().items():
        if i < rows:
            tokens[i], types[i] = token, NORMAL
    for i, added in tokenizer.added_tokens_decoder.items():
        if i >= rows:
            continue
        if added.lstrip or added.rstrip or added.single_word:
            raise VocabTransferError(
                f"the added token {added.content!r} of {source.name} takes spaces or whole words, which GGUF cannot say."
            )
        types[i] = CONTROL if added.special else USER_DEFINED
    if len(set(tokens)) < rows:
        raise VocabTransferError(f"{source.name} has a token that is named like padding, [PAD...]: rename it.")
    return tokens, types


def _ids(tokenizer: PreTrainedTokenizerFast, source: Checkpoint) -> dict[str, int]:
    settings = source.config | (source.generation_config or {})
    ends = settings.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [ends]
    ends = list(dict.fromkeys([end for end in (tokenizer.eos_token_id, *ends) if end is not None]))
    if len(ends) > len(END_FIELDS):
        raise VocabTransferError(f"{source.name} has {len(ends)} ends of text, and GGUF has room for three.")
    ids = dict(zip(END_FIELDS, ends, strict=False))
    named = {"bos": tokenizer.bos_token_id, "padding": tokenizer.pad_token_id, "unknown": tokenizer.unk_token_id}
    return ids | {key: i for key, i in named.items() if i is not None}


def _ends(tokenizer: PreTrainedTokenizerFast) -> tuple[bool, bool]:
    """Tell whether encoding adds bos and eos, by encoding a letter."""
    plain = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    full = list(tokenizer("a")["input_ids"])
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    before = bos is not None and full[:1] == [bos]
    after = eos is not None and full[-1:] == [eos]
    if full != [*([bos] if before else []), *plain, *([eos] if after else [])]:
        raise VocabTransferError(
            "the tokenizer adds tokens other than bos and eos around a text; GGUF cannot say that."
        )
    return before, after
