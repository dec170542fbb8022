"""The part of a model's settings that belongs to the vocabulary, and so to a head instead of the backbone."""

from collections.abc import Mapping
from typing import Any

from vocabtransfer.checkpoint.settings import (
    ID_LISTS,
    ID_SUFFIXES,
    ID_TABLES,
    OTHER_INPUTS,
    SEQUENCE_LISTS,
    SIZE_KEYS,
)

WHOLE_KEYS = ("tie_word_embeddings", "forced_decoder_ids", "sequence_bias", "vocabtransfer")
VOCABULARY_KEYS = frozenset({*SIZE_KEYS, *ID_LISTS, *ID_TABLES, *SEQUENCE_LISTS, *WHOLE_KEYS})


def is_vocabulary_key(key: str) -> bool:
    """Tell whether a key of config.json or generation_config.json holds sizes or ids of a vocabulary.

    >>> is_vocabulary_key("eos_token_id"), is_vocabulary_key("hidden_size")
    (True, False)
    """
    return key in VOCABULARY_KEYS or key.endswith(ID_SUFFIXES)


def vocabulary_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what config.json says about the vocabulary: the same nesting, all other keys left out."""
    values: dict[str, Any] = {}
    for key, value in config.items():
        if is_vocabulary_key(key):
            values[key] = value
        elif isinstance(value, Mapping) and key not in OTHER_INPUTS and (nested := vocabulary_values(value)):
            values[key] = nested
    return values


def with_values(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config.json that speaks of another vocabulary: the opposite of `vocabulary_values`."""
    result: dict[str, Any] = {}
    for key, value in config.items():
        if is_vocabulary_key(key):
            continue
        nested = values.get(key, {})
        is_section = isinstance(value, Mapping) and key not in OTHER_INPUTS
        result[key] = with_values(value, nested if isinstance(nested, Mapping) else {}) if is_section else value
    result.update({key: value for key, value in values.items() if is_vocabulary_key(key)})
    return result


def resized(config: Mapping[str, Any], old_rows: int, rows: int) -> dict[str, Any]:
    """Return a config.json with another vocabulary size, wherever the old one stood, and the same ids."""
    result: dict[str, Any] = {}
    for key, value in config.items():
        if key in SIZE_KEYS and value == old_rows:
            result[key] = rows
        elif isinstance(value, Mapping) and key not in OTHER_INPUTS:
            result[key] = resized(value, old_rows, rows)
        else:
            result[key] = value
    return result


def set_values(config: Any, values: Mapping[str, Any]) -> None:
    """Change a transformers config object so that it speaks of a head's vocabulary; in place.

    Ids that the head does not have become None, or -1 where the class insists on a number, so that none of another
    vocabulary is left.
    """
    for key in [key for key in vars(config) if key.endswith(ID_SUFFIXES) and key not in values]:
        try:
            setattr(config, key, None)
        except Exception:  # huggingface_hub's own kinds
            setattr(config, key, -1)
    for key, value in values.items():
        if is_vocabulary_key(key):
            setattr(config, key, value)
        elif isinstance(value, Mapping) and hasattr(getattr(config, key, None), "to_dict"):
            set_values(getattr(config, key), value)
