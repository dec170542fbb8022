"""The word aligner on a made-up language whose links are known: inflected, verb-last, with words of no counterpart."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vocabtransfer.alignment import WordAlignment, align, align_corpus, aligner_model, options
from vocabtransfer.alignment.aligner_text import number_pairs
from vocabtransfer.alignment.symmetrise import METHODS, grow_diag_final_and
from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.kernels import compiled

Links = set[tuple[int, int]]
ENDINGS = ("", "lar", "ni", "da", "larni")


def invent(pairs: int, seed: int = 0) -> tuple[list[tuple[list[str], list[str]]], list[Links]]:
    """Return sentence pairs and their true links.

    Content words follow Zipf's law. A target sentence turns its words around in blocks of three, drops articles, adds
    endings, says every seventh word in two, and sometimes puts in a particle of its own.
    """
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, 801)
    names, roots = _syllables(rng, "bcdfghjklm"), _syllables(rng, "npqrstvwxz")
    corpus, gold = [], []
    for _ in range(pairs):
        content = rng.choice(800, size=rng.integers(2, 10), p=weights / weights.sum())
        source: list[str] = []
        places = []
        for word in content:
            if rng.random() < 0.4:
                source.append("the")
            places.append(len(source))
            source.append(names[word] if word % 50 else str(word + 1000))
        source.append(".")
        target: list[str] = []
        links: Links = set()
        order = [i for start in range(0, len(content), 3) for i in reversed(range(start, min(start + 3, len(content))))]
        for i in order:
            word = int(content[i])
            made = [str(word + 1000)] if word % 50 == 0 else [roots[word] + ENDINGS[int(rng.integers(len(ENDINGS)))]]
            if word % 7 == 3:
                made.append("qil" + "abcdefghij"[word % 10])
            links |= {(places[i], len(target) + k) for k in range(len(made))}
            target += made
            if rng.random() < 0.15:
                target.append("esa")
        links.add((len(source) - 1, len(target)))
        target.append(".")
        corpus.append((source, target))
        gold.append(links)
    return corpus, gold


def _syllables(rng: np.random.Generator, consonants: str) -> list[str]:
    """Return 800 words of four syllables, each a consonant and a vowel."""
    return ["".join(f"{rng.choice(list(consonants))}{rng.choice(list('aeiou'))}" for _ in range(4)) for _ in range(800)]


def error_rate(found: Sequence[Links], gold: Sequence[Links]) -> float:
    both = sum(len(a & b) for a, b in zip(found, gold, strict=True))
    return 1 - 2 * both / sum(len(a) + len(b) for a, b in zip(found, gold, strict=True))


def links_of(alignment: WordAlignment) -> list[Links]:
    return [set(alignment.links(pair)) for pair in range(len(alignment))]


def digest(alignment: WordAlignment) -> str:
    arrays = (alignment.starts, alignment.source_positions, alignment.target_positions, alignment.probabilities)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


CORPUS, GOLD = invent(1500)


@pytest.fixture(scope="module")
def aligned() -> WordAlignment:
    return align(CORPUS)


def test_links_are_found_where_the_diagonal_is_mostly_wrong(aligned: WordAlignment) -> None:
    diagonal = [{(min(j * len(s) // len(t), len(s) - 1), j) for j in range(len(t))} for s, t in CORPUS]
    assert error_rate(diagonal, GOLD) > 0.6
    assert error_rate(links_of(aligned), GOLD) < 0.1


@pytest.mark.parametrize(("method", "bound"), [("intersection", 0.12), ("union", 0.11), ("grow-diag-final-and", 0.11)])
def test_every_symmetrisation_finds_the_links(method: str, bound: float) -> None:
    assert error_rate(links_of(align(CORPUS, symmetrise=method)), GOLD) < bound


def test_symmetrisations_contain_each_other() -> None:
    inner, grown, outer = (
        links_of(align(CORPUS[:300], symmetrise=m)) for m in ("intersection", "grow-diag-final-and", "union")
    )
    assert all(a <= b <= c for a, b, c in zip(inner, grown, outer, strict=True))
    assert inner != grown != outer


def test_a_higher_threshold_keeps_the_surer_links(aligned: WordAlignment) -> None:
    strict = links_of(align(CORPUS, threshold=0.8))
    assert all(a <= b for a, b in zip(strict, links_of(aligned), strict=True))
    assert sum(map(len, strict)) < sum(map(len, links_of(aligned)))
    assert (aligned.probabilities**2 >= 0.2 - 1e-6).all() and (aligned.probabilities <= 1.0001).all()


def test_flipping_the_sides_flips_the_links(aligned: WordAlignment) -> None:
    flipped = links_of(align((target, source) for source, target in CORPUS))
    assert error_rate([{(i, j) for j, i in links} for links in flipped], links_of(aligned)) < 0.02


def test_the_same_pairs_give_the_same_bytes_in_any_process(aligned: WordAlignment) -> None:
    code = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parent)]!r}\n"
        "import test_alignment_aligner as t\n"
        "print(t.digest(t.align(t.CORPUS)))"
    )
    for threads, hash_seed in (("1", "1"), ("4", "2")):
        variables = {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", code]
        found = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == digest(aligned)


def test_the_same_pairs_give_the_same_bytes_without_threads(
    monkeypatch: pytest.MonkeyPatch, aligned: WordAlignment
) -> None:
    monkeypatch.setattr(aligner_model, "ThreadPoolExecutor", lambda workers: ThreadPoolExecutor(1))
    assert digest(align(CORPUS)) == digest(aligned)


def test_a_corpus_past_the_limit_is_aligned_by_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = sum(len(s) * len(t) for s, t in CORPUS)
    monkeypatch.setattr(aligner_model, "_TRAINED_CELLS", cells // 2)
    monkeypatch.setattr(aligner_model, "_BLOCK_CELLS", cells // 10)
    alignment = align(CORPUS)
    assert error_rate(links_of(alignment), GOLD) < 0.11
    # Pairs that gave no statistics are aligned nearly as well as those that did.
    assert error_rate(links_of(alignment)[1::2], GOLD[1::2]) < 0.11
    assert (np.diff(alignment.starts) >= 0).all() and alignment.starts[-1] == len(alignment.probabilities)


def test_pairs_that_cannot_be_aligned_stay_without_links() -> None:
    odd = [([], ["a"]), (["a"], []), (["a"] * 300, ["b"]), ([], [])]
    alignment = align([*odd[:2], *CORPUS[:200], *odd[2:]])
    assert len(alignment) == 204
    assert [alignment.links(k) for k in (0, 1, 202, 203)] == [[]] * 4
    assert error_rate(links_of(alignment)[2:202], GOLD[:200]) < 0.15


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), min_size=1, max_size=8))
def test_any_text_gives_links_inside_its_sentences(pairs: list[tuple[str, str]]) -> None:
    source, target = number_pairs(pairs)
    if not (np.minimum(source.lengths, target.lengths) > 0).any():
        with pytest.raises(VocabTransferError, match="none of"):
            align(pairs)
        return
    alignment = align(pairs)
    for pair in range(len(pairs)):
        assert all(i < source.lengths[pair] and j < target.lengths[pair] for i, j in alignment.links(pair))
    assert np.isfinite(alignment.probabilities).all()


def test_names_numbers_and_punctuation_link_to_themselves() -> None:
    pairs = [("Mint 12 and Firefox !", "Firefox hem Mint ! 12"), ("see Thunderbird 7 ?", "7 Thunderbird qara ?")]
    alignment = align(pairs)
    assert {(0, 2), (1, 4), (3, 0), (4, 3)} <= set(alignment.links(0))
    assert {(1, 1), (2, 0), (3, 3)} <= set(alignment.links(1))


def test_fast_is_nearly_as_good_and_taken_for_large_corpora(
    monkeypatch: pytest.MonkeyPatch, aligned: WordAlignment
) -> None:
    fast = align(CORPUS, effort="fast")
    assert digest(fast) != digest(aligned) and fast.aligner.endswith("posterior, fast")
    assert error_rate(links_of(fast), GOLD) < 0.12
    assert digest(align(CORPUS, effort="accurate")) == digest(aligned)
    for limit, size in (("ACCURATE_PAIRS", len(CORPUS)), ("ACCURATE_CELLS", sum(len(s) * len(t) for s, t in CORPUS))):
        with monkeypatch.context() as patch:
            patch.setattr(options, limit, size)
            assert digest(align(CORPUS)) == digest(aligned)
            patch.setattr(options, limit, size - 1)
            assert digest(align(CORPUS)) == digest(fast)
            assert digest(align(CORPUS, effort="accurate")) == digest(aligned)


def test_options_out_of_range_are_refused() -> None:
    for wrong in (
        {"effort": "none"},
        {"symmetrise": "both"},
        {"threshold": 0.0},
        {"threshold": 1.0},
        {"stem_length": 0},
    ):
        with pytest.raises(UsageError):
            align(CORPUS[:5], **wrong)
    with pytest.raises(VocabTransferError, match="none of 0 sentence pairs"):
        align([])


def test_words_are_counted_as_written_with_all_their_occurrences() -> None:
    pairs = [("The house", "Uy"), ("the house", "uy"), ("a house", "uy"), ("the book .", "kitap .")] * 10
    table = align_corpus(pairs, metadata={"source": "en", "target": "uz"})
    assert table.source_words == (".", "The", "a", "book", "house", "the")
    assert table.source_totals.tolist() == [10, 10, 10, 10, 30, 20]
    assert table.target_totals.tolist() == [10, 10, 10, 20]  # . Uy kitap uy
    assert table.lookup("uy")[0][0] == "house" and 10 < table.lookup("uy")[0][1] <= 20
    assert table.lookup("Uy")[0][0] == "house" and table.lookup("kitap")[0][0] == "book"
    assert (
        table.metadata["pairs"] == 40
        and table.metadata["target"] == "uz"
        and "vocabtransfer" in table.metadata["aligner"]
    )


def test_counts_add_up_to_the_links(aligned: WordAlignment) -> None:
    table = aligned.table()
    assert table.counts.sum() == pytest.approx(aligned.probabilities.sum(), rel=1e-4)
    assert table.source_totals.sum() == sum(len(source) for source, _ in CORPUS)
    assert (np.asarray(table.counts.sum(axis=0)) <= table.source_totals * 2).all()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_pharaoh_files_are_written_and_read(tmp_path: Path, aligned: WordAlignment, suffix: str) -> None:
    path = tmp_path / f"links.align{suffix}"
    aligned.save_pharaoh(path)
    text = [(" ".join(source), " ".join(target)) for source, target in CORPUS]
    read = WordAlignment.from_pharaoh(text, path)
    assert links_of(read) == links_of(aligned)
    assert read.table().source_totals.tolist() == aligned.table().source_totals.tolist()
    assert read.table().counts.sum() == aligned.starts[-1]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("0-0\n", "has 1 lines for 2 sentence pairs"),
        ("0-0\n0-0\n0-0\n", "has 3 lines for 2 sentence pairs"),
        ("0-0\n0:0\n", "line 2: '0:0' is not a link"),
        ("0-0 1-\n\n", "line 1: '1-' is not a link"),
        ("-1-0\n\n", "line 1: '-1-0' is not a link"),
        ("0-0\n0-1\n", "line 2 links a word past the end"),
        ("2-0\n\n", "line 1 links a word past the end"),
    ],
)
def test_bad_pharaoh_files_are_refused_by_line(tmp_path: Path, lines: str, message: str) -> None:
    path = tmp_path / "links"
    path.write_text(lines)
    with pytest.raises(VocabTransferError, match=message) as caught:
        WordAlignment.from_pharaoh([("a b", "c d"), ("e", "f")], path)
    assert str(path) in str(caught.value)


def test_growing_follows_neighbours_and_final_and_joins_lone_words() -> None:
    forward = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]], dtype=bool)
    backward = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)
    starts = np.array([0, 4])
    found = grow_diag_final_and(starts, starts, np.array([0, 16]), forward.ravel(), backward.ravel())
    assert set(zip(*np.nonzero(found.reshape(4, 4)), strict=True)) == {(0, 0), (0, 1), (3, 3)}


def test_methods_are_listed_as_documented() -> None:
    assert all(f'"{method}"' in (align.__doc__ or "") for method in METHODS)


def test_kernels_compile_where_no_cache_can_be_written() -> None:
    scope: dict[str, object] = {}
    exec("def double(x):\n    return 2 * x", scope)  # a function without a file is one that numba cannot cache
    assert compiled()(scope["double"])(21) == 42
