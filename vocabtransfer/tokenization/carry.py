"""What a new tokenizer keeps of the old one: special tokens, chat template, roles, post-processor, digit scheme."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import regex
from tokenizers import Tokenizer
from transformers import AddedToken, PreTrainedTokenizerFast

from vocabtransfer.errors import VocabTransferError

NOTES = "vocabtransfer_notes"

# Names that publishers give to rows kept free for later: <|reserved_special_token_7|>, <unused42>, [control_8],
# <SPECIAL_20>, <|extra_3|>, <｜place▁holder▁no▁5｜>, madeupword0001, <|dummy_85|>.
_RESERVED = re.compile(
    r"reserved\D*\d|unused_?\d|place\W*_?holder\D*\d|dummy\D*\d|madeupword\d|^\[control_\d+\]$|^<SPECIAL_\d+>$"
    r"|^<\|extra_\d+\|>$|^<pad\d+>$",
    re.IGNORECASE,
)

# Entries of a vocabulary in angle brackets that no text gives; byte tokens are none of them.
_PLACEHOLDER = re.compile(r"<(?!0x[0-9A-F]{2}>)[^<>\s]+>[A-Z]*")

BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))


@dataclass(frozen=True)
class Special:
    """One special or added token of the source: its text, and its entry of tokenizer.json (without the id)."""

    content: str
    entry: Mapping[str, Any] | None  # None: a plain entry of the model's vocabulary, such as BERT's [unused7]


@dataclass(frozen=True)
class Specials:
    """The special and added tokens to keep, in source order: before and after the ordinary vocabulary."""

    leading: tuple[Special, ...]
    trailing: tuple[Special, ...]
    dropped: int  # reserved tokens left out

    def __len__(self) -> int:
        return len(self.leading) + len(self.trailing)

    @property
    def contents(self) -> frozenset[str]:
        """The texts of all kept tokens."""
        return frozenset(token.content for token in (*self.leading, *self.trailing))


def vocabulary_strings(document: Mapping[str, Any]) -> list[str]:
    """Return the strings of the model's vocabulary in id order (added tokens beyond it left out)."""
    ids = vocabulary_ids(document)
    return sorted(ids, key=ids.__getitem__)


def vocabulary_ids(document: Mapping[str, Any]) -> dict[str, int]:
    """Return the ids of the model's vocabulary by string (added tokens beyond it left out)."""
    vocab = document["model"]["vocab"]
    return {piece: i for i, (piece, _) in enumerate(vocab)} if isinstance(vocab, list) else vocab


def kept_specials(like: PreTrainedTokenizerFast, document: Mapping[str, Any], *, keep_reserved: bool) -> Specials:
    """Choose the special and added tokens of the source that the new tokenizer keeps, in their order.

    Reserved tokens (never trained, such as 251 of Llama 3 and 6,242 of Gemma 3) would eat a small vocabulary; they are
    dropped unless ``keep_reserved``, except those that a role, the chat template or the post-processor names.
    """
    referenced = _referenced(like, document)
    templates = _template_text(like)
    added = {entry["content"]: entry for entry in document["added_tokens"]}
    ids = {content: entry["id"] for content, entry in added.items()}
    vocabulary = vocabulary_ids(document)
    plain = re.compile(r"\[unused\d+\]")  # BERT's, entries of the vocabulary like any other
    ids.update({text: i for text, i in vocabulary.items() if text[:1] == "[" and plain.fullmatch(text)})
    first_ordinary = min(
        (i for text, i in vocabulary.items() if text not in ids and not _PLACEHOLDER.fullmatch(text)),
        default=len(vocabulary),
    )
    # Placeholders between the first specials (CamemBERT's <s>NOTUSED) stay: without them the ids behind them would move.
    ids.update({text: i for text, i in vocabulary.items() if text not in ids and i < first_ordinary})
    leading: list[Special] = []
    trailing: list[Special] = []
    dropped = 0
    for content in sorted(ids, key=ids.__getitem__):
        wanted = keep_reserved or not _RESERVED.search(content) or content in referenced or content in templates
        if not wanted:
            dropped += 1
            continue
        entry = {key: value for key, value in added[content].items() if key != "id"} if content in added else None
        (leading if ids[content] < first_ordinary else trailing).append(Special(content, entry))
    return Specials(tuple(leading), tuple(trailing), dropped)


def _referenced(like: PreTrainedTokenizerFast, document: Mapping[str, Any]) -> set[str]:
    """Return the token strings that a role, the model's unknown token or the post-processor names."""
    names = {str(token) for token in like.special_tokens_map.values() if isinstance(token, str | AddedToken)}
    if document["model"].get("unk_token"):
        names.add(document["model"]["unk_token"])
    for processor in _processors(document["post_processor"]):
        for special in processor.get("special_tokens", {}).values():
            names.update(special["tokens"])
        names.update(processor[edge][0] for edge in ("cls", "sep") if edge in processor)
    return names


def _template_text(like: PreTrainedTokenizerFast) -> str:
    template = like.chat_template
    if isinstance(template, dict):
        return "\n".join(template.values())
    return template or ""


def _processors(processor: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the post-processor's parts, sequences unfolded."""
    if processor is None:
        return []
    if "processors" in processor:
        return [leaf for part in processor["processors"] for leaf in _processors(part)]
    return [dict(processor)]


def renumbered_post_processor(processor: Any, ids: Mapping[str, int]) -> Any:
    """Return the post-processor with the ids of its special tokens replaced by those in ``ids`` (token -> id).

    Raises `VocabTransferError` for a special token that ``ids`` lacks: the source's own vocabulary has none of that name.
    """
    if not isinstance(processor, dict):
        return processor
    named = [token for special in processor.get("special_tokens", {}).values() for token in special["tokens"]]
    for token in (*named, *(processor[edge][0] for edge in ("cls", "sep") if edge in processor)):
        if token not in ids:
            raise VocabTransferError(
                f"The source's tokenizer puts {token!r} around its texts (its post_processor says so), but its vocabulary "
                "has no such token: add it as a special token, or mend the post_processor of tokenizer.json."
            )
    processor = dict(processor)
    if "processors" in processor:
        processor["processors"] = [renumbered_post_processor(part, ids) for part in processor["processors"]]
    if "special_tokens" in processor:
        processor["special_tokens"] = {
            name: {**special, "ids": [ids[token] for token in special["tokens"]]}
            for name, special in processor["special_tokens"].items()
        }
    for edge in ("cls", "sep"):
        if edge in processor:
            processor[edge] = [processor[edge][0], ids[processor[edge][0]]]
    return processor


def finished_tokenizer(
    like: PreTrainedTokenizerFast,
    document: dict[str, Any],
    specials: Specials,
    *,
    notes: Sequence[str],
    unknown: str | None,
    same_kind: bool,
    ids: Mapping[str, int] | None = None,
) -> PreTrainedTokenizerFast:
    """Build the tokenizer from a ``document`` whose model holds the leading specials and the ordinary vocabulary.

    Adds the special tokens with their flags (the trailing ones get the ids after the model's vocabulary), renumbers the
    post-processor and copies roles, chat template and settings of ``like``. ``unknown`` is the unknown token where the
    model has one: it takes that role if the source left it empty. ``same_kind`` is False when the source was of another
    kind: then decoding no longer "cleans up" spaces, which is for WordPiece alone and would damage other text.
    ``ids`` are those of all special tokens where they do not simply follow the vocabulary.
    """
    if ids is None:
        numbers = {text: index for index, text in enumerate(vocabulary_strings(document))}
        for special in specials.trailing:
            numbers.setdefault(special.content, len(numbers))
        ids = numbers
    roles = {str(token) for token in like.special_tokens_map.values()}
    entries = [
        # Gemma's file does not call its mask special, but loading makes every token with a role so.
        {"id": ids[special.content], **special.entry, "special": special.entry["special"] or special.content in roles}
        for special in (*specials.leading, *specials.trailing)
        if special.entry is not None
    ]
    document = dict(document)
    document["added_tokens"] = sorted(entries, key=lambda entry: entry["id"])
    document["truncation"] = document["padding"] = None
    document["post_processor"] = renumbered_post_processor(document["post_processor"], ids)
    backend = Tokenizer.from_str(json.dumps(document, ensure_ascii=False))
    settings = _settings(like, specials.contents, notes)
    if not same_kind:
        settings["clean_up_tokenization_spaces"] = document["model"]["type"] == "WordPiece"
    if unknown is not None:
        settings.setdefault("unk_token", unknown)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **settings)


def _settings(like: PreTrainedTokenizerFast, kept: frozenset[str], notes: Sequence[str]) -> dict[str, Any]:
    """Return the arguments that carry roles, template and settings of ``like`` to a new PreTrainedTokenizerFast."""
    roles = {role: str(token) for role, token in like.special_tokens_map.items() if isinstance(token, str | AddedToken)}
    named = {role: token for role, token in roles.items() if role in like.SPECIAL_TOKENS_ATTRIBUTES}
    settings: dict[str, Any] = {
        **named,
        "model_specific_special_tokens": {role: token for role, token in roles.items() if role not in named},
        "extra_special_tokens": [str(token) for token in like.extra_special_tokens if str(token) in kept],
        "chat_template": like.chat_template,
        "model_max_length": like.model_max_length,
        "padding_side": like.padding_side,
        "truncation_side": like.truncation_side,
        "model_input_names": list(like.model_input_names),
        "clean_up_tokenization_spaces": like.clean_up_tokenization_spaces,
        "split_special_tokens": like.split_special_tokens,
        "response_template": getattr(like, "response_template", None),
        "chat_control_tokens": getattr(like, "chat_control_tokens", None),
        "processor_class": getattr(like, "_processor_class", None),
        "spaces_between_special_tokens": like.init_kwargs.get("spaces_between_special_tokens"),
        NOTES: list(notes),
    }
    return {name: value for name, value in settings.items() if value not in (None, {}, [])}


def with_settings_of(tokenizer: PreTrainedTokenizerFast, like: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Return a tokenizer of the same ids with the roles, chat template, limits and sides of ``like``.

    A role whose token is not in the vocabulary stays what it was.
    """
    contents = frozenset(tokenizer.get_vocab())
    settings = _settings(like, contents, training_notes(tokenizer))
    specific = settings.pop("model_specific_special_tokens", {})
    own = {
        role: str(token) for role, token in tokenizer.special_tokens_map.items() if isinstance(token, str | AddedToken)
    }
    for roles in (settings, specific):
        for role in [role for role, token in roles.items() if role.endswith("_token") and token not in contents]:
            del roles[role]
    for role, token in own.items():
        (settings if role in like.SPECIAL_TOKENS_ATTRIBUTES else specific).setdefault(role, token)
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_specific_special_tokens=specific, **settings)


def named_but_missing(like: PreTrainedTokenizerFast, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Return the added special tokens that the chat template of ``like`` names and ``tokenizer`` has not, sorted."""
    template, known = _template_text(like), tokenizer.get_vocab()
    added = {str(token) for token in like.added_tokens_decoder.values() if token.special}
    return sorted(token for token in added if token in template and token not in known)


def training_notes(tokenizer: PreTrainedTokenizerFast) -> tuple[str, ...]:
    """Return what training had to say about a tokenizer, one sentence each; kept when it is saved and loaded."""
    return tuple(tokenizer.init_kwargs.get(NOTES, ()))


# --- digits ---------------------------------------------------------------------------------------------------------


_PROBE = "1234567"


def digit_group(document: Mapping[str, Any]) -> int | None:
    """Return how many digits the source puts into one token at most (1, 3 ...), None where there is no limit."""
    longest = longest_digit_stretch(document)
    if longest < len(_PROBE):
        return longest
    grouped = any(re.fullmatch(r"▁?[0-9]{2,}", text) for text in vocabulary_strings(document))
    return None if grouped else 1


def longest_digit_stretch(document: Mapping[str, Any]) -> int:
    """Return how many of seven digits the pre-tokenizer leaves together."""
    if document["pre_tokenizer"] is None:
        return len(_PROBE)
    pieces: list[str] = [piece for piece, _ in bare_tokenizer(document).pre_tokenizer.pre_tokenize_str(_PROBE)]
    return max(sum(character.isdigit() for character in piece) for piece in pieces)


def adds_boundary(document: Mapping[str, Any]) -> bool:
    """Say whether the normaliser or pre-tokenizer puts a boundary mark in front of a text by itself."""
    tokenizer = bare_tokenizer(document)
    text = tokenizer.normalizer.normalize_str("a") if tokenizer.normalizer is not None else "a"
    if tokenizer.pre_tokenizer is not None:
        text = tokenizer.pre_tokenizer.pre_tokenize_str(text)[0][0]
    return text.startswith("▁")


def bare_tokenizer(document: Mapping[str, Any]) -> Tokenizer:
    """Build a tokenizer with the document's normaliser and pre-tokenizer and an empty model, to train or count with."""
    bare = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": document["normalizer"],
        "pre_tokenizer": document["pre_tokenizer"],
        "post_processor": None,
        "decoder": None,
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
    return Tokenizer.from_str(json.dumps(bare, ensure_ascii=False))


# --- combining marks ------------------------------------------------------------------------------------------------

_GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def mark_share(sample: str, *, beyond_latin: bool = False) -> float:
    """Return the share of combining marks among letters and marks of a text (0.0 for a text without letters).

    ``beyond_latin`` leaves out marks on Latin letters.
    """
    marks = len(regex.findall(r"\p{M}", sample))
    letters = len(regex.findall(r"\p{L}", sample))
    share_of = marks - len(regex.findall(r"(?<=\p{Latin}\p{M}*)\p{M}", sample)) if beyond_latin else marks
    return share_of / (marks + letters) if marks else 0.0


def with_marks_kept(normalizer: Any) -> Any | None:
    """Return a normaliser that strips no accents, or None when this one does not strip them.

    BERT's lower-casing normaliser also strips combining marks unless told otherwise: harmless for most Latin scripts,
    but it takes the vowels out of Hindi and turns й into и.
    """
    if not isinstance(normalizer, dict):
        return None
    if normalizer["type"] == "Sequence":
        parts = [with_marks_kept(part) or part for part in normalizer["normalizers"] if part["type"] != "StripAccents"]
        return None if parts == normalizer["normalizers"] else {**normalizer, "normalizers": parts}
    if normalizer["type"] == "BertNormalizer" and (
        normalizer["strip_accents"] or (normalizer["strip_accents"] is None and normalizer["lowercase"])
    ):
        return {**normalizer, "strip_accents": False}
    return None


def with_marks_in_words(pre_tokenizer: Any) -> Any | None:
    r"""Return the pre-tokenizer with words that keep their combining marks, or None when nothing needs repair.

    Patterns of the GPT-2, cl100k and Llama 3 family take ``\p{L}+`` for a word, which cuts Hindi, Thai or Tamil words
    at every vowel sign. The word branch becomes ``[\p{L}\p{M}]+`` and marks leave the punctuation branch, as Qwen 3.5
    does it; everything else, digits above all, stays.
    """
    if not isinstance(pre_tokenizer, dict):
        return None
    if pre_tokenizer["type"] == "Sequence":
        parts = pre_tokenizer["pretokenizers"]
        repaired = [with_marks_in_words(part) for part in parts]
        if not any(repaired):
            return None
        return {**pre_tokenizer, "pretokenizers": [new or old for new, old in zip(repaired, parts, strict=True)]}
    if pre_tokenizer["type"] == "Split" and "Regex" in pre_tokenizer["pattern"]:
        pattern = pre_tokenizer["pattern"]["Regex"]
        repaired_pattern = _pattern_with_marks(pattern)
        return None if repaired_pattern == pattern else {**pre_tokenizer, "pattern": {"Regex": repaired_pattern}}
    # ByteLevel with its built-in pattern: add_prefix_space would then prefix every piece, so leave that one alone.
    if pre_tokenizer["type"] == "ByteLevel" and pre_tokenizer["use_regex"] and not pre_tokenizer["add_prefix_space"]:
        pattern = {"Regex": _pattern_with_marks(_GPT2_PATTERN)}
        split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
        return {"type": "Sequence", "pretokenizers": [split, {**pre_tokenizer, "use_regex": False}]}
    return None


def _pattern_with_marks(pattern: str) -> str:
    pattern = re.sub(r"(?<![\[\\^}])\\p\{L\}\+", r"[\\p{L}\\p{M}]+", pattern)
    return pattern.replace(r"[^\s\p{L}\p{N}]+", r"[^\s\p{L}\p{M}\p{N}]+")
