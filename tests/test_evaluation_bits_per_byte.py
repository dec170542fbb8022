"""Bits per byte against a computation one token at a time, over windows, batches, architectures and tokenizers."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from thinned import first_of
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    BertConfig,
    BertLMHeadModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MambaConfig,
    MambaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.evaluation import bits_per_byte, evaluate, scoring
from vocabtransfer.evaluation.scoring import CausalScorer, document_separator
from vocabtransfer.running.load import load_causal_model
from vocabtransfer.tokenization.load import load_tokenizer

TEXTS = ["A house in the woods.", "Кеше гаиләсенең барлык әгъзаларына", "", "x", "emoji 😀 and\n\nlines\tof text " * 3]


def byte_tokenizer(merges: list[tuple[str, str]] | None = None, **roles: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with the given merges."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    strings = ["<s>", "</s>", *letters, *(a + b for a, b in merges or [])]
    backend = Tokenizer(models.BPE({s: i for i, s in enumerate(strings)}, merges or []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **(roles or {"bos_token": "<s>", "eos_token": "</s>"}))


def small(config: type, **options: Any) -> Any:
    return config(
        vocab_size=300,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        **options,
    )


MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaForCausalLM(small(LlamaConfig, intermediate_size=24)),
    "gemma2": lambda: Gemma2ForCausalLM(
        small(Gemma2Config, intermediate_size=24, head_dim=8, num_key_value_heads=1, final_logit_softcapping=0.5)
    ),
    "phi": lambda: PhiForCausalLM(small(PhiConfig, intermediate_size=24)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=300, n_positions=64, n_embd=16, n_layer=2, n_head=2)),
    "mamba": lambda: MambaForCausalLM(MambaConfig(vocab_size=300, hidden_size=16, num_hidden_layers=2, state_size=4)),
}


def make(name: str) -> Any:
    torch.manual_seed(1)
    model = MODELS[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Wide enough that predictions differ clearly from one context to another, also the head's bias.
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


@pytest.fixture(scope="module")
def llama() -> Any:
    return make("llama")


def naive_nats(model: Any, tokenizer: PreTrainedTokenizerFast, text: str, window: int, stride: int) -> float:
    """The same definition, a forward pass of the whole model for every single token."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    total = 0.0
    for i, token in enumerate(ids):
        # The end of the window that scores token i: the first one reaches `window`, each later one `stride` further.
        end = window if i < window else window + math.ceil((i + 1 - window) / stride) * stride
        begin = max(min(end, len(ids)) - window, 0)
        with torch.no_grad():
            logits = model(torch.tensor([[tokenizer.bos_token_id, *ids[begin:i]]])).logits[0, -1]
        total -= torch.log_softmax(logits.double(), -1)[token].item()
    return total


@given(
    text=st.text(min_size=1, max_size=24, alphabet=st.characters(codec="utf-8")),
    window=st.integers(1, 24),
    data=st.data(),
)
@settings(deadline=None, max_examples=40)
def test_every_token_is_scored_once_in_its_window(llama: Any, text: str, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, window), label="stride")
    batch_tokens = data.draw(st.sampled_from([1, 16, 500]), label="batch_tokens")
    tokenizer = byte_tokenizer()
    result = bits_per_byte(llama, tokenizer, [text], window=window, stride=stride, batch_tokens=batch_tokens)
    assert result.nats == pytest.approx(naive_nats(llama, tokenizer, text, window, stride), rel=1e-5)
    assert result.tokens == result.bytes == len(text.encode())
    assert result.bits_per_byte == pytest.approx(result.nats / math.log(2) / len(text.encode()))


@cache
def nats_of_texts(name: str) -> float:
    return sum(naive_nats(make(name), byte_tokenizer(), text, 20, 10) for text in TEXTS)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("positions_at_a_time", first_of([7, 1 << 20], 7))
def test_architectures_agree_with_their_own_forward_pass(
    name: str, positions_at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_LOGITS_AT_A_TIME", 300 * positions_at_a_time)
    model, tokenizer = make(name), byte_tokenizer()
    found = bits_per_byte(model, tokenizer, TEXTS, window=20, stride=10)
    assert found.nats == pytest.approx(nats_of_texts(name), rel=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_the_head_runs_apart_from_the_body(name: str) -> None:
    assert CausalScorer(make(name), byte_tokenizer())._two_steps


def test_a_model_that_cannot_be_cut_is_run_whole(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(LlamaForCausalLM):
        base_model_prefix = "nothing"

    odd = Odd(llama.config).eval()
    odd.load_state_dict(llama.state_dict())
    assert not CausalScorer(odd, byte_tokenizer())._two_steps
    whole, cut = (bits_per_byte(model, byte_tokenizer(), TEXTS) for model in (odd, llama))
    assert whole.nats == pytest.approx(cut.nats, rel=1e-6)


def test_batches_change_nothing_but_speed(llama: Any) -> None:
    texts = [text * i for i, text in enumerate(TEXTS * 2, 1)]
    results = [bits_per_byte(llama, byte_tokenizer(), texts, batch_tokens=size, window=32) for size in (1, 40, 4096)]
    for result in results[1:]:
        assert result.nats == pytest.approx(results[0].nats, rel=1e-6)
        assert replace(result, nats=0, seconds=0) == replace(results[0], nats=0, seconds=0)


def test_the_model_is_left_as_it_was(llama: Any) -> None:
    before = {name: tensor.clone() for name, tensor in llama.state_dict().items()}
    llama.train()
    bits_per_byte(llama, byte_tokenizer(), TEXTS)
    assert llama.training
    llama.eval()
    assert "forward" not in vars(llama.model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in llama.state_dict().items())


def test_bytes_and_words_do_not_depend_on_the_tokenizer(llama: Any) -> None:
    merged = byte_tokenizer([("e", "s"), ("Ð", "°"), ("t", "h"), ("th", "e")])
    single, joined = (bits_per_byte(llama, t, TEXTS, max_bytes=60) for t in (byte_tokenizer(), merged))
    assert joined.tokens < single.tokens
    for field in ("bytes", "characters", "words", "documents"):
        assert getattr(single, field) == getattr(joined, field)
    assert single.bytes <= 60


def test_max_bytes_cuts_between_characters(llama: Any) -> None:
    result = bits_per_byte(llama, byte_tokenizer(), ["ab", "өө", "never"], max_bytes=5)
    assert (result.bytes, result.characters, result.lossy_documents) == (4, 3, 0)


def test_lost_and_unknown_text_is_counted(llama: Any) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert bits_per_byte(llama, tokenizer, ["lower", "UPPER", "Mixed"]).lossy_documents == 2
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "a": 2}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    words = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>")
    result = bits_per_byte(llama, words, ["a b c a"])
    assert (result.tokens, result.unknown_tokens, result.lossy_documents) == (4, 2, 1)


def test_the_separator_is_bos_else_eos(llama: Any) -> None:
    assert document_separator(llama, byte_tokenizer()) == 0
    config = llama.config
    only_eos = byte_tokenizer(eos_token="</s>")
    try:
        config.bos_token_id = 5
        assert document_separator(llama, only_eos) == 5
        config.bos_token_id = None
        assert document_separator(llama, only_eos) == 1
        config.eos_token_id = [3, 4]
        assert document_separator(llama, byte_tokenizer(pad_token="</s>")) == 3
        config.eos_token_id = None
        with pytest.raises(VocabTransferError, match="neither a bos nor an eos"):
            document_separator(llama, byte_tokenizer(pad_token="</s>"))
    finally:
        config.bos_token_id, config.eos_token_id = 0, 1


def test_models_that_cannot_be_scored_are_refused_by_name() -> None:
    torch.manual_seed(0)
    bert = BertLMHeadModel(small(BertConfig, intermediate_size=24)).eval()
    with pytest.raises(VocabTransferError, match="BertLMHeadModel is not a causal model"):
        bits_per_byte(bert, byte_tokenizer(), ["text"])
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=300, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    with pytest.raises(VocabTransferError, match="encoder-decoder"):
        bits_per_byte(t5, byte_tokenizer(), ["text"])
    with pytest.raises(VocabTransferError, match="no language-model head"):
        bits_per_byte(LlamaModel(small(LlamaConfig, intermediate_size=24)), byte_tokenizer(), ["text"])
    config = small(LlamaConfig, intermediate_size=24)
    config.vocab_size = 100
    with pytest.raises(VocabTransferError, match="ids up to 257 but the model's table has 100 rows"):
        bits_per_byte(LlamaForCausalLM(config), byte_tokenizer(), ["text"])


def test_bad_text_and_options_are_told_in_a_sentence(llama: Any) -> None:
    tokenizer = byte_tokenizer()
    with pytest.raises(VocabTransferError, match="no text to score"):
        bits_per_byte(llama, tokenizer, ["", ""])
    for options in ({"window": 0}, {"window": 65}, {"window": 8, "stride": 9}, {"stride": 0}, {"batch_tokens": 0}):
        with pytest.raises(UsageError):
            bits_per_byte(llama, tokenizer, ["text"], **options)
    with pytest.raises(UsageError, match="max_bytes"):
        bits_per_byte(llama, tokenizer, ["text"], max_bytes=0)


def test_damaged_tables_are_named() -> None:
    model = make("phi")
    with torch.no_grad():
        model.lm_head.bias[60] = -torch.inf
    tokenizer = byte_tokenizer()
    text = tokenizer.decode([60])
    with pytest.raises(VocabTransferError, match="no finite probability to token 60"):
        bits_per_byte(model, tokenizer, [text])


def save(folder: Path) -> Path:
    make("llama").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def test_a_checkpoint_is_evaluated_on_files(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    file = tmp_path / "text.txt"
    file.write_text("First document,\ntwo lines.\n\n\nSecond дөнья.\n", encoding="utf-8")
    result = evaluate(folder, [file], device="cpu")
    documents = ["First document,\ntwo lines.", "Second дөнья."]
    scored = bits_per_byte(make("llama"), byte_tokenizer(), documents)
    assert result.bits_per_byte == pytest.approx(scored.bits_per_byte, rel=1e-6)
    assert (result.documents, result.bytes, result.words) == (2, sum(len(d.encode()) for d in documents), 6)
    assert result.files == [str(file)]


def test_bad_files_and_models_are_told_in_a_sentence(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    empty, binary = tmp_path / "empty.txt", tmp_path / "binary.txt"
    empty.write_text("\n \n")
    binary.write_bytes(bytes(range(256)) * 20)
    with pytest.raises(VocabTransferError, match=r"empty\.txt: there is no text"):
        evaluate(folder, [empty])
    with pytest.raises(VocabTransferError, match="binary"):
        evaluate(folder, [binary])
    with pytest.raises(VocabTransferError, match="does not exist"):
        evaluate(folder, [tmp_path / "missing.txt"])
    with pytest.raises(UsageError, match="at least one text file"):
        evaluate(folder, [])
    good = tmp_path / "good.txt"
    good.write_text("good")
    with pytest.raises(VocabTransferError, match="no device 'nowhere'"):
        evaluate(folder, [good], device="nowhere")


@pytest.mark.slow
def test_smollm2_scores_real_text_as_known(smollm2_folder: Path) -> None:
    """Figures of the model's own forward pass with labels, on the opening of the Universal Declaration (public)."""
    known = {
        "en": (0.81, "Whereas recognition of the inherent dignity and of the equal and inalienable rights of all members of "
        "the human family is the foundation of freedom, justice and peace in the world. I went to the market yesterday and "
        "bought some apples and bread for my grandmother, who lives alone near the river."),
        "nl": (2.65, "Overwegende, dat erkenning van de inherente waardigheid en van de gelijke en onvervreemdbare rechten "
        "van alle leden van de mensengemeenschap grondslag is voor de vrijheid, gerechtigheid en vrede in de wereld. "
        "Gisteren ging ik naar de markt en kocht appels en brood voor mijn oma, die alleen bij de rivier woont."),
        "tt": (2.96, "Кеше гаиләсенең барлык әгъзаларына хас булган дәрәҗәне һәм аларның тигез хокукларын тану ирек, "
        "гаделлек һәм гомуми тынычлык нигезе булып тора. Кичә мин базарга бардым һәм елга буенда ялгыз яшәүче әбием өчен "
        "алма һәм икмәк сатып алдым."),
    }  # fmt: skip
    model = load_causal_model(smollm2_folder)
    tokenizer = load_tokenizer(smollm2_folder)
    for language, (bits, text) in known.items():
        result = bits_per_byte(model, tokenizer, [text])
        assert result.bits_per_byte == pytest.approx(bits, abs=0.05), language
        assert result.lossy_documents == 0
