"""Unigram and WordPiece, changes of kind, reproducibility in fresh processes, and requests that cannot be met."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thinned import first_of
from tokenizer_samples import made_up_text, t5_like
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AddedToken, PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.pipeline.spelling import check_round_trips
from vocabtransfer.tokenization.load import load_tokenizer
from vocabtransfer.tokenization.optimise import optimise_tokenizer
from vocabtransfer.tokenization.save import backend_document, save_tokenizer
from vocabtransfer.tokenization.train import ALGORITHMS, train_tokenizer, training_notes
from vocabtransfer.tokenization.train_corpus import alphabet, repeated, scaled_counts, within_alphabet
from vocabtransfer.tokenization.train_unigram import seed_pieces


@pytest.fixture(scope="module")
def t5() -> PreTrainedTokenizerFast:
    """A tokenizer put together like T5's: Unigram without byte fallback, eos at the end, sentinels after the words."""
    return t5_like()


def test_unigram_is_learnt_in_the_pipeline_of_t5(t5: PreTrainedTokenizerFast) -> None:
    new = train_tokenizer(made_up_text(), like=t5, vocab_size=300)
    old, now = backend_document(t5), backend_document(new)
    assert len(new) == 300 and now["model"]["type"] == "Unigram" and not now["model"]["byte_fallback"]
    assert all(now[part] == old[part] for part in ("normalizer", "pre_tokenizer", "decoder"))
    assert new("каба").input_ids[-1] == new.eos_token_id == 1
    assert new.convert_ids_to_tokens([0, 1, 2, 297, 298, 299]) == [
        "<pad>",
        "</s>",
        "<unk>",
        "<extra_id_2>",
        "<extra_id_1>",
        "<extra_id_0>",
    ]
    assert new.extra_special_tokens == t5.extra_special_tokens
    lines = made_up_text(100)
    assert [new.decode(ids, skip_special_tokens=True) for ids in new(lines).input_ids] == lines
    assert new.unk_token_id in new("京").input_ids
    # Numbers of several digits, as the source has them, and whole words.
    assert any(t.strip("▁").isdigit() and len(t.strip("▁")) > 1 for t in new.get_vocab())
    assert sum(map(len, new(lines).input_ids)) < 0.8 * sum(len(line.encode()) / 2 for line in lines)


def test_whole_words_become_unigram_pieces(t5: PreTrainedTokenizerFast) -> None:
    counts = dict.fromkeys(("китап", "мәктәп", "укытучы", "дәрес"), 50) | {f"ул{n}": 1 for n in range(30)}
    new = train_tokenizer(counts, like=t5, vocab_size=180)
    assert new.tokenize("китап мәктәп укытучы дәрес") == ["▁китап", "▁мәктәп", "▁укытучы", "▁дәрес"]


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text("абв", min_size=1, max_size=20), st.integers(1, 9), max_size=8), st.integers(1, 6))
def test_seeds_are_exactly_the_repeated_substrings(counts: dict[str, int], least: int) -> None:
    expected: dict[str, int] = {}
    for piece, count in counts.items():
        for start in range(len(piece)):
            for end in range(start + 2, min(len(piece), start + 16) + 1):
                expected[piece[start:end]] = expected.get(piece[start:end], 0) + count
    assert seed_pieces(counts, least=least) == {text: n for text, n in expected.items() if n >= least}
    assert list(seed_pieces(counts, least=least, limit=3)) == list(seed_pieces(counts, least=least))[:3]


def test_wordpiece_keeps_berts_rules(real_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> None:
    bert = real_tokenizer("minilm")
    new = train_tokenizer(["Cafés zijn open, en het café is vol: 1234 gasten."] * 20, like=bert, vocab_size=400)
    assert new.tokenize("CAFÉ, open!") == ["cafe", ",", "open", "!"]  # lower case and no accents, as the source
    assert new.convert_ids_to_tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    ids = new("open").input_ids
    assert (ids[0], ids[-1]) == (new.cls_token_id, new.sep_token_id) and new.unk_token_id == 1
    assert new.decode(ids, skip_special_tokens=True) == "open"
    for unseen in ("xyzzy42", "[brackets]", "q~z"):  # printable ASCII never ends as the unknown token
        assert new.unk_token_id not in new(unseen).input_ids
    kept = train_tokenizer(made_up_text(), like=bert, vocab_size=1500, keep_reserved=True)
    assert kept.convert_ids_to_tokens([0, 1, 99, 100]) == ["[PAD]", "[unused0]", "[unused98]", "[UNK]"]


def test_bert_keeps_vowel_signs_where_they_matter(real_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> None:
    hindi = ["स्कूल में हिन्दी की किताबें हैं"] * 5
    new = train_tokenizer(hindi, like=real_tokenizer("minilm"), vocab_size=250)
    assert new.tokenize("स्कूल में") == ["स्कूल", "में"] and any("vowel" in note for note in training_notes(new))
    as_is = train_tokenizer(hindi, like=real_tokenizer("minilm"), vocab_size=250, repair_marks=False)
    assert as_is.tokenize("स्कूल में") == ["सकल", "म"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", first_of(["smollm2", "mistral_v3", "minilm", "t5"], "smollm2", "t5"))
def test_every_kind_becomes_every_other(name: str, algorithm: Any, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue("t5") if name == "t5" else request.getfixturevalue("real_tokenizer")(name)
    lines = made_up_text()
    new = train_tokenizer(lines, like=source, vocab_size=450, algorithm=algorithm)
    assert len(new) == 450
    assert new.chat_template == source.chat_template and new.eos_token == source.eos_token
    if not (name == "minilm" and algorithm == "wordpiece"):
        assert set(source.special_tokens_map.values()) <= set(new.get_vocab())
    old_edges = [t for t in source.convert_ids_to_tokens(source("x").input_ids) if t in source.all_special_tokens]
    assert [t for t in new.convert_ids_to_tokens(new("x").input_ids) if t in source.all_special_tokens] == old_edges
    lossless = algorithm in ("bpe", "sentencepiece") or (algorithm == "unigram" and name != "t5")
    text = "Кала  бара, 京 1234\n\tif x: <0x41> 👩‍🚀"
    if lossless:
        assert new.decode(new(text, add_special_tokens=False).input_ids) == text
    if name in ("smollm2", "mistral_v3"):
        digits = [t for t in new.get_vocab() if t.isascii() and t.removeprefix("##").isdigit()]
        assert {len(t.removeprefix("##")) for t in digits} == {1}
    assert new.unk_token_id is None or new.unk_token_id not in new(lines[0]).input_ids


@pytest.mark.slow
def test_groups_of_three_survive_a_change_of_kind(real_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> None:
    new = train_tokenizer(made_up_text(), like=real_tokenizer("gpt4o"), vocab_size=600, algorithm="sentencepiece")
    pieces = new.backend_tokenizer.pre_tokenizer.pre_tokenize_str("▁31415926")
    assert [piece for piece, _ in pieces] == ["▁", "314", "159", "26"]


PROGRAM = """
import json, sys
from pathlib import Path
from vocabtransfer.tokenization.load import load_tokenizer
from vocabtransfer.tokenization.optimise import optimise_tokenizer
from vocabtransfer.tokenization.save import save_tokenizer
from vocabtransfer.tokenization.train import train_tokenizer
lines, folders, target = json.loads(Path(sys.argv[1]).read_text()), sys.argv[3:], Path(sys.argv[2])
for n, folder in enumerate(folders):
    like = load_tokenizer(folder)
    for algorithm in ("bpe", "sentencepiece", "unigram", "wordpiece"):
        new = train_tokenizer(lines, like=like, vocab_size=700, algorithm=algorithm)
        save_tokenizer(new, target / f"{n}-{algorithm}")
    save_tokenizer(optimise_tokenizer(like, lines, size=3000).tokenizer, target / f"{n}-optimised")
"""


def _fresh_process(lines: Path, target: Path, folders: Iterable[Path], threads: str, seed: str) -> None:
    environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": "true"}
    command = [sys.executable, "-c", PROGRAM, str(lines), str(target), *map(str, folders)]
    subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parents[1])


def _digests(target: Path) -> dict[str, str]:
    files = sorted(path for path in target.rglob("*") if path.is_file())
    return {str(path.relative_to(target)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_fresh_processes_write_the_same_bytes(tmp_path: Path, real_tokenizer_folder: Callable[[str], Path]) -> None:
    lines = tmp_path / "lines.json"
    text = made_up_text(800)
    lines.write_text(json.dumps(text))
    folders = [real_tokenizer_folder(name) for name in ("smollm2", "minilm")]
    for number, folder in enumerate(folders):
        like = load_tokenizer(folder)
        made = {kind: train_tokenizer(text, like=like, vocab_size=700, algorithm=kind) for kind in ALGORITHMS}
        made["optimised"] = optimise_tokenizer(like, text, size=3_000).tokenizer
        for kind, tokenizer in made.items():
            save_tokenizer(tokenizer, tmp_path / "here" / f"{number}-{kind}")
    _fresh_process(lines, tmp_path / "there", folders, threads="2", seed="2")
    assert len(_digests(tmp_path / "here")) > 20 and _digests(tmp_path / "here") == _digests(tmp_path / "there")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_small_corpora_give_small_vocabularies_and_say_so(algorithm: Any, t5: PreTrainedTokenizerFast) -> None:
    new = train_tokenizer(["бер ике өч"] * 2, like=t5, vocab_size=5000, algorithm=algorithm)
    assert len(new) < 600
    assert f"The corpus supports {len(new)} of the 5,000 entries asked for." in training_notes(new)


@pytest.mark.parametrize(("algorithm", "minimum"), [("bpe", 262), ("sentencepiece", 357), ("unigram", 101)])
def test_too_small_sizes_name_the_minimum(algorithm: Any, minimum: int, t5: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UsageError, match=f"at least {minimum}"):
        train_tokenizer(made_up_text(), like=t5, vocab_size=50, algorithm=algorithm)
    assert len(train_tokenizer(made_up_text(), like=t5, vocab_size=minimum, algorithm=algorithm)) == minimum


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "lines", [["x"], ["京都大学" * 5, "ไทย" * 9], ["1"], ["!?"], ["\x00 \x07"], ["▅ ▁"], ["a" * 5000]]
)
def test_odd_corpora_still_make_a_tokenizer(lines: list[str], algorithm: Any, t5: PreTrainedTokenizerFast) -> None:
    new = train_tokenizer(lines, like=t5, vocab_size=500, algorithm=algorithm)
    assert 97 <= len(new) <= 500
    assert max(len(token) for token in new.get_vocab() if token not in new.all_special_tokens) <= 64
    if algorithm in ("bpe", "sentencepiece") and "▁" not in lines[0]:
        assert new.decode(new(lines[0], add_special_tokens=False).input_ids) == lines[0]


def test_a_corpus_without_any_character_for_unigram(real_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> None:
    new = train_tokenizer(["\x00\x07"], like=real_tokenizer("smollm2"), vocab_size=500, algorithm="unigram")
    assert new.decode(new("\x00 ab").input_ids) == "\x00 ab"


def test_counts_may_be_numbers_of_any_kind(t5: PreTrainedTokenizerFast) -> None:
    whole = {"китап": 9, "дәрес": 7, "укый": 3}
    for kind in (float, np.float32, np.int64):
        new = train_tokenizer({word: kind(count) for word, count in whole.items()}, like=t5, vocab_size=150)
        assert new.get_vocab() == train_tokenizer(whole, like=t5, vocab_size=150).get_vocab()


@pytest.mark.parametrize("corpus", [[], ["", "  ", "\n"], {}, {"слово": 0}, {"слово": 0.2}, {" ": 3}])
def test_empty_corpora_are_refused(corpus: Any, t5: PreTrainedTokenizerFast) -> None:
    with pytest.raises(VocabTransferError, match=r"every line of it is empty|no word has a count"):
        train_tokenizer(corpus, like=t5, vocab_size=500)


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ("tatar.txt", "open the file first"),
        (["ok", b"bytes"], "Line 2 of the corpus is bytes"),
        (["ok"] * 2500 + ["half \ud83d"], r"Line 2501 of the corpus .*surrogate"),
        ({"x": -1}, "'x' has -1"),
        ({"x": "3"}, "'x' has '3'"),
        ({"x": float("nan")}, "'x' has nan"),
        ({"x": float("inf")}, "'x' has inf"),
        ({3: 1}, "3 has 1"),
    ],
)
def test_what_is_not_text_is_refused(corpus: Any, message: str, t5: PreTrainedTokenizerFast) -> None:
    with pytest.raises(VocabTransferError, match=message):
        train_tokenizer(corpus, like=t5, vocab_size=500)


def test_requests_that_make_no_sense(t5: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UsageError, match="choose one of bpe"):
        train_tokenizer(["a"], like=t5, vocab_size=500, algorithm="bbpe")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="must be positive"):
        train_tokenizer(["a"], like=t5, vocab_size=0)
    words = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    )
    with pytest.raises(UsageError, match="WordLevel"):
        train_tokenizer(["a"], like=words, vocab_size=500)


@given(st.dictionaries(st.text("абвг", min_size=1, max_size=9), st.integers(1, 10**15), min_size=1, max_size=30))
def test_scaled_counts_are_bounded_and_keep_their_order(counts: dict[str, int]) -> None:
    scaled, scale = scaled_counts(counts, 10_000)
    assert sum((len(piece) + 1) * n for piece, n in scaled.items()) <= 10_000 + 10 * len(counts)
    assert (scale == 1.0) == (scaled == counts) or scale < 1
    ordered = sorted(counts, key=counts.__getitem__)
    assert all(scaled.get(a, 0) <= scaled.get(b, 0) for a, b in itertools.pairwise(ordered))


@given(st.dictionaries(st.text("аб", min_size=1, max_size=5), st.integers(1, 500), max_size=10), st.integers(1, 60))
def test_repetition_gives_every_piece_as_often_as_counted(counts: dict[str, int], size: int) -> None:
    fed = [piece for batch in repeated(counts, size) for text in batch for piece in text.split("\ufdd0") if piece]
    assert {piece: fed.count(piece) for piece in set(fed)} == counts


@given(st.dictionaries(st.text(max_size=8), st.integers(1, 50), max_size=20), st.sets(st.characters(), min_size=1))
def test_pieces_are_cut_at_characters_outside_the_alphabet(counts: dict[str, int], letters: set[str]) -> None:
    cut = within_alphabet(counts, sorted(letters))
    assert all(set(part) <= letters for part in cut)
    inside = sum(n for piece, count in counts.items() for n in [count * sum(c in letters for c in piece)])
    assert sum(len(part) * n for part, n in cut.items()) == inside


def test_the_alphabet_covers_what_it_should() -> None:
    counts = {"а": 9000, "б": 900, "в": 99, "г": 1, "\x07": 5000}
    assert alphabet(counts, always="z", coverage=0.6) == ["z", "а"]
    assert alphabet(counts, always="z", coverage=1.0) == ["z", "а", "б", "в", "г"]
    assert alphabet(counts, always="z", coverage=1.0, limit=3) == ["z", "а", "б"]


def camembert_like(*, separator: str = "</s>") -> PreTrainedTokenizerFast:
    """A tokenizer laid out as CamemBERT's: placeholders that are no special tokens stand between the special ones."""
    words = made_up_text(200)
    first = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"]
    letters = sorted({letter for line in words for letter in line if letter != " "} | {"▁", "(", ")"})
    vocabulary = [(piece, 0.0) for piece in first] + [(letter, -2.0) for letter in letters]
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single=f"<s> $A {separator}", special_tokens=[("<s>", 5), (separator, 6)]
    )
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **roles)


def test_special_tokens_among_placeholders_keep_their_ids() -> None:
    old = camembert_like()
    new = train_tokenizer(made_up_text(), like=old, vocab_size=200)
    assert new.convert_ids_to_tokens(list(range(7))) == old.convert_ids_to_tokens(list(range(7)))
    assert (new.pad_token_id, new.unk_token_id, new.bos_token_id, new.eos_token_id) == (1, 3, 5, 6)
    assert new("каба").input_ids[0] == 5 and new("каба").input_ids[-1] == 6


def test_a_post_processor_with_a_token_that_is_not_there_is_refused() -> None:
    with pytest.raises(VocabTransferError, match="puts 'eng_Latn' around its texts"):
        train_tokenizer(made_up_text(), like=camembert_like(separator="eng_Latn"), vocab_size=200)


def test_added_tokens_inside_words_may_cost_a_space() -> None:
    new = camembert_like()
    new.add_tokens([AddedToken("(", normalized=False), AddedToken(")", normalized=False)])
    assert new.decode(new.encode("аб(ка)", add_special_tokens=False)) != "аб(ка)"
    check_round_trips(new, ["аб(ка)"])
    new.backend_tokenizer.decoder = decoders.Sequence([decoders.Metaspace(), decoders.Replace("а", "б")])
    with pytest.raises(VocabTransferError, match="so nothing was written"):
        check_round_trips(new, ["аб(ка)"])
