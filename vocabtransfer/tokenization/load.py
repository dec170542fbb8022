"""Open a tokenizer from a local file or folder, whatever format it is in, without changing a single id.

transformers' own classes rebuild parts of a tokenizer from their defaults (the normaliser of a Llama, the pre-tokenizer
of a Qwen), which silently changes ids. Here the backend is exactly what the file says, in a plain
`PreTrainedTokenizerFast`; roles, chat template and settings come from the files beside it.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AddedToken, PreTrainedTokenizerFast

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.json_files import parse_json
from vocabtransfer.public import public
from vocabtransfer.tokenization.from_ranks import from_tekken, from_tiktoken, looks_like_tiktoken
from vocabtransfer.tokenization.from_sentencepiece import from_sentencepiece
from vocabtransfer.tokenization.from_vocab_files import from_vocab_json, from_vocab_txt
from vocabtransfer.tokenization.gaps import check_gaps
from vocabtransfer.vocabulary import ROLES

# In order of preference: the first one found in a folder is the tokenizer.
VOCABULARY_FILES = (
    "tokenizer.json",
    "tekken.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "spm.model",
    "tokenizer.model.v*",
    "*.model.v*",
    "*.model",
    "*.tiktoken",
    "vocab.json",
    "vocab.txt",
)

_PASSED_ON = (
    "model_max_length",
    "padding_side",
    "truncation_side",
    "clean_up_tokenization_spaces",
    "model_input_names",
    "split_special_tokens",
    "spaces_between_special_tokens",
    "response_template",
    "chat_control_tokens",
    "processor_class",
    "vocabtransfer_notes",
)
_EDGES = ("add_bos_token", "add_eos_token")


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_side(value: Any) -> bool:
    return value in ("left", "right")


#: What a setting may be, where something goes by it.
_KINDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(
        ("clean_up_tokenization_spaces", "split_special_tokens", "spaces_between_special_tokens"), _is_flag
    ),
    **dict.fromkeys(_EDGES, _is_flag),
    "processor_class": lambda value: isinstance(value, str),
    "model_max_length": lambda value: type(value) in (int, float) and value > 0,
    "padding_side": _is_side,
    "truncation_side": _is_side,
    "model_input_names": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
}

# Classes that leave the ids of a SentencePiece model as they are; all others that transformers knows renumber them.
_PLAIN_SENTENCEPIECE = ("Llama", "CodeLlama", "Gemma", "T5", "MT5", "UMT5")


@public
def load_tokenizer(path: str | Path) -> PreTrainedTokenizerFast:
    """Open the tokenizer in a folder or file; nothing is downloaded.

    Accepted are ``tokenizer.json``, SentencePiece models (BPE or Unigram), ``tekken.json``, ``*.tiktoken`` of known
    families, ``vocab.json`` with ``merges.txt`` and ``vocab.txt``. The files beside it (``tokenizer_config.json``,
    ``special_tokens_map.json``, ``added_tokens.json``, ``chat_template.jinja``) give roles, added tokens, chat
    template and settings. A ``tokenizer.json`` is taken as it is, except that truncation, padding and dropout stored
    in it are switched off: encoding gives all of a text, always the same.

    Raises `VocabTransferError`, naming the file, if there is no tokenizer or it is damaged or of an unsupported kind.
    """
    path = Path(path)
    file = _vocabulary_file(path)
    folder = file.parent
    # A file under another name, say one of several in a folder, does not own the settings that lie there.
    owns_folder = path.is_dir() or any(file.match(name) for name in VOCABULARY_FILES if "*" not in name)
    config = _read_json(folder / "tokenizer_config.json") if owns_folder else {}
    names = _read_json(folder / "special_tokens_map.json") if owns_folder else {}
    listed = _listed_tokens(folder, config) if owns_folder else {}

    backend, defaults = _backend(file, config, listed)
    settings = {**defaults, **_settings(config, names, listed, _class_name(folder, config), backend)}
    if owns_folder and (template := _chat_template(folder, config)):
        settings["chat_template"] = template
    settings["added_tokens_decoder"] = {i: t for i, t in listed.items() if backend.token_to_id(str(t)) is None}
    _drop_needless_edges(settings, backend)
    try:
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=_Borrowed(backend), **settings)
    except (TypeError, ValueError, AttributeError) as problem:
        raise VocabTransferError(f"the settings beside {file} cannot be used ({problem}).") from None
    tokenizer.name_or_path = str(folder)
    _check_ids(tokenizer, listed, file)
    check_gaps(tokenizer, file)
    return tokenizer


class _Borrowed:
    """Hands a backend over as it is, where the constructor would deep-copy it: seconds on a large vocabulary."""

    def __init__(self, backend: Tokenizer) -> None:
        self.backend = backend

    def __deepcopy__(self, memo: dict[int, Any]) -> Tokenizer:
        return self.backend


def _vocabulary_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise VocabTransferError(f"{path} does not exist: give a local folder with a tokenizer, or its file.")
    for pattern in VOCABULARY_FILES:
        found = sorted(file for file in path.glob(pattern) if file.is_file())
        if found:
            return found[0]
    raise VocabTransferError(
        f"{path} holds no tokenizer: there is no tokenizer.json, tokenizer.model, tekken.json, *.tiktoken, vocab.json "
        "or vocab.txt in it."
    )


def _backend(
    file: Path, config: Mapping[str, Any], listed: Mapping[int, AddedToken]
) -> tuple[Tokenizer, dict[str, Any]]:
    """Build the backend from the file's content, whatever its name, with the settings the file itself implies."""
    try:
        content = file.read_bytes()
    except OSError as problem:
        raise VocabTransferError(f"{file} cannot be read: {problem.strerror}.") from None
    if content[:1].lstrip() == b"{" or file.suffix == ".json":
        return _from_json(content, file, config)
    if file.suffix == ".txt":
        return from_vocab_txt(file, config)
    if looks_like_tiktoken(content):
        return from_tiktoken(content, file, {str(token): i for i, token in listed.items()})
    class_name = str(config.get("tokenizer_class") or "")
    if _renumbers(class_name):
        raise VocabTransferError(
            f"{file} belongs to a {class_name}, which renumbers SentencePiece's ids: save that tokenizer once with "
            "transformers to get its tokenizer.json."
        )
    backend, settings = from_sentencepiece(content, file)
    if "T5" in class_name:
        # T5 puts its sentinels behind the model's pieces, the last one first.
        count = int(config.get("extra_ids", 100))
        sentinels = [f"<extra_id_{i}>" for i in reversed(range(count))]
        backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in sentinels])
    return backend, settings


def _renumbers(class_name: str) -> bool:
    from transformers.convert_slow_tokenizer import SLOW_TO_FAST_CONVERTERS

    base = class_name.removesuffix("Fast")
    known = any(name.removesuffix("Fast") == base for name in SLOW_TO_FAST_CONVERTERS)
    return known and base.removesuffix("Tokenizer") not in _PLAIN_SENTENCEPIECE


def _from_json(content: bytes, file: Path, config: Mapping[str, Any]) -> tuple[Tokenizer, dict[str, Any]]:
    try:
        document = parse_json(content)
    except ValueError as problem:
        raise VocabTransferError(f"{file} is not valid JSON ({problem}): fetch or save it again.") from None
    if isinstance(document, dict) and isinstance(document.get("config"), dict) and "vocab" in document:
        return from_tekken(content, file)
    if isinstance(document, dict) and document and all(isinstance(value, int) for value in document.values()):
        return from_vocab_json(file, config)
    if not isinstance(document, dict) or not isinstance(document.get("model"), dict):
        raise VocabTransferError(f"{file} is no tokenizer: it has no model in it.")
    padding = document.get("padding") or {}
    try:
        backend = Tokenizer.from_buffer(content)
    except Exception as problem:
        raise VocabTransferError(f"{file} is not a tokenizer that can be opened ({problem}).") from None
    backend.no_truncation()
    backend.no_padding()
    if getattr(backend.model, "dropout", None):
        backend.model.dropout = None
    return backend, {"pad_token": padding["pad_token"]} if "pad_token" in padding else {}


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        document = parse_json(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as problem:
        raise VocabTransferError(f"{file} cannot be read as JSON ({problem}): fetch or save it again.") from None
    if not isinstance(document, dict):
        raise VocabTransferError(f"{file} should hold one JSON object.")
    return document


def _listed_tokens(folder: Path, config: Mapping[str, Any]) -> dict[int, AddedToken]:
    """Return the added tokens that tokenizer_config.json or, in older folders, added_tokens.json gives ids to."""
    try:
        if "added_tokens_decoder" in config:
            found = {int(i): _token(entry) for i, entry in config["added_tokens_decoder"].items()}
        else:
            plain = _read_json(folder / "added_tokens.json")
            found = {int(i): AddedToken(text, normalized=False) for text, i in plain.items()}
    except (TypeError, ValueError, KeyError, AttributeError):
        raise VocabTransferError(f"the added tokens listed in {folder} are damaged: fetch or save it again.") from None
    return dict(sorted(found.items()))


def _token(entry: Any) -> AddedToken:
    if isinstance(entry, str):
        return AddedToken(entry, normalized=False, special=True)
    flags = {name: bool(entry[name]) for name in ("lstrip", "rstrip", "normalized", "single_word") if name in entry}
    return AddedToken(entry["content"], special=bool(entry.get("special", True)), **flags)


def _class_name(folder: Path, config: Mapping[str, Any]) -> str:
    """Return the class that the folder's files name; the model type of config.json stands in for it."""
    if config.get("tokenizer_class"):
        return str(config["tokenizer_class"])
    model = _read_json(folder / "config.json") if config else {}
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    return str(model.get("tokenizer_class") or TOKENIZER_MAPPING_NAMES.get(str(model.get("model_type"))) or "")


def _settings(
    config: Mapping[str, Any],
    names: Mapping[str, Any],
    listed: Mapping[int, AddedToken],
    class_name: str,
    backend: Tokenizer,
) -> dict[str, Any]:
    """Return the constructor's arguments for roles, further special tokens and settings."""
    # As in transformers: files that list added tokens are newer, and their config has the last word on roles.
    roles = {**names, **config} if "added_tokens_decoder" in config else {**config, **names}
    flags = {str(token): token for token in listed.values()}

    def token(entry: Any) -> str | AddedToken:
        text = entry if isinstance(entry, str) else entry["content"]
        if text in known:  # already an added token: its flags stay
            return str(text)
        return flags.get(text) or _token(entry)

    known = {added.content for added in backend.get_added_tokens_decoder().values()}
    try:
        settings: dict[str, Any] = {role: token(roles[role]) for role in ROLES if roles.get(role)}
        extra = roles.get("extra_special_tokens") or roles.get("additional_special_tokens") or []
        named = dict(extra) if isinstance(extra, dict) else {}
        # Roles of a model's own, such as Gemma's image_token.
        named.update(
            {k: v for k, v in config.items() if k.endswith("_token") and isinstance(v, str) and k not in ROLES}
        )
        settings["model_specific_special_tokens"] = {name: token(entry) for name, entry in named.items()}
        settings["extra_special_tokens"] = [] if isinstance(extra, dict) else [token(entry) for entry in extra]
    except (TypeError, KeyError):
        raise VocabTransferError(
            "tokenizer_config.json or special_tokens_map.json has a damaged special token."
        ) from None
    granted = _class_settings(class_name)
    for name in (*ROLES, *_PASSED_ON):
        value = granted.get(name)
        if name not in roles and (name not in ROLES or backend.token_to_id(str(value)) is not None):
            settings[name] = value
    given = {name: config[name] for name in (*_PASSED_ON, *_EDGES) if config.get(name) is not None}
    for name, value in given.items():
        if name in _KINDS and not _KINDS[name](value):
            raise VocabTransferError(f"tokenizer_config.json: {name!r} cannot be {value!r:.60}: correct it.")
    settings.update(given)
    return {name: value for name, value in settings.items() if value is not None}


def _class_settings(class_name: str) -> dict[str, Any]:
    """Return the roles and settings that a transformers class takes for granted, which its files may not name."""
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    found = tokenizer_class_from_name(class_name) if class_name else None
    if found is None or not hasattr(found, "padding_side"):  # a name of a class that is no tokenizer
        return {}
    parameters = inspect.signature(found.__init__).parameters
    roles = {role: parameters[role].default for role in ROLES if role in parameters}
    settings: dict[str, Any] = {role: str(text) for role, text in roles.items() if isinstance(text, str | AddedToken)}
    return {**settings, "padding_side": found.padding_side, "model_input_names": list(found.model_input_names)}


def _chat_template(folder: Path, config: Mapping[str, Any]) -> Any:
    """Return the chat template, or name -> template where there are several; files win over the config."""
    main = folder / "chat_template.jinja"
    templates = {file.stem: file for file in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    if main.is_file():
        templates["default"] = main
    try:
        texts = {name: file.read_text(encoding="utf-8") for name, file in templates.items()}
    except (OSError, ValueError) as problem:
        raise VocabTransferError(f"the chat template in {folder} cannot be read ({problem}).") from None
    if texts:
        return texts["default"] if texts.keys() == {"default"} else texts
    return config.get("chat_template") or _read_json(folder / "chat_template.json").get("chat_template")


def _drop_needless_edges(settings: dict[str, Any], backend: Tokenizer) -> None:
    """Leave the post-processor alone where it already adds bos and eos as the settings ask for."""
    names = ("add_bos_token", "add_eos_token")
    asked: dict[str, bool] = {name: settings.pop(name) for name in names if name in settings}
    if not asked:
        return
    plain, full = backend.encode("a", add_special_tokens=False).ids, backend.encode("a").ids
    added_before = full[: full.index(plain[0])] if plain and plain[0] in full else full
    added_behind = full[len(added_before) + len(plain) :]
    bos, eos = (backend.token_to_id(str(settings.get(role) or "")) for role in ("bos_token", "eos_token"))
    done: dict[str, bool] = {
        "add_bos_token": bos is not None and bos in added_before,
        "add_eos_token": eos is not None and eos in added_behind,
    }
    able = {"add_bos_token": bos is not None, "add_eos_token": eos is not None}
    wanted = {name: bool(asked.get(name, done[name])) and able[name] for name in done}
    if wanted != done:
        settings.update(wanted)


def _check_ids(tokenizer: PreTrainedTokenizerFast, listed: Mapping[int, AddedToken], file: Path) -> None:
    for i, token in listed.items():
        actual = tokenizer.backend_tokenizer.token_to_id(str(token))
        if actual != i:
            raise VocabTransferError(
                f"{file} gives token {str(token)!r} the id {actual}, the files beside it the id {i}: the folder mixes "
                "two tokenizers."
            )
