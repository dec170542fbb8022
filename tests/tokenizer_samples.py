"""Texts and small tokenizers that several test files share."""

import gettext
import io
import json
from collections.abc import Iterable, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece
from thinned import all_but
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from vocabtransfer.files.packages import unpack_wheel
from vocabtransfer.files.sentencepiece_model import new_model

# Loading these alone takes seconds each; smaller ones of the same kinds are tested every time.
LARGEST = frozenset({"gemma3", "gpt4o", "qwen3", "deepseek_v3", "tekken"})


def largest_slow(names: Iterable[str]) -> list[Any]:
    """Return names of real tokenizers as parameters of a test, the largest only in the slow suite."""
    return all_but(names, *LARGEST)


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


def first_tokens(tokenizer: PreTrainedTokenizerFast, count: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE with the first tokens of another: those of the most frequent merges come first."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = {token: i for token, i in content["model"]["vocab"].items() if i < count}
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in content["model"]["merges"]]
    content["model"] |= {
        "vocab": kept,
        "merges": [[a, b] for a, b in merges if a in kept and b in kept and a + b in kept],
    }
    cut = deepcopy(tokenizer)
    cut._tokenizer = Tokenizer.from_str(json.dumps(content))
    return cut


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


@cache
def django_lines(code: str) -> list[str]:
    """Return the messages of the Django web framework in a language: real text that a package registry has."""
    folder = unpack_wheel("Django==5.2.8", ["django/*/locale/*/LC_MESSAGES/*.mo"])
    lines: list[str] = []
    for path in sorted(folder.glob(f"django/**/locale/{code}/LC_MESSAGES/*.mo")):
        with path.open("rb") as file:
            catalogue: dict[Any, str] = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        lines += [text for key, text in catalogue.items() if key and text]
    return lines


SYLLABLES = ["ка", "ла", "та", "бе", "ре", "ши", "нә", "дөн", "һәм", "зур", "мал", "өй", "су", "кар", "тау"]


def made_up_text(lines: int = 400) -> list[str]:
    """Return lines of words from syllables, some frequent and some rare, with numbers and punctuation."""
    words = [a + b + c for a in SYLLABLES for b in SYLLABLES for c in ("", "лар", "да")]
    picked = (words[(i * i * 7 + i) % len(words)] for i in range(lines * 8))
    return [
        " ".join(next(picked) for _ in range(8)).capitalize() + f", {n * 37 % 1000} (the «{n}»)." for n in range(lines)
    ]


def _charsmap() -> bytes:
    """Return the table of SentencePiece's nmt_nfkc rule, as T5 and XLM-R have it in their normaliser."""
    output = io.BytesIO()
    lines = iter(made_up_text(100))
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=lines, model_writer=output, vocab_size=80, minloglevel=2)
    proto = new_model()
    proto.ParseFromString(output.getvalue())
    return bytes(proto.normalizer_spec.precompiled_charsmap)


def t5_like() -> PreTrainedTokenizerFast:
    """Put a tokenizer together like T5's: Unigram without byte fallback, eos at the end, sentinels after the words."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁the", -3.0), ("12", -4.0), ("▁1", -4.0)]
    letters = [(letter, -5.0) for letter in "abcdefghijklmnopqrstuvwxyz0123456789.,"]
    backend = Tokenizer(models.Unigram(pieces + letters, unk_id=2, byte_fallback=False))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(_charsmap()), normalizers.Strip(left=False), normalizers.Replace("  ", " ")]
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    sentinels = [f"<extra_id_{n}>" for n in reversed(range(3))]
    backend.add_special_tokens(["<pad>", "</s>", "<unk>", *sentinels])
    backend.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    roles = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **roles, extra_special_tokens=sentinels)
