"""The tokenizer inside a GGUF file, as a fast tokenizer.

A GGUF file has tokens, merges or scores, and only the *name* of its pre-tokenizer. Each name below stands for the exact
rules; guessing them would change ids without any error (digits, for one, would be split otherwise).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from vocabtransfer.checkpoint.gguf_file import GgufFile
from vocabtransfer.errors import VocabTransferError

UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 2, 3, 4, 5, 6
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


MARKED_WORDS = WORDS.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+")
MARKED_REST = REST.replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]")


def _split(digits: str, words: str = WORDS, rest: str = REST) -> pre_tokenizers.PreTokenizer:
    pattern = pre_tokenizers.Split(Regex(words + digits + rest), "isolated")
    return pre_tokenizers.Sequence([pattern, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


PRE_TOKENIZERS: Mapping[str, Callable[[], pre_tokenizers.PreTokenizer]] = {
    "gpt-2": _gpt2,
    "smollm": lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()]),
    "llama-bpe": lambda: _split(r"\p{N}{1,3}"),
    "qwen2": lambda: _split(r"\p{N}"),
    "qwen35": lambda: _split(r"\p{N}", MARKED_WORDS, MARKED_REST),
    "smaug-bpe": lambda: _split(r"\p{N}{1,3}"),
}
# Their whole-word tokens count even where no sequence of merges leads to them.
IGNORE_MERGES = ("llama-bpe",)
COMPOSED = ("qwen2",)  # texts are brought into the composed Unicode form first
BOS_BY_DEFAULT = ("llama-bpe",)


def build_tokenizer(file: GgufFile) -> PreTrainedTokenizerFast:
    """Build the tokenizer; `VocabTransferError` names a kind or pre-tokenizer that is not known.

    Special tokens, chat template and the longest input are the file's; trailing unused tokens (padding of the
    embedding table) are left out.
    """
    model = _field(file, "model")
    tokens, types = _field(file, "tokens"), _field(file, "token_type")
    while tokens and types[len(tokens) - 1] == UNUSED:
        tokens = tokens[:-1]
    if model == "gpt2":
        backend = _byte_level(file, tokens)
    elif model == "llama":
        backend = _sentencepiece(file, tokens, types)
    else:
        raise VocabTransferError(f"{file.path} has a tokenizer of the kind {model!r}, which cannot be converted.")
    added = {kind: [t for t, k in zip(tokens, types, strict=False) if k == kind] for kind in (CONTROL, USER_DEFINED)}
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in added[CONTROL]])
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in added[USER_DEFINED]])
    _add_ends(file, backend, tokens, model)
    roles = _roles(file, tokens)
    context = file.fields.get(f"{file.fields['general.architecture']}.context_length")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=file.fields.get("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        **({"model_max_length": int(context)} if context else {}),
        **roles,
    )


def role_ids(file: GgufFile) -> dict[str, Any]:
    """Return bos, eos and pad ids under the names that config.json uses; several ends of a text as a list."""
    ids = {key: file.fields.get(f"tokenizer.ggml.{name}_token_id") for key, name in _ROLE_FIELDS.items()}
    found: dict[str, Any] = {f"{key}_id": i for key, i in ids.items() if i is not None and key != "unk_token"}
    turn = file.fields.get("tokenizer.ggml.eot_token_id")
    if turn is not None and "eos_token_id" in found and turn != found["eos_token_id"]:
        found["eos_token_id"] = [found["eos_token_id"], turn]
    return found


_ROLE_FIELDS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def _roles(file: GgufFile, tokens: Sequence[str]) -> dict[str, str]:
    ids = {key: file.fields.get(f"tokenizer.ggml.{name}_token_id") for key, name in _ROLE_FIELDS.items()}
    return {key: tokens[i] for key, i in ids.items() if i is not None and i < len(tokens)}


def _byte_level(file: GgufFile, tokens: Sequence[str]) -> Tokenizer:
    name = file.fields.get("tokenizer.ggml.pre", "unnamed")
    if name not in PRE_TOKENIZERS:
        raise VocabTransferError(
            f"{file.path} splits text in the way {name!r}, which is not known here: use the model's safetensors folder."
        )
    merges = [tuple(merge.split(" ", 1)) for merge in _field(file, "merges")]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=name in IGNORE_MERGES))
    if name in COMPOSED:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = PRE_TOKENIZERS[name]()
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(file: GgufFile, tokens: Sequence[str], types: Sequence[int]) -> Tokenizer:
    vocabulary = {token: i for i, token in enumerate(tokens)}
    plain = [token for token, kind in zip(tokens, types, strict=False) if kind not in (CONTROL, UNKNOWN, BYTE)]
    unknown = next((token for token, kind in zip(tokens, types, strict=False) if kind == UNKNOWN), None)
    merges = _merges_from_scores(plain, vocabulary, _field(file, "scores"))
    model = models.BPE(vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=BYTE in types)
    backend = Tokenizer(model)
    spaces: list[normalizers.Normalizer] = [normalizers.Replace(" ", "▁")]
    undo: list[decoders.Decoder] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if file.fields.get("tokenizer.ggml.add_space_prefix", True):
        spaces.insert(0, normalizers.Prepend("▁"))
        undo.append(decoders.Strip(content=" ", left=1))
    backend.normalizer = normalizers.Sequence(spaces)
    backend.decoder = decoders.Sequence(undo)
    return backend


def _merges_from_scores(
    plain: Sequence[str], vocabulary: Mapping[str, int], scores: Sequence[float]
) -> list[tuple[str, str]]:
    """SentencePiece joins any two neighbours whose union is a token, the best score first: spell out those pairs."""
    merges = []
    for token in plain:
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        pairs = [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
        pairs.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        merges += [(-scores[vocabulary[token]], pair) for pair in pairs]
    merges.sort(key=lambda merge: merge[0])
    return [pair for _, pair in merges]


def _add_ends(file: GgufFile, backend: Tokenizer, tokens: Sequence[str], kind: str) -> None:
    """Make encoding add bos and eos where the file says so."""
    by_default = kind == "llama" or file.fields.get("tokenizer.ggml.pre") in BOS_BY_DEFAULT
    roles = _roles(file, tokens)
    before = roles.get("bos_token") if file.fields.get("tokenizer.ggml.add_bos_token", by_default) else None
    after = roles.get("eos_token") if file.fields.get("tokenizer.ggml.add_eos_token", False) else None
    ends = [token for token in (before, after) if token is not None]
    if ends:
        single = [*([before] if before else []), "$A", *([after] if after else [])]
        pair = [*single, *([f"{before}:1"] if before else []), "$B:1", *([f"{after}:1"] if after else [])]
        backend.post_processor = processors.TemplateProcessing(
            single=single,
            pair=pair,
            special_tokens=[(token, backend.token_to_id(token)) for token in dict.fromkeys(ends)],
        )


def _field(file: GgufFile, key: str) -> Any:
    try:
        return file.fields[f"tokenizer.ggml.{key}"]
    except KeyError:
        raise VocabTransferError(
            f"{file.path} lacks the field tokenizer.ggml.{key}, so it cannot be converted."
        ) from None
