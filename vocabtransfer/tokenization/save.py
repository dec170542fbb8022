"""Write a tokenizer to a folder so that every loader reads the same ids back."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.models.auto import tokenization_auto

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.whole import write_whole
from vocabtransfer.tokenization.to_sentencepiece import is_ours, sentencepiece_model

# The class that takes tokenizer.json as it is. Any other class (Qwen2TokenizerFast, LlamaTokenizerFast ...) rebuilds
# the pre-tokenizer or post-processor from its own defaults and so changes ids without a word.
TOKENIZER_CLASS = "PreTrainedTokenizerFast"

# Files of other formats that some loaders prefer to tokenizer.json (Mistral's loader takes tekken.json first).
RIVAL_FILES = (
    "tekken.json",
    "tokenizer.model",
    "tokenizer.model.v3",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "added_tokens.json",
)

#: What older tools and engines look for; only what this function wrote there is ever replaced.
SENTENCEPIECE_FILE = "tokenizer.model"

_ATTRIBUTES = (
    "model_max_length",
    "padding_side",
    "truncation_side",
    "clean_up_tokenization_spaces",
    "model_input_names",
    "split_special_tokens",
    "response_template",
    "chat_control_tokens",
)
# Written even when empty: some classes of transformers fill a missing one with a token of their own.
_ROLES_ALWAYS_WRITTEN = ("bos_token", "eos_token", "pad_token", "unk_token")
_KEPT_SETTINGS = ("spaces_between_special_tokens", "vocabtransfer_notes")


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: str | Path) -> list[str]:
    """Write ``tokenizer`` into ``folder`` (made if missing) and return the names of the files written, sorted.

    The files are tokenizer.json, tokenizer_config.json, special_tokens_map.json and, when there is a chat template,
    chat_template.jinja (named extra templates go to additional_chat_templates/); tokenizer.model, too, where SentencePiece
    gives the same ids from it. The same tokenizer gives the same
    bytes. Truncation and padding set on the object by earlier calls are not saved.

    Raises:
        VocabTransferError: the folder holds the vocabulary of another tokenizer in a format that loaders may prefer,
            or cannot be written.
    """
    folder = Path(folder)
    rivals = [name for name in RIVAL_FILES if (folder / name).exists() and not _is_ours(folder / name)]
    if rivals:
        raise VocabTransferError(
            f"{folder} holds {rivals[0]} of another tokenizer, which some loaders would read instead: "
            "save into another folder or remove that file first."
        )
    document = _with_special_roles(backend_document(tokenizer), tokenizer)
    contents: dict[str, str | bytes] = {
        "tokenizer.json": _dump(document),
        "tokenizer_config.json": _dump(_config(tokenizer)),
        "special_tokens_map.json": _dump(_special_tokens_map(tokenizer)),
        **_chat_templates(tokenizer),
    }
    pieces = sentencepiece_model(tokenizer, document)
    if pieces is not None:
        contents[SENTENCEPIECE_FILE] = pieces
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            write_whole(folder / name, text)
        if "chat_template.jinja" not in contents:
            (folder / "chat_template.jinja").unlink(missing_ok=True)
        if pieces is None:  # one of ours, of the vocabulary before
            (folder / SENTENCEPIECE_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise VocabTransferError(f"The tokenizer cannot be written to {folder}: {error.strerror or error}.") from error
    return sorted(contents)


def _is_ours(file: Path) -> bool:
    return file.name == SENTENCEPIECE_FILE and file.is_file() and is_ours(file.read_bytes())


def backend_document(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return tokenizer.json as a dictionary, without truncation and padding, in one fixed order of keys."""
    document: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    document["truncation"] = None
    document["padding"] = None
    document["post_processor"] = _ordered(document["post_processor"])
    return document


def fixed_tokenizer_class(model_type: str) -> str | None:
    """Return the class with which AutoTokenizer reads a folder with this ``model_type`` whatever its files say.

    None for nearly all models. The exceptions ("qwen2" above all) rebuild normaliser and pre-tokenizer from their own
    code, so that a tokenizer with other rules, such as one with repaired marks, is read with wrong ids beside them.
    """
    overridden: Collection[str] = getattr(tokenization_auto, "MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS", ())
    name: str | None = tokenization_auto.TOKENIZER_MAPPING_NAMES.get(model_type)
    generic = (None, "TokenizersBackend", "PreTrainedTokenizerFast")
    return name if model_type in overridden and name not in generic else None


def _with_special_roles(document: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Call tokens with a role special, as loading does it anyway (Gemma's mask is not, in its file)."""
    roles = {str(token) for token in tokenizer.special_tokens_map.values()}
    for entry in document["added_tokens"]:
        entry["special"] = entry["special"] or entry["content"] in roles
    return document


def _ordered(processor: Any) -> Any:
    """Sort the special-token table of template processors: the library keeps it in a hash map."""
    if not isinstance(processor, dict):
        return processor
    processor = dict(processor)
    if "processors" in processor:
        processor["processors"] = [_ordered(part) for part in processor["processors"]]
    if isinstance(processor.get("special_tokens"), dict):
        processor["special_tokens"] = dict(sorted(processor["special_tokens"].items()))
    return processor


def _config(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return the contents of tokenizer_config.json: settings that matter for a PreTrainedTokenizerFast, no others."""
    config: dict[str, Any] = {name: getattr(tokenizer, name, None) for name in _ATTRIBUTES}
    config.update({name: tokenizer.init_kwargs.get(name) for name in _KEPT_SETTINGS})
    config["processor_class"] = getattr(tokenizer, "_processor_class", None)
    config = {name: value for name, value in config.items() if value is not None}
    config.update(dict.fromkeys(_ROLES_ALWAYS_WRITTEN))
    config.update({role: str(token) for role, token in tokenizer.special_tokens_map.items() if isinstance(token, str)})
    # This older name of the list is the one that both transformers 4 and 5 read.
    extra = [str(token) for token in tokenizer.extra_special_tokens]
    if extra:
        config["additional_special_tokens"] = extra
    config.update(_edge_tokens(tokenizer))
    config["tokenizer_class"] = TOKENIZER_CLASS
    return config


def _edge_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, bool]:
    """Say whether encoding adds bos and eos, as the post-processor really does it: converters read these two keys."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    ids = tokenizer.backend_tokenizer.encode("").ids
    settings = {}
    if bos is not None:
        settings["add_bos_token"] = bool(ids) and ids[0] == bos
    if eos is not None:
        # A tokenizer whose bos is also its eos adds one token to empty text: that one is the bos.
        settings["add_eos_token"] = len(ids) > settings.get("add_bos_token", False) and ids[-1] == eos
    return settings


def _special_tokens_map(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return the roles; tokens that swallow neighbouring spaces are written with their flags, the others as text."""
    flags = {str(token): token for token in tokenizer.added_tokens_decoder.values()}

    def entry(content: str) -> Any:
        token = flags.get(content)
        if token is None or not (token.lstrip or token.rstrip or token.single_word or token.normalized):
            return content
        return {
            "content": content,
            "lstrip": token.lstrip,
            "normalized": token.normalized,
            "rstrip": token.rstrip,
            "single_word": token.single_word,
        }

    roles = tokenizer.SPECIAL_TOKENS_ATTRIBUTES
    return {role: entry(str(token)) for role, token in tokenizer.special_tokens_map.items() if role in roles}


def _chat_templates(tokenizer: PreTrainedTokenizerFast) -> dict[str, str]:
    template = tokenizer.chat_template
    if not template:
        return {}
    if isinstance(template, str):
        return {"chat_template.jinja": template}
    files = {f"additional_chat_templates/{name}.jinja": text for name, text in template.items() if name != "default"}
    if "default" in template:
        files["chat_template.jinja"] = template["default"]
    return files


def _dump(value: Any) -> str:
    keys_sorted = not isinstance(value.get("model"), dict)  # tokenizer.json keeps the library's own order
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=keys_sorted) + "\n"
