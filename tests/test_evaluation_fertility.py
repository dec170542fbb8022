"""Tokenizer statistics against counts made one word at a time."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.evaluation import read_documents, tokenizer_statistics
from vocabtransfer.evaluation.texts import DOCUMENT_CHARACTERS


def spaced_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level pieces that never cross white space: a word is then made of exactly the tokens that end in it."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "b"), ("ab", "c"), ("Ġ", "a"), ("Ñ", "ģ")]
    strings = ["<unk>", *letters, *dict.fromkeys(a + b for a, b in merges)]
    backend = Tokenizer(models.BPE({s: i for i, s in enumerate(strings)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@given(st.lists(st.text(alphabet="abc д😀\t\u00a0.", max_size=12), min_size=1, max_size=8))
@settings(deadline=None, max_examples=60)
def test_counts_are_those_of_the_words(lines: list[str]) -> None:
    tokenizer = spaced_tokenizer()
    words = [word for line in lines for word in line.split()]
    if not words:
        with pytest.raises(VocabTransferError, match="no text"):
            tokenizer_statistics(tokenizer, lines)
        return
    result = tokenizer_statistics(tokenizer, lines)
    assert result.words == len(words)
    assert result.characters == sum(map(len, lines))
    assert result.bytes == sum(len(line.encode()) for line in lines)
    assert result.tokens == sum(len(tokenizer(line)["input_ids"]) for line in lines)
    assert result.lines == sum(line != "" for line in lines)


def test_broken_words_and_shares() -> None:
    result = tokenizer_statistics(spaced_tokenizer(), ["abc abc", "", "ab ac"])
    # abc, then Ġ abc (the merge of "ab" comes before that of "Ġa"), then ab, then Ġa c.
    assert [result.words, result.tokens, result.continued_words] == [4, 6, 2]
    assert result.tokens_per_word == 1.5
    assert result.continued_word_share == 0.5
    assert result.characters_per_token == result.bytes_per_token == 2.0
    assert result.unknown_share == 0.0


def test_unknown_tokens_are_counted() -> None:
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    assert tokenizer_statistics(tokenizer, ["a b", "c a"]).unknown_share == 0.5


def test_a_stream_is_enough_and_batches_do_not_matter() -> None:
    lines = ["abc д ab\n", " c"] * 1500
    result = tokenizer_statistics(spaced_tokenizer(), iter(lines))
    single = tokenizer_statistics(spaced_tokenizer(), lines[:2])
    assert (result.tokens, result.words, result.continued_words) == tuple(
        1500 * count for count in (single.tokens, single.words, single.continued_words)
    )


@pytest.mark.parametrize("name", ["smollm2", "mistral_v3", "minilm"])
def test_real_tokenizers_count_as_word_by_word(
    name: str, real_tokenizer: Callable[[str], PreTrainedTokenizerFast]
) -> None:
    tokenizer = real_tokenizer(name)
    text = "Кеше гаиләсенең барлык әгъзаларына recognition of the inherent dignity naïve 😀 end"
    result = tokenizer_statistics(tokenizer, [text])
    # These pre-tokenizers part words at white space, so a word's tokens do not depend on its neighbours.
    first, *others = text.split()
    words = [first, *(f" {word}" for word in others)]
    if name == "mistral_v3":
        words = text.split()  # SentencePiece puts the space itself
    counts = [len(tokenizer(word, add_special_tokens=False)["input_ids"]) for word in words]
    assert result.tokens == sum(counts)
    assert result.continued_words == sum(count > 1 for count in counts)


def test_documents_are_parted_by_empty_lines_and_by_length(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    long_line = "x" * (DOCUMENT_CHARACTERS // 2 + 1)
    first.write_text("one\r\ntwo\n\n \nthree", encoding="utf-8")
    second.write_text("\n".join([long_line, long_line, "rest", ""]), encoding="utf-8")
    assert list(read_documents([first, second])) == ["one\ntwo", "three", f"{long_line}\n{long_line}", "rest"]
