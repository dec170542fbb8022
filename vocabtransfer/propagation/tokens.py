"""The vocabulary of the result: the adapted model's tokens, and behind them those that only the instruct model has."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.tokenization.carry import kept_specials, renumbered_post_processor
from vocabtransfer.tokenization.load import load_tokenizer
from vocabtransfer.tokenization.save import backend_document, save_tokenizer
from vocabtransfer.vocabulary import ROLES, Kind, Scheme, Vocabulary

ADDITIONAL = "additional_special_tokens"


@dataclass(frozen=True, eq=False)
class Joined:
    """A tokenizer that reads text as the adapted model's does and speaks the instruct model's chat format.

    ``appended`` lists the instruct model's tokens that were added behind the adapted ones, in id order; ``missing``
    those that would have been but were not wanted.
    """

    tokenizer: PreTrainedTokenizerFast
    vocabulary: Vocabulary
    appended: tuple[str, ...]
    missing: tuple[str, ...]


def join_tokenizers(
    adapted: PreTrainedTokenizerFast,
    instruct: PreTrainedTokenizerFast,
    *,
    known: Vocabulary | None = None,
    append_missing: bool = True,
) -> Joined:
    """Give the adapted tokenizer the roles, chat template, post-processor and missing tokens of the instruct model's.

    Missing are the instruct model's control tokens that the adapted tokenizer lacks (reserved ones that nothing refers
    to left out), and its added tokens of any kind that are not in ``known``, the base model's vocabulary: those it was
    taught. All ids of the adapted tokenizer stay.

    Raises:
        VocabTransferError: the adapted tokenizer has holes in its ids, so that nothing can be put behind them.
    """
    before, theirs = Vocabulary.from_tokenizer(adapted), Vocabulary.from_tokenizer(instruct)
    document, other = backend_document(adapted), backend_document(instruct)
    missing = _missing_entries(document, other, instruct, theirs, known)
    entries = missing if append_missing else []
    document["added_tokens"] = [*document["added_tokens"], *_numbered(entries, document, len(before))]
    ids = _ids(document)
    processor = _post_processor(other["post_processor"], before.scheme, theirs.scheme)
    if _names(processor) <= ids.keys():
        document["post_processor"] = renumbered_post_processor(processor, ids)
    tokenizer = _with_settings_of(instruct, adapted, document, before.scheme, theirs.scheme)
    _check_ids(adapted, tokenizer, ids)
    names = tuple(entry["content"] for entry in missing)
    new = tuple(name for name in names if ids.get(name, -1) >= len(before))
    return Joined(tokenizer, Vocabulary.from_tokenizer(tokenizer), new, () if append_missing else names)


def taught_rows(
    joined: Vocabulary, adapted_size: int, instruct: Vocabulary, changed: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return, for each token of the result, the row of the instruct model that is taken as it is; -1 for none.

    Those are the tokens behind the adapted ones, and the control tokens whose rows the instruct model changed (chat
    markers, end of turn): what it learnt about them exists nowhere else.

    Args:
        joined: the vocabulary of the result.
        adapted_size: number of ids that the adapted tokenizer has.
        instruct: the instruct model's vocabulary.
        changed: boolean, one an id of ``instruct``: rows that differ from the base model's, or that it has not.
    """
    places = {instruct.strings[i]: i for i in np.flatnonzero(instruct.kinds != Kind.HOLE).tolist()}
    taken = np.full(len(joined), -1, np.int64)
    special = set(np.flatnonzero(joined.kinds == Kind.SPECIAL).tolist())
    for i in sorted(special | set(range(adapted_size, len(joined)))):
        place = places.get(joined.strings[i], -1)
        if place >= 0 and (i >= adapted_size or changed[place]):
            taken[i] = place
    return taken


def _missing_entries(
    document: Mapping[str, Any],
    other: Mapping[str, Any],
    instruct: PreTrainedTokenizerFast,
    theirs: Vocabulary,
    known: Vocabulary | None,
) -> list[dict[str, Any]]:
    """Return the entries of tokenizer.json, without ids, of the tokens to append, in the instruct model's order."""
    have = {entry["content"] for entry in document["added_tokens"]}
    base = set(known.strings) if known is not None else set(theirs.strings)
    specials = kept_specials(instruct, other, keep_reserved=False)
    kind = dict(zip(theirs.strings, theirs.kinds.tolist(), strict=True))
    roles = {str(token) for token in instruct.special_tokens_map.values()}
    return [
        {**special.entry, "special": special.entry["special"] or special.content in roles}
        for special in (*specials.leading, *specials.trailing)
        if special.entry is not None
        and special.content not in have
        and (kind[special.content] == Kind.SPECIAL or special.content not in base)
    ]


def _numbered(entries: list[dict[str, Any]], document: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """Put ids to the entries: the next free ones, except for texts that the vocabulary has already."""
    ids = _ids(document)
    numbered = []
    for entry in entries:
        i = ids.get(entry["content"])
        numbered.append({**entry, "id": count if i is None else i})
        count += i is None
    return numbered


def _ids(document: Mapping[str, Any]) -> dict[str, int]:
    vocab = document["model"]["vocab"]
    ids = {piece: i for i, (piece, _) in enumerate(vocab)} if isinstance(vocab, list) else dict(vocab)
    return ids | {entry["content"]: entry["id"] for entry in document["added_tokens"]}


def _post_processor(processor: Any, mine: Scheme, theirs: Scheme) -> Any:
    """Return the instruct model's post-processor without the part that trims byte-level offsets, if that is foreign."""
    if mine is theirs or not isinstance(processor, dict):
        return processor
    if processor["type"] == "ByteLevel":
        return None
    if "processors" in processor:
        parts = [_post_processor(part, mine, theirs) for part in processor["processors"]]
        kept = [part for part in parts if part is not None]
        return {**processor, "processors": kept} if kept else None
    return processor


def _names(processor: Any) -> set[str]:
    """Return the tokens that a post-processor puts around a text."""
    if not isinstance(processor, dict):
        return set()
    names = {token for special in processor.get("special_tokens", {}).values() for token in special["tokens"]}
    names |= {processor[edge][0] for edge in ("cls", "sep") if edge in processor}
    return names.union(*(_names(part) for part in processor.get("processors", ())))


def _with_settings_of(
    instruct: PreTrainedTokenizerFast,
    adapted: PreTrainedTokenizerFast,
    document: dict[str, Any],
    mine: Scheme,
    theirs: Scheme,
) -> PreTrainedTokenizerFast:
    """Load the document with the files that the instruct model's tokenizer is saved with beside it."""
    tokens = _ids(document).keys()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        save_tokenizer(instruct, home)
        config = json.loads((home / "tokenizer_config.json").read_text(encoding="utf-8"))
        for role in ROLES:
            token = config.get(role)
            if token is None or token not in tokens:
                config[role] = getattr(adapted, role, None) if token is not None or role == "unk_token" else None
        for name, token in list(config.items()):
            if name.endswith("_token") and isinstance(token, str) and token not in tokens:
                del config[name]
        config[ADDITIONAL] = [token for token in config.get(ADDITIONAL, ()) if token in tokens]
        if mine is not theirs:
            config["clean_up_tokenization_spaces"] = mine is Scheme.WORDPIECE
        for name in ("add_bos_token", "add_eos_token"):
            config.pop(name, None)  # what the post-processor does is right as it is
        _write(home / "tokenizer_config.json", config)
        _write(home / "special_tokens_map.json", {})
        _write(home / "tokenizer.json", document)
        return load_tokenizer(home)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8", newline="\n")


def _check_ids(adapted: PreTrainedTokenizerFast, joined: PreTrainedTokenizerFast, wanted: Mapping[str, int]) -> None:
    before, after = adapted.get_vocab(), joined.get_vocab()
    moved = sorted(token for token, i in before.items() if after.get(token) != i)
    moved += sorted(token for token in after.keys() - before.keys() if after[token] != wanted.get(token))
    if moved:
        raise VocabTransferError(
            f"the adapted tokenizer has holes in its ids, so {moved[0]!r} of the instruct model cannot be put behind "
            "them: save it without holes, or keep its tokens as they are (append_missing off)."
        )
