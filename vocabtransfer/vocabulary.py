"""What each token of a tokenizer stands for: the bytes it puts into a text, and its role.

Vocabulary strings are written in different alphabets: byte-level BPE spells the word `` the`` as ``Ġthe`` and ``п`` as
``Ð¿``, SentencePiece writes ``▁the`` and ``<0xD0>``, WordPiece marks the inside of a word with ``##``. Here they all
become plain bytes plus a flag for the word boundary, so that vocabularies can be compared.
"""

import functools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np
import regex
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.public import public
from vocabtransfer.reprs import brief
from vocabtransfer.scripts import SCRIPTS, dominant_scripts

__all__ = ["SCRIPTS", "Kind", "Scheme", "Vocabulary"]

ROLES = ("bos_token", "eos_token", "pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
SPACE_MARK = "▁"

# What BERT's pre-tokenizer cuts out of words: punctuation (all ASCII symbols count) and Chinese characters. This is the
# inside of a character class for the regex module.
STANDS_ALONE = (
    r"!-/:-@\[-`{-~\p{P}\u4E00-\u9FFF\u3400-\u4DBF\U00020000-\U0002A6DF\U0002A700-\U0002CEAF\uF900-\uFAFF"
    r"\U0002F800-\U0002FA1F"
)
_ALONE = regex.compile(f"[{STANDS_ALONE}]+")

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
# Added tokens that are markers although their file does not call them special: <|im_end|>, <think>, [INST], <unused7>.
_MARKER = re.compile(r"<[|｜].+[|｜]>|</?[A-Za-z][\w./-]*>|\[@?/?[A-Za-z][\w/ .-]*@?\]")
_RESERVED = re.compile(r"<unused\d+>|<extra_id_\d+>|<SPECIAL_\d+>|\[unused\d+\]|\[control_\d+\]")
# ... unless they are HTML, which is text (Gemma adds such tags as ordinary tokens).
_HTML = (
    "a abbr article aside b bbox blockquote body br button caption center cite code dd details div dl dt em fieldset "
    "figcaption figure font footer form h1 h2 h3 h4 h5 h6 head header hr html i iframe img input label li link main "
    "mark meta nav ol option p pre q s samp script section select small source span strike strong style sub summary "
    "sup svg table tbody td textarea tfoot th thead time title tr tt u ul var video"
)
_HTML_TAGS = frozenset(_HTML.split())


class Scheme(StrEnum):
    """How a tokenizer writes text into its vocabulary strings."""

    BYTE_LEVEL = "byte-level"
    SENTENCEPIECE = "sentencepiece"
    WORDPIECE = "wordpiece"


class Kind(IntEnum):
    """What a token id is for.

    BYTE is a ``<0xNN>`` fallback token, SPECIAL a control token (bos, chat markers, reserved ones), HOLE an id without
    a token. Everything else is TEXT, single bytes of a byte-level vocabulary included.
    """

    TEXT = 0
    BYTE = 1
    SPECIAL = 2
    HOLE = 3


M = TypeVar("M", bound=Callable[..., Any])


def _by_id(method: M) -> M:
    """Refuse ids that there are not (a negative one would be taken from the end); quicker a token than `public`."""

    @functools.wraps(method)
    def checked(self: "Vocabulary", i: int, *others: Any) -> Any:
        if isinstance(i, (int, np.integer)) and not isinstance(i, bool) and 0 <= i < len(self.strings):
            return method(self, i, *others)
        raise UsageError(f"there is no token {i!r}: the ids of this vocabulary are 0 to {len(self.strings) - 1}.")

    return cast(M, checked)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """All tokens of a tokenizer, by id.

    `token_bytes` is what the token contributes to a text: ``b" the"`` for ``Ġthe`` and ``▁the``, ``b"the"`` for
    WordPiece's ``the`` and ``##the``; special tokens contribute their own name, holes nothing. `word_initial` tells
    the tokens that carry a word boundary: ``Ġthe``, ``▁the``, and WordPiece's ``the`` (but not its punctuation and
    Chinese characters, which stand alone wherever they are). `roles` maps ``"bos_token"`` and its like to ids.
    """

    scheme: Scheme
    strings: tuple[str, ...]
    token_bytes: tuple[bytes, ...]
    kinds: NDArray[np.uint8]
    word_initial: NDArray[np.bool_]
    roles: Mapping[str, int]

    def __repr__(self) -> str:
        return brief(self, tokens=len(self.strings), scheme=self.scheme.value)

    @classmethod
    @public
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerFast) -> "Vocabulary":
        """Read every token of a tokenizer; `VocabTransferError` if its kind is not one of `Scheme`'s three."""
        backend = tokenizer.backend_tokenizer
        scheme = detect_scheme(backend)
        strings, added = _strings_by_id(backend)
        roles = _roles(tokenizer)
        kinds = _kinds(backend, scheme, strings, added, roles)
        token_bytes = _token_bytes(backend, scheme, strings, kinds, added)
        initial = _word_initial(backend, scheme, strings, token_bytes) & (kinds == Kind.TEXT)
        return cls(scheme, strings, token_bytes, kinds, initial, roles)

    def __len__(self) -> int:
        """Return the number of ids, holes included: the highest id plus one."""
        return len(self.strings)

    @_by_id
    def key(self, i: int) -> tuple[bytes, bool]:
        """Return what identifies token ``i`` across vocabularies: its bytes without the boundary space, and the flag.

        White space alone keeps all its bytes, so a space is ``(b" ", False)``.
        """
        content, initial = self.token_bytes[i], bool(self.word_initial[i])
        return (content[1:] if initial and content[:1] == b" " else content), initial

    @_by_id
    def context_bytes(self, i: int) -> bytes:
        """Return token ``i`` as it stands in running text, boundary space included, for WordPiece as well."""
        content, initial = self.key(i)
        return b" " + content if initial else content

    def index(self) -> Mapping[tuple[bytes, bool], int]:
        """Return the id of each `key`, computed once: text before byte tokens, lower ids first, no special tokens.

        This is how a person's text is found. Tokens of two vocabularies are matched with `counterpart`.
        """
        return self._index

    @cached_property
    def _index(self) -> Mapping[tuple[bytes, bool], int]:
        text, fallback = self._by_kind
        return {**fallback, **text}

    @_by_id
    def counterpart(self, i: int, other: "Vocabulary") -> int | None:
        """Return the token of ``other`` that stands for what ordinary token ``i`` stands for here, None without one.

        A vocabulary with byte fallback has both ``A`` and ``<0x41>``, which models use in quite different places. So a
        token's counterpart is one of its own kind; one of the other kind only where there is no such token, and for a
        byte token only where no text token of this vocabulary could claim it. Of several, that of the same string.
        """
        (mine, _), (text, fallback) = self._by_kind, other._by_kind
        key, same = self.key(i), other._by_string.get(self.strings[i])
        if same is not None and other.kinds[same] == self.kinds[i] <= Kind.BYTE and other.key(same) == key:
            return same
        if self.kinds[i] == Kind.BYTE:
            return fallback.get(key, None if key in mine else text.get(key))
        return text.get(key, fallback.get(key)) if self.kinds[i] == Kind.TEXT else None

    def counterparts(self, other: "Vocabulary") -> NDArray[np.int64]:
        """Return the `counterpart` of every token, int64 (V,); -1 for those without one, special tokens among them."""
        found = np.full(len(self), -1, np.int64)
        for i in np.flatnonzero(self.kinds <= Kind.BYTE).tolist():
            other_id = self.counterpart(i, other)
            if other_id is not None:
                found[i] = other_id
        return found

    @cached_property
    def _by_kind(self) -> tuple[Mapping[tuple[bytes, bool], int], Mapping[tuple[bytes, bool], int]]:
        """The ids of text tokens and of byte tokens by their `key`; of several with one key the first."""
        text, fallback = (np.flatnonzero(self.kinds == kind)[::-1].tolist() for kind in (Kind.TEXT, Kind.BYTE))
        return {self.key(i): i for i in text}, {self.key(i): i for i in fallback}

    @cached_property
    def _by_string(self) -> Mapping[str, int]:
        return {string: i for i, string in enumerate(self.strings) if string}

    def spelled_otherwise(self) -> NDArray[np.bool_]:
        """Tell which byte tokens no text is ever spelled with, because a text token has the same byte; boolean (V,)."""
        text, _ = self._by_kind
        flags = np.zeros(len(self), np.bool_)
        for i in np.flatnonzero(self.kinds == Kind.BYTE).tolist():
            flags[i] = self.key(i) in text
        return flags

    @_by_id
    def text(self, i: int) -> str | None:
        """Return the token's bytes as text, or None where they are only a part of a character."""
        try:
            return self.token_bytes[i].decode("utf-8")
        except UnicodeDecodeError:
            return None

    @_by_id
    def readable(self, i: int) -> str:
        """Return the token as a person reads it: its text, the hex of its bytes where they are a part of a character.

        Byte tokens (``<0x41>``) keep their name, which is what they are.
        """
        text = None if self.kinds[i] == Kind.BYTE else self.text(i)
        if text:
            return text
        partial = self.kinds[i] == Kind.TEXT and self.token_bytes[i]
        return f"⟨{self.token_bytes[i].hex(' ').upper()}⟩" if partial else self.strings[i]

    def scripts(self) -> NDArray[np.uint8]:
        """Return the script most letters of each token are in, as an index into `SCRIPTS` (V,); 0, "Zyyy", for none.

        Parts of characters that a token holds are passed over; bytes, special tokens and holes have no script.
        """
        return self._scripts

    @cached_property
    def _scripts(self) -> NDArray[np.uint8]:
        texts = [content.decode("utf-8", "ignore") for content in self.token_bytes]
        scripts = dominant_scripts(texts)
        scripts[self.kinds != Kind.TEXT] = 0
        scripts.flags.writeable = False
        return scripts


def byte_alphabet() -> dict[int, str]:
    """Return the character by which byte-level BPE writes each of the 256 bytes (GPT-2's ``bytes_to_unicode``)."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    alphabet = {byte: chr(byte) for byte in visible}
    hidden = [byte for byte in range(256) if byte not in alphabet]
    alphabet.update({byte: chr(256 + place) for place, byte in enumerate(hidden)})
    return alphabet


def component(part: Any) -> dict[str, Any]:
    """Return a part of a `tokenizers` pipeline (normalizer, decoder, ...) as the JSON object it is saved as.

    None gives an empty object. Raises `VocabTransferError` for parts written in Python, which have no such form.
    """
    if part is None:
        return {}
    try:
        state: dict[str, Any] = json.loads(part.__getstate__())
    except Exception:
        raise VocabTransferError(
            f"the tokenizer has a part written in Python ({type(part).__name__}): only tokenizers that can be saved "
            "as tokenizer.json are supported."
        ) from None
    return state


def detect_scheme(backend: Tokenizer) -> Scheme:
    """Tell the scheme of a tokenizer from its pipeline, never from its class name."""
    pipeline = (backend.normalizer, backend.pre_tokenizer, backend.decoder)
    parts = [part for top in pipeline for part in _flat(component(top))]
    types = {part["type"] for part in parts}
    model = type(backend.model).__name__
    if model == "WordPiece":
        return Scheme.WORDPIECE
    if model == "BPE" and (backend.model.end_of_word_suffix or backend.model.continuing_subword_prefix):
        raise VocabTransferError(
            "the tokenizer marks the ends of words (BPE with a word suffix or prefix, as GPT-1 and CLIP do): only "
            "byte-level, SentencePiece and WordPiece tokenizers are supported."
        )
    if "ByteLevel" in types:
        return Scheme.BYTE_LEVEL
    if model == "Unigram" or "Metaspace" in types or any(SPACE_MARK in str(part.get("content")) for part in parts):
        return Scheme.SENTENCEPIECE
    raise VocabTransferError(
        f"the tokenizer ({model} without byte alphabet, '▁' or '##') keeps no word boundaries: only byte-level, "
        "SentencePiece and WordPiece tokenizers are supported."
    )


def _flat(part: dict[str, Any]) -> list[dict[str, Any]]:
    inner = next((part[k] for k in ("normalizers", "pretokenizers", "decoders") if k in part), None)
    if inner is None:
        return [part] if part else []
    return [leaf for child in inner for leaf in _flat(child)]


def _strings_by_id(backend: Tokenizer) -> tuple[tuple[str, ...], dict[int, tuple[str, bool]]]:
    """Return all strings by id, and the added tokens as id -> (string, called special). Added ones win."""
    model = backend.get_vocab(with_added_tokens=False)
    added = {i: (token.content, token.special) for i, token in backend.get_added_tokens_decoder().items()}
    size = 1 + max(max(model.values(), default=-1), max(added, default=-1))
    strings = [""] * size
    for string, i in model.items():
        strings[i] = string
    for i, (string, _) in added.items():
        strings[i] = string
    return tuple(strings), added


def _roles(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    roles = {}
    for role in ROLES:
        string = getattr(tokenizer, role, None)
        i = None if string is None else tokenizer.backend_tokenizer.token_to_id(str(string))
        if i is not None:
            roles[role] = i
    return roles


def _kinds(
    backend: Tokenizer,
    scheme: Scheme,
    strings: tuple[str, ...],
    added: Mapping[int, tuple[str, bool]],
    roles: Mapping[str, int],
) -> NDArray[np.uint8]:
    kinds = np.full(len(strings), Kind.TEXT, dtype=np.uint8)
    kinds[[i for i, string in enumerate(strings) if not string and i not in added]] = Kind.HOLE
    bracketed = [i for i, string in enumerate(strings) if string[:1] in ("<", "[")]
    kinds[[i for i in bracketed if _RESERVED.fullmatch(strings[i])]] = Kind.SPECIAL
    if scheme is Scheme.SENTENCEPIECE:
        kinds[[i for i in bracketed if _BYTE_TOKEN.fullmatch(strings[i])]] = Kind.BYTE
    kinds[[i for i, (string, special) in added.items() if special or _is_marker(string)]] = Kind.SPECIAL
    kinds[list(roles.values())] = Kind.SPECIAL
    unknown = backend.token_to_id(getattr(backend.model, "unk_token", None) or "")
    if unknown is not None:
        kinds[unknown] = Kind.SPECIAL
    return kinds


def _is_marker(string: str) -> bool:
    return _MARKER.fullmatch(string) is not None and string.strip("</>") not in _HTML_TAGS


def _token_bytes(
    backend: Tokenizer,
    scheme: Scheme,
    strings: tuple[str, ...],
    kinds: NDArray[np.uint8],
    added: Mapping[int, tuple[str, bool]],
) -> tuple[bytes, ...]:
    if scheme is Scheme.BYTE_LEVEL:
        contents = _from_byte_alphabet(strings)
        literal = list(added)
    elif scheme is Scheme.WORDPIECE:
        prefix = backend.model.continuing_subword_prefix
        contents = [(string.removeprefix(prefix) or string).encode() for string in strings]
        literal = list(added)
    else:
        contents = [string.replace(SPACE_MARK, " ").encode() for string in strings]
        for i in np.flatnonzero(kinds == Kind.BYTE).tolist():
            contents[i] = bytes([int(strings[i][3:5], 16)])
        # A decoder turns the mark into a space in added tokens too, so only control tokens keep theirs.
        literal = np.flatnonzero(kinds == Kind.SPECIAL).tolist()
    for i in literal:
        contents[i] = strings[i].encode()
    return tuple(contents)


def _from_byte_alphabet(strings: tuple[str, ...]) -> list[bytes]:
    # Characters below 256 that are not in the alphabet go where Latin-1 cannot follow, as the others already are.
    table = dict.fromkeys(range(256), 0xFFFF) | {ord(char): byte for byte, char in byte_alphabet().items()}
    contents = []
    for string in strings:
        try:
            contents.append(string.translate(table).encode("latin-1"))
        except UnicodeEncodeError:
            contents.append(string.encode())
    return contents


def _word_initial(
    backend: Tokenizer, scheme: Scheme, strings: tuple[str, ...], token_bytes: tuple[bytes, ...]
) -> NDArray[np.bool_]:
    if scheme is Scheme.WORDPIECE:
        prefix = backend.model.continuing_subword_prefix
        flags = [not string.startswith(prefix) and not _ALONE.fullmatch(string) for string in strings]
    else:
        flags = [content[:1] == b" " and not content.isspace() for content in token_bytes]
    return np.array(flags, dtype=np.bool_)
