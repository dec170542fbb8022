"""What a model does, seen from the class that config.json names and not from what the class is called."""

import inspect
from collections.abc import Mapping
from typing import Any

from vocabtransfer.checkpoint.layout import model_config

# For classes that transformers does not know (a model that brings code of its own): what such names mean.
GENERATIVE = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "WithLMHead", "EncoderDecoderModel")
CAUSAL = ("ForCausalLM", "LMHeadModel")


def model_class(config: Mapping[str, Any]) -> Any | None:
    """Return the transformers class that ``architectures`` names first; None for one that transformers lacks."""
    import transformers

    names = config.get("architectures")
    name = next(iter(names), None) if isinstance(names, list) else None
    found = getattr(transformers, name, None) if isinstance(name, str) else None
    return found if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel) else None


def opener(config: Mapping[str, Any]) -> Any:
    """Return what opens a model: the class that config.json names, else transformers' for its body or for causal models."""
    import transformers

    return model_class(config) or (
        transformers.AutoModelForCausalLM if continues_text(config) else transformers.AutoModel
    )


def made_from_config(config: Mapping[str, Any], known: Any, **options: Any) -> Any:
    """Return a model without its weights: of the class that config.json names, or a causal one.

    ``known`` is transformers' object of the configuration; ``options`` are those of ``from_config`` (``dtype`` ...).
    """
    import transformers

    found = model_class(config)
    make = transformers.AutoModelForCausalLM.from_config if found is None else found._from_config
    return make(known, **options)


def generates(config: Mapping[str, Any]) -> bool:
    """Tell whether a model writes text: causal, encoder-decoder, with or without eyes and ears; False for encoders."""
    found = model_class(config)
    if found is not None:
        return bool(found.can_generate())
    return any(mark in name for name in _names(config) for mark in GENERATIVE)


def continues_text(config: Mapping[str, Any]) -> bool:
    """Tell whether a model goes on with a text by itself: it generates, from tokens, without an encoder before it."""
    found = model_class(config)
    if found is None:
        return any(name.endswith(CAUSAL) for name in _names(config)[:1])
    return generates(config) and found.main_input_name == "input_ids" and not is_encoder_decoder(config)


def generates_from_rows(config: Mapping[str, Any]) -> bool:
    """Tell whether a model's ``generate`` takes rows of embeddings in place of tokens; True for a class not known."""
    found = model_class(config)
    if found is None:
        return True
    return "inputs_embeds" in inspect.signature(found.prepare_inputs_for_generation).parameters


def is_encoder_decoder(config: Mapping[str, Any]) -> bool:
    """Tell whether a model reads with one stack and writes with another, by config.json or its class's default."""
    stated = config.get("is_encoder_decoder")
    return bool(stated if stated is not None else getattr(model_config(config), "is_encoder_decoder", False))


def _names(config: Mapping[str, Any]) -> list[str]:
    names = config.get("architectures")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
