"""Swapped vocabularies: the size and every id that did not change hands stay, new tokens are reached, no text grows."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from thinned import all_but
from tokenizer_samples import TEXTS, django_lines, ids_of, t5_like, tiny_backend
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError
from vocabtransfer.scripts import SCRIPTS
from vocabtransfer.tokenization.audit import audit_tokenizer
from vocabtransfer.tokenization.reshape import Reshaped
from vocabtransfer.tokenization.save import backend_document
from vocabtransfer.tokenization.swap import swap_tokenizer, token_scripts
from vocabtransfer.tokenization.train import train_tokenizer
from vocabtransfer.vocabulary import Vocabulary

NEW = 300
CASES = {"smollm2": "tt", "llama3": "nl", "mistral_v3": "tt", "gemma3": "nl", "qwen3": "tt", "unigram": "tt"}
SLOW = ("llama3", "gemma3", "qwen3")
MERGING = [name for name in CASES if name != "unigram"]

Source = Callable[[str], PreTrainedTokenizerFast]
Swapped = Callable[[str], Reshaped]


def cases(names: list[str]) -> list[object]:
    return all_but(names, *SLOW)


@pytest.fixture(scope="module")
def source(real_tokenizer: Source) -> Source:
    def find(name: str) -> PreTrainedTokenizerFast:
        if name == "unigram":
            lines = django_lines("nl")
            return train_tokenizer(lines, like=real_tokenizer("mistral_v3"), vocab_size=2_000, algorithm="unigram")
        return real_tokenizer(name)

    return cache(find)


@pytest.fixture(scope="module")
def swapped(source: Source) -> Swapped:
    return cache(lambda name: swap_tokenizer(source(name), django_lines(CASES[name])[:1_500], new_tokens=NEW))


@pytest.mark.parametrize("name", cases(list(CASES)))
def test_only_the_ids_that_changed_hands_changed(name: str, source: Source, swapped: Swapped) -> None:
    old, made = source(name), swapped(name)
    before, after = old.get_vocab(), made.tokenizer.get_vocab()
    gone = set(np.flatnonzero(made.kept < 0).tolist())
    assert len(gone) == made.new_tokens == NEW
    assert (made.kept[made.kept >= 0] == np.flatnonzero(made.kept >= 0)).all()
    assert len(made.kept) == 1 + max(before.values()) and set(after.values()) == set(before.values())
    assert {text: i for text, i in before.items() if i not in gone} == {
        text: i for text, i in after.items() if i not in gone
    }
    assert not {text for text, i in before.items() if i in gone} & after.keys()
    assert made.tokenizer.special_tokens_map == old.special_tokens_map
    assert made.tokenizer.added_tokens_decoder.keys() == old.added_tokens_decoder.keys()
    one, two = backend_document(old), backend_document(made.tokenizer)
    assert all(one[part] == two[part] for part in ("normalizer", "pre_tokenizer", "decoder", "post_processor"))


@pytest.mark.parametrize("name", cases(MERGING))
def test_merges_keep_their_order(name: str, source: Source, swapped: Swapped) -> None:
    old, new = (backend_document(each)["model"]["merges"] for each in (source(name), swapped(name).tokenizer))
    assert len(new) <= len(old) + NEW
    waiting = iter(map(tuple, old))
    left = [pair for pair in map(tuple, new) if pair not in waiting]  # `in` consumes: what is left broke the order
    assert 0 < len(left) <= NEW and left == [tuple(pair) for pair in new[-len(left) :]]


@pytest.mark.parametrize("name", cases(list(CASES)))
def test_every_new_token_is_reached_and_the_text_gets_shorter(name: str, source: Source, swapped: Swapped) -> None:
    made, lines = swapped(name), django_lines(CASES[name])[:1_500]
    found = audit_tokenizer(made.tokenizer, ids=np.flatnonzero(made.kept < 0))
    assert found.examined == NEW and not len(found.unreachable), found.examples()
    before, after = (sum(map(len, ids_of(t, lines))) for t in (source(name), made.tokenizer))
    assert after < 0.85 * before
    assert [made.tokenizer.decode(ids) for ids in ids_of(made.tokenizer, lines)] == lines


@pytest.mark.parametrize("name", cases(MERGING))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=40))
@example(text="\x00\x1f\ufdd0\U0010ffff")
@example(text="Сәлам 12345 дөнья  \n\n x de instellingen van het bestand 漢字 ไทย")
def test_no_text_without_a_token_given_away_gets_longer(name: str, text: str, source: Source, swapped: Swapped) -> None:
    old, made = source(name), swapped(name)
    old_ids, new_ids = ids_of(old, [text])[0], ids_of(made.tokenizer, [text])[0]
    assert made.tokenizer.decode(new_ids) == old.decode(old_ids)
    if (made.kept[old_ids] >= 0).all():
        assert len(new_ids) <= len(old_ids)
        if (made.kept[new_ids] >= 0).all():
            assert new_ids == old_ids


@pytest.mark.parametrize("name", cases(MERGING))
def test_languages_of_near_scripts_are_cut_no_longer(name: str, source: Source, swapped: Swapped) -> None:
    lines = [*TEXTS, *django_lines("fr")[:300], *django_lines("ru")[:300]]
    made = swapped(name)
    whole = 0
    for old_ids, new_ids in zip(ids_of(source(name), lines), ids_of(made.tokenizer, lines), strict=True):
        if (made.kept[old_ids] >= 0).all():
            whole += 1
            assert len(new_ids) <= len(old_ids)
    assert whole > len(lines) / 2


def test_far_scripts_go_first(source: Source) -> None:
    old = source("mistral_v3")
    made = swap_tokenizer(old, django_lines("nl"), new_tokens=1_000)
    scripts = token_scripts(Vocabulary.from_tokenizer(old))
    given_away = {SCRIPTS[code] for code in scripts[np.flatnonzero(made.kept < 0)]}
    assert {"Hani", "Cyrl"} <= given_away and "Latn" not in given_away
    assert any("Hani" in note for note in made.notes)


def test_text_to_keep_is_cut_as_before(source: Source) -> None:
    old, chinese = source("mistral_v3"), django_lines("zh_Hans")[:400]
    used = [np.array(ids) for ids in ids_of(old, chinese)]
    without = swap_tokenizer(old, django_lines("nl"), new_tokens=2_500)
    kept = swap_tokenizer(old, django_lines("nl"), new_tokens=2_500, keep=chinese)
    assert any((without.kept[ids] < 0).any() for ids in used)
    assert not any((kept.kept[ids] < 0).any() for ids in used)
    for old_ids, new_ids in zip(used, ids_of(kept.tokenizer, chinese), strict=True):
        assert len(new_ids) <= len(old_ids)


def test_beginnings_of_characters_have_a_script(source: Source) -> None:
    vocabulary = Vocabulary.from_tokenizer(source("smollm2"))
    scripts = token_scripts(vocabulary)
    found = {content: SCRIPTS[scripts[i]] for i, content in enumerate(vocabulary.token_bytes)}
    assert found[b"\xe4"] == "Hani" and found[b"\xd0"] == "Cyrl" and found[b" the"] == "Latn"


def test_what_cannot_be_swapped_is_refused_or_said() -> None:
    tiny = PreTrainedTokenizerFast(tokenizer_object=tiny_backend(), eos_token="<|endoftext|>")
    lines = ["the cat sat on the mat with the other cat"] * 3
    with pytest.raises(UsageError, match="extend it instead"):
        swap_tokenizer(tiny, [*lines, "ка та ла " * 20], new_tokens=20)
    with pytest.raises(UsageError, match="at least 1"):
        swap_tokenizer(tiny, lines, new_tokens=0)
    t5 = swap_tokenizer(t5_like(), ["the other 12 cats"] * 30, new_tokens=5)
    assert any("rarely" in note for note in t5.notes) or not t5.new_tokens
