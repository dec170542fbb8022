"""Extended vocabularies: old ids and old cuts stay, new tokens are reached, everything else is carried over."""

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from thinned import all_but, first_of
from tokenizer_samples import TEXTS, django_lines, ids_of, t5_like, tiny_backend
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

import vocabtransfer as vt
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.tokenization.audit import audit_tokenizer
from vocabtransfer.tokenization.extend import extend_tokenizer
from vocabtransfer.tokenization.load import load_tokenizer
from vocabtransfer.tokenization.merges import Derivations, MergeModel
from vocabtransfer.tokenization.optimise import optimise_tokenizer
from vocabtransfer.tokenization.reshape import Reshaped
from vocabtransfer.tokenization.save import backend_document, save_tokenizer
from vocabtransfer.tokenization.train import train_tokenizer
from vocabtransfer.tokenization.trim import trim_tokenizer
from vocabtransfer.vocabulary import byte_alphabet

NEW = 400
# After which tokenizer, for which language.
CASES = {
    "smollm2": "tt",
    "llama3": "nl",
    "mistral_v3": "tt",
    "minilm": "nl",
    "unigram": "tt",
    "t5": "nl",
}
MERGING = ["smollm2", "llama3", "mistral_v3"]
# Llama 3 has added tokens behind its vocabulary and takes whole words as they are; its size makes it slow.
LLAMA3 = pytest.param("llama3", marks=pytest.mark.slow)

Extended = Callable[[str], Reshaped]
Source = Callable[[str], PreTrainedTokenizerFast]


@pytest.fixture(scope="module")
def source(real_tokenizer: Source) -> Source:
    """Gives a tokenizer to extend, two of them Unigram."""

    def find(name: str) -> PreTrainedTokenizerFast:
        if name == "t5":
            return t5_like()
        if name == "tiny":
            return PreTrainedTokenizerFast(tokenizer_object=tiny_backend(), eos_token="<|endoftext|>")
        if name == "unigram":
            lines = django_lines("nl")
            return train_tokenizer(lines, like=real_tokenizer("mistral_v3"), vocab_size=2_000, algorithm="unigram")
        return real_tokenizer(name)

    return cache(find)


def corpus(name: str) -> list[str]:
    return django_lines(CASES[name])[:1_500]


@pytest.fixture(scope="module")
def extended(source: Source) -> Extended:
    return cache(lambda name: extend_tokenizer(source(name), iter(corpus(name)), new_tokens=NEW))


# Two that are Unigram: T5's, without bytes to fall back on, is tested every time here, the other one where vocabularies
# are trimmed.
@pytest.fixture(params=all_but(CASES, "llama3", "unigram"))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@cache
def old_size(tokenizer: PreTrainedTokenizerFast) -> int:
    return 1 + max(tokenizer.get_vocab().values())


def test_old_ids_stay_and_new_ones_follow(name: str, source: Source, extended: Extended) -> None:
    old, new = source(name), extended(name)
    vocabulary = new.tokenizer.get_vocab()
    assert {text: vocabulary[text] for text in old.get_vocab()} == old.get_vocab()
    size = old_size(old)
    assert new.kept.tolist() == [*range(size), *[-1] * NEW] and new.new_tokens == NEW
    assert sorted(set(vocabulary.values()) - set(old.get_vocab().values())) == list(range(size, size + NEW))
    assert not any("supports" in note for note in new.notes)


def test_every_new_token_is_reached(name: str, source: Source, extended: Extended) -> None:
    new = np.flatnonzero(extended(name).kept < 0)
    found = audit_tokenizer(extended(name).tokenizer, ids=new)
    assert found.examined == NEW
    assert not len(found.unreachable), found.examples()


def test_the_corpus_gets_shorter_and_survives(name: str, source: Source, extended: Extended) -> None:
    lines = corpus(name)
    before, after = (sum(map(len, ids_of(t, lines))) for t in (source(name), extended(name).tokenizer))
    assert after < 0.8 * before
    old, new = (t.batch_decode(ids_of(t, lines)) for t in (source(name), extended(name).tokenizer))
    if name in MERGING or name == "unigram":
        assert new == old == lines


def test_every_new_token_is_used(name: str, source: Source, extended: Extended) -> None:
    counts = Counter(i for ids in ids_of(extended(name).tokenizer, corpus(name)) for i in ids)
    used = sum(counts[i] > 0 for i in range(old_size(source(name)), len(extended(name).kept)))
    # A merged token may be eaten up by a longer one.
    assert used >= (0.6 if name in MERGING else 0.95) * NEW


def expand(derivations: Derivations, size: int, ids: list[int]) -> list[int]:
    """Take the new merges back, one by one."""
    waiting, result = ids[::-1], []
    while waiting:
        i = waiting.pop()
        if i < size or derivations.left[i] < 0:
            result.append(i)
        else:
            waiting += [int(derivations.right[i]), int(derivations.left[i])]
    return result


@pytest.mark.parametrize("name", ["smollm2", LLAMA3, "mistral_v3"])
def test_under_the_new_merges_lies_the_old_cut(name: str, source: Source, extended: Extended) -> None:
    new = extended(name).tokenizer
    model = MergeModel.from_document(backend_document(new))
    lines = [*corpus(name)[:200], *django_lines("fr")[:200]]
    size = old_size(source(name))
    derivations = model.derivations()
    letters = {i for i in range(size, len(model)) if len(model.strings[i]) == 1}
    for old_ids, new_ids in zip(ids_of(source(name), lines), ids_of(new, lines), strict=True):
        if not letters.intersection(expanded := expand(derivations, size, new_ids)):
            assert expanded == old_ids


@pytest.mark.parametrize("name", ["smollm2", LLAMA3, "mistral_v3"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=40))
@example(text="\x00\x1f\ufdd0\U0010ffff")
@example(text="Сәлам 12345 дөнья  \n\n x")
def test_any_text_survives_and_keeps_its_cut_without_new_tokens(
    name: str, text: str, source: Source, extended: Extended
) -> None:
    old, new = source(name), extended(name).tokenizer
    old_ids, new_ids = ids_of(old, [text])[0], ids_of(new, [text])[0]
    assert new.decode(new_ids) == old.decode(old_ids)
    if max(new_ids, default=0) < old_size(old):
        assert new_ids == old_ids


def test_everything_else_is_carried(name: str, source: Source, extended: Extended) -> None:
    old, new = source(name), extended(name).tokenizer
    before, after = backend_document(old), backend_document(new)
    assert new.special_tokens_map == old.special_tokens_map and new.chat_template == old.chat_template
    assert set(map(str, new.added_tokens_decoder.values())) == set(map(str, old.added_tokens_decoder.values()))
    assert new.added_tokens_decoder.keys() == old.added_tokens_decoder.keys()
    assert all(before[part] == after[part] for part in ("normalizer", "pre_tokenizer", "decoder", "post_processor"))
    assert {**before["model"], "vocab": 0, "merges": 0} == {**after["model"], "vocab": 0, "merges": 0}
    for setting in ("padding_side", "model_max_length", "clean_up_tokenization_spaces"):
        assert getattr(new, setting) == getattr(old, setting)
    chat = [text for text in TEXTS if not text.isspace()][:3]
    assert new(chat[0], chat[1]).input_ids[0] == old(chat[0], chat[1]).input_ids[0]


@pytest.mark.parametrize("name", ["smollm2", LLAMA3, "minilm", "t5"])
def test_the_files_read_back_the_same(name: str, extended: Extended, tmp_path: Path) -> None:
    new = extended(name).tokenizer
    save_tokenizer(new, tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    lines = [*corpus(name)[:100], *TEXTS]
    assert ids_of(again, lines) == ids_of(new, lines)
    assert again.get_vocab() == new.get_vocab() and again.special_tokens_map == new.special_tokens_map


@pytest.mark.parametrize(("name", "longest"), [("smollm2", 1), ("mistral_v3", 1)])
def test_the_digit_scheme_is_kept(name: str, longest: int, source: Source) -> None:
    lines = [f"{number} мең {number}" for number in range(1000, 9000, 7)] * 2
    new = extend_tokenizer(source(name), lines, new_tokens=50).tokenizer
    added = [text for text, i in new.get_vocab().items() if i >= old_size(source(name))]
    assert added and max(sum(letter.isdigit() for letter in text) for text in added) <= longest


def test_characters_that_a_vocabulary_lacks_come_first(source: Source) -> None:
    georgian = ["გამარჯობა მსოფლიო", "ქართული ენა", "თბილისი"] * 30
    old = source("mistral_v3")
    new = extend_tokenizer(old, georgian, new_tokens=60)
    fresh = [new.tokenizer.convert_ids_to_tokens(i) for i in range(old_size(old), len(new.kept))]
    lacking = {letter for line in georgian for letter in line} - set(old.get_vocab()) - {" "}
    assert lacking and set(fresh[: len(lacking)]) == lacking
    assert not any("<0x" in text for text in fresh)  # bytes of rare characters are not glued together
    assert len(ids_of(new.tokenizer, georgian[:1])[0]) == 2


def test_rare_characters_do_not_become_pairs_of_bytes(source: Source) -> None:
    lines = ["слово " * 200 + "𓀀𓀁𓀂"] * 50
    new = extend_tokenizer(source("mistral_v3"), lines, new_tokens=30)
    assert not any("<0x" in text and i >= 32_768 for text, i in new.tokenizer.get_vocab().items())


def test_marks_are_repaired_unless_told_otherwise(source: Source) -> None:
    hindi = django_lines("hi")
    repaired = extend_tokenizer(source("smollm2"), hindi, new_tokens=NEW)
    as_is = extend_tokenizer(source("smollm2"), hindi, new_tokens=NEW, repair_marks=False)
    assert any("marks" in note for note in repaired.notes) and not any("marks" in note for note in as_is.notes)
    pipeline = backend_document(source("smollm2"))["pre_tokenizer"]
    assert backend_document(as_is.tokenizer)["pre_tokenizer"] == pipeline
    shorter, longer = (sum(map(len, ids_of(made.tokenizer, hindi))) for made in (repaired, as_is))
    assert shorter < 0.9 * longer


@pytest.mark.parametrize("name", first_of(["mistral_v3", "unigram", "minilm"], "unigram"))
def test_word_counts_extend_like_text(name: str, source: Source) -> None:
    words = Counter(word for line in django_lines("tt") for word in line.split())
    made = extend_tokenizer(source(name), words, new_tokens=NEW)
    assert made.new_tokens == NEW
    lines = django_lines("tt")
    from_text = extend_tokenizer(source(name), lines, new_tokens=NEW)
    tokens = [sum(map(len, ids_of(each.tokenizer, lines))) for each in (made, from_text)]
    assert tokens[0] < 1.15 * tokens[1]


def test_what_the_corpus_does_not_support_is_said(source: Source) -> None:
    made = extend_tokenizer(source("smollm2"), ["әйе әйе"], new_tokens=500)
    assert 0 < made.new_tokens < 20
    assert any(f"supports {made.new_tokens} of the 500" in note for note in made.notes)
    none = extend_tokenizer(source("smollm2"), ["әйе әйе"], new_tokens=5, min_count=100)
    assert none.new_tokens == 0 and len(none.tokenizer) == len(source("smollm2"))


@pytest.mark.parametrize("name", first_of(["tiny", "minilm", "unigram", "t5"], "tiny", "t5"))
@pytest.mark.parametrize(
    "lines",
    [["..."], ["▁▁▁"], ["a\0b\0"] * 5, ["китап" * 5_000], ["中文的文本没有空格" * 300], ["<s> [CLS] <|x|>"] * 4],
    ids=["dots", "marks", "nul", "endless", "chinese", "specials"],
)
def test_odd_corpora_do_no_harm(name: str, lines: list[str], source: Source) -> None:
    old = source(name)
    new = extend_tokenizer(old, lines, new_tokens=20)
    assert {text: i for text, i in new.tokenizer.get_vocab().items() if i < old_size(old)} == old.get_vocab()
    found = audit_tokenizer(new.tokenizer, ids=np.flatnonzero(new.kept < 0))
    assert found.examined == new.new_tokens and not len(found.unreachable), found.examples()


def test_requests_that_cannot_be_met(source: Source) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        extend_tokenizer(source("smollm2"), ["a"], new_tokens=0)
    with pytest.raises(UsageError, match="at least 1"):
        extend_tokenizer(source("smollm2"), ["a"], new_tokens=1, min_count=0)
    with pytest.raises(VocabTransferError, match="no text"):
        extend_tokenizer(source("smollm2"), ["", " "], new_tokens=5)
    with pytest.raises(VocabTransferError, match="surrogate"):
        extend_tokenizer(source("smollm2"), ["a\ud800"], new_tokens=5)
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(UsageError, match="cannot be reshaped"):
        extend_tokenizer(words, ["a"], new_tokens=5)


def test_kept_is_what_a_table_needs(source: Source, extended: Extended) -> None:
    kept = extended("minilm").kept
    assert kept.dtype == np.int64 and len(kept) == old_size(extended("minilm").tokenizer)


@pytest.mark.parametrize("shape", ["extended", "trimmed", "optimised"])
def test_a_transfer_copies_the_rows_that_exist_bit_for_bit(shape: str, tiny_llama: Path, tmp_path: Path) -> None:
    checkpoint = vt.open_checkpoint(tiny_llama)
    made = {
        "extended": lambda: extend_tokenizer(checkpoint.tokenizer, corpus("smollm2"), new_tokens=300),
        "trimmed": lambda: trim_tokenizer(checkpoint.tokenizer, corpus("smollm2"), keep=5_000),
        "optimised": lambda: optimise_tokenizer(checkpoint.tokenizer, corpus("smollm2"), size=3_000),
    }[shape]()
    vt.transfer(checkpoint, made.tokenizer, method="pieces").save(tmp_path / "out")
    old, new = (vt.open_checkpoint(folder).input_table() for folder in (tiny_llama, tmp_path / "out"))
    kept = torch.from_numpy(made.kept)
    assert len(new) == len(kept) and new.dtype == old.dtype
    assert torch.equal(new[kept >= 0], old[kept[kept >= 0]])
    assert (kept >= 0).sum() > 400 and (made.new_tokens > 0) == (shape != "trimmed")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tekken", "mistral_v1"])
def test_mistral_s_own_files_can_be_reshaped(name: str, real_tokenizer: Source) -> None:
    old, lines = real_tokenizer(name), django_lines("tt")
    alphabet = set(byte_alphabet().values()) if name == "tekken" else {f"<0x{byte:02X}>" for byte in range(256)}
    longer = extend_tokenizer(old, lines, new_tokens=NEW)
    found = audit_tokenizer(longer.tokenizer, ids=np.flatnonzero(longer.kept < 0))
    assert found.examined == NEW and not len(found.unreachable), found.examples()
    best = optimise_tokenizer(old, lines, size=4_000)
    for made in (longer, best, trim_tokenizer(old, lines, keep=4_000)):
        vocabulary = made.tokenizer.get_vocab()
        assert alphabet <= set(vocabulary) and made.tokenizer.special_tokens_map == old.special_tokens_map
        for text in (*TEXTS, *lines[:50]):
            ours, theirs = (t.decode(ids_of(t, [text])[0]) for t in (made.tokenizer, old))
            assert ours == theirs
