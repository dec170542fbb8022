"""Tokenizers joined: the adapted model's text, the instruct model's chat format; also across kinds of tokenizers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizer_samples import TEXTS, ids_of
from transformers import PreTrainedTokenizerFast

from vocabtransfer.checkpoint.synthetic import toy_tokenizer
from vocabtransfer.propagation.tokens import join_tokenizers, taught_rows
from vocabtransfer.tokenization.load import load_tokenizer
from vocabtransfer.tokenization.save import save_tokenizer
from vocabtransfer.tokenization.train import train_tokenizer
from vocabtransfer.vocabulary import Kind, Vocabulary

TEXT = ["сәлам дөнья китап өстәл", "de kat zit op de mat, het boek ligt op tafel", "hello world 123"] * 20
KINDS = ["bpe", "sentencepiece", "unigram"]
PAIRS = [
    *(("smollm2", kind) for kind in KINDS),
    *(("mistral_v3", kind) for kind in KINDS),
    pytest.param("tekken", "sentencepiece", marks=pytest.mark.slow),
    pytest.param("qwen3", "bpe", marks=pytest.mark.slow),
    pytest.param("llama3", "sentencepiece", marks=pytest.mark.slow),
    pytest.param("gemma3", "bpe", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def adapted(real_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> dict[str, PreTrainedTokenizerFast]:
    """Tokenizers of three kinds that know nothing of any chat format but MiniLM's [CLS] and its like."""
    like = real_tokenizer("minilm")
    return {kind: train_tokenizer(TEXT, like=like, vocab_size=900, algorithm=kind) for kind in KINDS}


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_text_as_adapted_and_chat_as_instructed(
    name: str,
    kind: str,
    adapted: dict[str, PreTrainedTokenizerFast],
    real_tokenizer: Callable[[str], PreTrainedTokenizerFast],
    tmp_path: Path,
) -> None:
    mine, theirs = adapted[kind], real_tokenizer(name)
    joined = join_tokenizers(mine, theirs)
    save_tokenizer(joined.tokenizer, tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.get_vocab() == joined.tokenizer.get_vocab()
    assert ids_of(loaded, TEXTS) == ids_of(mine, TEXTS), "text is read as the adapted tokenizer reads it"
    before = mine.get_vocab()
    assert all(loaded.get_vocab()[token] == i for token, i in before.items())
    assert [loaded.convert_tokens_to_ids(token) for token in joined.appended] == list(range(len(before), len(loaded)))
    for role in ("bos_token", "eos_token", "pad_token"):
        assert getattr(loaded, role) == getattr(theirs, role)
    assert loaded.chat_template == theirs.chat_template
    edges = [theirs.decode([i]) for i in theirs("a")["input_ids"] if i in theirs.all_special_ids]
    assert [loaded.decode([i]) for i in loaded("a")["input_ids"] if i in loaded.all_special_ids] == edges
    specials = joined.vocabulary.kinds[len(before) :]
    assert (specials == Kind.SPECIAL).all() and len(joined.appended) < 300
    if theirs.chat_template:
        messages = [{"role": "user", "content": "сәлам"}]
        assert loaded.apply_chat_template(messages, tokenize=False) == theirs.apply_chat_template(
            messages, tokenize=False
        )


@pytest.mark.slow
def test_reserved_tokens_are_not_appended(real_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> None:
    theirs = real_tokenizer("llama3")
    mine = train_tokenizer(TEXT, like=real_tokenizer("minilm"), vocab_size=900, algorithm="bpe")
    appended = join_tokenizers(mine, theirs).appended
    assert "<|begin_of_text|>" in appended and not any("reserved" in token for token in appended)


def test_ordinary_added_tokens_come_only_when_they_were_taught() -> None:
    """Added tokens of the base model that are text (Gemma has HTML tags) are spelled as the adapted tokenizer does."""
    mine, theirs = toy_tokenizer(["сәлам"]), toy_tokenizer(["hello"])
    known = Vocabulary.from_tokenizer(theirs)
    theirs.add_tokens(["<table>"])
    assert join_tokenizers(mine, theirs, known=known).appended == ("<table>",)
    assert join_tokenizers(mine, theirs, known=Vocabulary.from_tokenizer(theirs)).appended == ()


def test_taught_rows(real_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> None:
    theirs = real_tokenizer("smollm2")
    mine = train_tokenizer(TEXT, like=theirs, vocab_size=900, algorithm="bpe")
    joined = join_tokenizers(mine, theirs)
    assert joined.appended == ()
    vocabulary = Vocabulary.from_tokenizer(theirs)
    changed = np.zeros(len(vocabulary), np.bool_)
    marker = theirs.convert_tokens_to_ids("<|im_start|>")
    changed[marker] = True
    changed[vocabulary.strings.index("the")] = True
    taken = taught_rows(joined.vocabulary, len(mine), vocabulary, changed)
    assert np.flatnonzero(taken >= 0).tolist() == [mine.convert_tokens_to_ids("<|im_start|>")]
    assert taken.max() == marker
