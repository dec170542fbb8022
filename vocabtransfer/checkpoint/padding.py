"""Models that count positions from their padding id: another id would shift every position, without any error."""

from collections.abc import Iterator, Mapping
from typing import Any

from vocabtransfer.errors import VocabTransferError

#: Model types whose code reads positions off the padding id: it numbers tokens from padding_idx + 1 (RoBERTa and its
#: kind), or blanks the row of that number in a table of sinusoids (XGLM). A test reads transformers' code for more.
POSITIONS_FROM_PAD = frozenset(
    (
        *("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "roberta-prelayernorm", "data2vec-text", "xmod"),
        *("mpnet", "longformer", "luke", "ibert", "layoutlmv3", "lilt", "markuplm", "esm", "evolla", "prophetnet"),
        *("altclip", "altclip_text_model", "bridgetower", "bridgetower_text_model", "clap", "clap_text_model"),
        *("m2m_100", "nllb-moe", "fsmt", "xglm", "trocr", "speech_to_text", "speecht5", "tipsv2", "tipsv2_text_model"),
        *("kosmos-2", "kosmos_2_text_model", "kosmos-2.5", "kosmos_2_5_text_model"),
        *("seamless_m4t", "seamless_m4t_v2"),
    )
)


def with_padding_defaults(config: Mapping[str, Any], known: Any) -> dict[str, Any]:
    """Write out the padding id wherever a part of the model counts from it and leaves it to its class's default.

    ``known`` is transformers' object of the configuration. Parts of parts are looked at too (a decoder inside a
    vision-encoder-decoder).
    """
    filled = dict(config)
    for key, part in config.items():
        inner = getattr(known, key, None)
        if isinstance(part, Mapping) and hasattr(inner, "to_dict"):
            filled[key] = with_padding_defaults(part, inner)
    kind = config.get("model_type") or getattr(known, "model_type", None)
    if kind in POSITIONS_FROM_PAD:
        filled["model_type"] = kind
    if kind in POSITIONS_FROM_PAD and "pad_token_id" not in filled:
        default = getattr(known, "pad_token_id", None)
        if default is not None:
            filled["pad_token_id"] = default
    return filled


def refuse_moved_padding(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise `VocabTransferError` when the padding id moves in a configuration, or a part of one, that counts from it."""
    for place, kind, before, after in _moved(old, new, ""):
        where = f"its {place!r} of type {kind}" if place else f"a model of type {kind}"
        raise VocabTransferError(
            f"{where} counts positions from its padding id, so the new tokenizer must keep it at {before} (it has {after})."
        )


def _moved(old: Mapping[str, Any], new: Mapping[str, Any], place: str) -> Iterator[tuple[str, str, Any, Any]]:
    kind, before, after = old.get("model_type"), old.get("pad_token_id"), new.get("pad_token_id")
    if kind in POSITIONS_FROM_PAD and before != after:
        yield place, str(kind), before, after
    for key, part in old.items():
        if isinstance(part, Mapping):
            inside = new.get(key)
            yield from _moved(part, inside if isinstance(inside, Mapping) else {}, f"{place}.{key}" if place else key)
