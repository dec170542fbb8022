"""tokenizer.model beside tokenizer.json: SentencePiece itself gives the same ids, or there is no such file."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from engine_samples import TEXTS
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from tokenizer_samples import TEXTS as MORE
from tokenizer_samples import ids_of, made_up_text
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import vocabtransfer as vt
from vocabtransfer.files.sentencepiece_model import new_model
from vocabtransfer.tokenization.save import save_tokenizer

LINES = [*TEXTS, *MORE, *made_up_text()]


def engine(folder: Path) -> SentencePieceProcessor:
    return SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def same(tokenizer: PreTrainedTokenizerFast, model: SentencePieceProcessor, free: bool = False) -> None:
    """Compare ids; where ``free``, of several equally likely segmentations each may pick its own."""
    for text in (*TEXTS, *MORE):
        ours, theirs = ids_of(tokenizer, [text])[0], model.encode(text)
        assert ours == theirs or (free and sorted(ours) == sorted(theirs)), text


@pytest.mark.parametrize("algorithm", ["sentencepiece", "unigram"])
@pytest.mark.parametrize("name", ["mistral_v1", "llama2", "smollm2"])
def test_sentencepiece_gives_the_ids_of_a_trained_tokenizer(
    name: str, algorithm: str, real_tokenizer: Callable[[str], PreTrainedTokenizerFast], tmp_path: Path
) -> None:
    tokenizer = vt.train_tokenizer(LINES, vocab_size=2000, like=real_tokenizer(name), algorithm=algorithm)
    written = save_tokenizer(tokenizer, tmp_path)
    if (name, algorithm) == ("smollm2", "sentencepiece"):
        assert "tokenizer.model" not in written, "SentencePiece wants an unknown token, and there is none"
        return
    assert "tokenizer.model" in written
    model = engine(tmp_path)
    same(tokenizer, model, free=algorithm == "unigram")
    assert model.get_piece_size() == len(tokenizer)
    assert all(model.id_to_piece(i) == text for text, i in tokenizer.get_vocab().items())
    assert model.bos_id() == tokenizer.bos_token_id and model.is_control(model.bos_id())
    # Whoever reads tokenizer.json reads what it always was.
    assert ids_of(AutoTokenizer.from_pretrained(tmp_path), MORE) == ids_of(tokenizer, MORE)
    before = (tmp_path / "tokenizer.model").read_bytes()
    save_tokenizer(tokenizer, tmp_path)
    assert (tmp_path / "tokenizer.model").read_bytes() == before


@pytest.mark.parametrize("name", ["mistral_v1", "mistral_v3", "llama2", pytest.param("gemma3", marks=pytest.mark.slow)])
def test_published_vocabularies_come_out_as_they_went_in(
    name: str, real_tokenizer: Callable[[str], PreTrainedTokenizerFast], tmp_path: Path
) -> None:
    tokenizer = real_tokenizer(name)
    save_tokenizer(tokenizer, tmp_path)
    model = engine(tmp_path)
    for text in TEXTS:
        assert model.encode(text) == ids_of(tokenizer, [text])[0]


def test_a_new_vocabulary_never_stands_beside_an_old_file(
    real_tokenizer: Callable[[str], PreTrainedTokenizerFast], tmp_path: Path
) -> None:
    save_tokenizer(real_tokenizer("mistral_v1"), tmp_path / "a")
    assert (tmp_path / "a" / "tokenizer.model").is_file()
    save_tokenizer(real_tokenizer("smollm2"), tmp_path / "a")
    assert not (tmp_path / "a" / "tokenizer.model").exists(), "byte-level BPE has no such file"
    foreign = new_model()
    foreign.ParseFromString(_trained()[1].serialized_model_proto())
    foreign.trainer_spec.model_prefix = "of somebody else"
    (tmp_path / "a" / "tokenizer.model").write_bytes(foreign.SerializeToString())
    with pytest.raises(vt.VocabTransferError, match=r"holds tokenizer\.model of another tokenizer"):
        save_tokenizer(real_tokenizer("mistral_v1"), tmp_path / "a")


def test_a_checkpoint_gets_the_file(tiny_llama: Path, tmp_path: Path) -> None:
    source = vt.open_checkpoint(str(tiny_llama))
    tokenizer = vt.train_tokenizer(LINES, vocab_size=900, like=source.tokenizer, algorithm="unigram")
    vt.transfer(source, tokenizer, method="pieces", calibrate=False).save(tmp_path / "out")
    same(tokenizer, engine(tmp_path / "out"), free=True)
    vt.transfer(vt.open_checkpoint(str(tmp_path / "out")), source.tokenizer, method="pieces", calibrate=False).save(
        tmp_path / "back"
    )
    assert not (tmp_path / "back" / "tokenizer.model").exists()


@cache
def _trained() -> tuple[PreTrainedTokenizerFast, SentencePieceProcessor]:
    import tempfile

    from conftest import _tokenizer_folder

    with tempfile.TemporaryDirectory() as scratch:
        like = vt.load_tokenizer(_tokenizer_folder("mistral_v1", Path(scratch)))
        tokenizer = vt.train_tokenizer(LINES, vocab_size=1500, like=like, algorithm="sentencepiece")
        save_tokenizer(tokenizer, Path(scratch) / "new")
        model = SentencePieceProcessor(model_proto=(Path(scratch) / "new" / "tokenizer.model").read_bytes())
    return tokenizer, model


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(LINES[:60]), max_size=3).map("".join)))
def test_any_text_gets_the_same_ids(text: str) -> None:
    tokenizer, model = _trained()
    if not any(str(token) in text for token in tokenizer.added_tokens_decoder.values()) and "\0" not in text:
        assert ids_of(tokenizer, [text])[0] == model.encode(text)
