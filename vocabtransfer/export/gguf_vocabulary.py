"""The vocabulary of a GGUF file: tokens, types, scores or merges, special ids, and how llama.cpp is to cut text.

llama.cpp cuts text by rules of its own code: a file only names them. What a tokenizer does is compared with what each
name stands for, and a tokenizer that none fits is refused, because its ids would silently be others.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
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
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.export.gguf_pieces import Cutting, sentencepiece_bpe, unigram
from vocabtransfer.export.gguf_wordpiece import marked, wordpiece
from vocabtransfer.tokenization.save import backend_document
from vocabtransfer.tokenization.train_kinds import kind_of

NORMAL = 1
# The fields for several ends of a text, in the order in which generation settings list them.
END_FIELDS = ("eos", "eot", "eom")
GPT2_EXPRESSION = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# llama.cpp (build 11548) has these names too, but cuts marks and capitals of most scripts otherwise than the expressions
# of the tokenizers that they are named after.
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+END"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*END"
    r"|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
INEXACT = {
    "gpt-4o": _CASED.replace("END", "(?i:'s|'t|'re|'ve|'m|'ll|'d)?").replace("DIGITS", "{1,3}"),
    "tekken": _CASED.replace("END", "").replace("DIGITS", ""),
}
# llama.cpp lets all added tokens but these take the spaces behind them in models whose name has "phi-3" in it.
PHI3_NAME, PHI3_PLAIN = r"(?i)phi-?3", ("<unk>", "<s>", "<|endoftext|>")
NOT_COMPOSED = (
    "llama.cpp does not compose characters: text that is not in the composed form (NFC) gets other ids than here."
)


@dataclass(frozen=True)
class GgufVocabulary:
    """What the file says of the vocabulary; ``tokens`` has one entry for each row of the table.

    ``notes`` are sentences on what the engine does otherwise than transformers; empty where nothing is known.
    """

    tokens: list[str]
    types: list[int]
    cutting: Cutting
    ids: dict[str, int]
    adds_bos: bool
    adds_eos: bool
    chat_template: str | None
    takes_space_behind: bool
    notes: tuple[str, ...]

    def add_to(self, writer: Any) -> None:
        """Put the fields into a `gguf.GGUFWriter`."""
        writer.add_tokenizer_model(self.cutting.model)
        writer.add_tokenizer_pre(self.cutting.pre_tokenizer)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.cutting.scores is not None:
            padding = [self.cutting.least] * (len(self.tokens) - len(self.cutting.scores))
            writer.add_token_scores([*self.cutting.scores, *padding])
        if self.cutting.merges is not None:
            writer.add_token_merges(self.cutting.merges)
        if self.cutting.space_prefix is not None:
            writer.add_add_space_prefix(self.cutting.space_prefix)
        if self.cutting.model == "t5":
            writer.add_remove_extra_whitespaces(False)
        for name in ("lowercase", "strip_accents"):
            if getattr(self.cutting, name) is not None:
                writer.add_bool(f"tokenizer.ggml.normalizer.{name}", getattr(self.cutting, name))
        for name, i in self.ids.items():
            writer.add_uint32(f"tokenizer.ggml.{name}_token_id", i)
        writer.add_add_bos_token(self.adds_bos)
        writer.add_add_eos_token(self.adds_eos)
        if self.chat_template:
            writer.add_chat_template(self.chat_template)


def gguf_vocabulary(source: Checkpoint, pre_tokenizer: str | None = None) -> GgufVocabulary:
    """Return the vocabulary of a checkpoint.

    ``pre_tokenizer`` is the name of the rules by which a byte-level tokenizer cuts text into words; None finds the one
    that says the same as the tokenizer. Raises `VocabTransferError` for a tokenizer that llama.cpp cannot follow.
    """
    tokenizer = source.tokenizer
    state = backend_document(tokenizer)
    kind = kind_of(state)
    notes: tuple[str, ...] = ()
    if kind == "bpe":
        cutting, notes = _byte_level(state, source.name, pre_tokenizer)
    elif pre_tokenizer is not None:
        raise UsageError("a name for the pre-tokenizer is of use for byte-level tokenizers only: leave it out.")
    elif kind == "sentencepiece":
        cutting, notes = sentencepiece_bpe(state, source.name)
    elif kind == "unigram":
        cutting, notes = unigram(state, source.name)
    elif kind == "wordpiece":
        cutting, notes = wordpiece(state, source.name)
    else:
        raise VocabTransferError(f"the tokenizer of {source.name} is of a kind that cannot be written as GGUF.")
    tokens, types = _tokens(tokenizer, source, cutting)
    ids = _ids(tokenizer, source, kind == "wordpiece")
    adds_bos, adds_eos = _adds(tokenizer, ids, "seperator" if kind == "wordpiece" else "eos")
    if kind == "wordpiece":
        if not (adds_bos and adds_eos):
            raise VocabTransferError(
                f"the tokenizer of {source.name} does not put its [CLS] and [SEP] around a text, as llama.cpp's WordPiece "
                "always does."
            )
        adds_eos = False  # the separator is not an end of text
    template = tokenizer.chat_template
    return GgufVocabulary(
        tokens=tokens,
        types=types,
        cutting=cutting,
        ids=ids,
        adds_bos=adds_bos,
        adds_eos=adds_eos,
        chat_template=template if isinstance(template, str) else (template or {}).get("default"),
        takes_space_behind=_takes_space_behind(tokenizer, source.name),
        notes=notes,
    )


def _byte_level(state: dict[str, Any], name: str, wanted: str | None) -> tuple[Cutting, tuple[str, ...]]:
    model, rules, normalizer = state["model"], state["pre_tokenizer"], state["normalizer"]
    composed = normalizer == {"type": "NFC"}
    if normalizer is not None and not composed:
        raise VocabTransferError(
            f"the tokenizer of {name} changes text before cutting it, which llama.cpp does not: "
            f"{json.dumps(normalizer, ensure_ascii=False)[:200]}."
        )
    ignores = bool(model.get("ignore_merges"))
    found = [
        known
        for known, build in PRE_TOKENIZERS.items()
        if _plain(rules) == _plain(_state(build())) and ignores == (known in IGNORE_MERGES)
    ]
    notes = [NOT_COMPOSED] if composed else []
    if wanted is not None:
        if wanted not in (*PRE_TOKENIZERS, *INEXACT):
            raise UsageError(
                f"there is no pre-tokenizer {wanted!r}: {', '.join((*PRE_TOKENIZERS, *INEXACT))} are known."
            )
        if wanted not in found:
            notes.append(f"the name {wanted!r} was asked for; llama.cpp cuts some texts otherwise than the tokenizer.")
    elif not found:
        raise VocabTransferError(_no_name(rules, ignores, name))
    # The name whose own habits are the tokenizer's comes first: qwen2 is that of tokenizers that compose.
    found.sort(key=lambda known: (known in COMPOSED) != composed)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return Cutting("gpt2", wanted or found[0], merges=merges), tuple(notes)


def _no_name(rules: Any, ignores: bool, name: str) -> str:
    expressions = " then ".join(_expressions(rules)) or json.dumps(_plain(rules), ensure_ascii=False)[:300]
    others = {known: " then ".join(_expressions(_state(build()))) for known, build in PRE_TOKENIZERS.items()} | INEXACT

    def likeness(known: str) -> tuple[float, bool]:
        ratio = difflib.SequenceMatcher(None, expressions, others[known], autojunk=False).ratio()
        return ratio, ignores == (known in IGNORE_MERGES)

    return (
        f"the tokenizer of {name} cuts text in a way that llama.cpp has no name for: {expressions}. The nearest is "
        f"{max(others, key=likeness)!r}; name it as the pre-tokenizer if other ids in some texts are no harm."
    )


def _expressions(rules: Any) -> Iterator[str]:
    if isinstance(rules, dict):
        for part in rules.get("pretokenizers", ()):
            yield from _expressions(part)
        if rules.get("type") == "Split":
            yield next(iter(rules["pattern"].values()))
        elif rules.get("type") == "ByteLevel" and rules.get("use_regex"):
            yield GPT2_EXPRESSION
        elif rules.get("type") not in ("Sequence", "ByteLevel"):
            yield str(rules.get("type"))


def _state(rules: Any) -> Any:
    from tokenizers import Tokenizer, models

    holder = Tokenizer(models.BPE())
    holder.pre_tokenizer = rules
    return json.loads(holder.to_str())["pre_tokenizer"]


def _plain(rules: Any) -> Any:
    """Leave out what changes no token: offsets, and a sequence of one; "removed, inverted" is "isolated"."""
    if isinstance(rules, dict):
        if rules.get("type") == "Sequence" and len(rules["pretokenizers"]) == 1:
            return _plain(rules["pretokenizers"][0])
        if rules.get("type") == "Split" and rules.get("behavior") == "Removed" and rules.get("invert"):
            rules = {**rules, "behavior": "Isolated", "invert": False}
        return {key: _plain(value) for key, value in rules.items() if key != "trim_offsets"}
    return [_plain(rule) for rule in rules] if isinstance(rules, list) else rules


def _tokens(tokenizer: PreTrainedTokenizerFast, source: Checkpoint, cutting: Cutting) -> tuple[list[str], list[int]]:
    rows = source.layout.rows
    tokens = [f"[PAD{i}]" for i in range(rows)]
    types = [UNUSED] * rows
    words = cutting.model == "bert"
    for token, i in tokenizer.get_vocab().items():
        if i < rows:
            tokens[i], types[i] = marked(token) if words else token, cutting.types.get(token, NORMAL)
    for i, added in tokenizer.added_tokens_decoder.items():
        if i >= rows or added.content in cutting.types:
            continue
        tokens[i], types[i] = added.content, CONTROL if added.special else USER_DEFINED
        if cutting.space_mark and not added.special:
            tokens[i] = tokens[i].replace(cutting.space_mark, " ")  # llama.cpp looks for them in the text as it is
    if len(set(tokens)) < rows:
        double = next(token for token in tokens if tokens.count(token) > 1)
        raise VocabTransferError(f"{source.name} would have two tokens {double!r} in GGUF: rename one of them.")
    return tokens, types


def _takes_space_behind(tokenizer: PreTrainedTokenizerFast, name: str) -> bool:
    """Tell whether added tokens take the space behind them in the one way that llama.cpp has: that of Phi-3.

    Raises `VocabTransferError` for any other way. A token that hides a word may take the space before it: no text that is
    to be continued or made a vector has it.
    """
    added = [token for token in tokenizer.added_tokens_decoder.values() if token.content != tokenizer.mask_token]
    taking = [token for token in added if token.lstrip or token.rstrip or token.single_word]
    if not taking:
        return False
    contents = {token.content for token in added}
    behind = {token.content for token in added if token.rstrip}
    like_phi3 = {*PHI3_PLAIN, "</s>"} <= contents and behind == contents - set(PHI3_PLAIN)
    if like_phi3 and not any(token.lstrip or token.single_word for token in added):
        return True
    raise VocabTransferError(
        f"the added token {taking[0].content!r} of {name} takes spaces or whole words, which GGUF cannot say."
    )


def name_in_file(name: str, takes_space_behind: bool) -> str:
    """Return the model's name such that llama.cpp reads no other habits of added tokens from it than they have.

    >>> name_in_file("phi3-dutch", False), name_in_file("mine", True)
    ('phi 3-dutch', 'mine (phi-3)')
    """
    if takes_space_behind:
        return name if re.search(PHI3_NAME, name) else f"{name} (phi-3)"
    return re.sub(r"(?i)(modern)-(bert)|(phi)-?(3)", lambda match: " ".join(filter(None, match.groups())), name)


def end_ids(source: Checkpoint) -> list[int]:
    """Return the ids that end a text: the tokenizer's first, then those of the settings."""
    settings: Mapping[str, Any] = source.config | (source.generation_config or {})
    ends = settings.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [ends]
    return list(dict.fromkeys([end for end in (source.tokenizer.eos_token_id, *ends) if end is not None]))


def _ids(tokenizer: PreTrainedTokenizerFast, source: Checkpoint, words: bool) -> dict[str, int]:
    ends = end_ids(source)
    if len(ends) > len(END_FIELDS):
        raise VocabTransferError(f"{source.name} has {len(ends)} ends of text, and GGUF has room for three.")
    ids = dict(zip(END_FIELDS, ends, strict=False))
    named = {"bos": tokenizer.bos_token_id, "padding": tokenizer.pad_token_id, "unknown": tokenizer.unk_token_id}
    if words:
        # llama.cpp's WordPiece puts "bos" before a text and the separator behind it.
        named |= {"bos": tokenizer.cls_token_id, "seperator": tokenizer.sep_token_id, "mask": tokenizer.mask_token_id}
    return ids | {key: i for key, i in named.items() if i is not None}


def _adds(tokenizer: PreTrainedTokenizerFast, ids: Mapping[str, int], end: str) -> tuple[bool, bool]:
    """Tell whether encoding adds bos and the token ``end``, by encoding a letter."""
    plain = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    full = list(tokenizer("a")["input_ids"])
    before = "bos" in ids and full[:1] == [ids["bos"]]
    after = end in ids and full[-1:] == [ids[end]]
    if full != [*([ids["bos"]] if before else []), *plain, *([ids[end]] if after else [])]:
        raise VocabTransferError(
            "the tokenizer adds tokens other than bos and eos around a text; GGUF cannot say that."
        )
    return before, after
