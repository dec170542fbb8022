"""What training takes and gives on large models: moments in half the memory, attention, documents apart, speed."""

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from adapt_samples import dying_after, files, make_model, request, write_text
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, LlamaConfig, MambaConfig, Qwen3MoeConfig

import vocabtransfer as vt
from vocabtransfer.optimizer import HELD, HeldRows, TableAdamW
from vocabtransfer.progress import show_progress
from vocabtransfer.running.settings import running_with
from vocabtransfer.training import estimate
from vocabtransfer.training.attention import check_separable, places_in_documents
from vocabtransfer.training.needs import layer_bytes, need_of
from vocabtransfer.training.processes import gradient_norm
from vocabtransfer.training.throughput import Meter, token_operations

SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(autouse=True)
def few_threads() -> None:
    torch.set_num_threads(1)


def test_half_moments_step_as_whole_ones_do() -> None:
    torch.manual_seed(0)
    start = torch.randn(300, 20)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    half = TableAdamW([ours], 1e-2, (0.9, 0.95), 0.1, moments=torch.bfloat16)
    whole = torch.optim.AdamW([theirs], 1e-2, (0.9, 0.95), weight_decay=0.1)
    for _ in range(50):
        gradient = torch.randn_like(start) * torch.logspace(-6, 2, 20)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        half.step()
        whole.step()
    state = half.state[ours]
    assert (state["exp_avg"].dtype, state["exp_avg_sq"].dtype) == (torch.bfloat16, torch.bfloat16)
    second = whole.state[theirs]["exp_avg_sq"]
    assert ((state["exp_avg_sq"].float() - second).abs() <= 0.04 * second).all()
    moved = (theirs - start).abs().mean()
    assert (ours - theirs).abs().mean() < 0.01 * moved
    assert (ours - theirs).abs().max() < 0.02


def test_half_moments_take_any_shape_and_leave_what_has_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vocabtransfer.optimizer.NUMBERS_IN_CACHE", 7)
    turned = torch.nn.Parameter(torch.arange(12.0).reshape(3, 4).T)
    straight, still = torch.nn.Parameter(turned.detach().contiguous()), torch.nn.Parameter(torch.ones(2))
    optimizer = TableAdamW([turned, straight, still], 1e-1, (0.9, 0.95), moments=torch.bfloat16)
    for parameter in (turned, straight):
        parameter.grad = torch.ones(4, 3)
    optimizer.step()
    assert torch.equal(turned, straight) and turned[0, 0].item() == pytest.approx(-0.1)
    assert torch.equal(still, torch.ones(2)) and still not in optimizer.state
    with pytest.raises(ValueError, match=r"betas up to 0\.97"):
        TableAdamW([still], 1e-1, (0.9, 0.999), moments=torch.bfloat16)


@pytest.mark.parametrize("moments", [torch.float32, torch.bfloat16])
def test_rows_that_a_text_says_nothing_about_are_held(moments: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vocabtransfer.optimizer.NUMBERS_IN_CACHE", 60)
    torch.manual_seed(0)
    start, taught = torch.randn(300, 20), 30
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    held = TableAdamW([{"params": [ours], HELD: True}], 1e-2, (0.9, 0.95), moments=moments)
    plain = torch.optim.AdamW([theirs], 1e-2, (0.9, 0.95), weight_decay=0.0)
    for _ in range(40):
        # Every row of a head is pushed down a little; a tenth of them are asked for besides.
        gradient = torch.full_like(start, 1e-6)
        gradient[:taught] += torch.randn(taught, 20) + 1
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        held.step()
        plain.step()
    ours_moved, theirs_moved = ((table.detach() - start).abs().mean(dim=1) for table in (ours, theirs))
    assert theirs_moved[taught:].mean() > 0.35, "AdamW moves them by the rate in every update"
    assert ours_moved[taught:].max() < 1e-3
    assert (ours_moved / theirs_moved)[:taught].min() > 0.85
    # What is divided by is known: the number's own second moment and the mean of its column.
    second = held.state[ours]["exp_avg_sq"].float().clone()
    before, gradient = ours.detach().clone(), torch.randn_like(start)
    first = held.state[ours]["exp_avg"].float().clone()
    ours.grad = gradient
    held.step()
    second, first = 0.95 * second + 0.05 * gradient.square(), 0.9 * first + 0.1 * gradient
    root = ((second + second.mean(dim=0)) / (1 - 0.95**41)).sqrt()
    expected = before - 1e-2 * first / (1 - 0.9**41) / root
    torch.testing.assert_close(ours.detach(), expected, rtol=0, atol=1e-6 if moments == torch.float32 else 2e-4)


def test_compiled_loops_step_as_torch_does_with_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU in float32 loops are compiled; elsewhere torch does the same."""
    monkeypatch.setattr("vocabtransfer.optimizer.NUMBERS_IN_CACHE", 70)
    torch.manual_seed(0)
    start, gradients = torch.randn(50, 20), [torch.randn(50, 20) * torch.logspace(-8, 2, 20) for _ in range(6)]
    for gradient in gradients:
        gradient[::3] = 0  # rows that never had one do not count

    def stepped(threads: int, compiled: bool) -> torch.Tensor:
        torch.set_num_threads(threads)
        table = torch.nn.Parameter(start.clone())
        optimizer = TableAdamW([{"params": [table], HELD: True}], 1e-2, (0.9, 0.95), weight_decay=0.1)
        with monkeypatch.context() as patched:
            if not compiled:
                patched.setattr(HeldRows, "_can_be_compiled", lambda rows: False)
            for gradient in gradients:
                table.grad = gradient.clone()
                optimizer.step()
        return table.detach()

    one, three, by_torch = stepped(1, True), stepped(3, True), stepped(1, False)
    assert torch.equal(one, three)
    torch.testing.assert_close(one, by_torch, rtol=1e-6, atol=1e-7)
    assert float((one - start).abs().mean()) > 0.01


def test_a_gradient_is_as_long_in_pieces_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    gradients = [torch.randn(13, 5).T, torch.randn(6) * 1e-20, torch.empty(0, 4), torch.randn(40) * 1e4]
    whole = float(torch.cat([gradient.flatten().double() for gradient in gradients]).norm())
    monkeypatch.setattr("vocabtransfer.optimizer.NUMBERS_IN_CACHE", 7)
    assert gradient_norm(Accelerator(cpu=True), gradients) == pytest.approx(whole, rel=1e-12)


def test_what_is_not_held_is_stepped_as_by_adamw() -> None:
    torch.manual_seed(0)
    body, bias, table = torch.randn(4, 5), torch.randn(5), torch.randn(6, 5)
    ours = [torch.nn.Parameter(each.clone()) for each in (body, bias, table)]
    theirs = [torch.nn.Parameter(each.clone()) for each in (body, bias)]
    groups = [{"params": ours[:1], "weight_decay": 0.1}, {"params": ours[1:2]}, {"params": ours[2:], HELD: True}]
    held = TableAdamW(groups, 1e-2, (0.9, 0.95), fused=True)
    plain = torch.optim.AdamW([{"params": theirs[:1], "weight_decay": 0.1}, {"params": theirs[1:]}], 1e-2, (0.9, 0.95))
    plain.param_groups[1]["weight_decay"] = 0.0
    for _ in range(5):
        for mine, other in zip(ours, [*theirs, None], strict=True):
            mine.grad = torch.randn_like(mine)
            if other is not None:
                other.grad = mine.grad.clone()
        held.step()
        plain.step()
    for mine, other in zip(ours, theirs, strict=False):
        torch.testing.assert_close(mine, other)
    assert not torch.equal(ours[2], table) and len(held.param_groups) == 3


def test_a_run_with_half_moments_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    model, text = make_model(tmp_path / "model"), write_text(tmp_path / "nl.txt")
    given = {"optimizer_dtype": "bf16", "documents_apart": True, "save_every": 3}
    stages = ("new:4:1e-2", "all:6:1e-3")
    whole = vt.adapt(request(model, text, tmp_path / "whole", *stages, **given))
    with dying_after(8):
        vt.adapt(request(model, text, tmp_path / "out", *stages, **given))
    with pytest.raises(vt.VocabTransferError, match="`optimizer_dtype` bf16, not fp32"):
        vt.adapt(request(model, text, tmp_path / "out", *stages, resume=True, documents_apart=True))
    vt.adapt(request(model, text, tmp_path / "out", *stages, resume=True, **given))
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert whole.facts["optimizer_dtype"] == "bf16" and whole.facts["documents_apart"]


def test_a_run_says_how_fast_it_was_and_writes_it_nowhere(tmp_path: Path) -> None:
    model, text = make_model(tmp_path / "model"), write_text(tmp_path / "nl.txt")
    done = vt.adapt(request(model, text, tmp_path / "out", "tables:3:1e-2", "all:2:1e-3"))
    assert [(speed["stage"], speed["updates"]) for speed in done.throughput] == [("tables", 3), ("all", 2)]
    assert all(speed["tokens_per_second"] > 0 and 0 < speed["mfu"] < 1 for speed in done.throughput)
    assert done.throughput[0]["operations_per_token"] < done.throughput[1]["operations_per_token"]
    assert "throughput" not in json.loads((tmp_path / "out" / "adapt.json").read_text())


def test_operations_are_those_of_the_products() -> None:
    config = LlamaConfig(**SMALL, intermediate_size=24, num_key_value_heads=1, tie_word_embeddings=True)
    model = AutoModelForCausalLM.from_config(config)
    matrices = 2 * (2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 24) + 50 * 16
    attention = 12 * 2 * 16 * 32
    assert token_operations(model, 32) == 6 * matrices + attention
    model.requires_grad_(False)
    model.get_input_embeddings().requires_grad_(True)
    assert token_operations(model, 32) == 4 * matrices + 2 * 50 * 16 + attention


def test_of_experts_those_that_a_token_goes_to_count() -> None:
    shape = {**SMALL, "head_dim": 8, "num_key_value_heads": 2, "moe_intermediate_size": 4, "num_experts_per_tok": 2}
    few, many = (AutoModelForCausalLM.from_config(Qwen3MoeConfig(**shape, num_experts=count)) for count in (4, 8))
    routers = 6 * 2 * 16 * 4
    assert token_operations(many, 8) - token_operations(few, 8) == routers


def test_the_first_update_is_left_out_of_the_speed() -> None:
    meter = Meter("all", 10.0, 1000.0, "measured", devices=2)
    assert meter.describe("stage all") == "stage all"
    for _ in range(3):
        with meter.update(100):
            pass
    assert meter.tokens == 200 and meter.updates == 3
    meter.seconds = 4.0
    assert (meter.tokens_per_second, meter.share) == (50.0, 0.25)
    assert meter.describe("stage all") == "stage all, 50 tokens/s, MFU 25%"


def test_places_begin_at_the_separator() -> None:
    ids = torch.tensor([[0, 5, 6, 0, 7, 0, 0], [9, 9, 0, 4, 4, 4, 4]])
    assert places_in_documents(ids, 0).tolist() == [[0, 1, 2, 0, 1, 0, 0], [0, 1, 0, 1, 2, 3, 4]]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("config", [LlamaConfig(**SMALL), GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2)])
def test_documents_apart_are_read_as_if_alone(config: AutoConfig, attention: str) -> None:
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    ids = torch.tensor([[3, 10, 11, 3, 12, 13, 14]])
    with torch.no_grad():
        together = model(input_ids=ids, position_ids=places_in_documents(ids, 3), use_cache=False).logits
        alone = model(input_ids=ids[:, 3:], use_cache=False).logits
    assert torch.allclose(together[:, 3:], alone, atol=1e-5)
    check_separable(model, "Model", 3, 50, torch.device("cpu"), torch.no_grad)


def test_a_model_that_carries_states_on_is_refused() -> None:
    config = MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, state_size=4)
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(vt.VocabTransferError, match="cannot be kept apart"):
        check_separable(model, "Mamba", 3, 50, torch.device("cpu"), torch.no_grad)


def test_attention_changes_nothing_but_rounding(tmp_path: Path) -> None:
    model, text = make_model(tmp_path / "model", dropout=0.0), write_text(tmp_path / "nl.txt")
    losses = [
        vt.adapt(request(model, text, tmp_path / name, "all:3:1e-3", attention=name)).losses[0]
        for name in ("sdpa", "eager")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"attention": "flash"}, "`attention` is one of eager, sdpa"),
        ({"attention": "flash_attention_2"}, "computes in bfloat16"),
        ({"attention": "flash_attention_2", "dtype": "bf16"}, "needs a GPU and the package flash-attn"),
        ({"optimizer_dtype": "fp16"}, "`optimizer_dtype` is float32 or bfloat16"),
    ],
)
def test_what_is_not_there_is_said_at_once(tmp_path: Path, given: dict[str, str], said: str) -> None:
    text = write_text(tmp_path / "nl.txt")
    with pytest.raises(vt.VocabTransferError, match=said):
        vt.adapt(request(tmp_path / "nothing", text, tmp_path / "out", "all:3:1e-3", **given))


def kept_by(layers: int, body: bool) -> float:
    """Bytes that autograd keeps for a token of a Llama of so many layers."""
    shape = {**SMALL, "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": layers}
    model = AutoModelForCausalLM.from_config(LlamaConfig(**shape, intermediate_size=160, num_key_value_heads=2)).train()
    model.requires_grad_(body)
    model.get_input_embeddings().requires_grad_(True)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.base_model(input_ids=torch.zeros((2, 32), dtype=torch.int64), use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / 64


@pytest.mark.parametrize("body", [True, False])
def test_activations_are_counted_as_autograd_keeps_them(body: bool) -> None:
    text = LlamaConfig(hidden_size=64, num_attention_heads=4, intermediate_size=160, num_key_value_heads=2)
    assert kept_by(3, body) - kept_by(2, body) == pytest.approx(layer_bytes(text, 32, False, body, None), rel=0.05)


def test_memory_is_said_and_kept_to(tmp_path: Path) -> None:
    model, text = make_model(tmp_path / "model"), write_text(tmp_path / "nl.txt")
    checkpoint, accelerator = vt.open_checkpoint(model), Accelerator(cpu=True)
    config = AutoConfig.from_pretrained(model)
    stages = [vt.Stage.parse(stage) for stage in ("tables:1:1e-3", "all:1:1e-3")]
    needs = [
        need_of(request(model, text, tmp_path / "out", **given), checkpoint, stages[-1:], config, (4, 16), accelerator)
        for given in ({}, {"optimizer_dtype": "bf16"}, {"gradient_checkpointing": True})
    ]
    numbers = checkpoint.parameters
    assert needs[0].weights == needs[0].gradients == 4 * numbers
    assert (needs[0].moments, needs[1].moments) == (8 * numbers, 4 * numbers)
    assert needs[2].activations < needs[0].activations
    tables = need_of(request(model, text, tmp_path / "out"), checkpoint, stages[:1], config, (4, 16), accelerator)
    assert tables.gradients == 4 * checkpoint.layout.rows * 16
    both = need_of(request(model, text, tmp_path / "out"), checkpoint, stages, config, (4, 16), accelerator)
    assert both.total == needs[0].total
    assert needs[0].sentence("m", accelerator).startswith("Training m needs 0.0 GB of ")
    with running_with(memory=1000), pytest.raises(vt.VocabTransferError, match="take `gradient_checkpointing`"):
        vt.adapt(request(model, text, tmp_path / "out", "all:1:1e-3"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "nl.txt"]


@pytest.mark.parametrize(
    ("has_units", "dtype", "advised"),
    [
        (False, "bf16", "float32 is faster here"),
        (True, "bf16", ""),
        (False, "fp32", ""),
        (True, "fp32", "about half the time"),
    ],
)
def test_a_long_run_in_the_slower_precision_of_a_cpu_is_told_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    has_units: bool,
    dtype: str,
    advised: str,
) -> None:
    monkeypatch.setattr(estimate, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(estimate, "multiplies_bfloat16", lambda: has_units)
    model, text = make_model(tmp_path / "model"), write_text(tmp_path / "text.txt")
    with show_progress():
        vt.adapt(request(model, text, tmp_path / "out", "tables:1:1e-3", dtype=dtype))
    said = " ".join(capsys.readouterr().err.split())
    assert "Updates of 64 tokens" in said
    assert (advised in said) if advised else ("This CPU" not in said)
