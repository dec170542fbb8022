"""Added tokens that a model's table has no row for: left out of the tokenizer, as no id of theirs can be read."""

import json
from collections.abc import Collection

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast


def without_tokens(tokenizer: PreTrainedTokenizerFast, dropped: Collection[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer without some of its added tokens, which text spells in pieces from then on; ids stay."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["added_tokens"] = [entry for entry in state["added_tokens"] if entry["content"] not in dropped]
    settings = {
        key: value for key, value in tokenizer.init_kwargs.items() if key not in ("backend", "tokenizer_object")
    }
    settings["added_tokens_decoder"] = {}
    extra = settings.get("extra_special_tokens") or []
    settings["extra_special_tokens"] = [token for token in extra if str(token) not in dropped]
    named = settings.get("model_specific_special_tokens") or {}
    settings["model_specific_special_tokens"] = {k: v for k, v in named.items() if str(v) not in dropped}
    if tokenizer.chat_template is not None:
        settings["chat_template"] = tokenizer.chat_template
    smaller = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), **settings)
    smaller.name_or_path = tokenizer.name_or_path
    return smaller
