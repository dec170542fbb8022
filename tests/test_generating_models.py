"""What a model does decides, not what it is called: whatever generates is calibrated, and proved by generating."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from build_samples import write_pairs
from transformers import AutoImageProcessor, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerFast

from vocabtransfer.checkpoint import open_checkpoint
from vocabtransfer.checkpoint.model_class import continues_text, generates
from vocabtransfer.checkpoint.synthetic import ROLES, toy_tokenizer
from vocabtransfer.errors import VocabTransferError
from vocabtransfer.pipeline.build import BuildRequest, BuildResult, build
from vocabtransfer.running.blank_inputs import blank_inputs
from vocabtransfer.running.load import load_causal_model, load_model
from vocabtransfer.surgery.unigram_calibration import hidden_states
from vocabtransfer.tokenization.save import save_tokenizer

ENGLISH = "the book is on the table . | a new file was opened | I see two houses and one book | close the window"
DUTCH = "het boek ligt op de tafel . | een nieuw bestand werd geopend | ik zie twee huizen en een boek | sluit het raam"
ROLES_AND_MARKS = {**ROLES, "image": "<image>", "start": "<start>", "end": "<end>"}
IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
IMAGE, START, END = 4, 5, 6
WIDTHS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
TEXT = {**WIDTHS, "num_key_value_heads": 2, "head_dim": 8, **IDS}
EYES = {**WIDTHS, "num_hidden_layers": 1, "image_size": 28, "patch_size": 14}
QWEN_EYES = {
    **{"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32},
    **{"patch_size": 14, "num_position_embeddings": 16},
}
QWEN_IDS = {
    **{"image_token_id": IMAGE, "video_token_id": IMAGE, "vision_start_token_id": START, "vision_end_token_id": END},
}
TWO_STACKS = {
    **{"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48},
    **{"encoder_attention_heads": 4, "decoder_attention_heads": 4, **IDS},
}
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}


def gemma3(rows: int) -> PreTrainedConfig:
    return hf.Gemma3Config(
        text_config={"vocab_size": rows, "sliding_window": 8, "final_logit_softcapping": 30.0, **TEXT},
        vision_config={"model_type": "siglip_vision_model", **EYES},
        **{"mm_tokens_per_image": 4, "image_token_index": IMAGE, "boi_token_index": START, "eoi_token_index": END},
        **IDS,
    )


def mistral3(rows: int) -> PreTrainedConfig:
    return hf.Mistral3Config(
        text_config={"model_type": "mistral", "vocab_size": rows, **TEXT},
        vision_config={"model_type": "pixtral", **EYES},
        **{"image_token_index": IMAGE, **IDS},
    )


def qwen3_vl(rows: int) -> PreTrainedConfig:
    return hf.Qwen3VLConfig(
        text_config={"vocab_size": rows, "rope_parameters": ROPE, **TEXT},
        vision_config={**QWEN_EYES, "deepstack_visual_indexes": [0]},
        **{"tie_word_embeddings": True, **QWEN_IDS},
    )


def qwen3_5(rows: int) -> PreTrainedConfig:
    rope = {**ROPE, "mrope_section": [1, 1, 0], "partial_rotary_factor": 0.5}
    return hf.Qwen3_5Config(
        text_config={
            **{"vocab_size": rows, "layer_types": ["linear_attention", "full_attention"], "rope_parameters": rope},
            **{"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8},
            **{"linear_value_head_dim": 8, **TEXT},
        },
        vision_config=QWEN_EYES,
        **QWEN_IDS,
    )


def t5(rows: int) -> PreTrainedConfig:
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 2}
    return hf.T5Config(vocab_size=rows, **sizes, eos_token_id=1, pad_token_id=2)


def bart(rows: int) -> PreTrainedConfig:
    return hf.BartConfig(vocab_size=rows, max_position_embeddings=64, decoder_start_token_id=1, **TWO_STACKS)


def whisper(rows: int) -> PreTrainedConfig:
    return hf.WhisperConfig(
        **{"vocab_size": rows, "decoder_start_token_id": 0, "num_mel_bins": 8, "max_source_positions": 20},
        **{"max_target_positions": 64, "suppress_tokens": [], "begin_suppress_tokens": [], **TWO_STACKS},
    )


def llama4(rows: int) -> PreTrainedConfig:
    return hf.Llama4TextConfig(vocab_size=rows, intermediate_size_mlp=48, num_local_experts=2, **TEXT)


def sees(decoder: PreTrainedConfig) -> PreTrainedConfig:
    return hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        hf.ViTConfig(**EYES), decoder, decoder_start_token_id=0, pad_token_id=2, eos_token_id=1
    )


def roberta(rows: int) -> PreTrainedConfig:
    decoder = {"is_decoder": True, "add_cross_attention": True, "max_position_embeddings": 66}
    return sees(hf.RobertaConfig(vocab_size=rows, **WIDTHS, **decoder, **IDS))


def gpt2(rows: int) -> PreTrainedConfig:
    return sees(hf.GPT2Config(vocab_size=rows, n_embd=32, n_layer=2, n_head=4, add_cross_attention=True, **IDS))


def trocr(rows: int) -> PreTrainedConfig:
    sizes = {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48}
    return sees(hf.TrOCRConfig(vocab_size=rows, max_position_embeddings=64, **sizes, **IDS))


def slow(name: str, *rest: Any) -> Any:
    return pytest.param(name, *rest, marks=pytest.mark.slow)


SEES = "VisionEncoderDecoderModel"
MODELS: dict[str, tuple[str, Callable[[int], PreTrainedConfig]]] = {
    "gemma3": ("Gemma3ForConditionalGeneration", gemma3),
    "mistral3": ("Mistral3ForConditionalGeneration", mistral3),
    "qwen3_vl": ("Qwen3VLForConditionalGeneration", qwen3_vl),
    "qwen3_5": ("Qwen3_5ForConditionalGeneration", qwen3_5),
    "t5": ("T5ForConditionalGeneration", t5),
    "bart": ("BartForConditionalGeneration", bart),
    "whisper": ("WhisperForConditionalGeneration", whisper),
    "llama4": ("Llama4ForCausalLM", llama4),
    "trocr": (SEES, trocr),
    "sees-roberta": (SEES, roberta),
    "sees-gpt2": (SEES, gpt2),
}
QUICK = {"gemma3", "t5", "whisper", "llama4", "sees-roberta"}
NAMES = [name if name in QUICK else slow(name) for name in MODELS]


def tokenizer() -> PreTrainedTokenizerFast:
    return toy_tokenizer(["hello", "world", " the", " book", " file"], roles=ROLES_AND_MARKS)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("sources")

    def make(name: str) -> Path:
        folder = root / name
        if not folder.exists():
            torch.manual_seed(0)
            cls, config = MODELS[name]
            getattr(hf, cls)(config(len(tokenizer()))).save_pretrained(folder)
            save_tokenizer(tokenizer(), folder)
            if cls == SEES:
                hf.ViTImageProcessor(size={"height": 28, "width": 28}).save_pretrained(folder)
        return folder

    return make


def built(source: Path, folder: Path, **options: Any) -> BuildResult:
    corpus = write_pairs(folder / "en-nl.tsv", ENGLISH, DUTCH)
    wanted = {"parallel": (corpus,), "vocab_size": 600, **options}
    return build(BuildRequest(source=str(source), target="dutch", output=folder / "out", **wanted))


@pytest.mark.parametrize("name", NAMES)
def test_what_generates_is_calibrated_and_proved_by_generating(
    name: str, sources: Callable[[str], Path], tmp_path: Path
) -> None:
    # Asked for: so small a vocabulary is kept nearly whole, and such a one is not calibrated unasked.
    result = built(sources(name), tmp_path, calibrate=True)
    facts = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert facts["method"]["calibrated"] is result.facts["method"]["calibrated"] is True
    assert "not calibrated" not in " ".join(facts["notes"])
    assert facts["rows_by_rule"]["aligned and pieces"] > 0, "the decoder's rules"
    assert result.proof is not None and result.proof.loaded == MODELS[name][0] and result.proof.prompt
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "calibrated to token frequencies" in card


@pytest.mark.parametrize("name", NAMES)
def test_the_heads_input_is_what_the_model_itself_computes(name: str, sources: Callable[[str], Path]) -> None:
    """With the source's own rows in the places of new ones, nothing may change: neither scaling nor the head's inside."""
    model: Any = load_model(sources(name))
    ids = np.array([7, 30, 31, 70, 80, 90])
    rows = model.get_input_embeddings().weight[torch.from_numpy(ids)].detach().numpy()
    chunks = [[30, 31, 7, 90, 80], [90, 70, 31, 30, 7]]
    states = hidden_states(model, chunks, ids, rows)
    expected: list[torch.Tensor] = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _m, given: expected.append(given[0][0, 1:]))
    blank = blank_inputs(model)
    assert blank is not None
    with torch.inference_mode():
        for place, chunk in enumerate(chunks):
            tokens = {"input_ids": torch.tensor([chunk])}
            if model.config.is_encoder_decoder:
                read = {} if blank else {"input_ids": torch.tensor([chunks[place - 1]])}
                tokens = {**read, "decoder_input_ids": torch.tensor([chunk])}
            model(**blank, **tokens, use_cache=False)
    hook.remove()
    np.testing.assert_allclose(states, torch.cat(expected).numpy(), atol=1e-5)
    assert model.get_output_embeddings().weight.shape[0] == len(tokenizer()), "put back as it was"


def test_a_reader_of_pictures_gets_another_language_and_keeps_its_eyes(
    sources: Callable[[str], Path], tmp_path: Path
) -> None:
    """The Spanish TrOCR: a decoder's language is swapped, the processor stays, `generate` runs."""
    source = sources("sees-roberta")
    built(source, tmp_path)
    out = tmp_path / "out"
    model, words = hf.VisionEncoderDecoderModel.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    picture = AutoImageProcessor.from_pretrained(out)(np.zeros((40, 60, 3), np.uint8), return_tensors="pt")
    written = model.generate(**picture, max_new_tokens=6, do_sample=False)
    assert int(written.max()) < len(words) == model.config.decoder.vocab_size
    before, after = open_checkpoint(source), open_checkpoint(out)
    eyes = [name for name in before.tensors if name.startswith("encoder.")]
    assert eyes and all(torch.equal(before.read(name), after.read(name)) for name in eyes)
    assert (out / "preprocessor_config.json").read_bytes() == (source / "preprocessor_config.json").read_bytes()
    assert model.config.decoder_start_token_id == words.bos_token_id and model.config.eos_token_id == words.eos_token_id


CLASSES: dict[str, tuple[str, Mapping[str, Any], bool, bool]] = {
    "causal": ("LlamaForCausalLM", {"model_type": "llama"}, True, True),
    "eyes": ("Gemma3ForConditionalGeneration", {"model_type": "gemma3"}, True, True),
    "translator": ("MarianMTModel", {"model_type": "marian"}, True, False),
    "ears": ("WhisperForConditionalGeneration", {"model_type": "whisper"}, True, False),
    "reader of pictures": (SEES, {"model_type": "vision-encoder-decoder"}, True, False),
    "encoder": ("BertForMaskedLM", {"model_type": "bert"}, False, False),
    "encoder of a generator": ("T5EncoderModel", {"model_type": "t5"}, False, False),
    "of nobody's": ("HouseForCausalLM", {"model_type": "house"}, True, True),
    "of nobody's, an encoder": ("HouseModel", {"model_type": "house"}, False, False),
    "nameless": ("", {}, False, False),
}


@pytest.mark.parametrize("case", CLASSES)
def test_the_class_tells_what_a_model_does(case: str) -> None:
    name, rest, writes, goes_on = CLASSES[case]
    config = {"architectures": [name] if name else [], **rest}
    assert (generates(config), continues_text(config)) == (writes, goes_on)
    assert not generates({"architectures": [None]}) and not generates({"architectures": "LlamaForCausalLM"})


def test_a_model_with_eyes_is_scored_as_the_text_model_it_also_is(sources: Callable[[str], Path]) -> None:
    assert type(load_causal_model(sources("gemma3"))).__name__ == "Gemma3ForConditionalGeneration"
    with pytest.raises(VocabTransferError, match="does not open as a causal model"):
        load_causal_model(sources("t5"))
