"""A tiny model of every family with a vocabulary: built anew, it loads, agrees with itself, and thinks as before."""

from pathlib import Path

import pytest
from architecture_samples import families, judge

QUICK = (
    *("bart", "bert", "clip", "gemma2", "gemma3_text", "gpt2", "llama", "qwen3", "roberta", "t5", "whisper", "rwkv"),
    *("deepseek_v3", "deepseek_v4", "gemma3n_text", "gemma4_text", "mllama", "t5gemma"),
)
#: Whatever else changes, these must not be refused.
WORK = {
    "gemma2",
    "gemma3_text",
    "gpt2",
    "llama",
    "qwen3",
    "bert",
    "roberta",
    "bart",
    "t5",
    "deepseek_v3",
    "gemma4_text",
    "t5gemma",
}


@pytest.mark.parametrize("family", QUICK)
def test_popular_families(family: str, tmp_path: Path) -> None:
    verdict = judge(family, tmp_path)
    assert verdict.state != "wrong", verdict
    assert verdict.state == "works" or family not in WORK, verdict


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name in families() if name not in QUICK])
def test_no_family_is_silently_wrong(family: str, tmp_path: Path) -> None:
    """Works, is refused in a sentence, or cannot be made: never wrong and never a traceback."""
    verdict = judge(family, tmp_path)
    assert verdict.state != "wrong", verdict
