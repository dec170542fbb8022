"""Aligners of other projects behind the same interface, where they are installed."""

import builtins
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_alignment_aligner import CORPUS, GOLD, error_rate, links_of

from vocabtransfer.alignment import align, align_corpus
from vocabtransfer.errors import UsageError, VocabTransferError

INSTALLED = {"eflomal": "eflomal", "thot": "thot"}


@pytest.mark.slow
@pytest.mark.parametrize("name", INSTALLED)
def test_links_are_found_and_counted(name: str) -> None:
    if importlib.util.find_spec(INSTALLED[name]) is None:
        pytest.skip(f"the aligner {name} is an extra and not installed")
    odd = [([], ["a"]), (["a"] * 300, ["b"])]
    corpus = [odd[0], *CORPUS[:150], odd[1], (["a b", "c\n"], ["\u2028", "x y"])]
    alignment = align(corpus, aligner=name)
    assert len(alignment) == 153 and alignment.aligner == f"{name}, grow-diag-final-and"
    links = links_of(alignment)
    assert links[0] == links[151] == set()
    assert error_rate(links[1:151], GOLD[:150]) < 0.3
    both, either = (links_of(align(CORPUS[:40], aligner=name, symmetrise=m)) for m in ("intersection", "union"))
    # eflomal draws anew each time, so only sizes can be compared.
    assert sum(map(len, both)) < sum(map(len, either))
    table = align_corpus(CORPUS[:40], aligner=name, metadata={"source": "en"})
    assert table.metadata["aligner"].startswith(name) and table.counts.nnz


SENTENCES = (
    "the old house stands near the river",
    "she bought seven red apples yesterday",
    "my brother never drinks coffee after dinner",
    "unbelievable kangaroos jumped over Wittgenstein's fence",
)


def test_a_model_links_words_that_mean_the_same(minilm_folder: Path, tmp_path: Path) -> None:
    """A real encoder of English reads sentences and the same words in another order."""
    rng = np.random.default_rng(0)
    pairs, gold = [], []
    for sentence in SENTENCES:
        words = sentence.split()
        order = rng.permutation(len(words))
        pairs.append((words, [words[place] for place in order]))
        gold.append({(int(place), number) for number, place in enumerate(order)})
    odd = [([], ["a"]), (["a"] * 300, ["b"]), (["\u200b\u00ad"], ["\x00"])]
    alignment = align([*odd, *pairs], aligner="neural", model=minilm_folder)
    links = links_of(alignment)
    assert alignment.aligner == "neural, intersection" and links[:2] == [set(), set()]
    assert error_rate(links[3:], gold) < 0.15
    # A batch does not matter: each sentence is read on its own.
    alone = links_of(align(pairs[2:3], aligner="neural", model=minilm_folder))
    assert alone == links[5:6]
    both, either = (
        links_of(align(pairs, aligner="neural", model=minilm_folder, symmetrise=m)) for m in ("intersection", "union")
    )
    assert all(a <= b for a, b in zip(both, either, strict=True))
    assert sum(map(len, either)) >= len(" ".join(SENTENCES).split())


def test_a_causal_model_with_a_byte_level_tokenizer_links_words_too(tiny_llama: Path) -> None:
    words = ["хәерле", "көн", ",", "дөнья", "!"]
    alignment = align([(words, words), (["a"] * 200, ["a"] * 200)], aligner="neural", model=tiny_llama)
    # The first layer of a causal model knows words by what they are and by what came before: the same here and there.
    assert alignment.links(0) == [(number, number) for number in range(len(words))]


def test_a_model_that_is_none_is_said(tmp_path: Path) -> None:
    for reference in (tmp_path, tmp_path / "missing"):
        with pytest.raises(VocabTransferError):
            align([("a", "b")], aligner="neural", model=reference)


@pytest.mark.parametrize("name", INSTALLED)
def test_an_aligner_that_is_not_there_says_how_to_get_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = importlib.import_module

    def missing(wanted: str, *arguments: Any) -> Any:
        if wanted.split(".")[0] == INSTALLED[name]:
            raise builtins.ImportError(wanted)
        return original(wanted, *arguments)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UsageError, match="is not installed: pip install"):
        align(CORPUS[:5], aligner=name)


@pytest.mark.parametrize(
    "options",
    [
        {"aligner": "giza"},
        {"aligner": "neural"},
        {"aligner": "thot", "model": "minilm"},
        {"model": "minilm"},
        {"aligner": "neural", "model": "minilm", "effort": "fast"},
        {"aligner": "thot", "symmetrise": "posterior"},
        {"aligner": "thot", "threshold": 0.5},
        {"aligner": "thot", "effort": "fast"},
        {"aligner": "eflomal", "dictionary": [("a", "b")]},
        {"aligner": "eflomal", "romanizer": str},
    ],
)
def test_options_of_another_aligner_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        align(CORPUS[:5], **options)
