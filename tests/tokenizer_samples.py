"""Texts and small tokenizers that several test files share."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "The quick brown fox — naïve café, Łódź; it's 3.14159 and 1,234,567!",
    " leading", "  two  spaces ", "trailing   ", "\ttab\n\nlines \r\n", " ", "", "a", "▁", " ▁▁ x", "a\u00a0b\u200bc",
    "Татар теле: җәй, үзәк, һәм. Русский язык, ёж. Қазақ тілі: ғылым.",
    "العربية مرحبا ١٢٣ می‌خواهم עברית שָׁלוֹם हिन्दी नमस्ते ქართული Հայերեն አማርኛ ภาษาไทย 中文 日本語 한국어",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇳🇱 e\u0301 ﬁ ½ Å 𝔘𝔫𝔦 ﷺ ㍿ Ⅷ",
    "def f(x):\n\tif x  >  0:\n\t\treturn [1, 2, 3]   # comment <b>bold</b> <0x41> ##ing Ġword",
    "aaaa aaaaaaaaaaaaaaa ababababab 1111111111 ........ \n\n\n\n      x",
]  # fmt: skip


def ids_of(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)]


def write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content), encoding="utf-8")


def tiny_backend(*special: str) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", *special],
        show_progress=False,
    )
    backend.train_from_iterator(["the cat sat on the mat with the other cat"] * 3, trainer)
    return backend
