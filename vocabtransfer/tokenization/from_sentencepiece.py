"""A `tokenizers` backend for a SentencePiece model file (``tokenizer.model``), BPE or Unigram, with the same ids."""

from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram

from vocabtransfer.errors import VocabTransferError

SPACE_MARK = "▁"
# \A and \z: ^ and $ would also match at line breaks, which SentencePiece keeps.
EDGE_SPACES = r"\A +| +\z"
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
    """
    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # made by protobuf at import
    try:
        proto.ParseFromString(content)
    except Exception:
        raise VocabTransferError(f"{file} is not a SentencePiece model: give a whole, undamaged file.") from None
    if not proto.pieces:
        raise VocabTransferError(f"{file} holds no vocabulary: give a whole, undamaged SentencePiece model.")
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
    _add_pipeline(backend, proto)
    backend.add_tokens([_added_token(piece) for piece in proto.pieces if piece.type in _ADDED])
    return backend, _settings(proto)


def _added_token(piece: Any) -> AddedToken:
    # A user-defined run of spaces can only be seen after spaces became marks, the others only before normalisation.
    is_text = piece.type == _USER_DEFINED
    return AddedToken(piece.piece, special=not is_text, normalized=is_text and SPACE_MARK in piece.piece)


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


def _add_pipeline(backend: Tokenizer, proto: Any) -> None:
    spec = proto.normalizer_spec
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(EDGE_SPACES), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    end = [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    if spec.add_dummy_prefix:
        end.append(decoders.Strip(" ", 1, 0))
        if any(piece.type == _USER_DEFINED for piece in proto.pieces):
            # A normaliser sees each stretch between added tokens by itself and would prefix them all; a pre-tokenizer
            # can prefix the start of the text alone. The first one prefixes always, marks being no spaces to it.
            first = pre_tokenizers.Metaspace(replacement=" ", prepend_scheme="first", split=False)
            second = pre_tokenizers.Metaspace(replacement=SPACE_MARK, prepend_scheme="never", split=False)
            backend.pre_tokenizer = pre_tokenizers.Sequence([first, second])
        else:
            steps.append(normalizers.Prepend(SPACE_MARK))
    steps.append(normalizers.Replace(" ", SPACE_MARK))
    backend.normalizer = normalizers.Sequence(steps)
    backend.decoder = decoders.Sequence(end)


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
