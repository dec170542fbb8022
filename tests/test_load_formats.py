"""Tokenizers from SentencePiece, rank and plain vocabulary files, against the libraries that define those files."""

import base64
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from thinned import first_of
from tokenizer_samples import TEXTS, ids_of, tiny_backend, write_json
from transformers import PreTrainedTokenizerFast

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.tokenization.load import load_tokenizer
from vocabtransfer.vocabulary import Kind, Vocabulary, byte_alphabet

# --- SentencePiece ---


@pytest.mark.parametrize("name", ["mistral_v1", "mistral_v3"])
@settings(deadline=None, max_examples=200)
@given(texts=st.lists(st.text(max_size=20), max_size=5))
def test_sentencepiece_ids(
    name: str,
    real_tokenizer: Callable[[str], PreTrainedTokenizerFast],
    real_tokenizer_folder: Callable[[str], Path],
    texts: list[str],
) -> None:
    reference = reference_model(real_tokenizer_folder(name) / "tokenizer.model")
    # What is written like a special token is one for transformers, and text for SentencePiece.
    specials = [token.content for token in real_tokenizer(name).added_tokens_decoder.values()]
    texts = [text for text in texts if not any(special in text for special in specials)]
    # NUL ends a text for neither, but SentencePiece's Python binding drops what it cannot pass on as UTF-8.
    assert ids_of(real_tokenizer(name), [*TEXTS, *texts]) == reference.encode([*TEXTS, *texts])


def reference_model(file: Path) -> sentencepiece.SentencePieceProcessor:
    if str(file) not in _references:
        _references[str(file)] = sentencepiece.SentencePieceProcessor(model_file=str(file))
    return _references[str(file)]


_references: dict[str, sentencepiece.SentencePieceProcessor] = {}


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize(
    "options",
    [
        {"byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False},
        {"byte_fallback": True, "normalization_rule_name": "nmt_nfkc"},
        {"byte_fallback": False, "normalization_rule_name": "nfkc_cf"},
        {"byte_fallback": True, "normalization_rule_name": "identity", "add_dummy_prefix": False},
        {
            **{"byte_fallback": True, "user_defined_symbols": ["<sep>", "\n", "§§"], "remove_extra_whitespaces": False},
            **{"normalization_rule_name": "identity"},
        },
        {"control_symbols": ["<ctrl>"], "pad_id": 3, "bos_id": -1, "split_digits": True},
    ],
    ids=lambda options: "-".join(options),
)
def test_sentencepiece_models_of_all_sorts(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    content = trained_sentencepiece(model_type=kind, **options)
    (tmp_path / "tokenizer.model").write_bytes(content)
    tokenizer = load_tokenizer(tmp_path)
    reference = sentencepiece.SentencePieceProcessor(model_proto=content)
    texts = [*TEXTS, "a<sep>b <sep> c", "x\n y\n\nz", "§§§ a§§", " <sep>", "in  text   runs    of spaces"]
    for text in (text.replace("\r\n", "\n") for text in texts):
        expected, actual = reference.encode(text), ids_of(tokenizer, [text])[0]
        if kind == "unigram" and expected != actual:  # allowed if exactly as good: "ab" + "abab" for "abab" + "ab"
            assert sorted(expected) == sorted(actual)
        else:
            assert actual == expected, (text, reference.encode_as_pieces(text))
    assert tokenizer.get_vocab() == {reference.id_to_piece(i): i for i in range(len(reference))}
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    for i in range(len(reference)):
        if reference.is_byte(i):
            assert vocabulary.kinds[i] == Kind.BYTE
        elif reference.is_control(i) or reference.is_unknown(i):
            assert vocabulary.kinds[i] == Kind.SPECIAL


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("bpe", {"user_defined_symbols": ["\n"]}),
        (
            "unigram",
            {"user_defined_symbols": ["▁▁", "▁▁▁"], "add_dummy_prefix": False, "remove_extra_whitespaces": False},
        ),
    ],
)
def test_sentencepiece_models_without_an_equal_are_refused(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(trained_sentencepiece(model_type=kind, **options))
    with pytest.raises(VocabTransferError, match=r"tokenizer\.model splits text in a way"):
        load_tokenizer(tmp_path)


def test_runs_of_spaces_as_tokens(tmp_path: Path) -> None:
    """As Gemma has them."""
    options = {"user_defined_symbols": ["▁▁", "▁▁▁", "\n"], "add_dummy_prefix": False, "byte_fallback": True}
    content = trained_sentencepiece(
        model_type="bpe", remove_extra_whitespaces=False, normalization_rule_name="identity", **options
    )
    (tmp_path / "tokenizer.model").write_bytes(content)
    reference = sentencepiece.SentencePieceProcessor(model_proto=content)
    assert ids_of(load_tokenizer(tmp_path), TEXTS) == reference.encode(TEXTS)


def trained_sentencepiece(**options: Any) -> bytes:
    lines = [line for text in TEXTS * 3 for line in text.split("\n") if line.strip()]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        **{"vocab_size": 700, "hard_vocab_limit": False, "minloglevel": 2, "num_threads": 1, **options},
    )
    return model.getvalue()


def test_roles_and_edges_of_a_bare_sentencepiece_model(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(trained_sentencepiece(model_type="unigram", bos_id=-1, pad_id=3))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.special_tokens_map == {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    assert tokenizer("the").tokens()[-1] == "</s>"


def test_t5_puts_its_sentinels_behind(tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes(trained_sentencepiece(model_type="unigram", bos_id=-1, pad_id=3))
    size = len(load_tokenizer(tmp_path))
    write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer", "extra_ids": 10})
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.convert_tokens_to_ids(["<extra_id_9>", "<extra_id_0>"]) == [size, size + 9]
    assert len(tokenizer) == size + 10


def test_classes_that_renumber_are_refused(tmp_path: Path) -> None:
    (tmp_path / "sentencepiece.bpe.model").write_bytes(trained_sentencepiece(model_type="unigram"))
    write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "XLMRobertaTokenizer"})
    with pytest.raises(VocabTransferError, match=r"sentencepiece\.bpe\.model belongs to a XLMRobertaTokenizer"):
        load_tokenizer(tmp_path)


def test_word_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(trained_sentencepiece(model_type="char"))
    with pytest.raises(VocabTransferError, match="BPE or Unigram"):
        load_tokenizer(tmp_path)


# --- ranks ---


def test_tekken_ids(real_tokenizer: Callable[[str], PreTrainedTokenizerFast], real_tokenizer_folder: Any) -> None:
    document = json.loads((real_tokenizer_folder("tekken") / "tekken.json").read_text(encoding="utf-8"))
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in document["vocab"][: 131_072 - 1000]}
    pattern = document["config"]["pattern"]
    reference = tiktoken.Encoding("tekken", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    tokenizer = real_tokenizer("tekken")
    for text in TEXTS:
        assert ids_of(tokenizer, [text]) == [[1000 + rank for rank in reference.encode_ordinary(text)]]
    assert tokenizer.convert_tokens_to_ids(["<unk>", "[INST]", "<SPECIAL_999>"]) == [0, 3, 999]


def test_tekken_lists_its_own_special_tokens(tmp_path: Path) -> None:
    # "cat" has no merge that leads to it; tiktoken takes a word that is a token as a whole.
    contents = [*(bytes([i]) for i in range(256)), b"cat"]
    vocab = [
        {"rank": i, "token_bytes": base64.b64encode(c).decode(), "token_str": None} for i, c in enumerate(contents)
    ]
    document = {
        "config": {"pattern": r"\w+|\W", "default_num_special_tokens": 4, "default_vocab_size": 261, "version": "v7"},
        "vocab": vocab,
        "special_tokens": [{"rank": 1, "token_str": "<go>", "is_control": True}],
    }
    write_json(tmp_path / "tekken.json", document)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == ["<SPECIAL_0>", "<go>", "<SPECIAL_2>", "<SPECIAL_3>"]
    assert tokenizer("é<go>").input_ids == [4 + 0xC3, 4 + 0xA9, 1]
    assert tokenizer("cat cats").input_ids == [260, *(4 + byte for byte in b" cats")]
    del document["vocab"]
    write_json(tmp_path / "tekken.json", {**document, "vocab": [{"rank": 0}]})
    with pytest.raises(VocabTransferError, match=r"tekken\.json is not a complete"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", first_of(["qwen3", "llama3", "gpt4o"]))
def test_a_tiktoken_file_is_the_tokenizer_json_of_its_family(
    name: str, real_tokenizer: Callable[[str], PreTrainedTokenizerFast], tmp_path: Path
) -> None:
    known = real_tokenizer(name)
    alphabet = {ord(char): byte for byte, char in byte_alphabet().items()}
    model = known.backend_tokenizer.get_vocab(with_added_tokens=False)
    special = set(known.added_tokens_encoder)
    ranks = sorted((i, token) for token, i in model.items() if token not in special)
    lines = [b"%s %d\n" % (base64.b64encode(token.translate(alphabet).encode("latin-1")), i) for i, token in ranks]
    (tmp_path / "vocab.tiktoken").write_bytes(b"".join(lines))
    tokenizer = load_tokenizer(tmp_path)
    assert ids_of(tokenizer, TEXTS) == ids_of(known, TEXTS)
    for token in ("<|endoftext|>", "<|eot_id|>", "<|im_end|>", "<|endofprompt|>", "<|start_header_id|>"):
        if token in special:
            assert tokenizer.convert_tokens_to_ids(token) == known.convert_tokens_to_ids(token)
    if name == "llama3":  # Meta hands out such a file as tokenizer.model.
        (tmp_path / "vocab.tiktoken").rename(tmp_path / "tokenizer.model")
        assert ids_of(load_tokenizer(tmp_path / "tokenizer.model"), TEXTS[:3]) == ids_of(known, TEXTS[:3])


def test_an_unknown_family_of_ranks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tiktoken").write_bytes(b"".join(base64.b64encode(bytes([i])) + b" %d\n" % i for i in range(256)))
    with pytest.raises(VocabTransferError, match=r"x\.tiktoken lists 256 tokens"):
        load_tokenizer(tmp_path)
    (tmp_path / "x.tiktoken").write_bytes(b"AA== 0\nAQ== 1\nbroken\n")
    with pytest.raises(VocabTransferError, match=r"x\.tiktoken, line 3"):
        load_tokenizer(tmp_path)


# --- plain files ---


def test_bert_files(
    minilm_folder: Path, real_tokenizer: Callable[[str], PreTrainedTokenizerFast], tmp_path: Path
) -> None:
    shutil.copy(minilm_folder / "vocab.txt", tmp_path)
    tokenizer, known = load_tokenizer(tmp_path), real_tokenizer("minilm")
    assert tokenizer.get_vocab() == known.get_vocab()
    assert [tokenizer(text).input_ids for text in TEXTS] == [known(text).input_ids for text in TEXTS]
    assert tokenizer("a", "b").token_type_ids == known("a", "b").token_type_ids
    assert tokenizer.special_tokens_map == known.special_tokens_map
    write_json(tmp_path / "tokenizer_config.json", {"do_lower_case": False})
    assert load_tokenizer(tmp_path)("A").tokens()[1] == "[UNK]"
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(VocabTransferError, match="not a BERT vocabulary"):
        load_tokenizer(tmp_path)


def test_gpt2_and_roberta_files(tmp_path: Path) -> None:
    plain = tiny_backend()
    plain.model.save(str(tmp_path))
    tokenizer = load_tokenizer(tmp_path)
    assert ids_of(tokenizer, TEXTS) == [plain.encode(text).ids for text in TEXTS]
    assert tokenizer.eos_token == "<|endoftext|>"
    tiny_backend("<s>", "<pad>", "</s>", "<unk>", "<mask>").model.save(str(tmp_path))
    assert load_tokenizer(tmp_path)("the").tokens() == ["<s>", "the", "</s>"]
    assert load_tokenizer(tmp_path).mask_token == "<mask>"
    write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer"})
    with pytest.raises(VocabTransferError, match="belongs to CLIPTokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(VocabTransferError, match=r"needs merges\.txt"):
        load_tokenizer(tmp_path)
