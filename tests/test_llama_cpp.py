"""A real llama.cpp reads what `export gguf` writes: the same ids, the same continuations, the same perplexity."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_samples import CODE, TEXTS
from llama_engine import MISSING, LlamaCpp, find_python
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GemmaConfig,
    GenerationConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

import vocabtransfer as vt
from vocabtransfer import export_gguf, export_hydra_gguf, open_checkpoint
from vocabtransfer.checkpoint import Checkpoint
from vocabtransfer.checkpoint.gguf_file import read_gguf
from vocabtransfer.checkpoint.gguf_tokenizer import PRE_TOKENIZERS
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.hydra import add_head, create_hydra, export_head
from vocabtransfer.tokenization.trim import trim_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_python() is None, reason=MISSING)]

SIZES = {
    **{"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512, "tie_word_embeddings": True},
}
GPT2_SIZES = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512}
LLAMA3_ROPE = {
    **{"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0},
    **{"high_freq_factor": 4.0, "original_max_position_embeddings": 64},
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 64}
LONGROPE = {
    **{"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    **{"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 3.0, 4.0, 5.0]},
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
FOUR_LAYERS, SEVEN_LAYERS = ({**SIZES, "num_hidden_layers": count} for count in (4, 7))
GEMMA_ROPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}
PICTURES = {"hidden_size": 32, "intermediate_size": 32, "image_size": 28, "patch_size": 14}
UNTIED = {**SIZES, "tie_word_embeddings": False}
PLAIN_HEADS = {name: value for name, value in UNTIED.items() if name not in ("head_dim", "num_key_value_heads")}
CONFIGS: dict[str, Callable[[int], PreTrainedConfig]] = {
    "llama": lambda rows: LlamaConfig(vocab_size=rows, **SIZES),
    "llama, untied": lambda rows: LlamaConfig(vocab_size=rows, **{**SIZES, "tie_word_embeddings": False}),
    "llama, scaled like Llama 3.1": lambda rows: LlamaConfig(vocab_size=rows, rope_parameters=LLAMA3_ROPE, **SIZES),
    "llama, scaled linearly": lambda rows: LlamaConfig(
        vocab_size=rows, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}, **SIZES
    ),
    "mistral": lambda rows: MistralConfig(vocab_size=rows, sliding_window=None, **SIZES),
    "qwen2": lambda rows: Qwen2Config(vocab_size=rows, **SIZES),
    "qwen3": lambda rows: Qwen3Config(vocab_size=rows, **SIZES),
    "gemma3": lambda rows: Gemma3TextConfig(
        vocab_size=rows, query_pre_attn_scalar=16, sliding_window=32, **SEVEN_LAYERS
    ),
    "gemma3 that sees, scaled linearly": lambda rows: Gemma3Config(
        text_config=Gemma3TextConfig(
            vocab_size=rows, rope_parameters=GEMMA_ROPE, query_pre_attn_scalar=16, sliding_window=32, **SEVEN_LAYERS
        ),
        vision_config={**PICTURES, "num_hidden_layers": 1, "num_attention_heads": 2},
        mm_tokens_per_image=4,
    ),
    "gpt2": lambda rows: GPT2Config(vocab_size=rows, **GPT2_SIZES),
    "llama, scaled by YaRN": lambda rows: LlamaConfig(vocab_size=rows, rope_parameters=YARN, **SIZES),
    "qwen3, scaled by YaRN with a factor for attention": lambda rows: Qwen3Config(
        vocab_size=rows, rope_parameters={**YARN, "attention_factor": 1.5}, **SIZES
    ),
    "mixtral": lambda rows: MixtralConfig(vocab_size=rows, num_local_experts=4, num_experts_per_tok=2, **SIZES),
    "qwen2_moe": lambda rows: Qwen2MoeConfig(
        vocab_size=rows, shared_expert_intermediate_size=96, **EXPERTS, **{**UNTIED, "head_dim": 16}
    ),
    "qwen3_moe": lambda rows: Qwen3MoeConfig(vocab_size=rows, norm_topk_prob=True, **EXPERTS, **SIZES),
    "smollm3": lambda rows: SmolLM3Config(vocab_size=rows, pad_token_id=0, **FOUR_LAYERS),
    "gemma": lambda rows: GemmaConfig(vocab_size=rows, **SIZES),
    "gemma2": lambda rows: Gemma2Config(
        vocab_size=rows, query_pre_attn_scalar=16, sliding_window=32, attn_logit_softcapping=5.0, **FOUR_LAYERS
    ),
    "olmo2": lambda rows: Olmo2Config(vocab_size=rows, pad_token_id=0, **UNTIED),
    "olmo2, tied": lambda rows: Olmo2Config(vocab_size=rows, pad_token_id=0, **SIZES),
    "phi3": lambda rows: Phi3Config(vocab_size=rows, pad_token_id=0, **UNTIED),
    "phi3, scaled by LongRoPE": lambda rows: Phi3Config(
        vocab_size=rows, pad_token_id=0, rope_parameters=LONGROPE, original_max_position_embeddings=2048, **UNTIED
    ),
    "phi": lambda rows: PhiConfig(vocab_size=rows, pad_token_id=0, **UNTIED),
    "gpt_neox": lambda rows: GPTNeoXConfig(vocab_size=rows, hidden_act="gelu_fast", **PLAIN_HEADS),
    "gpt_neox, one after the other": lambda rows: GPTNeoXConfig(
        vocab_size=rows, use_parallel_residual=False, hidden_act="gelu_fast", **PLAIN_HEADS
    ),
}

SEEDS = {"gemma3 that sees, scaled linearly": 1}  # with 0 two tokens are equally likely but for 7e-5


def tiny(folder: Path, tokenizer: PreTrainedTokenizerFast, kind: str = "llama") -> Checkpoint:
    torch.manual_seed(SEEDS.get(kind, 0))
    config = CONFIGS[kind](len(tokenizer) + 8)
    seeing = isinstance(config, Gemma3Config)
    model = (AutoModelForImageTextToText if seeing else AutoModelForCausalLM).from_config(config)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if values.ndim == 1:
                values.add_(torch.randn_like(values) * 0.1)  # norms and biases that say something
            elif "embed" not in name and "wte" not in name:
                values.mul_(4.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return open_checkpoint(folder)


def greedy(model: Any, ids: list[int], count: int) -> list[int]:
    """The likeliest ids, ends of text and all."""
    plain = GenerationConfig(max_new_tokens=count, do_sample=False, eos_token_id=-1, pad_token_id=0)
    found: list[int] = model.generate(torch.tensor([ids]), generation_config=plain)[0, len(ids) :].tolist()
    return found


def assert_same_ids(path: Path, tokenizer: PreTrainedTokenizerFast, texts: tuple[str, ...] = TEXTS) -> None:
    with LlamaCpp(path, vocabulary_only=True) as engine:
        for text in texts:
            assert engine.tokenize(text) == tokenizer(text)["input_ids"], text
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert engine.tokenize(text, specials=False) == ids, text


@pytest.fixture(scope="module")
def smollm2() -> PreTrainedTokenizerFast:
    return open_checkpoint("smollm2").tokenizer


@pytest.fixture(scope="module")
def small(smollm2: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    return trim_tokenizer(smollm2, TEXTS, keep=800).tokenizer


@pytest.mark.parametrize("name", ["smollm2", "llama3", "qwen3", "gemma3", "mistral_v1", "mistral_v3"])
def test_real_tokenizers_have_the_same_ids(
    tmp_path: Path, real_tokenizer: Callable[[str], PreTrainedTokenizerFast], name: str
) -> None:
    source = tiny(tmp_path / "model", real_tokenizer(name))
    report = export_gguf(source, tmp_path / "out.gguf")
    # llama.cpp does not compose; the report says so, and such text is left out here.
    composing = any("NFC" in note for note in report.notes)
    assert composing == (name == "qwen3")
    texts = tuple(text for text in TEXTS if not composing or normalizers.NFC().normalize_str(text) == text)
    assert len(texts) > 40
    assert_same_ids(report.path, source.tokenizer, texts)


@pytest.mark.parametrize("scheme", ["always", "never", "normalizer"])
def test_unigram_has_the_same_ids(tmp_path: Path, scheme: str) -> None:
    backend = Tokenizer(models.Unigram())
    if scheme == "normalizer":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    settings = {"vocab_size": 600, "unk_token": "<unk>", "special_tokens": ["<unk>", "<s>", "</s>"]}
    backend.train_from_iterator(TEXTS[:10] * 3, trainers.UnigramTrainer(show_progress=False, **settings))
    roles = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    source = tiny(tmp_path / "model", PreTrainedTokenizerFast(tokenizer_object=backend, **roles))
    report = export_gguf(source, tmp_path / "out.gguf")
    assert report.tokenizer == "t5"
    assert any("before text that begins" in note for note in report.notes) == (scheme == "always")
    assert any("nothing but spaces" in note for note in report.notes) == (scheme == "normalizer")
    apart = {"always": " leading", "never": "", "normalizer": ("", " ", "   ")}[scheme]  # what the notes say
    texts = tuple(text for text in TEXTS if text not in (apart if isinstance(apart, tuple) else (apart,)))
    assert len(texts) >= len(TEXTS) - 2
    assert_same_ids(report.path, source.tokenizer, texts)


@pytest.mark.parametrize("name", list(PRE_TOKENIZERS))
def test_every_name_cuts_as_it_says(tmp_path: Path, smollm2: PreTrainedTokenizerFast, name: str) -> None:
    import copy

    tokenizer = copy.deepcopy(smollm2)
    tokenizer.backend_tokenizer.pre_tokenizer = PRE_TOKENIZERS[name]()
    if name == "llama-bpe":
        model = tokenizer.backend_tokenizer.model
        model.ignore_merges = True
        tokenizer.backend_tokenizer.model = model
    report = export_gguf(tiny(tmp_path / "model", tokenizer), tmp_path / "out.gguf")
    assert report.pre_tokenizer == name
    assert_same_ids(report.path, tokenizer)


def test_a_name_that_llama_cpp_cuts_otherwise_is_refused_and_named(
    tmp_path: Path, real_tokenizer: Callable[[str], PreTrainedTokenizerFast]
) -> None:
    source = tiny(tmp_path / "model", real_tokenizer("gpt4o"))
    with pytest.raises(VocabTransferError, match="'gpt-4o'"):
        export_gguf(source, tmp_path / "out.gguf")
    report = export_gguf(source, tmp_path / "out.gguf", pre_tokenizer="gpt-4o")
    assert any("otherwise" in note for note in report.notes)
    with LlamaCpp(report.path, vocabulary_only=True) as engine:  # that is why it is refused
        assert any(engine.tokenize(text) != source.tokenizer(text)["input_ids"] for text in TEXTS)


def test_added_tokens_of_phi3_take_the_spaces_behind_them(
    tmp_path: Path, real_tokenizer: Callable[[str], PreTrainedTokenizerFast]
) -> None:
    document = json.loads(real_tokenizer("llama2").backend_tokenizer.to_str())
    plain = {token["content"]: token for token in document["added_tokens"]}
    plain["</s>"]["rstrip"] = True
    rows = len(document["model"]["vocab"])
    for i, content in enumerate(("<|endoftext|>", "<|user|>", "<|end|>", "<|assistant|>")):
        token = {**plain["<s>"], "id": rows + i, "content": content, "rstrip": content != "<|endoftext|>"}
        document["added_tokens"].append(token)
    roles = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(document)), **roles)
    source = tiny(tmp_path / "model", tokenizer, "phi3")
    report = export_gguf(source, tmp_path / "out.gguf")
    assert read_gguf(report.path).fields["general.name"] == "model (phi-3)"
    assert_same_ids(report.path, source.tokenizer)
    chat = "<|user|>\nIs it  so?<|end|>\n<|assistant|>\n  Yes.<|end|> <|endoftext|>\n x"
    with LlamaCpp(report.path, vocabulary_only=True) as engine:
        assert engine.tokenize(chat) == source.tokenizer(chat)["input_ids"]


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_bodies_say_the_same(tmp_path: Path, small: PreTrainedTokenizerFast, kind: str) -> None:
    source = tiny(tmp_path / "model", small, kind)
    model = AutoModelForCausalLM.from_pretrained(source.path, dtype=torch.float32).eval()
    ids = source.tokenizer("".join(CODE))["input_ids"][:100]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, :-1].double()
    nats = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum").item()
    # Half the promised 0.5 % of perplexity, for a mean over 99 tokens.
    for precision, most in (("f32", 1e-4), ("f16", 2.5e-3)):
        report = export_gguf(source, tmp_path / f"{precision}.gguf", kind=precision)
        with LlamaCpp(report.path) as engine:
            assert abs(math.expm1((engine.nats(ids) - nats) / 99)) < most
            if precision == "f32":
                assert engine.continue_greedily(ids[:20], 32) == greedy(model, ids[:20], 32)


@pytest.mark.parametrize("precision", ["f16", "f32"])
def test_smollm2_continues_text_alike(tmp_path: Path, precision: str) -> None:
    source = open_checkpoint("smollm2")
    model = AutoModelForCausalLM.from_pretrained(source.path, dtype=torch.float32).eval()
    report = export_gguf(source, tmp_path / "out.gguf", kind=precision)
    with LlamaCpp(report.path) as engine:
        for prompt in ("The capital of France is", "def fibonacci(n):"):
            ids = source.tokenizer(prompt)["input_ids"]
            assert engine.continue_greedily(ids, 32) == greedy(model, ids, 32)


def test_a_quantised_source_keeps_its_body(tmp_path: Path) -> None:
    report = export_gguf("smollm2", tmp_path / "out.gguf")
    written, cached = read_gguf(report.path), open_checkpoint("smollm2")
    assert report.kept == report.tensors == len(written.tensors)
    assert {tensor.kind for tensor in written.tensors.values()} >= {"Q4_1", "F32"}
    ids = cached.tokenizer("The capital of France is")["input_ids"]
    with LlamaCpp(report.path) as engine:
        assert "Paris" in engine.detokenize(engine.continue_greedily(ids, 5))


def test_heads_of_a_hydra_share_their_body(
    tmp_path: Path, smollm2: PreTrainedTokenizerFast, small: PreTrainedTokenizerFast
) -> None:
    source = tiny(tmp_path / "source", smollm2)
    hydra = create_hydra(source, tmp_path / "hydra", own_name="all").path
    add_head(hydra, "small", vt.transfer(source, small, method="pieces", calibrate=False))
    reports = export_hydra_gguf(hydra, tmp_path / "gguf", kind="f32")
    assert set(reports) == {"all", "small"}
    bodies = {report.path.with_name(report.path.name.replace("00001-of", "00002-of")) for report in reports.values()}
    assert len(bodies) == 2 and len({path.stat().st_ino for path in bodies}) == 1
    for name, report in reports.items():
        export_head(hydra, name, tmp_path / name)
        model = AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype=torch.float32).eval()
        ids = open_checkpoint(tmp_path / name).tokenizer(CODE[0])["input_ids"]
        with LlamaCpp(report.path) as engine:
            assert engine.tokenize(CODE[0]) == ids
            assert engine.continue_greedily(ids, 8) == greedy(model, ids, 8)
