"""Make sure that AutoTokenizer, which everybody loads tokenizers with, gives the ids that the tokenizer has.

For some model types (qwen2 and its successors, for one) transformers 5 passes over the class that
tokenizer_config.json names and rebuilds the tokenizer as the original model's: other splitting rules, added tokens, no
error. It leaves folders alone that bring a class of their own, so where the ids would change, the folder gets one that
changes nothing.
"""

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.files.json_files import read_json

PLAIN_MODULE = "tokenization_plain"
PLAIN_CODE = '''\
"""The plain fast tokenizer of tokenizer.json; without remote code, transformers uses the same class by itself."""

from transformers import PreTrainedTokenizerFast


class PlainTokenizer(PreTrainedTokenizerFast):
    """Changes nothing; it is here so that the ids stay those of tokenizer.json."""
'''
PROBE = "Hello world, сәлам дөнья! In 2024 it's 12345.67;\n\n  def f(x):\n\treturn x**2  # 😀 家 ﬁ I'LL"
PROBED_TOKENS = 500


def keep_ids(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Change tokenizer_config.json in ``folder``, if need be, so that AutoTokenizer gives ``tokenizer``'s ids.

    The folder has config.json and the saved tokenizer. Raises `VocabTransferError` when nothing helps.
    """
    difference = find_difference(folder, tokenizer)
    if difference is None:
        return
    path = folder / "tokenizer_config.json"
    config = read_json(path)
    config["auto_map"] = {"AutoTokenizer": [None, f"{PLAIN_MODULE}.PlainTokenizer"]}
    text = json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")
    (folder / f"{PLAIN_MODULE}.py").write_text(PLAIN_CODE, encoding="utf-8", newline="\n")
    difference = find_difference(folder, tokenizer)
    if difference is not None:
        raise VocabTransferError(f"transformers would not read the new tokenizer as it is: {difference}.")


def find_difference(folder: Path, tokenizer: PreTrainedTokenizerFast) -> str | None:
    """Say how the tokenizer that users would load from ``folder`` differs from ``tokenizer``; None if it does not."""
    loaded = _load(folder)
    if loaded.get_vocab() != tokenizer.get_vocab():
        return f"it reads back with other ids ({type(loaded).__name__})"
    for text in _probes(tokenizer):
        ours, theirs = tokenizer.encode(text), loaded.encode(text)
        if ours != theirs:
            return f"{text[:40]!r} becomes other ids ({type(loaded).__name__})"
        if tokenizer.decode(ours) != loaded.decode(ours):
            return f"{text[:40]!r} reads back as other text ({type(loaded).__name__})"
    return None


def _load(folder: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception:
        # A model type that this transformers cannot configure; the tokenizer itself can still be read.
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)


def _probes(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """A text with something of everything, and one made of tokens from all over the vocabulary."""
    size = len(tokenizer)
    spread = str(tokenizer.decode(list(range(0, size, max(1, size // PROBED_TOKENS)))))
    return [PROBE, spread]
