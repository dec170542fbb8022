"""A saved tokenizer gives the same ids to every loader, whatever model lies beside it, and the same bytes each time."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizer_samples import LARGEST, largest_slow
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerFast

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.tokenization.load import load_tokenizer
from vocabtransfer.tokenization.save import fixed_tokenizer_class, save_tokenizer
from vocabtransfer.tokenization.train import train_tokenizer, training_notes

LINES = [
    "Сәлам, дөнья! Бу китап 12345 битле; «яхшы» дигән сүз.",
    "Het café is open: foto's, it's  two spaces\n\tand a tab — 3,14.",
    "हिन्दी में किताब १२३ 👩‍🚀 <0x41> ▁",
    "def f(x):\n    return {'a': [x, 2]}\n\n",
    " leading and trailing ",
    "",
]
# Each source beside the configurations whose loaders would rather build a tokenizer of their own class.
CASES = [
    ("llama3", "llama"),
    ("llama3", "mistral"),
    ("qwen3", "qwen3"),
    ("gemma3", "gemma3_text"),
    ("gemma3", "gemma2"),
    ("llama2", "llama"),
    ("mistral_v3", "mistral"),
    ("smollm2", "llama"),
    ("gpt4o", "gpt2"),
    ("deepseek_v3", "deepseek_v3"),
    ("minilm", "bert"),
    ("tekken", "mistral"),
    ("qwen3", "roberta"),
    ("llama2", "t5"),
    ("llama2", "xlm-roberta"),
    ("gemma3", "phi3"),
]

Real = Callable[[str], PreTrainedTokenizerFast]
Fresh = Callable[[str], PreTrainedTokenizerFast]


@pytest.fixture(scope="module")
def fresh(real_tokenizer: Real) -> Fresh:
    """Gives a small tokenizer trained after a real one."""
    made: dict[str, PreTrainedTokenizerFast] = {}

    def get(name: str) -> PreTrainedTokenizerFast:
        if name not in made:
            made[name] = train_tokenizer(LINES * 3, like=real_tokenizer(name), vocab_size=600)
        return made[name]

    return get


def config(folder: Path, model_type: str, version: str = "4.56.0") -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "transformers_version": version}))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "model_type"),
    [pytest.param(*case, marks=pytest.mark.slow) if case[0] in LARGEST else case for case in CASES],
)
def test_every_loader_gives_the_same_ids(name: str, model_type: str, fresh: Fresh, tmp_path: Path) -> None:
    tokenizer = fresh(name)
    written = save_tokenizer(tokenizer, tmp_path)
    assert written == sorted(contents(tmp_path)) and ("chat_template.jinja" in written) == bool(tokenizer.chat_template)
    config(tmp_path, model_type)
    automatic, ours = AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path)
    expected = tokenizer(LINES).input_ids
    for loaded in (automatic, ours):
        assert loaded(LINES).input_ids == expected
        assert loaded.batch_decode(expected) == tokenizer.batch_decode(expected)
        assert loaded.get_vocab() == tokenizer.get_vocab() and len(loaded) == len(tokenizer)
        assert loaded.special_tokens_map == tokenizer.special_tokens_map
        assert loaded.all_special_ids == tokenizer.all_special_ids
        assert {i: repr(t) for i, t in loaded.added_tokens_decoder.items()} == {
            i: repr(t) for i, t in tokenizer.added_tokens_decoder.items()
        }
        assert loaded.chat_template == tokenizer.chat_template
        assert loaded.padding_side == tokenizer.padding_side
        assert loaded.model_max_length == tokenizer.model_max_length
        assert training_notes(loaded) == training_notes(tokenizer)


@pytest.mark.parametrize(
    "name",
    ["mistral_v3", "minilm", "smollm2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("llama3", "gemma3"))],
)
def test_real_tokenizers_survive_saving(name: str, real_tokenizer: Real, tmp_path: Path) -> None:
    tokenizer = real_tokenizer(name)
    save_tokenizer(tokenizer, tmp_path)
    config(tmp_path, {"minilm": "bert", "gemma3": "gemma3", "mistral_v3": "mistral"}.get(name, "llama"), "5.0.0")
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(LINES).input_ids == tokenizer(LINES).input_ids
    assert loaded.special_tokens_map == tokenizer.special_tokens_map


def test_qwen2_reads_only_its_own_rules(real_tokenizer: Real, tmp_path: Path) -> None:
    assert fixed_tokenizer_class("qwen2") == "Qwen2Tokenizer"
    assert {fixed_tokenizer_class(model_type) for _, model_type in CASES} == {None}
    tokenizer = train_tokenizer(LINES * 3, like=real_tokenizer("qwen3"), vocab_size=600, repair_marks=False)
    save_tokenizer(tokenizer, tmp_path)
    config(tmp_path, "qwen2")
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert type(loaded).__name__ == "Qwen2Tokenizer"
    assert loaded(LINES).input_ids == tokenizer(LINES).input_ids
    assert loaded.special_tokens_map == tokenizer.special_tokens_map


@pytest.mark.parametrize("name", largest_slow(["qwen3", "gemma3", "smollm2", "llama2", "minilm"]))
def test_saving_what_was_loaded_changes_nothing(name: str, fresh: Fresh, tmp_path: Path) -> None:
    save_tokenizer(fresh(name), tmp_path / "a")
    save_tokenizer(load_tokenizer(tmp_path / "a"), tmp_path / "b")
    save_tokenizer(AutoTokenizer.from_pretrained(tmp_path / "b"), tmp_path / "c")
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")


def test_unigram_scores_do_not_drift(real_tokenizer: Real, tmp_path: Path) -> None:
    lines = [
        f"{a}{b} {b}{c} {a}{c}" for a in ("кара", "сары", "ак") for b in ("ла", "ны", "га") for c in ("р", "м")
    ] * 9
    tokenizer = train_tokenizer(lines, like=real_tokenizer("minilm"), vocab_size=420, algorithm="unigram")
    save_tokenizer(tokenizer, tmp_path / "0")
    for step in range(3):
        save_tokenizer(load_tokenizer(tmp_path / str(step)), tmp_path / str(step + 1))
    assert contents(tmp_path / "0") == contents(tmp_path / "3")


def test_truncation_and_padding_of_earlier_calls_are_not_saved(fresh: Fresh, tmp_path: Path) -> None:
    save_tokenizer(fresh("minilm"), tmp_path / "before")
    fresh("minilm")(LINES, padding="max_length", truncation=True, max_length=7)
    save_tokenizer(fresh("minilm"), tmp_path / "after")
    assert contents(tmp_path / "before") == contents(tmp_path / "after")
    document = json.loads((tmp_path / "after" / "tokenizer.json").read_text(encoding="utf-8"))
    assert document["truncation"] is None and document["padding"] is None


@pytest.mark.parametrize(
    ("name", "bos", "eos"), [("llama2", True, False), ("qwen3", None, False), ("smollm2", False, False)]
)
def test_the_configuration_says_what_encoding_adds(name: str, bos: Any, eos: Any, fresh: Fresh, tmp_path: Path) -> None:
    save_tokenizer(fresh(name), tmp_path)
    settings_ = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert (settings_.get("add_bos_token"), settings_.get("add_eos_token")) == (bos, eos)
    assert settings_["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "auto_map" not in settings_ and "name_or_path" not in settings_


def small(**roles: Any) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens([AddedToken("<mask>", lstrip=True), AddedToken("<s>")])
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", **roles)


def test_flags_of_special_tokens_are_kept(tmp_path: Path) -> None:
    tokenizer = small(mask_token="<mask>", bos_token="<s>", extra_special_tokens=["b"])
    save_tokenizer(tokenizer, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.tokenize("a   <mask> b") == tokenizer.tokenize("a   <mask> b") == ["a", "   <mask>", "b"]
    assert {token.content: token.lstrip for token in loaded.added_tokens_decoder.values()}["<mask>"]
    written = json.loads((tmp_path / "special_tokens_map.json").read_text(encoding="utf-8"))
    assert written["mask_token"]["lstrip"] is True and written["bos_token"] == "<s>"
    assert loaded.extra_special_tokens == ["b"]


def test_named_chat_templates_are_kept(tmp_path: Path) -> None:
    templates = {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    written = save_tokenizer(small(chat_template=templates), tmp_path)
    assert "additional_chat_templates/tool_use.jinja" in written
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == templates


def test_an_old_chat_template_does_not_stay(tmp_path: Path) -> None:
    save_tokenizer(small(chat_template="{{ messages }}"), tmp_path)
    save_tokenizer(small(), tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template is None


@pytest.mark.parametrize("rival", ["tekken.json", "tokenizer.model", "vocab.txt"])
def test_another_vocabulary_in_the_folder_is_refused(rival: str, tmp_path: Path) -> None:
    (tmp_path / rival).write_text("{}")
    with pytest.raises(VocabTransferError, match=f"holds {rival} of another tokenizer"):
        save_tokenizer(small(), tmp_path)
    assert list(contents(tmp_path)) == [rival]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VocabTransferError, match="cannot be written to"):
        save_tokenizer(small(), tmp_path / "file" / "folder")


def test_failure_half_way_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tokenizer(small(), tmp_path)
    before = contents(tmp_path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VocabTransferError, match="No space left"):
        save_tokenizer(small(bos_token="<s>"), tmp_path)
    assert contents(tmp_path) == before


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_loaded_tokenizers_read_any_text_alike(
    text: str, fresh: Fresh, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "alike"
    if not folder.exists():
        save_tokenizer(fresh("mistral_v3"), folder)
        config(folder, "mistral")
    loaded = _loaded(folder)
    assert loaded(text).input_ids == fresh("mistral_v3")(text).input_ids


_cache: dict[Path, PreTrainedTokenizerFast] = {}


def _loaded(folder: Path) -> PreTrainedTokenizerFast:
    return _cache.setdefault(folder, _cache.get(folder) or AutoTokenizer.from_pretrained(folder))
