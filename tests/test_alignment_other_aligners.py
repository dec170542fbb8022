"""Aligners of other projects behind the same interface, where they are installed."""

import builtins
import importlib
import importlib.util
from typing import Any

import pytest
from test_alignment_aligner import CORPUS, GOLD, error_rate, links_of

from vocabtransfer.alignment import align, count_words
from vocabtransfer.errors import UsageError

INSTALLED = {"eflomal": "eflomal", "thot": "thot"}


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
    table = count_words(CORPUS[:40], aligner=name, metadata={"source": "en"})
    assert table.metadata["aligner"].startswith(name) and table.counts.nnz


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
