"""Tokenizers opened from tokenizer.json and the files beside it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_samples import TEXTS, ids_of, largest_slow, tiny_backend, write_json
from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.tokenization.load import load_tokenizer


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Path:
    tiny_backend("<s>", "</s>").save(str(tmp_path / "tokenizer.json"))
    return tmp_path


# --- tokenizer.json ---


def test_a_tokenizer_json_keeps_every_id(
    real_tokenizer_name: str,
    real_tokenizer_folder: Callable[[str], Path],
    each_real_tokenizer: PreTrainedTokenizerFast,
) -> None:
    file = real_tokenizer_folder(real_tokenizer_name) / "tokenizer.json"
    if not file.exists():
        pytest.skip("not a tokenizer.json")
    plain = Tokenizer.from_file(str(file))
    plain.no_truncation()
    plain.no_padding()
    assert type(each_real_tokenizer) is PreTrainedTokenizerFast
    assert each_real_tokenizer.get_vocab() == plain.get_vocab()
    assert ids_of(each_real_tokenizer, TEXTS) == [plain.encode(text, add_special_tokens=False).ids for text in TEXTS]
    for own, files in ((each_real_tokenizer.backend_tokenizer, plain),):
        for part in ("normalizer", "pre_tokenizer", "decoder"):
            assert str(getattr(own, part)) == str(getattr(files, part))


ROLES = {
    "llama3": {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
    "llama2": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "qwen3": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    "minilm": {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"},
    "mistral_v3": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "tekken": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
    "gemma3": {"bos_token": "<bos>", "eos_token": "<end_of_turn>", "image_token": "<image_soft_token>"},
}


@pytest.mark.parametrize("name", largest_slow(ROLES))
def test_roles_come_from_the_files(name: str, real_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> None:
    assert ROLES[name].items() <= real_tokenizer(name).special_tokens_map.items()


EDGES = {
    "llama2": ("<s>", None),
    "gemma3": ("<bos>", None),
    "qwen3": (None, None),
    "deepseek_v3": ("<｜begin▁of▁sentence｜>", None),
    "minilm": ("[CLS]", "[SEP]"),
    "mistral_v3": ("<s>", None),
    "tekken": ("<s>", None),
}


@pytest.mark.parametrize("name", largest_slow(EDGES))
def test_texts_get_the_edges_they_were_trained_with(
    name: str, real_tokenizer: Callable[[str], PreTrainedTokenizerFast]
) -> None:
    tokenizer = real_tokenizer(name)
    first, last = EDGES[name]
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("hello").input_ids)
    bare = tokenizer.convert_ids_to_tokens(tokenizer("hello", add_special_tokens=False).input_ids)
    assert tokens == [*([first] if first else []), *bare, *([last] if last else [])]


def test_a_chat_template_comes_with_its_tokenizer(
    real_tokenizer: Callable[[str], PreTrainedTokenizerFast],
) -> None:
    chat = [{"role": "user", "content": "Hi"}]
    text = real_tokenizer("smollm2").apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.slow
def test_chat_templates(real_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> None:
    chat = [{"role": "user", "content": "Hi"}]
    text = real_tokenizer("qwen3").apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text.startswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant")
    text = real_tokenizer("gemma3").apply_chat_template(chat, tokenize=False)
    assert text.startswith("<bos><start_of_turn>user\nHi")


def test_template_files_win_over_the_config(tiny_folder: Path) -> None:
    write_json(tiny_folder / "tokenizer_config.json", {"chat_template": "config"})
    assert load_tokenizer(tiny_folder).chat_template == "config"
    (tiny_folder / "chat_template.jinja").write_text("file")
    assert load_tokenizer(tiny_folder).chat_template == "file"
    (tiny_folder / "additional_chat_templates").mkdir()
    (tiny_folder / "additional_chat_templates" / "tools.jinja").write_text("tools")
    assert load_tokenizer(tiny_folder).chat_template == {"default": "file", "tools": "tools"}


def test_template_lists_and_processor_templates(tiny_folder: Path) -> None:
    listed = [{"name": "default", "template": "a"}, {"name": "tools", "template": "b"}]
    write_json(tiny_folder / "tokenizer_config.json", {"chat_template": listed})
    assert load_tokenizer(tiny_folder).chat_template == {"default": "a", "tools": "b"}
    write_json(tiny_folder / "tokenizer_config.json", {})
    write_json(tiny_folder / "chat_template.json", {"chat_template": "c"})
    assert load_tokenizer(tiny_folder).chat_template == "c"


def test_settings_are_carried(tiny_folder: Path) -> None:
    settings_given = {"model_max_length": 77, "padding_side": "left", "model_input_names": ["input_ids"]}
    write_json(tiny_folder / "tokenizer_config.json", {**settings_given, "clean_up_tokenization_spaces": True})
    tokenizer = load_tokenizer(tiny_folder)
    assert (tokenizer.model_max_length, tokenizer.padding_side) == (77, "left")
    assert tokenizer.clean_up_tokenization_spaces is True
    assert list(tokenizer("the cat")) == ["input_ids"]


def test_a_direct_path_to_the_file_is_the_same(tiny_folder: Path) -> None:
    write_json(tiny_folder / "tokenizer_config.json", {"bos_token": "<s>"})
    assert load_tokenizer(tiny_folder / "tokenizer.json").bos_token == load_tokenizer(tiny_folder).bos_token == "<s>"
    # A file under a name of its own may lie anywhere: what is beside it belongs to something else.
    shutil.copy(tiny_folder / "tokenizer.json", tiny_folder / "mine.json")
    assert load_tokenizer(tiny_folder / "mine.json").bos_token is None


def test_stored_truncation_padding_and_dropout_are_switched_off(tiny_folder: Path) -> None:
    backend = tiny_backend("<pad>")
    whole = backend.encode("the cat sat on the mat").ids
    backend.enable_truncation(2)
    backend.enable_padding(length=9, pad_token="<pad>", pad_id=1)
    document = json.loads(backend.to_str())
    document["model"]["dropout"] = 0.9
    write_json(tiny_folder / "tokenizer.json", document)
    tokenizer = load_tokenizer(tiny_folder)
    assert tokenizer.backend_tokenizer.encode("the cat sat on the mat").ids == whole
    assert tokenizer("the cat sat on the mat").input_ids == whole
    assert tokenizer.pad_token == "<pad>"


@pytest.mark.parametrize(
    ("config", "roles"),
    [
        # Old folders leave out what their class takes for granted; only tokens that exist count.
        ({"tokenizer_class": "GPT2Tokenizer"}, dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")),
        ({"tokenizer_class": "LlamaTokenizerFast"}, {"bos_token": "<s>", "eos_token": "</s>"}),
        ({"tokenizer_class": "LlamaTokenizer", "bos_token": None}, {"eos_token": "</s>"}),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, {}),
        ({"tokenizer_class": "SomebodysOwnTokenizer", "eos_token": "</s>"}, {"eos_token": "</s>"}),
        ({"eos_token": {"content": "</s>", "lstrip": False, "__type": "AddedToken"}}, {"eos_token": "</s>"}),
    ],
)
def test_roles_that_a_class_takes_for_granted(tiny_folder: Path, config: Any, roles: dict[str, str]) -> None:
    write_json(tiny_folder / "tokenizer_config.json", config)
    assert load_tokenizer(tiny_folder).special_tokens_map == roles


def test_the_model_type_stands_in_for_the_class(tiny_folder: Path) -> None:
    write_json(tiny_folder / "tokenizer_config.json", {"model_max_length": 5})
    write_json(tiny_folder / "config.json", {"model_type": "gpt2"})
    assert load_tokenizer(tiny_folder).eos_token == "<|endoftext|>"


def test_the_special_tokens_map_names_roles_too(tiny_folder: Path) -> None:
    write_json(tiny_folder / "special_tokens_map.json", {"eos_token": "</s>", "additional_special_tokens": ["<s>"]})
    tokenizer = load_tokenizer(tiny_folder)
    assert tokenizer.eos_token == "</s>"
    assert [str(token) for token in tokenizer.extra_special_tokens] == ["<s>"]


def test_added_tokens_beside_the_file_keep_their_ids(tiny_folder: Path) -> None:
    size = load_tokenizer(tiny_folder).backend_tokenizer.get_vocab_size()
    added = {"<|b|>": size, "<|a|>": size + 1, "word": size + 2}
    write_json(tiny_folder / "added_tokens.json", added)
    write_json(tiny_folder / "tokenizer_config.json", {"pad_token": "<|a|>"})
    tokenizer = load_tokenizer(tiny_folder)
    assert added.items() <= tokenizer.get_vocab().items()
    assert tokenizer.pad_token_id == size + 1
    assert tokenizer("x<|a|>word").input_ids[-2:] == [size + 1, size + 2]
    decoder = {str(i): {"content": text, "special": True} for text, i in added.items()}
    write_json(tiny_folder / "tokenizer_config.json", {"pad_token": "<|a|>", "added_tokens_decoder": decoder})
    assert added.items() <= load_tokenizer(tiny_folder).get_vocab().items()


def test_a_folder_that_mixes_two_tokenizers_is_refused(tiny_folder: Path) -> None:
    write_json(tiny_folder / "added_tokens.json", {"<|a|>": 9_999})
    with pytest.raises(VocabTransferError, match="mixes two tokenizers"):
        load_tokenizer(tiny_folder)
    write_json(tiny_folder / "added_tokens.json", {"<s>": 0})
    with pytest.raises(VocabTransferError, match="mixes two tokenizers"):
        load_tokenizer(tiny_folder)


@pytest.mark.parametrize("flag", [True, False])
def test_edges_follow_the_config_where_it_says_otherwise(tiny_folder: Path, flag: bool) -> None:
    config = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": flag, "add_eos_token": not flag}
    write_json(tiny_folder / "tokenizer_config.json", config)
    tokens = load_tokenizer(tiny_folder)("the").tokens()
    assert (tokens[0] == "<s>", tokens[-1] == "</s>") == (flag, not flag)


def test_a_post_processor_that_agrees_with_the_config_stays(tiny_folder: Path) -> None:
    backend = tiny_backend("<s>", "</s>")
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 1))
    backend.save(str(tiny_folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True, "add_eos_token": True}
    write_json(tiny_folder / "tokenizer_config.json", config)
    assert "Roberta" in str(load_tokenizer(tiny_folder).backend_tokenizer.post_processor)


# --- what cannot be opened ---

BAD_FILES = {
    "tokenizer.json": [b"", b"{", b"[]", b"{}", b'{"model": {}}', b'{"model": 3}', b"\xff\xfe"],
    "tekken.json": [b"{}", b'{"config": {}, "vocab": []}'],
    "tokenizer.model": [b"", b"no model at all", b"\n\x00\x00"],
    "vocab.txt": [b"", b"\xff\xfe\xfd", b"[UNK]\n"],
    "vocab.json": [b"", b'{"a": "b"}'],
    "some.tiktoken": [b"", b"hello\n"],
}


@pytest.mark.parametrize(("name", "content"), [(name, bad) for name, all_bad in BAD_FILES.items() for bad in all_bad])
def test_damaged_files_are_named_in_one_sentence(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VocabTransferError, match=name.replace(".", r"\.")) as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *[(name, bad) for name in ("tokenizer_config.json", "special_tokens_map.json") for bad in ("{", "[]")],
        ("tokenizer_config.json", '{"bos_token": 3}'),
        ("special_tokens_map.json", '{"eos_token": {"lstrip": true}}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {}}}'),
        ("tokenizer_config.json", '{"padding_side": "up"}'),
        ("added_tokens.json", '{"a": "b"}'),
    ],
)
def test_damaged_settings_are_refused(name: str, content: str, tiny_folder: Path) -> None:
    (tiny_folder / name).write_text(content)
    with pytest.raises(VocabTransferError) as caught:
        load_tokenizer(tiny_folder)
    assert "\n" not in str(caught.value)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(VocabTransferError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)
    with pytest.raises(VocabTransferError, match="does not exist"):
        load_tokenizer(tmp_path / "nowhere")


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_never_crash(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for name in ("tokenizer.json", "tokenizer.model"):
            file = Path(folder) / name
            file.write_bytes(content)
            try:
                load_tokenizer(file)
            except VocabTransferError as problem:
                assert name in str(problem)


@pytest.mark.parametrize("number", [10_000, 10_000_000, 2**31, 2**32 - 1])
def test_a_gap_of_ids_is_refused_by_the_token_behind_it(number: int, tiny_folder: Path) -> None:
    """One id of ten million in a small tokenizer: a model would need ten million rows."""
    file = tiny_folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"]["<far>"] = number
    file.write_text(json.dumps(content))
    with pytest.raises(VocabTransferError, match=rf"the token '<far>' the id {number:,}, but has only"):
        load_tokenizer(tiny_folder)


def test_usual_gaps_are_read(tiny_folder: Path) -> None:
    file = tiny_folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"]["<near>"] = 3_000
    file.write_text(json.dumps(content))
    assert load_tokenizer(tiny_folder).get_vocab()["<near>"] == 3_000
