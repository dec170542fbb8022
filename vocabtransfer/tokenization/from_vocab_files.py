"""A `tokenizers` backend for older plain files: BERT's ``vocab.txt``, GPT-2's ``vocab.json`` with ``merges.txt``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, WordPiece

from vocabtransfer.errors import VocabTransferError

_BERT_ROLES = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
_ROBERTA_ROLES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
# Classes whose files look like GPT-2's but whose text is cut in other ways.
_OTHER_BPE = ("CLIP", "Qwen2", "Blenderbot", "Herbert", "OpenAIGPT", "Deberta")


def from_vocab_txt(file: Path, config: Mapping[str, Any]) -> tuple[Tokenizer, dict[str, Any]]:
    """Build BERT's tokenizer from its word list; ``config`` may hold do_lower_case, strip_accents and the like.

    Raises `VocabTransferError` if the list lacks the tokens no BERT tokenizer can do without.
    """
    try:
        backend = Tokenizer(WordPiece.from_file(str(file), unk_token=str(config.get("unk_token") or "[UNK]")))
    except Exception:
        raise VocabTransferError(f"{file} is not a list of tokens, one a line, in UTF-8.") from None
    roles = {role: _content(config.get(role)) or token for role, token in _BERT_ROLES.items()}
    roles = {role: token for role, token in roles.items() if backend.token_to_id(token) is not None}
    unknown = backend.model.unk_token
    if backend.token_to_id(unknown) is None or not {"cls_token", "sep_token"} <= roles.keys():
        raise VocabTransferError(f"{file} lacks {unknown}, [CLS] or [SEP]: it is not a BERT vocabulary.")
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(config.get("tokenize_chinese_chars", True)),
        strip_accents=config.get("strip_accents"),
        lowercase=bool(config.get("do_lower_case", True)),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix=backend.model.continuing_subword_prefix)
    start, end = roles["cls_token"], roles["sep_token"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{start}:0 $A:0 {end}:0",
        pair=f"{start}:0 $A:0 {end}:0 $B:1 {end}:1",
        special_tokens=[(token, backend.token_to_id(token)) for token in (start, end)],
    )
    _add_special(backend, {unknown, *roles.values()})
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return backend, {"unk_token": unknown, "model_input_names": inputs, **roles}


def from_vocab_json(file: Path, config: Mapping[str, Any]) -> tuple[Tokenizer, dict[str, Any]]:
    """Build a byte-level BPE tokenizer from ``vocab.json`` and the ``merges.txt`` beside it, as GPT-2 and RoBERTa do.

    RoBERTa's family is told by its special tokens. Raises `VocabTransferError` if the merges are missing, the files do
    not belong together, or the class in ``config`` cuts text in another way.
    """
    merges = file.with_name("merges.txt")
    if not merges.is_file():
        raise VocabTransferError(f"{file} needs merges.txt beside it, which is missing.")
    name = str(config.get("tokenizer_class") or "")
    if name.startswith(_OTHER_BPE):
        raise VocabTransferError(
            f"{file} belongs to {name}, which splits text in a way these files do not tell: give its tokenizer.json."
        )
    try:
        backend = Tokenizer(BPE.from_file(str(file), str(merges)))
    except Exception as problem:
        raise VocabTransferError(f"{file} and merges.txt do not make a tokenizer ({problem}).") from None
    space = bool(config.get("add_prefix_space", False))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    backend.decoder = decoders.ByteLevel()
    if all(backend.token_to_id(token) is not None for token in _ROBERTA_ROLES.values()):
        roles = _ROBERTA_ROLES
        end, start = ((token, backend.token_to_id(token) or 0) for token in ("</s>", "<s>"))
        backend.post_processor = processors.RobertaProcessing(end, start, trim_offsets=True, add_prefix_space=space)
    else:
        backend.post_processor = processors.ByteLevel(trim_offsets=False)
        known = backend.token_to_id("<|endoftext|>") is not None
        roles = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>") if known else {}
    _add_special(backend, set(roles.values()))
    return backend, dict(roles)


def _content(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def _add_special(backend: Tokenizer, tokens: set[str]) -> None:
    # RoBERTa's <mask> takes the space before it, so that "a <mask>" reads like "a word".
    ordered = sorted(tokens, key=lambda token: backend.token_to_id(token) or 0)
    backend.add_special_tokens([AddedToken(t, lstrip=t == "<mask>", normalized=False, special=True) for t in ordered])
