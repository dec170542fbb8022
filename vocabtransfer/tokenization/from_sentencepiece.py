"""A `tokenizers` backend for a SentencePiece model file (``tokenizer.model``), BPE or Unigram, with the same ids."""

import re
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers
from tokenizers.models import BPE, Unigram

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.sentencepiece_model import new_model

SPACE_MARK = "▁"
# \A and \z: ^ and $ would also match at line breaks, which SentencePiece keeps.
_EDGE_SPACES = r"\A +|[ ▁]+\z"
# Texts that show every habit of a model once: prefix, stripped and repeated spaces, line breaks, fallback to bytes.
_PROBES = ("Hello world", " x", "x ", "x  y   z    x     y", "\tx\n\ny", "é 中文 й اب कि ½", "a🌈", "1234.5", "")
_USER_DEFINED_PROBES = ("a{0}b", "a {0} b", "{0}{0} a")
_UNIGRAM, _BPE = 1, 2
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_ADDED = (_UNKNOWN, _CONTROL, _USER_DEFINED)

# Far below any sum of real scores: the tokens <0xNN> must never be found spelled out in a text.
_UNREACHABLE_SCORE = -10_000.0


def from_sentencepiece(content: bytes, file: Path) -> tuple[Tokenizer, dict[str, Any]]:
    """Build the backend and the settings (roles, whether bos or eos is added) for the bytes of a model file.

    ``file`` names it in messages. The ids are SentencePiece's own: those of a class that renumbers them (XLM-R, NLLB)
    are not the business of this function. Raises `VocabTransferError` for bytes that are no SentencePiece model and
    for model types that have no equal: word and character models, and white space as a suffix.

    A few texts are compared with SentencePiece itself, and models that differ are refused. What remains are corners of
    the underlying library: it may pick another of several equally good Unigram segmentations, and its copy of
    SentencePiece's NFKC tables takes ``\\r\\n`` for one character.
    """
    proto: Any = new_model()
    try:
        proto.ParseFromString(content)
        reference = SentencePieceProcessor(model_proto=content)
        if not proto.pieces:
            raise ValueError("no vocabulary")
    except Exception:
        raise VocabTransferError(f"{file} is not a whole, undamaged SentencePiece model: fetch it again.") from None
    kind, normalizer = proto.trainer_spec.model_type, proto.normalizer_spec
    if (
        kind not in (_UNIGRAM, _BPE)
        or proto.trainer_spec.treat_whitespace_as_suffix
        or not normalizer.escape_whitespaces
    ):
        raise VocabTransferError(
            f"{file} is a SentencePiece model of a kind that is not supported (a word or character model, or one with "
            "white space as a suffix): give a BPE or Unigram model."
        )
    backend = Tokenizer(_unigram_model(proto) if kind == _UNIGRAM else _bpe_model(proto))
    user_defined = [piece.piece for piece in proto.pieces if piece.type == _USER_DEFINED]
    try:
        _add_pipeline(backend, proto, user_defined)
    except Exception as problem:  # the table of characters is built by tokenizers, which raises this
        raise VocabTransferError(f"{file} has a damaged normaliser ({problem}): fetch it again.") from None
    added = [piece for piece in proto.pieces if piece.type in _ADDED]
    backend.add_tokens([_added_token(piece, backend.normalizer) for piece in added])
    _check(backend, reference, user_defined, file)
    return backend, _settings(proto)


def _added_token(piece: Any, normalizer: normalizers.Normalizer) -> AddedToken:
    """Make an added token; user-defined ones are text, which SentencePiece finds after normalisation."""
    is_text = piece.type == _USER_DEFINED
    stable = is_text and normalizer.normalize_str(piece.piece) == piece.piece
    return AddedToken(piece.piece, special=not is_text, normalized=stable)


def _unigram_model(proto: Any) -> Unigram:
    scores = [_UNREACHABLE_SCORE if piece.type == _BYTE else piece.score for piece in proto.pieces]
    pieces = [(piece.piece, score) for piece, score in zip(proto.pieces, scores, strict=True)]
    unknown = next((i for i, piece in enumerate(proto.pieces) if piece.type == _UNKNOWN), None)
    return Unigram(pieces, unk_id=unknown, byte_fallback=proto.trainer_spec.byte_fallback)


def _bpe_model(proto: Any) -> BPE:
    """Turn scores into merges: a pair of pieces joins if its whole is a piece, the highest score first."""
    vocabulary = {piece.piece: i for i, piece in enumerate(proto.pieces)}
    joinable = {p.piece: p.score for p in proto.pieces if p.type in (_NORMAL, _USER_DEFINED, _UNUSED)}
    merges = [
        (-score, vocabulary[left], vocabulary[right], left, right)
        for whole, score in joinable.items()
        for left, right in ((whole[:cut], whole[cut:]) for cut in range(1, len(whole)))
        if left in joinable and right in joinable
    ]
    merges.sort()
    return BPE(
        vocab=vocabulary,
        merges=[(left, right) for *_, left, right in merges],
        unk_token=next((piece.piece for piece in proto.pieces if piece.type == _UNKNOWN), None),
        fuse_unk=True,
        byte_fallback=proto.trainer_spec.byte_fallback,
    )


def _add_pipeline(backend: Tokenizer, proto: Any, user_defined: list[str]) -> None:
    spec = proto.normalizer_spec
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(_EDGE_SPACES), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    end = [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    if spec.add_dummy_prefix:
        end.append(decoders.Strip(" ", 1, 0))
        steps.append(_prefix(user_defined))
    steps.append(normalizers.Replace(" ", SPACE_MARK))
    backend.normalizer = normalizers.Sequence(steps)
    backend.decoder = decoders.Sequence(end)


def _prefix(user_defined: list[str]) -> normalizers.Normalizer:
    """Return the normaliser that puts the dummy prefix before a text.

    A user-defined token is found in the normalised text and so is normalised itself: the prefix passes over a text that
    is nothing but such a token.
    """
    if not user_defined:
        return normalizers.Prepend(SPACE_MARK)
    return normalizers.Replace(Regex(rf"\A(?!(?:{'|'.join(map(re.escape, user_defined))})\z)"), SPACE_MARK)


def _check(backend: Tokenizer, reference: SentencePieceProcessor, user_defined: list[str], file: Path) -> None:
    """Compare with SentencePiece itself: some combinations of options have no equal in the library."""
    around = [probe.format(name) for name in (*user_defined[:4], *user_defined[-4:]) for probe in _USER_DEFINED_PROBES]
    for text in (*_PROBES, *around):
        expected, actual = reference.encode(text), backend.encode(text, add_special_tokens=False).ids
        # Of several Unigram segmentations that are equally good each may pick its own.
        if expected != actual and sorted(expected) != sorted(actual):
            raise VocabTransferError(
                f"{file} splits text in a way that cannot be reproduced exactly (seen on {text!r}): give the "
                "tokenizer.json of this tokenizer instead."
            )


def _settings(proto: Any) -> dict[str, Any]:
    """Return the roles that the model names, and Llama's habit (bos in front) or T5's (no bos, eos behind)."""
    spec, size = proto.trainer_spec, len(proto.pieces)
    numbers = {"unk_token": spec.unk_id, "bos_token": spec.bos_id, "eos_token": spec.eos_id, "pad_token": spec.pad_id}
    roles: dict[str, Any] = {
        role: proto.pieces[i].piece for role, i in numbers.items() if 0 <= i < size and proto.pieces[i].type in _ADDED
    }
    if "bos_token" in roles:
        return {**roles, "add_bos_token": True, "add_eos_token": False}
    return {**roles, "add_bos_token": False, "add_eos_token": "eos_token" in roles}
