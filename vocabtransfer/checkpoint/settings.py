"""config.json and generation_config.json for a new vocabulary: every token id in them renumbered together.

An id follows the token that had it: a special token by its string, any other by its bytes. Where the new tokenizer has
no such token, the id goes to the token with the same role (bos, eos, pad ...). The padding id is what the tokenizer pads
with: where the two agreed in the source, it is the new tokenizer's, whatever became of the old token.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from transformers import PreTrainedTokenizerFast

from vocabtransfer.checkpoint.layout import TEXT_CONFIGS, model_config
from vocabtransfer.checkpoint.model_class import generates
from vocabtransfer.checkpoint.padding import refuse_moved_padding, with_padding_defaults
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.tokenization.pieces import PieceEncoder
from vocabtransfer.vocabulary import Kind, Vocabulary

SIZE_KEYS = ("vocab_size", "decoder_vocab_size", "padded_vocab_size", "n_vocab")
#: Sizes of further tables of the same vocabulary, which may have had fewer rows than the table proper.
FURTHER_SIZE_KEYS = ("vocab_size_per_layer_input", "unpadded_vocab_size")
ID_SUFFIXES = ("_token_id", "_token_ids", "_token_index")
ID_LISTS = ("suppress_tokens", "begin_suppress_tokens")
ID_TABLES = ("lang_to_id", "task_to_id", "lang_code_to_id")
#: Chameleon's and Emu 3's tokens by string: their codes of pictures are found by what they are called.
VOCABULARY_MAP = "vocabulary_map"
NO_TEXT = re.compile(r"IMGIMG|<\|visual token")
SEQUENCE_LISTS = ("bad_words_ids", "force_words_ids")
# Parts of a config that speak of other inputs than text; their ids, if any, are not the tokenizer's.
OTHER_INPUTS = ("vision_config", "audio_config", "qformer_config", "vq_config", "speech_config", "image_config")
# Without these the model cannot be used as before, so they are never dropped.
REQUIRED = ("eos_token_id", "decoder_start_token_id", "_token_index", "image_token_id", "video_token_id")


@dataclass(frozen=True)
class NewSettings:
    """The two JSON files of a rewritten checkpoint; ``notes`` has a sentence for everything that had to be dropped."""

    config: dict[str, Any]
    generation_config: dict[str, Any] | None
    notes: tuple[str, ...]


def renumber_settings(
    config: Mapping[str, Any],
    generation_config: Mapping[str, Any] | None,
    source: Vocabulary,
    tokenizer: PreTrainedTokenizerFast,
    *,
    source_name: str,
    old_rows: int,
    rows: int,
) -> NewSettings:
    """Return config.json and generation_config.json for a model whose tables now have ``rows`` rows.

    ``source`` is the vocabulary that the ids in both files speak of. Rows without a token (padding to a multiple,
    holes in the new ids) are recorded in the config and, for generating models, suppressed in the generation config.
    Raises `VocabTransferError` when a token that the model cannot do without has no counterpart, and when the padding
    id moves in a model that counts positions from it.
    """
    target = Vocabulary.from_tokenizer(tokenizer)
    walk = _Walk(source, target, tokenizer, old_rows, rows)
    config = _with_default_ids(config)
    new_config = walk.section(config, "config.json")
    _set_sizes(new_config, old_rows, rows)
    for key in ("tokenizer_class", "_name_or_path"):
        new_config.pop(key, None)
    if isinstance(new_config.get("auto_map"), dict):
        new_config["auto_map"].pop("AutoTokenizer", None)
    refuse_moved_padding(config, new_config)
    _refuse_moved_ranges(config, source, target, rows)
    empty = [i for i in range(rows) if i >= len(target) or target.kinds[i] == Kind.HOLE]
    new_config["vocabtransfer"] = {
        "version": _version(),
        "source": source_name,
        "vocabulary": len(target),
        "padded_rows": rows - len(target),
    }
    generation = walk.section(generation_config, "generation_config.json") if generation_config is not None else None
    if empty and generates(config):
        generation = generation if generation is not None else _generation_from(new_config)
        generation.pop("_from_model_config", None)
        generation["suppress_tokens"] = sorted({*(generation.get("suppress_tokens") or ()), *empty})
    return NewSettings(new_config, generation, tuple(walk.notes))


@dataclass
class _Walk:
    """One pass over both files; collects the notes on the way."""

    source: Vocabulary
    target: Vocabulary
    tokenizer: PreTrainedTokenizerFast
    old_rows: int
    rows: int
    notes: list[str] = field(default_factory=list)

    def section(self, values: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return a copy of a JSON object with the ids of it and of its sections renumbered."""
        return {key: self._value(key, value, where) for key, value in values.items()}

    def _value(self, key: str, value: Any, where: str) -> Any:
        place = f"{key!r} of {where}"
        if isinstance(value, Mapping):
            if key in ID_TABLES:
                return {name: self._kept(place, i) for name, i in value.items()}
            if key == VOCABULARY_MAP:
                return self._vocabulary_map(value, place)
            return self.section(value, where) if self._is_about_text(key, value) else dict(value)
        if key.endswith(ID_SUFFIXES):
            return self._role(key, value, place)
        if key in ID_LISTS and isinstance(value, list):
            return self._list(value, place)
        if key in SEQUENCE_LISTS and isinstance(value, list):
            return self._sequences(value)
        if key == "forced_decoder_ids" and isinstance(value, list):
            return [[position, self._kept(place, i)] for position, i in value]
        if key == "sequence_bias" and isinstance(value, list):
            return [[self._sequence(ids), bias] for ids, bias in value]
        return value

    def _is_about_text(self, key: str, value: Mapping[str, Any]) -> bool:
        return key not in OTHER_INPUTS and value.get("vocab_size", self.old_rows) == self.old_rows

    def _role(self, key: str, value: Any, place: str) -> Any:
        """Renumber the value of a key like ``eos_token_id``: an id, a list of ids, or null."""
        ids = value if isinstance(value, list) else [value]
        if not all(type(i) is int for i in ids):
            return value
        new = [self._new_id(i, key) for i in ids]
        kept = list(dict.fromkeys(i for i in new if i is not None))
        if not kept and key.endswith(REQUIRED) and any(self._has_token(i) for i in ids):
            raise VocabTransferError(
                f"the new tokenizer has no counterpart of {self._describe(ids[0])}, which {place} needs: add it to the "
                "tokenizer's special tokens."
            )
        for old, i in zip(ids, new, strict=True):
            if i is None:
                self.notes.append(f"{place} was {self._describe(old)}, which the new tokenizer lacks: dropped.")
        if isinstance(value, list):
            return kept
        return kept[0] if kept else None

    def _list(self, ids: list[Any], place: str) -> list[int] | None:
        """Renumber a list of tokens; ids without a token, such as an earlier padding's, go without saying."""
        known = [i for i in ids if i < 0 or self._has_token(i)]
        new = [self._new_id(i) for i in known]
        if lost := new.count(None):
            self.notes.append(f"{lost} of {len(known)} tokens in {place} are not in the new vocabulary: dropped.")
        return sorted({i for i in new if i is not None}) or None

    def _kept(self, place: str, old: int) -> int:
        new = self._new_id(old)
        if new is None:
            raise VocabTransferError(
                f"the new tokenizer has no counterpart of {self._describe(old)}, which {place} needs: add it to the "
                "tokenizer's special tokens."
            )
        return new

    def _vocabulary_map(self, value: Mapping[str, Any], place: str) -> dict[str, int]:
        """Give the new vocabulary by its strings; tokens that are no text (codes of pictures) must all be in it."""
        for name, i in value.items():
            if name not in self._by_string and (NO_TEXT.match(name) or self._is_special(i)):
                raise VocabTransferError(
                    f"the new tokenizer has no {name!r}, which {place} needs: keep the tokens that stand for pictures."
                )
        everything = len(value) >= len(self.source) // 2
        return {name: i for name, i in sorted(self._by_string.items()) if everything or name in value}

    def _is_special(self, i: Any) -> bool:
        return type(i) is int and self._has_token(i) and bool(self.source.kinds[i] == Kind.SPECIAL)

    def _sequences(self, sequences: list[Any]) -> list[Any]:
        """Renumber lists of ids that spell words (nested once more in some files)."""
        if sequences and all(type(i) is int for i in sequences):
            return self._sequence(sequences)
        return [self._sequences(item) for item in sequences]

    def _sequence(self, ids: Sequence[int]) -> list[int]:
        """Give the new spelling of a word: its specials one by one, the text between them encoded anew."""
        new: list[int] = []
        text = b""
        for i in (*ids, None):
            if i is not None and self._has_token(i) and self.source.kinds[i] != Kind.SPECIAL:
                text += self.source.token_bytes[i]
                continue
            if text:
                pieces = self._pieces.encode_bytes([text])
                new += [int(piece) for piece in pieces.ids]
                text = b""
            if i is not None:
                new.append(self._kept("a word list of the generation settings", i))
        return new

    @cached_property
    def _pieces(self) -> PieceEncoder:
        return PieceEncoder(self.tokenizer, self.target)

    @cached_property
    def _by_string(self) -> dict[str, int]:
        return dict(self.tokenizer.get_vocab())

    def _has_token(self, i: int) -> bool:
        return 0 <= i < len(self.source) and self.source.kinds[i] != Kind.HOLE

    def _describe(self, i: int) -> str:
        return f"{self.source.strings[i]!r} (id {i})" if self._has_token(i) else f"id {i}, which has no token"

    def _new_id(self, old: int, key: str = "") -> int | None:
        if old < 0:
            return old  # -1 means "none" in older configs
        if not self._has_token(old):
            return None
        if key == "pad_token_id" and self.source.roles.get("pad_token") == old and "pad_token" in self.target.roles:
            return self.target.roles["pad_token"]
        if self.source.kinds[old] == Kind.SPECIAL:
            found = self._by_string.get(self.source.strings[old])
        else:
            found = self.source.counterpart(old, self.target)
        return found if found is not None else next(self._by_role(old, key), None)

    def _by_role(self, old: int, key: str) -> Iterator[int]:
        roles = [key.removesuffix("_id").removesuffix("_ids"), *(r for r, i in self.source.roles.items() if i == old)]
        for role in roles:
            if role in self.target.roles:
                yield self.target.roles[role]


def _with_default_ids(config: Mapping[str, Any]) -> dict[str, Any]:
    """Write out the ids that config.json leaves to its class's defaults: they move like all others."""
    filled = dict(config)
    known = model_config(config)
    if known is not None:
        for name in TEXT_CONFIGS:
            if isinstance(config.get(name), Mapping):
                filled[name] = {**_default_ids(getattr(known, name, None)), **config[name]}
        filled = {**_default_ids(known), **filled}
    return with_padding_defaults(filled, known)


def _default_ids(known: Any) -> dict[str, Any]:
    values = known.to_dict() if hasattr(known, "to_dict") else {}
    return {key: i for key, i in values.items() if key.endswith(ID_SUFFIXES) and i is not None}


def _set_sizes(config: dict[str, Any], old_rows: int, rows: int) -> None:
    """Write the new size wherever the old one stood; where a default stood for it, write it out."""
    texts = [config[name] for name in TEXT_CONFIGS if isinstance(config.get(name), dict)]
    _resize(config, old_rows, rows)
    home = texts[0] if texts else config
    home["vocab_size"] = rows


def _resize(part: dict[str, Any], old_rows: int, rows: int) -> None:
    for key, value in part.items():
        if isinstance(value, dict) and key not in OTHER_INPUTS:
            _resize(value, old_rows, rows)
        elif (key in SIZE_KEYS and value == old_rows) or (key in FURTHER_SIZE_KEYS and value):
            part[key] = rows


def _refuse_moved_ranges(config: Mapping[str, Any], source: Vocabulary, target: Vocabulary, rows: int) -> None:
    """Refuse to move ids that a part of the model knows by where they begin: Gemma 3n's and Apertus's pictures, sounds."""
    for place, first in _offsets(config, ""):
        if first >= len(source):
            continue
        if rows != len(source) or target.strings[first:] != source.strings[first:]:
            raise VocabTransferError(
                f"{place!r} of config.json says that the ids from {first} on are not text but that part's own, so a "
                "vocabulary in which they move is not possible: take the text model alone."
            )


def _offsets(config: Mapping[str, Any], inside: str) -> Iterator[tuple[str, int]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _offsets(value, f"{inside}{key}.")
        elif type(value) is int and (key == "vocab_offset" or key.endswith("_token_offset")):
            yield inside + key, value


def _version() -> str:
    try:
        return version("vocabtransfer")
    except PackageNotFoundError:
        return "not installed"  # run from a checkout


def _generation_from(config: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers would have derived from a config alone, now written out because a file must exist."""
    keys = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id")
    return {key: config[key] for key in keys if config.get(key) is not None}
