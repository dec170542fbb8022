"""The edge of the library: what it checks before any work, what it translates, and what it lets through."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra_samples import one_thread  # noqa: F401

import vocabtransfer as vt
from vocabtransfer.checkpoint.synthetic import toy_tokenizer
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.public import fits, public


def test_a_misfit_is_named_before_any_work() -> None:
    with pytest.raises(vt.UsageError, match=r"load_tokenizer: path has to be str or Path, not 3 \(int\)\."):
        vt.load_tokenizer(3)  # type: ignore[arg-type]
    with pytest.raises(
        vt.UsageError, match=r"BuildRequest: vocab_size has to be int or str or None, not 2\.5 \(float\)"
    ):
        vt.BuildRequest("toy", "tatar", vocab_size=2.5)  # type: ignore[arg-type]
    request = vt.BuildRequest(Path("toy"), "tatar", "out", parallel="a.tsv", held_out=["b.txt"])  # type: ignore[arg-type]
    assert (request.source, request.output) == ("toy", Path("out"))
    assert (request.parallel, request.held_out) == ((Path("a.tsv"),), (Path("b.txt"),))


def test_what_callers_raise_themselves_passes() -> None:
    class Theirs(Exception):
        pass

    def lines() -> Iterator[str]:
        yield "сәлам дөнья"
        raise Theirs

    with pytest.raises(Theirs):
        vt.train_tokenizer(lines(), like=toy_tokenizer(["hello"]), vocab_size=280)


def test_foreign_exceptions_are_translated_and_keep_their_cause() -> None:
    @public
    def work(number: int) -> float:
        return 1 / number

    with pytest.raises(VocabTransferError, match="failed on what it was given: ZeroDivisionError") as caught:
        work(0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("value", "hint", "right"),
    [
        (True, int, False),
        (3, float, True),
        (np.int64(3), int, True),
        ("ab", list[str], False),
        (["a"], list[str], True),
        ([3], list[str], False),
        (("a", 3), tuple[str, int], True),
        (("a",), tuple[str, int], False),
        ({"a": [1]}, dict[str, list[int]], True),
        ({"a": ["b"]}, dict[str, list[int]], False),
        (None, int | None, True),
    ],
)
def test_fitting(value: Any, hint: Any, right: bool) -> None:
    assert fits(value, hint) is right
