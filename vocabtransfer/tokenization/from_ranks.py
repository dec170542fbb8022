"""A `tokenizers` backend for files that list tokens by rank: ``*.tiktoken`` and Mistral's ``tekken.json``."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.vocabulary import byte_alphabet

_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3_SPECIALS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    *(f"<|reserved_special_token_{i}|>" for i in range(4)),
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|reserved_special_token_4|>",
    "<|eot_id|>",
    *(f"<|reserved_special_token_{i}|>" for i in range(5, 251)),
)
_QWEN_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205)))
_FIM = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
_TEKKEN = (
    "<unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS] [TOOL_CALLS] "
    "[IMG] <pad> [IMG_BREAK] [IMG_END] [PREFIX] [MIDDLE] [SUFFIX] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [TOOL_CONTENT]"
)
_TEKKEN_SPECIALS = _TEKKEN.split()


@dataclass(frozen=True)
class _Encoding:
    """What a rank file leaves out: how text is cut before merging, special tokens, roles."""

    pattern: str
    specials: Mapping[str, int]
    roles: Mapping[str, str]
    normal_form: str | None = None


_END = "<|endoftext|>"
_GPT_ROLES = {"bos_token": _END, "eos_token": _END, "unk_token": _END}
# Known families by the number of ranks in the file; the patterns are those of each family's tokenizer.json.
_ENCODINGS = {
    50256: _Encoding(_GPT2, {_END: 50256}, _GPT_ROLES),
    50280: _Encoding(_GPT2, {_END: 50256}, _GPT_ROLES),
    100256: _Encoding(
        _CL100K, {_END: 100257, **{t: 100258 + i for i, t in enumerate(_FIM)}, "<|endofprompt|>": 100276}, _GPT_ROLES
    ),
    128000: _Encoding(
        _CL100K,
        {token: 128000 + i for i, token in enumerate(_LLAMA3_SPECIALS)},
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
    ),
    151643: _Encoding(
        _CL100K.replace(r"\p{N}{1,3}", r"\p{N}"),
        {token: 151643 + i for i, token in enumerate(_QWEN_SPECIALS)},
        {"eos_token": _END, "pad_token": _END},
        "NFC",
    ),
    199998: _Encoding(_O200K, {_END: 199999, "<|endofprompt|>": 200018}, _GPT_ROLES),
}


def looks_like_tiktoken(content: bytes) -> bool:
    """Tell whether bytes start as a tiktoken file does: a token in base64, a space, its rank."""
    token, _, rank = content.split(b"\n", 1)[0].partition(b" ")
    try:
        return bool(base64.b64decode(token, validate=True)) and rank.strip().isdigit()
    except binascii.Error:
        return False


def from_tiktoken(content: bytes, file: Path, specials: Mapping[str, int]) -> tuple[Tokenizer, dict[str, Any]]:
    """Build the backend and the settings for the bytes of a ``.tiktoken`` file (``file`` names it in messages).

    Such a file holds no pattern and no special tokens: both come from the family, which the number of ranks tells.
    ``specials`` (text -> id, from tokenizer_config.json) replace the family's if given. Raises `VocabTransferError`
    for damaged files and unknown families.
    """
    ranks = {}
    for number, line in enumerate(content.splitlines(), start=1):
        if line:
            token, _, rank = line.partition(b" ")
            try:
                ranks[base64.b64decode(token, validate=True)] = int(rank)
            except ValueError:
                raise VocabTransferError(f"{file}, line {number}: not a base64 token and its rank.") from None
    encoding = _ENCODINGS.get(len(ranks))
    if encoding is None:
        known = ", ".join(map(str, _ENCODINGS))
        raise VocabTransferError(
            f"{file} lists {len(ranks)} tokens, which is no tokenizer known by that size ({known}), and such files do "
            "not say how text is split: give the tokenizer.json instead."
        )
    backend = _backend(ranks, specials or encoding.specials, encoding.pattern, encoding.normal_form)
    known_roles = {role: token for role, token in encoding.roles.items() if backend.token_to_id(token) is not None}
    # Llama 3 is the one family here that is trained with bos in front of every text.
    return backend, {**known_roles, "add_bos_token": encoding.roles.get("bos_token") == "<|begin_of_text|>"}


def from_tekken(content: bytes, file: Path) -> tuple[Tokenizer, dict[str, Any]]:
    """Build the backend and the settings for a ``tekken.json`` (``file`` names it); `VocabTransferError` if damaged."""
    try:
        document = json.loads(content)
        config = document["config"]
        special_count, size = int(config["default_num_special_tokens"]), int(config["default_vocab_size"])
        entries = document["vocab"][: size - special_count]
        ranks = {base64.b64decode(entry["token_bytes"]): special_count + entry["rank"] for entry in entries}
        named = document.get("special_tokens") or [{"rank": i, "token_str": t} for i, t in enumerate(_TEKKEN_SPECIALS)]
        specials = {f"<SPECIAL_{i}>": i for i in range(special_count)}
        specials = {text: i for text, i in specials.items() if i not in {entry["rank"] for entry in named}}
        specials.update({entry["token_str"]: entry["rank"] for entry in named})
        backend = _backend(ranks, specials, config["pattern"], None)
    except (KeyError, TypeError, ValueError) as problem:
        raise VocabTransferError(f"{file} is not a complete tekken.json ({problem!r}): fetch it again.") from None
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    roles: dict[str, Any] = {role: token for role, token in names.items() if token in specials}
    return backend, {**roles, "add_bos_token": "bos_token" in roles}


def _backend(ranks: Mapping[bytes, int], specials: Mapping[str, int], pattern: str, form: str | None) -> Tokenizer:
    table = {byte: ord(char) for byte, char in byte_alphabet().items()}
    written = {token: token.decode("latin-1").translate(table) for token in ranks}
    merges = [
        (rank, ranks[left], ranks[right], written[left], written[right])
        for token, rank in ranks.items()
        for left, right in ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        if left in ranks and right in ranks
    ]
    merges.sort()
    backend = Tokenizer(
        BPE(
            vocab={**{written[token]: rank for token, rank in ranks.items()}, **specials},
            merges=[(left, right) for *_, left, right in merges],
            # tiktoken takes a word that is a token as a whole, before any merging.
            ignore_merges=True,
        )
    )
    if form is not None:
        backend.normalizer = getattr(normalizers, form)()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    ordered = sorted(specials, key=specials.__getitem__)
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ordered])
    return backend
