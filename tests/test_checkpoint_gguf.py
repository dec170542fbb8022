"""GGUF files: read strictly, and converted back to the model and the tokenizer they were made from."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.checkpoint.gguf_file import read_gguf
from vocabtransfer.checkpoint.gguf_tokenizer import build_tokenizer
from vocabtransfer.checkpoint.synthetic import toy_tokenizer
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.vocabulary import Kind, Vocabulary

TEXT = "Hello world, сәлам дөнья! In 2024 it's 12345.67 units;\n\n  def f(x):\n\treturn x**2  # 😀 家 ﬁ\u00a0 I'LL"
LAYER_NAMES = {
    **{"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k"},
    **{"self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm"},
    **{"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"},
    **{"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"},
}
GEMMA_NAMES = LAYER_NAMES | {
    **{"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm"},
    **{"post_feedforward_layernorm": "post_ffw_norm"},
}
ENDS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
TOY = toy_tokenizer(["hello", " world"])


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOCABTRANSFER_CACHE", str(tmp_path / "cache"))


def gguf_name(name: str, names: dict[str, str]) -> str:
    module, _, kind = name.rpartition(".")
    if module in ENDS:
        return f"{ENDS[module]}.{kind}"
    _, _, layer, rest = module.split(".", 3)
    return f"blk.{layer}.{names[rest]}.{kind}"


def add_byte_level(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerFast, pre: str) -> None:
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    special = {int(token["id"]): bool(token["special"]) for token in document["added_tokens"]}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in document["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([{None: 1, True: 3, False: 4}[special.get(i)] for i in range(len(tokens))])
    writer.add_token_merges(merges)


def add_model(writer: gguf.GGUFWriter, model: Any, names: dict[str, str], kind: gguf.GGMLQuantizationType) -> None:
    """Write a model as llama.cpp's converter does."""
    config = model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head_dim)
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        data = value.float().numpy()
        new = gguf_name(name, names)
        if config.model_type == "llama" and ("attn_q." in new or "attn_k." in new):
            heads = config.num_attention_heads if "attn_q." in new else config.num_key_value_heads
            data = data.reshape(heads, 2, data.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(data.shape)
        if config.model_type == "gemma3_text" and new.endswith("norm.weight"):
            data = data + 1
        if len(data.shape) > 1 and kind != gguf.GGMLQuantizationType.F32:
            writer.add_tensor(new, gguf.quants.quantize(data, kind), raw_dtype=kind)
        else:
            writer.add_tensor(new, data.astype(np.float32))


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


SMALL = {
    **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "max_position_embeddings": 128, "vocab_size": len(TOY)},
    **{"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2},
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": True, "rope_theta": 100000.0}),
    "llama-bias": ("llama", {"tie_word_embeddings": False, "attention_bias": True, "rope_theta": 50000.0}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True, "rope_theta": 1000000.0}),
    "qwen3": ("qwen3", {"tie_word_embeddings": False, "head_dim": 16, "rope_theta": 1000000.0}),
    "gemma3": ("gemma3_text", {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 4}),
}


def write_model(path: Path, name: str, kind: str = "F32", **fields: Any) -> Any:
    model_type, extra = MODELS[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **{**SMALL, **extra})).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value) * 0.05)
    arch = model_type.removesuffix("_text")
    writer = gguf.GGUFWriter(path, arch)
    add_byte_level(writer, TOY, "gpt-2")
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(2)
    add_model(writer, model, GEMMA_NAMES if arch == "gemma3" else LAYER_NAMES, gguf.GGMLQuantizationType[kind])
    if arch == "gemma3":
        writer.add_sliding_window(4)
        writer.add_rope_freq_base(1000000.0)
    else:
        writer.add_rope_freq_base(extra["rope_theta"])
    for key, value in fields.items():
        getattr(writer, key)(value)
    finish(writer)
    return model


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(torch.arange(3, 23).reshape(1, 20)).logits


@pytest.mark.parametrize("name", MODELS)
def test_conversion_gives_the_model_back(name: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.gguf", name)
    checkpoint = open_checkpoint(tmp_path / "m.gguf")
    assert checkpoint.name == "m" and {t.dtype for t in checkpoint.tensors.values()} == {"F32"}
    assert checkpoint.layout.tied == model.config.tie_word_embeddings
    assert checkpoint.generation_config == {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    converted, info = AutoModelForCausalLM.from_pretrained(checkpoint.path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    torch.testing.assert_close(logits(converted.eval()), logits(model), rtol=1e-5, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.path)
    assert tokenizer.get_vocab() == TOY.get_vocab() and tokenizer(TEXT).input_ids == TOY(TEXT).input_ids
    assert tokenizer.model_max_length == 128
    assert open_checkpoint(tmp_path / "m.gguf").path == checkpoint.path, "the second time it comes from the cache"


@pytest.mark.parametrize(("kind", "dtype"), [("F16", "F16"), ("BF16", "BF16"), ("Q8_0", "BF16"), ("Q4_0", "BF16")])
def test_storage_type_and_agreement_with_transformers(kind: str, dtype: str, tmp_path: Path) -> None:
    write_model(tmp_path / "m.gguf", "llama", kind)
    checkpoint = open_checkpoint(tmp_path / "m.gguf")
    assert {t.dtype for t in checkpoint.tensors.values()} == {dtype}
    ours = AutoModelForCausalLM.from_pretrained(checkpoint.path, dtype=torch.float32).state_dict()
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32).state_dict()
    storage = torch.float16 if dtype == "F16" else torch.bfloat16
    for name, value in theirs.items():
        assert torch.equal(ours[name], value.to(storage).float()), name


def test_llama3_scaling_is_recognised(tmp_path: Path) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling["original_max_position_embeddings"] = 8192
    config = AutoConfig.for_model("llama", **SMALL, head_dim=8, rope_theta=500000.0, rope_scaling=dict(scaling))
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 1 / 500000.0 ** (torch.arange(0, 8, 2) / 8)
    path = tmp_path / "m.gguf"
    write_with_frequencies(path, (plain / scaled).numpy().astype(np.float32))
    assert open_checkpoint(path).config["rope_scaling"] == scaling
    write_with_frequencies(tmp_path / "odd.gguf", np.full(4, 1.5, dtype=np.float32))
    with pytest.raises(VocabTransferError, match="rotary factors other than"):
        open_checkpoint(tmp_path / "odd.gguf")


def write_with_frequencies(path: Path, frequencies: Any) -> None:
    config = AutoConfig.for_model("llama", **SMALL, tie_word_embeddings=True, rope_theta=500000.0)
    model = AutoModelForCausalLM.from_config(config)
    writer = gguf.GGUFWriter(path, "llama")
    add_byte_level(writer, TOY, "gpt-2")
    add_model(writer, model, LAYER_NAMES, gguf.GGMLQuantizationType.F32)
    writer.add_rope_freq_base(500000.0)
    writer.add_tensor("rope_freqs.weight", frequencies)
    finish(writer)


def write_tokenizer(path: Path, tokenizer: PreTrainedTokenizerFast, pre: str, **roles: int) -> PreTrainedTokenizerFast:
    writer = gguf.GGUFWriter(path, "llama")
    add_byte_level(writer, tokenizer, pre)
    for name, i in roles.items():
        getattr(writer, f"add_{name}_token_id")(i)
    finish(writer)
    return build_tokenizer(read_gguf(path))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pre"), [("llama3", "llama-bpe"), ("qwen3", "qwen2")])
def test_real_byte_level_tokenizers(name: str, pre: str, real_tokenizer: Any, tmp_path: Path) -> None:
    real = real_tokenizer(name)
    built = write_tokenizer(tmp_path / "t.gguf", real, pre, bos=real.bos_token_id or 0, eos=real.eos_token_id)
    for text in (TEXT, TEXT.upper(), "e\u0301 caf\u00e9 1234567", "<|eot_id|><|im_end|> x"):
        wanted = real(text, add_special_tokens=False).input_ids
        assert built(text, add_special_tokens=False).input_ids == wanted
        assert built.decode(wanted) == real.decode(wanted)
    assert built.eos_token == real.eos_token


def test_real_sentencepiece_tokenizer(real_tokenizer_folder: Any, tmp_path: Path) -> None:
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(
        model_file=str(real_tokenizer_folder("mistral_v1") / "tokenizer.model")
    )
    pieces = range(model.vocab_size())
    kinds = [2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1 for i in pieces]
    writer = gguf.GGUFWriter(tmp_path / "t.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([model.id_to_piece(i) for i in pieces])
    writer.add_token_scores([model.get_score(i) for i in pieces])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    finish(writer)
    built = build_tokenizer(read_gguf(tmp_path / "t.gguf"))
    for text in (TEXT, TEXT.upper(), "  two spaces", "a", "𝔘ñïcode 家家"):
        # The model's own normaliser is NFKC-free here: compare what it does to the plain text.
        assert built(text, add_special_tokens=False).input_ids == model.encode(text)
        assert built(text).input_ids == [1, *model.encode(text)]
        assert built.decode(model.encode(text)) == model.decode(model.encode(text))
    vocabulary = Vocabulary.from_tokenizer(built)
    assert int((vocabulary.kinds == Kind.BYTE).sum()) == 256


def test_digits_are_split_as_smollm_does(tmp_path: Path) -> None:
    """transformers' own conversion forgets this and would give the digits of a number one token."""
    digits = toy_tokenizer(["2024", " 2024"])
    assert digits.tokenize("in 2024")[-1] == "2024"
    built = write_tokenizer(tmp_path / "t.gguf", digits, "smollm", bos=0, eos=1)
    assert built.tokenize("in 2024")[-4:] == ["2", "0", "2", "4"]


def test_chat_template_ends_and_unused_tokens(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "t.gguf", "llama")
    tokens = [*TOY.convert_ids_to_tokens(range(len(TOY))), "ab", "[PAD1]", "[PAD2]"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 4 + [1] * (len(TOY) - 3) + [5, 5])
    writer.add_token_merges(["a b"])
    writer.add_chat_template("{{ bos_token }}")
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    finish(writer)
    built = build_tokenizer(read_gguf(tmp_path / "t.gguf"))
    assert len(built) == len(TOY) + 1 and built.chat_template == "{{ bos_token }}"
    ids = built("x").input_ids
    assert (ids[0], ids[-1], len(ids)) == (0, 1, 3)


# --- refusals -------------------------------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(VocabTransferError) as caught:
        open_checkpoint(path)
    assert not list((path.parent / "cache" / "checkpoints").glob("*"))
    return str(caught.value)


def test_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    write_model(tmp_path / "a.gguf", "llama", add_rope_scaling_type=gguf.RopeScalingType.YARN)
    assert "rotary scaling 'yarn'" in refusal(tmp_path / "a.gguf")
    writer = gguf.GGUFWriter(tmp_path / "b.gguf", "falcon")
    finish(writer)
    assert "architecture 'falcon'" in refusal(tmp_path / "b.gguf")
    writer = gguf.GGUFWriter(tmp_path / "c.gguf", "llama")
    writer.add_tensor("blk.0.ffn_gate_exps.weight", np.zeros((2, 2), dtype=np.float32))
    finish(writer)
    assert "'blk.0.ffn_gate_exps.weight', unknown in llama" in refusal(tmp_path / "c.gguf")
    with pytest.raises(VocabTransferError, match="splits text in the way 'tekken'"):
        write_tokenizer(tmp_path / "d.gguf", TOY, "tekken")


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1), places=st.lists(st.tuples(st.floats(0, 0.2), st.integers(0, 255)), max_size=3))
def test_damaged_files_never_raise_anything_else(
    cut: float, places: list[tuple[float, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    content = bytearray(small_gguf(tmp_path_factory))
    for place, value in places:
        content[int(place * (len(content) - 1))] = value
    if not places:
        content = content[: int(cut * (len(content) - 1))]
    (folder / "x.gguf").write_bytes(content)
    try:
        file = read_gguf(folder / "x.gguf")
    except VocabTransferError as error:
        assert "x.gguf" in str(error)
        return
    assert all(tensor.end <= len(content) for tensor in file.tensors.values())


_made: list[bytes] = []


def small_gguf(factory: pytest.TempPathFactory) -> bytes:
    if not _made:
        path = factory.mktemp("gguf") / "m.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_token_list(["a", "bc", "ü"])
        writer.add_token_scores([0.0, -1.0, -2.0])
        writer.add_tensor("token_embd.weight", np.zeros((3, 4), dtype=np.float32))
        finish(writer)
        _made.append(path.read_bytes())
    return _made[0]


def test_smollm2_from_its_package(smollm2_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder)
    assert [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id] == [
        1,
        2,
        2,
        0,
    ]
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi 12"}], tokenize=False, add_generation_prompt=True
    )
    assert chat.endswith("<|im_start|>user\nHi 12<|im_end|>\n<|im_start|>assistant\n")
    ids = tokenizer(chat).input_ids
    assert ids.count(1) == 3 and ids.count(2) == 2 and tokenizer.decode(ids) == chat
    assert tokenizer.convert_ids_to_tokens(tokenizer(" 12").input_ids) == ["Ġ", "1", "2"]
    generation = json.loads((smollm2_folder / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    config = json.loads((smollm2_folder / "config.json").read_text())
    assert (config["rope_theta"], config["rms_norm_eps"], config["dtype"]) == (100000.0, 1e-05, "bfloat16")
    assert "Apache License" in (smollm2_folder / "LICENSE").read_text()
