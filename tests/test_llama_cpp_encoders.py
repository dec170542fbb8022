"""Encoders in a real llama.cpp: the ids of WordPiece and of RoBERTa's BPE, and the vectors that transformers gives."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from engine_samples import TEXTS
from llama_engine import MISSING, LlamaCpp, find_python
from tokenizers import AddedToken, processors
from transformers import (
    AutoModel,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from vocabtransfer import export_gguf, export_sentence_transformers, open_checkpoint, train_tokenizer
from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.errors import VocabTransferError

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_python() is None, reason=MISSING)]

SIZES = {
    **{"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4},
    **{"hidden_act": "gelu_pytorch_tanh", "initializer_range": 0.1},
}


def tiny(folder: Path, tokenizer: PreTrainedTokenizerFast, make: Callable[[int], PreTrainedModel]) -> Checkpoint:
    torch.manual_seed(0)
    model = make(len(tokenizer) + 8)
    with torch.no_grad():
        for name, values in model.named_parameters():
            values.add_(torch.randn_like(values) * 0.1) if values.ndim == 1 else values.mul_(
                1.0 if "emb" in name else 3
            )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return open_checkpoint(folder)


def bert(rows: int) -> PreTrainedModel:
    return BertModel(BertConfig(vocab_size=rows, max_position_embeddings=256, **SIZES))


def assert_same_vectors(source: Checkpoint, path: Path, pooling: str, least: float, texts: tuple[str, ...]) -> None:
    model = AutoModel.from_pretrained(source.path, dtype=torch.float32).eval()
    with LlamaCpp(path, embeddings=True) as engine, torch.inference_mode():
        for text in texts:
            ids = source.tokenizer(text)["input_ids"]
            states = model(torch.tensor([ids])).last_hidden_state[0].double()
            expected = states.mean(0) if pooling == "mean" else states[0 if pooling == "cls" else -1]
            assert engine.tokenize(text) == ids, text
            found = torch.tensor(engine.embed(ids), dtype=torch.float64)
            assert torch.cosine_similarity(found, expected, dim=0) > least, text
            assert (found - expected).abs().max() < 0.02 * expected.abs().max()


def test_minilm_gives_the_same_vectors(tmp_path: Path) -> None:
    source = open_checkpoint("minilm")
    report = export_gguf("minilm", tmp_path / "out.gguf", kind="f16")
    assert report.tokenizer == "bert" and any("vowel signs" in note for note in report.notes)
    # The note says which scripts get other ids.
    apart = ("नमस्ते", "এটি", "இது", "이것은")
    texts = tuple(text for text in TEXTS if not text.startswith(apart))
    assert len(texts) == len(TEXTS) - len(apart)
    assert_same_vectors(source, report.path, "mean", 0.9999, texts)


@pytest.mark.parametrize("pooling", ["cls", "lasttoken"])
def test_wordpiece_that_keeps_accents_has_the_same_ids_for_all_scripts(
    tmp_path: Path, real_tokenizer: Callable[[str], PreTrainedTokenizerFast], pooling: str
) -> None:
    like = copy.deepcopy(real_tokenizer("minilm"))
    normalizer = like.backend_tokenizer.normalizer
    normalizer.strip_accents, normalizer.lowercase = False, False
    like.backend_tokenizer.normalizer = normalizer
    unjoined = [text for text in TEXTS if not {"\u200c", "\u200d"} & set(text)]
    tokenizer = train_tokenizer(unjoined, like=like, vocab_size=600)
    source = tiny(tmp_path / "model", tokenizer, bert)
    export_sentence_transformers(source.path, tmp_path / "sentences", pooling=pooling)
    report = export_gguf(tmp_path / "sentences", tmp_path / "out.gguf", kind="f32")
    assert_same_vectors(source, report.path, pooling, 0.99999, TEXTS)


def test_a_vocabulary_whose_vowel_signs_llama_cpp_drops_is_refused(
    tmp_path: Path, real_tokenizer: Callable[[str], PreTrainedTokenizerFast]
) -> None:
    hindi = (
        (Path(__file__).parent.parent / "data" / "held_out" / "hi.txt").read_text(encoding="utf-8").splitlines()[:200]
    )
    tokenizer = train_tokenizer(hindi, like=real_tokenizer("minilm"), vocab_size=600)
    normalizer = tokenizer.backend_tokenizer.normalizer
    assert not normalizer.strip_accents  # the trainer has turned it off
    normalizer.strip_accents = True
    tokenizer.backend_tokenizer.normalizer = normalizer
    source = tiny(tmp_path / "model", tokenizer, bert)
    with pytest.raises(VocabTransferError, match="vowel signs"):
        export_gguf(source, tmp_path / "out.gguf")


def test_heads_that_guess_words_are_left_out(
    tmp_path: Path, real_tokenizer: Callable[[str], PreTrainedTokenizerFast]
) -> None:
    source = tiny(
        tmp_path / "model", real_tokenizer("minilm"), lambda rows: BertForMaskedLM(BertConfig(vocab_size=rows, **SIZES))
    )
    report = export_gguf(source, tmp_path / "out.gguf", kind="f32")
    assert any("mean" in note for note in report.notes)
    assert_same_vectors(source, report.path, "mean", 0.99999, TEXTS[:3])


def test_robertas_positions_begin_behind_padding(tmp_path: Path) -> None:
    tokenizer = copy.deepcopy(open_checkpoint("smollm2").tokenizer)
    tokenizer.add_special_tokens(
        {
            **{"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"},
            "mask_token": AddedToken("<mask>", lstrip=True, special=True),
        }
    )
    ends = [("<s>", tokenizer.bos_token_id), ("</s>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", None, ends)
    source = tiny(
        tmp_path / "model",
        tokenizer,
        lambda rows: RobertaModel(
            RobertaConfig(vocab_size=rows, max_position_embeddings=256, type_vocab_size=1, pad_token_id=1, **SIZES)
        ),
    )
    report = export_gguf(source, tmp_path / "out.gguf", kind="f32")
    assert report.tokenizer == "gpt2"
    assert_same_vectors(source, report.path, "mean", 0.99999, TEXTS)
