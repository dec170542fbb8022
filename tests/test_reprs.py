"""Results and requests are one short line in a notebook, whatever they hold."""

from pathlib import Path

import pytest
from hydra_samples import make_source, tokenizer, transferred

import vocabtransfer as vt
from vocabtransfer.alignment.aligner import align_corpus


def test_results_are_one_short_line(tmp_path: Path, smollm2_folder: Path) -> None:
    real = vt.open_checkpoint(smollm2_folder)
    assert "rows=49,152" in repr(real)
    source = make_source(tmp_path / "english")
    result = transferred(source, "tatar")
    result.save(tmp_path / "tatar")
    found = [
        *(real, real.vocabulary, result, result.token_map, vt.inspect(tmp_path / "tatar"), result.explain(5)),
        *(align_corpus([("hello world", "сәлам дөнья")] * 4), vt.audit_tokenizer(tokenizer("english"))),
        vt.extend_tokenizer(tokenizer("english"), ["сәлам дөнья"] * 40, new_tokens=2),
    ]
    for thing in found:
        assert repr(thing).startswith(f"{type(thing).__name__}(") and len(repr(thing)) < 250, repr(thing)[:300]


@pytest.mark.parametrize(
    "request_",
    [
        vt.BuildRequest("smollm2", "tatar", vocab_size=4000),
        vt.AdaptRequest("smollm2", "nl.txt", Path("out")),  # type: ignore[arg-type]
        vt.LeaderboardRequest("smollm2", "dutch", "en-nl.tsv"),
        vt.CalibrateRequest("out", "nl.txt", Path("mended")),  # type: ignore[arg-type]
    ],
    ids=lambda request: type(request).__name__,
)
def test_requests_say_what_was_asked_and_no_defaults(request_: object) -> None:
    assert len(repr(request_)) < 120 and "None" not in repr(request_)


def test_what_was_asked_is_all_there() -> None:
    assert repr(vt.BuildRequest("smollm2", "tatar", vocab_size=4000)) == (
        "BuildRequest(source='smollm2', target='tatar', vocab_size=4000)"
    )
