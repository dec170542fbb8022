"""What a new tokenizer can spell, and whether text comes back out of it as it went in."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import VocabTransferError

SAMPLE_WORDS = 50_000
SHOWN = 3
#: A character that no vocabulary has as a token: whether it can be spelled tells whether everything can.
RARE = "\U000f1234"


def unspelled_notes(tokenizer: PreTrainedTokenizerFast, words: Mapping[str, float]) -> tuple[str, ...]:
    """Say what share of a language's running words a vocabulary without bytes cannot spell; nothing if it spells all.

    Unigram vocabularies (XLM-R, T5, NLLB) and WordPiece have an unknown token in place of bytes to fall back on.
    """
    if not _has_unknown(tokenizer, [RARE])[0]:
        return ()
    frequent = sorted(words, key=lambda word: (-words[word], word))[:SAMPLE_WORDS]
    lost = [word for word, is_lost in zip(frequent, _has_unknown(tokenizer, frequent), strict=True) if is_lost]
    said = "The vocabulary has no bytes to fall back on: characters that it lacks become the unknown token"
    if not lost:
        return (f"{said}; every word of the text can be spelled.",)
    share = sum(words[word] for word in lost) / sum(words[word] for word in frequent)
    return (f"{said}, in {_percent(share)} of the text's words (such as {', '.join(map(repr, lost[:SHOWN]))}).",)


def check_round_trips(tokenizer: Any, texts: Sequence[str]) -> None:
    """Check that text survives a tokenizer, but for what its normaliser changes and its vocabulary cannot spell.

    Raises:
        VocabTransferError: a text comes back as another one.
    """
    if type(tokenizer.backend_tokenizer.model).__name__ == "WordPiece":
        return  # it never gives back the spaces
    added = list(tokenizer.get_added_vocab())
    for text, is_lost in zip(texts, _has_unknown(tokenizer, texts), strict=True):
        back = str(tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)))
        # What follows an added token gets a space of its own from some (ALBERT, whose brackets are added tokens).
        plain = _spaceless if any(token in text for token in added) else _plain
        if not is_lost and plain(back) not in (plain(text), plain(_normalised(tokenizer, text))):
            raise VocabTransferError(f"The new tokenizer turns {text!r} into {back!r}, so nothing was written.")


def _has_unknown(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[bool]:
    backend = tokenizer.backend_tokenizer
    named = backend.token_to_id(getattr(backend.model, "unk_token", None) or "")
    unknown = {tokenizer.unk_token_id, named, getattr(backend.model, "unk_id", None)} - {None}
    encodings = backend.encode_batch_fast(list(texts), add_special_tokens=False)
    return [not unknown.isdisjoint(encoding.ids) for encoding in encodings]


def _normalised(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    normalizer = tokenizer.backend_tokenizer.normalizer
    return str(normalizer.normalize_str(text)) if normalizer is not None else text


def _plain(text: str) -> str:
    """Return a text without what SentencePiece does to spaces: its mark for them, and several that became one."""
    return " ".join(text.replace("▁", " ").split())


def _spaceless(text: str) -> str:
    return _plain(text).replace(" ", "")


def _percent(share: float) -> str:
    return "less than 0.01 %" if share < 1e-4 else f"{share:.2%}".replace("%", " %")
