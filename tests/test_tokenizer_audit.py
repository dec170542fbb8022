"""Tokens that no text produces: found, explained, and not seen where there are none."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from tokenizer_samples import django_lines, ids_of
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vocabtransfer.tokenization.audit import EXPLANATIONS, Audit, Reason, audit_tokenizer

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_level(
    merges: Sequence[tuple[str, str]],
    *further: str,
    normalizer: normalizers.Normalizer | None = None,
    ignore_merges: bool = False,
) -> PreTrainedTokenizerFast:
    strings = list(dict.fromkeys([*LETTERS, *(a + b for a, b in merges), *further]))
    model = models.BPE({text: i for i, text in enumerate(strings)}, list(merges), ignore_merges=ignore_merges)
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def reason(found: Audit, text: str) -> Reason:
    return Reason(int(found.reasons[found.names.index(text)]))


def test_tokens_without_merges_and_tokens_cut_by_the_pre_tokenizer() -> None:
    tokenizer = byte_level([("a", "b"), ("c", "d"), ("ab", "c"), ("abc", "d"), ("a", "1")], "dead")
    found = audit_tokenizer(tokenizer)
    assert reason(found, "dead") == reason(found, "abcd") == Reason.NO_MERGE  # ab + cd comes before abc + d
    assert reason(found, "a1") == Reason.PRE_TOKENIZER
    assert reason(found, "ab") == reason(found, "abc") == reason(found, "cd") == Reason.REACHED
    assert found.examined == len(tokenizer)
    assert found.counts()[EXPLANATIONS[Reason.NO_MERGE]] == 2
    assert set(found.examples()[EXPLANATIONS[Reason.NO_MERGE]]) == {"dead", "abcd"}


def test_whole_words_need_no_merges() -> None:
    found = audit_tokenizer(byte_level([("a", "b")], "dead", "Ġdead", ignore_merges=True))
    assert reason(found, "dead") == reason(found, " dead") == Reason.REACHED


def test_bytes_that_no_text_has_are_needless_and_parts_of_characters_are_not() -> None:
    found = audit_tokenizer(byte_level([("Ñ", "Ģ"), ("à", "¤"), ("à", "Ģ"), ("¤", "à"), ("À", "Á"), ("ÑĢ", "Ñ")]))
    needless = {found.names[i] for i in np.flatnonzero(found.reasons == Reason.NEEDLESS_BYTE).tolist()}
    # 13 bytes are not in UTF-8 at all, E0 80 begins no character.
    assert len(needless) == 15 and {"À", "Á", "ÀÁ", "àĢ", "õ", "ÿ"} <= needless
    assert reason(found, "à¤") == reason(found, "¤à") == reason(found, "ÑĢÑ") == Reason.REACHED


def test_normalisers_and_added_tokens_that_take_a_text() -> None:
    lower = audit_tokenizer(byte_level([("A", "b"), ("a", "b")], normalizer=normalizers.Lowercase()))
    assert reason(lower, "Ab") == Reason.NORMALIZER and reason(lower, "ab") == Reason.REACHED
    tokenizer = byte_level([("a", "b"), ("ab", "c")])
    tokenizer.add_tokens([AddedToken("ab", normalized=False), AddedToken("abd", normalized=False)])
    found = audit_tokenizer(tokenizer)
    assert reason(found, "abc") == Reason.ADDED_TOKEN and reason(found, "abd") == Reason.REACHED


def test_pieces_that_never_win() -> None:
    pieces = [("<unk>", 0.0), ("▁", -3.0), ("a", -1.0), ("b", -1.0), ("ab", -1.5), ("ba", -9.0)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    found = audit_tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>"))
    assert reason(found, "ba") == Reason.OUTSCORED and reason(found, "ab") == Reason.REACHED
    assert reason(found, "<unk>") == Reason.SPECIAL and found.unreachable_share == 1 / 5


def test_some_tokens_only() -> None:
    tokenizer = byte_level([("a", "b")], "dead", "gone")
    ids = np.array([tokenizer.convert_tokens_to_ids("dead"), tokenizer.convert_tokens_to_ids("ab")])
    found = audit_tokenizer(tokenizer, ids=ids)
    assert found.examined == 2 and found.unreachable.tolist() == [ids[0]]


@pytest.mark.parametrize("name", ["smollm2", "mistral_v3", "minilm"])
def test_tokens_that_real_text_uses_are_reachable(
    name: str, real_tokenizer: Callable[[str], PreTrainedTokenizerFast]
) -> None:
    tokenizer = real_tokenizer(name)
    found = audit_tokenizer(tokenizer)
    used = {i for language in ("nl", "ru", "hi") for ids in ids_of(tokenizer, django_lines(language)) for i in ids}
    assert len(used) > 500 and not used.intersection(found.unreachable.tolist())
    if name == "smollm2":
        assert len(found.unreachable) == 0
    if name == "mistral_v3":  # bytes of characters that have their own token, bytes that UTF-8 has not
        assert set(found.counts()) == {EXPLANATIONS[Reason.NEEDLESS_BYTE]}
        assert reason(found, "<0x41>") == Reason.NEEDLESS_BYTE and reason(found, "<0x00>") == Reason.REACHED
    if name == "minilm":  # punctuation and Chinese characters are cut out of words
        assert reason(found, "##?") == reason(found, "...") == Reason.PRE_TOKENIZER
        assert set(found.counts()) == {EXPLANATIONS[Reason.PRE_TOKENIZER]}


@pytest.mark.slow
def test_qwen_cannot_reach_its_thai_words(real_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> None:
    found = audit_tokenizer(real_tokenizer("qwen3"))
    assert reason(found, "เครื่องมือ") == Reason.PRE_TOKENIZER
    assert 1_000 < found.counts()[EXPLANATIONS[Reason.PRE_TOKENIZER]] < 3_000
    assert found.counts()[EXPLANATIONS[Reason.NORMALIZER]] > 100
