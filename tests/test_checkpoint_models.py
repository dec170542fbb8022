"""Tiny models of every supported architecture, rewritten with a shuffled vocabulary, must think as before."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import pre_tokenizers
from transformers import AutoConfig, PreTrainedTokenizerFast

from vocabtransfer.checkpoint import Checkpoint, VocabTensor, open_checkpoint, write_checkpoint
from vocabtransfer.checkpoint.synthetic import ROLES, toy_tokenizer
from vocabtransfer.tokenization.save import save_tokenizer

WORDS = ["hello", "world", " the", "сәлам"]
ENCODER_ROLES = {**ROLES, "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}


@dataclass(frozen=True)
class Case:
    """A model to build: the auto class, the config, and what its layout must be."""

    auto: str
    model_type: str
    settings: dict[str, Any]
    tied: bool
    tensors: set[str]
    fixed: int = 0
    extra_rows: int = 0
    roles: dict[str, str] = field(default_factory=lambda: dict(ROLES))


LM = "AutoModelForCausalLM"
CASES = {
    "llama-tied": Case(LM, "llama", {**SMALL, "tie_word_embeddings": True}, True, {"model.embed_tokens.weight"}),
    "llama-untied": Case(
        LM, "llama", {**SMALL, "tie_word_embeddings": False}, False, {"model.embed_tokens.weight", "lm_head.weight"}
    ),
    "qwen2-padded": Case(
        *(LM, "qwen2", {**SMALL, "num_key_value_heads": 2, "tie_word_embeddings": True}, True),
        {"model.embed_tokens.weight"},
        extra_rows=11,
    ),
    "gpt2": Case(LM, "gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}, True, {"transformer.wte.weight"}),
    "gptj": Case(
        *(LM, "gptj", {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "tie_word_embeddings": False}, False),
        {"transformer.wte.weight", "lm_head.weight", "lm_head.bias"},
    ),
    "phi": Case(LM, "phi", SMALL, False, {"model.embed_tokens.weight", "lm_head.weight", "lm_head.bias"}),
    "gpt_neox": Case(LM, "gpt_neox", SMALL, False, {"gpt_neox.embed_in.weight", "embed_out.weight"}),
    "opt": Case(
        *(LM, "opt", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48}, True),
        {"model.decoder.embed_tokens.weight"},
    ),
    "opt-projected": Case(
        *(LM, "opt"),
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48, "word_embed_proj_dim": 24},
        *(True, {"model.decoder.embed_tokens.weight"}),
    ),
    "bloom": Case(
        LM, "bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, True, {"transformer.word_embeddings.weight"}
    ),
    "gemma3": Case(
        *(LM, "gemma3_text", {**SMALL, "head_dim": 8, "num_key_value_heads": 2, "final_logit_softcapping": 30.0}, True),
        {"model.embed_tokens.weight"},
    ),
    "bert": Case(
        "AutoModelForMaskedLM",
        "bert",
        SMALL,
        True,
        {"bert.embeddings.word_embeddings.weight", "cls.predictions.bias"},
        roles=ENCODER_ROLES,
    ),
    "bert-base": Case("AutoModel", "bert", SMALL, True, {"embeddings.word_embeddings.weight"}, roles=ENCODER_ROLES),
    "roberta": Case(
        "AutoModelForMaskedLM",
        "roberta",
        SMALL,
        True,
        {"roberta.embeddings.word_embeddings.weight", "lm_head.bias"},
        fixed=3,
        roles=ENCODER_ROLES,
    ),
    "distilbert": Case(
        "AutoModelForMaskedLM",
        "distilbert",
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
        True,
        {"distilbert.embeddings.word_embeddings.weight", "vocab_projector.bias"},
        roles=ENCODER_ROLES,
    ),
    "t5": Case(
        "AutoModelForSeq2SeqLM",
        "t5",
        {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 2},
        True,
        {"shared.weight"},
    ),
    "bart": Case(
        "AutoModelForSeq2SeqLM",
        "bart",
        {
            **{"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48},
            **{"encoder_attention_heads": 4, "decoder_attention_heads": 4, "decoder_start_token_id": 1},
            **{"forced_eos_token_id": 1, "max_position_embeddings": 64},
        },
        True,
        {"model.shared.weight", "final_logits_bias"},
    ),
    "mamba": Case(
        LM, "mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}, True, {"backbone.embeddings.weight"}
    ),
}


def build(case: Case, folder: Path) -> tuple[transformers.PreTrainedModel, PreTrainedTokenizerFast]:
    torch.manual_seed(0)
    tokenizer = toy_tokenizer(WORDS, roles=case.roles)
    ids = {key: tokenizer.convert_tokens_to_ids(ROLES[key.removesuffix("_id")]) for key in IDS}
    config = AutoConfig.for_model(
        case.model_type, vocab_size=len(tokenizer) + case.extra_rows, **{**ids, **case.settings}
    )
    model = getattr(transformers, case.auto).from_config(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.shape[-1:] == (config.vocab_size,) or name.endswith("bias"):
                value.normal_()  # biases start as zeros, which would hide a mistake
        if "final_logits_bias" in dict(model.named_buffers()):
            model.final_logits_bias.normal_()
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return model, tokenizer


def old_ids(source: PreTrainedTokenizerFast, target: PreTrainedTokenizerFast) -> torch.Tensor:
    """The source's id for each of the target's ids."""
    ids = torch.empty(len(target), dtype=torch.long)
    for token, i in target.get_vocab().items():
        ids[i] = source.convert_tokens_to_ids(token)
    return ids


def gather_rows(source: Checkpoint, ids: torch.Tensor) -> Any:
    def rows(tensor: VocabTensor, start: int, stop: int) -> torch.Tensor:
        values = source.read(tensor.name).index_select(tensor.axis, ids[start:stop])
        return values.reshape(-1) if tensor.part == "output_bias" else values

    return rows


@torch.no_grad()
def think(model: transformers.PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    if model.config.is_encoder_decoder:
        return model(input_ids=ids, decoder_input_ids=ids.flip(1)).logits
    output = model(input_ids=ids)
    return output.logits if hasattr(output, "logits") else output.last_hidden_state


@pytest.mark.parametrize("name", CASES)
def test_shuffled_vocabulary_gives_shuffled_logits(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    model, tokenizer = build(case, tmp_path / "source")
    source = open_checkpoint(tmp_path / "source")
    assert source.layout.tied == case.tied
    assert {tensor.name for tensor in source.layout.tensors} == case.tensors
    assert source.layout.rows == len(tokenizer) + case.extra_rows

    new = toy_tokenizer(WORDS, roles=case.roles, seed=7, fixed=case.fixed)
    old_of = old_ids(tokenizer, new)
    report = write_checkpoint(source, tmp_path / "target", tokenizer=new, rows=gather_rows(source, old_of))
    assert set(report.tensors_rewritten) == case.tensors

    rewritten, info = getattr(transformers, case.auto).from_pretrained(tmp_path / "target", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    rewritten.eval()
    assert rewritten.get_input_embeddings().weight.shape[0] == len(new)
    ids = torch.tensor([tokenizer.encode("hello world сәлам the")])
    new_ids = torch.tensor([new.encode("hello world сәлам the")])
    assert old_of[new_ids].equal(ids)
    before, after = think(model, ids), think(rewritten, new_ids)
    if case.auto != "AutoModel":
        before = before[..., old_of]
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_ids_follow_their_tokens(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    _, tokenizer = build(case, tmp_path / "source")
    source = open_checkpoint(tmp_path / "source")
    new = toy_tokenizer(WORDS, roles=case.roles, seed=3, fixed=case.fixed)
    write_checkpoint(source, tmp_path / "target", tokenizer=new, rows=gather_rows(source, old_ids(tokenizer, new)))
    before = AutoConfig.from_pretrained(tmp_path / "source")
    after = AutoConfig.from_pretrained(tmp_path / "target")
    assert after.vocab_size == len(new)
    checked = 0
    for key in (*IDS, "decoder_start_token_id", "forced_eos_token_id"):
        old = getattr(before, key, None)
        if old is not None:
            assert getattr(after, key) == new.convert_tokens_to_ids(tokenizer.convert_ids_to_tokens(old)), key
            checked += 1
    assert checked >= 2
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path / "target")
    assert loaded.get_vocab() == new.get_vocab()
    assert (loaded.eos_token_id, loaded.pad_token_id) == (new.eos_token_id, new.pad_token_id)


@pytest.mark.parametrize("model_type", ["qwen2", "llama"])
def test_auto_tokenizer_gives_the_new_ids(model_type: str, tmp_path: Path) -> None:
    """For qwen2, transformers would put its own splitting rules and an unknown token of its own in their place."""
    roles = {key: token for key, token in ROLES.items() if key != "unk_token"}
    case = Case(LM, "llama", {**SMALL, "tie_word_embeddings": True}, True, set(), roles=roles)
    build(case, tmp_path / "source")
    config = json.loads((tmp_path / "source" / "config.json").read_text())
    (tmp_path / "source" / "config.json").write_text(json.dumps({**config, "model_type": model_type}))
    new = toy_tokenizer([*WORDS, "two words", "2024"], roles=roles, seed=4)
    new.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    source = open_checkpoint(tmp_path / "source")
    ids = torch.zeros(len(new), dtype=torch.long)
    write_checkpoint(source, tmp_path / "target", tokenizer=new, rows=gather_rows(source, ids))
    text = "hello two words in 2024"
    for trust in (False, True):
        loaded = transformers.AutoTokenizer.from_pretrained(tmp_path / "target", trust_remote_code=trust)
        assert loaded.get_vocab() == new.get_vocab() and loaded(text).input_ids == new(text).input_ids
    assert (tmp_path / "target" / "tokenization_plain.py").exists() == (model_type == "qwen2")


def test_multimodal_gemma3_changes_its_text_part_only(tmp_path: Path) -> None:
    roles = {
        **ROLES,
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    tokenizer = toy_tokenizer(WORDS, roles={k: v for k, v in roles.items() if k in ROLES})
    tokenizer.add_special_tokens(
        {"extra_special_tokens": [roles["boi_token"], roles["eoi_token"], roles["image_token"]]}
    )
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in roles.items()}
    torch.manual_seed(0)
    text = {**SMALL, "head_dim": 8, "num_key_value_heads": 2, "vocab_size": len(tokenizer)}
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model(
        "gemma3",
        text_config=text,
        vision_config={**vision, "image_size": 28, "patch_size": 14, "vocab_size": 77},
        mm_tokens_per_image=4,
        image_token_index=ids["image_token"],
        boi_token_index=ids["boi_token"],
        eoi_token_index=ids["eoi_token"],
        eos_token_id=ids["eos_token"],
        bos_token_id=ids["bos_token"],
    )
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path / "source")
    save_tokenizer(tokenizer, tmp_path / "source")
    (tmp_path / "source" / "preprocessor_config.json").write_text("{}")
    source = open_checkpoint(tmp_path / "source")
    assert source.layout.tied and len(source.layout.tensors) == 1

    new = toy_tokenizer([*WORDS, "more"], roles={k: v for k, v in roles.items() if k in ROLES}, seed=5)
    new.add_special_tokens({"extra_special_tokens": [roles["image_token"], roles["eoi_token"], roles["boi_token"]]})
    known = tokenizer.get_vocab()
    old_of = torch.tensor([known.get(token, 0) for token in new.convert_ids_to_tokens(range(len(new)))])
    write_checkpoint(source, tmp_path / "target", tokenizer=new, rows=gather_rows(source, old_of))
    assert (tmp_path / "target" / "preprocessor_config.json").is_file()
    rewritten = transformers.Gemma3ForConditionalGeneration.from_pretrained(tmp_path / "target").eval()
    assert rewritten.config.text_config.vocab_size == len(new)
    for key in ("image_token_index", "boi_token_index", "eoi_token_index"):
        name = {"image_token_index": "image_token"}.get(key, key.removesuffix("_index"))
        value = getattr(rewritten.config, key, None) or rewritten.config.to_dict()[key.replace("index", "id")]
        assert value == new.convert_tokens_to_ids(roles[name]), key
    text_ids = torch.tensor([tokenizer.encode("hello the world")])
    new_ids = torch.tensor([new.encode("hello the world")])
    before, after = think(model, text_ids), think(rewritten, new_ids)
    torch.testing.assert_close(after, before[..., old_of], rtol=1e-4, atol=1e-5)
