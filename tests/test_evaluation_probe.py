"""A probe learns, touches only the tables while it runs and nothing afterwards, and repeats itself exactly."""

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PhiConfig, PhiForCausalLM, PreTrainedTokenizerFast

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.evaluation import ProbeResult, bits_per_byte, probe
from vocabtransfer.evaluation import probe as probe_module  # its module is hidden by the function of the same name
from vocabtransfer.optimizer import TableAdamW

TEXT = ["the house of the forest is the house of the wind", "дөнья матур һәм киң"] * 20
HELD_OUT = ["the wind of the house", "дөнья киң"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    strings = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({s: i for i, s in enumerate(strings)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def make(tied: bool = False, head_bias: bool = False) -> Any:
    torch.manual_seed(3)
    sizes = {"vocab_size": 260, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    if head_bias:
        return PhiForCausalLM(PhiConfig(**sizes, num_attention_heads=2, attention_dropout=0.5))
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, tie_word_embeddings=tied))


def run(model: Any, tokenizer: PreTrainedTokenizerFast, **options: Any) -> ProbeResult:
    settings = {"updates": (5, 20), "learning_rate": 1e-2, "batch_tokens": 64, "block": 16} | options
    return probe(model, tokenizer, settings.pop("train", TEXT), HELD_OUT, **settings)


@pytest.mark.parametrize("options", [{}, {"tied": True}, {"head_bias": True}], ids=["untied", "tied", "bias"])
def test_a_probe_learns_and_leaves_the_model_as_it_was(tokenizer: PreTrainedTokenizerFast, options: Any) -> None:
    model = make(**options)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.lm_head.requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    result = run(model, tokenizer)
    assert list(result.bits_per_byte) == [0, 5, 20]
    assert result.bits_per_byte[0] > result.bits_per_byte[5] > result.bits_per_byte[20]
    assert result.losses[-1] < result.losses[0]
    assert result.bits_per_byte[0] == bits_per_byte(model, tokenizer, HELD_OUT).bits_per_byte
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training
    assert result.trained_tokens == 20 * 64


@pytest.mark.parametrize("options", [{}, {"tied": True}, {"head_bias": True}], ids=["untied", "tied", "bias"])
def test_only_the_tables_are_trained(
    tokenizer: PreTrainedTokenizerFast, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(**options)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seen: list[set[str]] = []

    class Watched(TableAdamW):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            result = super().step(*args, **kwargs)
            seen.append({n for n, t in model.state_dict().items() if not torch.equal(t, before[n])})
            return result

    monkeypatch.setitem(probe_module.__globals__, "TableAdamW", Watched)
    run(model, tokenizer)
    tables = {"model.embed_tokens.weight", "lm_head.weight"} | ({"lm_head.bias"} if "head_bias" in options else set())
    assert seen[-1] == tables
    assert len(seen) == 20


def test_the_same_seed_gives_the_same_numbers(tokenizer: PreTrainedTokenizerFast) -> None:
    first, again, other = (run(make(), tokenizer, seed=seed) for seed in (1, 1, 2))
    assert first.losses == again.losses
    assert first.bits_per_byte == again.bits_per_byte
    assert first.losses != other.losses


def test_small_memory_changes_nothing(tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(make(), tokenizer)
    monkeypatch.setitem(probe_module.__globals__, "_LOGITS_AT_A_TIME", 260 * 16)
    assert run(make(), tokenizer).losses == pytest.approx(whole.losses, rel=1e-4)


def test_a_short_text_is_repeated(tokenizer: PreTrainedTokenizerFast) -> None:
    result = run(make(), tokenizer, train=["abc"])
    assert len(result.losses) == 20
    assert result.losses[-1] < result.losses[0]


def test_training_text_is_drawn_from_all_over_the_documents() -> None:
    draw = probe_module.__globals__["_sample"]
    documents = [f"{i:04}" for i in range(1000)]
    drawn = draw(iter(documents), 400, 0)
    assert sum(map(len, drawn)) == 400
    places = sorted(map(int, drawn))
    assert len(set(places)) == 100
    assert places[10] < 300 and places[-10] > 700
    assert drawn != sorted(drawn)
    assert sorted(draw(documents, 10**6, 0)) == documents
    assert draw(documents, 400, 0) == drawn != draw(documents, 400, 1)


def test_bad_options_and_text_are_told_in_a_sentence(tokenizer: PreTrainedTokenizerFast) -> None:
    model = make()
    for options in ({"updates": ()}, {"updates": (0,)}, {"learning_rate": 0.0}, {"block": 0}, {"batch_tokens": 8}):
        with pytest.raises(UsageError):
            run(model, tokenizer, **options)
    with pytest.raises(VocabTransferError, match="no text to train on"):
        run(model, tokenizer, train=["", ""])
    with pytest.raises(UsageError, match="float32"):
        run(make().to(torch.bfloat16), tokenizer)
    # Learning rates at the edge of float32 overflow at once; the tables are still put back.
    before = model.lm_head.weight.detach().clone()
    with pytest.raises(VocabTransferError, match="NaN"):
        run(model, tokenizer, learning_rate=1e38)
    assert torch.equal(model.lm_head.weight, before)
