"""The engine: rows of different heads in one pass, each as if it were alone."""

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra_samples import CONFIGS, FAR_APART, TEXTS, Sample, make_architecture, make_sample, make_source, one_thread  # noqa: F401
from hypothesis import given, settings
from hypothesis import strategies as st
from thinned import first_of

from vocabtransfer.errors import VocabTransferError
from vocabtransfer.hydra import HydraForCausalLM, attach_adapter
from vocabtransfer.serving import Engine, Event, Job, Limits, Sampling
from vocabtransfer.serving.engine import Draining, QueueFull
from vocabtransfer.serving.text import TextStream

NAMES = ("english", "tatar", "dutch")
SECONDS = 60


@pytest.fixture
def engine(model: HydraForCausalLM) -> Iterator[Engine]:
    made = Engine(model, Limits(rows=4))
    yield made
    made.close()


class Asked:
    """A job and what was told of it."""

    def __init__(self, model: HydraForCausalLM, reader: str, writer: str, text: str, **sampling: Any) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        prompt = model.head(reader).encode([text], special=True)[0]
        wanted = Sampling(**{"max_tokens": 6, "temperature": 0.0, **sampling})
        self.job = Job(model.head(reader), model.head(writer), prompt, wanted, self.events.put)

    def result(self) -> tuple[str, Event]:
        text = ""
        while True:
            event = self.events.get(timeout=SECONDS)
            text += event.text
            if event.last:
                return text, event


def alone(model: HydraForCausalLM, reader: str, writer: str, text: str, tokens: int) -> str:
    """What ``generate`` gives."""
    encoding = model.encode([(reader, text)], output=writer)
    made = model.generate(**encoding, max_new_tokens=tokens, do_sample=False)
    return str(model.decode(made, writer)[0])


@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(1, 5),
    asked=st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(1, 4), st.integers(1, 12)),
        min_size=1,
        max_size=9,
    ),
)
def test_whatever_comes_together_each_answer_is_that_of_generate(
    model: HydraForCausalLM, rows: int, asked: list[tuple[str, str, int, int]]
) -> None:
    engine = Engine(model, Limits(rows=rows, prefill_tokens=20))
    try:
        jobs = []
        for reader, writer, words, tokens in asked:
            text = " ".join(TEXTS[reader].split()[:words])
            jobs.append((Asked(model, reader, writer, text, max_tokens=tokens), reader, writer, text, tokens))
            engine.submit(jobs[-1][0].job)
        for job, reader, writer, text, tokens in jobs:
            assert job.result()[0] == alone(model, reader, writer, text, tokens)
    finally:
        engine.close()


@pytest.mark.parametrize("kind", first_of(sorted(CONFIGS), *FAR_APART))
def test_other_architectures(tmp_path: Path, kind: str) -> None:
    """Positions, windows and scalings are those of each row although it joins, and others leave, in the middle."""
    model = make_architecture(tmp_path, kind).load()
    engine = Engine(model, Limits(rows=2))
    asked = [("english", 4, 9), ("tatar", 1, 5), ("tatar", 3, 12), ("english", 1, 7), ("tatar", 2, 3)]
    jobs = []
    for name, words, tokens in asked:
        text = " ".join(TEXTS[name].split()[:words])
        jobs.append((Asked(model, name, name, text, max_tokens=tokens), name, text, tokens))
        engine.submit(jobs[-1][0].job)
    for job, name, text, tokens in jobs:
        assert job.result()[0] == alone(model, name, name, text, tokens)
    engine.close()


def test_rows_of_different_heads_share_the_passes(engine: Engine, model: HydraForCausalLM) -> None:
    jobs = [Asked(model, name, name, TEXTS[name], max_tokens=40) for name in (*NAMES, "tatar")]
    with engine._changed:  # nobody comes in before all are there
        for asked in jobs:
            engine.submit(asked.job)
    results = [asked.result() for asked in jobs]
    made = sum(event.tokens for _, event in results)
    assert engine.row_steps == made - len(jobs)  # the first token of each comes from reading the prompt
    assert engine.steps == max(event.tokens for _, event in results) - 1


def test_a_row_with_a_lora_takes_the_passes_of_its_own_body(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    made = make_sample(tmp_path)
    torch.manual_seed(3)
    wrapped = peft.get_peft_model(made.plain("tatar"), peft.LoraConfig(target_modules=["q_proj", "down_proj"]))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    wrapped.save_pretrained(tmp_path / "lora")
    attach_adapter(made.hydra, "tatar", tmp_path / "lora")
    model = made.load()
    plain = alone(made.load(), "english", "english", TEXTS["english"], 8)
    engine = Engine(model, Limits())
    try:
        names = ("english", "tatar", "dutch", "tatar")
        jobs = [Asked(model, name, name, TEXTS[name], max_tokens=8) for name in names]
        for asked in jobs:
            engine.submit(asked.job)
        results = [asked.result()[0] for asked in jobs]
    finally:
        engine.close()
    assert results == [alone(model, name, name, TEXTS[name], 8) for name in names]
    assert results[0] == plain
    assert results[1] != alone(make_sample(tmp_path / "again").load(), "tatar", "tatar", TEXTS["tatar"], 8)


def test_a_seed_draws_the_same_tokens_whoever_is_beside(engine: Engine, model: HydraForCausalLM) -> None:
    def draw(seed: int, beside: int) -> str:
        others = [Asked(model, "dutch", "dutch", TEXTS["dutch"], temperature=1.5) for _ in range(beside)]
        asked = Asked(model, "tatar", "tatar", TEXTS["tatar"], temperature=1.5, seed=seed, max_tokens=20)
        for job in (*others, asked):
            engine.submit(job.job)
        return asked.result()[0]

    assert draw(1, 0) == draw(1, 3) != draw(2, 0)
    unseeded = {draw(None, 0) for _ in range(4)}  # type: ignore[arg-type]
    assert len(unseeded) > 1


def test_a_tiny_top_p_is_greedy(engine: Engine, model: HydraForCausalLM) -> None:
    asked = Asked(model, "tatar", "tatar", TEXTS["tatar"], temperature=2.0, top_p=1e-6)
    engine.submit(asked.job)
    assert asked.result()[0] == alone(model, "tatar", "tatar", TEXTS["tatar"], 6)


def test_the_heads_own_settings_hold(sample: Sample) -> None:
    model = sample.load()
    before = alone(model, "dutch", "dutch", TEXTS["dutch"], 10)
    head = model.head("dutch")
    head.generation_config.repetition_penalty = 5.0
    head.generation_config.no_repeat_ngram_size = 2
    head.generation_config.suppress_tokens = [5, 6, 7]
    ids = torch.tensor(head.encode([TEXTS["dutch"]], special=True))
    model._rack.renew_views()
    wanted = model.decode(model.generate(ids, head="dutch", max_new_tokens=10)[0, ids.shape[1] :], "dutch")
    assert wanted != before
    engine = Engine(model, Limits())
    asked = Asked(model, "dutch", "dutch", TEXTS["dutch"], max_tokens=10)
    engine.submit(asked.job)
    assert asked.result()[0] == wanted
    engine.close()


def test_stop_texts(engine: Engine, model: HydraForCausalLM) -> None:
    whole = alone(model, "tatar", "tatar", TEXTS["tatar"], 30)
    assert len(whole) > 8
    for stop in (whole[4:6], whole[3], whole[2:7]):
        asked = Asked(model, "tatar", "tatar", TEXTS["tatar"], max_tokens=30, stop=("never this", stop))
        engine.submit(asked.job)
        text, last = asked.result()
        assert text == whole[: whole.index(stop)] and last.finish == "stop" and last.tokens < 30


@settings(max_examples=60, deadline=None)
@given(ids=st.lists(st.integers(0, 287), max_size=30), stop=st.text("сәлам дөнья", min_size=1, max_size=3))
def test_pieces_make_up_the_text(model: HydraForCausalLM, ids: list[int], stop: str) -> None:
    head = model.head("tatar")
    plain, cut = TextStream(head), TextStream(head, (stop,))
    text = "".join([*(plain.add(i) for i in ids), plain.close()])
    assert text == head.decode(ids)
    pieces = []
    for i in ids:
        pieces.append(cut.add(i))
        if cut.stopped:
            break
    pieces.append(cut.close())
    assert "".join(pieces) == text.split(stop)[0]
    assert cut.stopped == (stop in text)


def test_limits_of_the_queue_and_of_time(model: HydraForCausalLM) -> None:
    engine = Engine(model, Limits(rows=1, queue=1))
    held = threading.Event()
    release = threading.Event()

    def block(event: Event) -> None:
        held.set()
        release.wait(SECONDS)

    first = Asked(model, "english", "english", "hello", max_tokens=3)
    first.job.emit = block
    engine.submit(first.job)
    assert held.wait(SECONDS)
    waiting = Asked(model, "english", "english", "hello")
    waiting.job.deadline = time.monotonic() - 1
    engine.submit(waiting.job)
    with pytest.raises(QueueFull):
        engine.submit(Asked(model, "english", "english", "hello").job)
    waiting.job.cancel()
    replaced = Asked(model, "english", "english", "hello")
    replaced.job.deadline = time.monotonic() - 1
    engine.submit(replaced.job)  # in the place of the one that was given up
    release.set()
    assert replaced.result()[1].failure == "timeout"
    assert waiting.events.empty()
    engine.drain()
    with pytest.raises(Draining):
        engine.submit(waiting.job)
    engine.close()


def test_closing_ends_what_is_under_way(model: HydraForCausalLM) -> None:
    engine = Engine(model, Limits(rows=1))
    jobs = [Asked(model, "english", "english", "hello", max_tokens=240, temperature=2.0) for _ in range(2)]
    for asked in jobs:
        asked.job.sampling = Sampling(240, 2.0)
        engine.submit(asked.job)
    engine.close()
    for asked in jobs:
        last = asked.result()[1]
        assert last.failure == "stopped" or last.finish is not None
    assert not engine.alive


def test_a_failing_pass_fails_its_jobs_alone(
    model: HydraForCausalLM, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(model, Limits())
    make: Callable[..., Any] = HydraForCausalLM.mixed_view

    def out_of_memory(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(HydraForCausalLM, "mixed_view", out_of_memory)
    first = Asked(model, "tatar", "tatar", TEXTS["tatar"])
    engine.submit(first.job)
    assert first.result()[1].failure == "internal"
    monkeypatch.setattr(HydraForCausalLM, "mixed_view", make)
    second = Asked(model, "tatar", "tatar", TEXTS["tatar"])
    engine.submit(second.job)
    assert second.result()[0] == alone(model, "tatar", "tatar", TEXTS["tatar"], 6)
    engine.close()
    assert "no memory" in caplog.text


def test_whoever_does_not_listen_harms_nobody(engine: Engine, model: HydraForCausalLM) -> None:
    deaf, other = (Asked(model, "english", "english", "hello world", max_tokens=10) for _ in range(2))

    def gone(event: Event) -> None:
        raise RuntimeError("the loop is closed")

    deaf.job.emit = gone
    engine.submit(deaf.job)
    engine.submit(other.job)
    assert other.result()[0] == alone(model, "english", "english", "hello world", 10)
    assert deaf.job.cancelled


def test_under_a_budget_for_one_head_threads_get_their_own(sample: Sample) -> None:
    model = sample.load(head_budget=40_000)
    engine = Engine(model, Limits(rows=3, queue=200))
    wanted = {name: alone(model, name, name, TEXTS[name], 6) for name in NAMES}
    wrong: list[str] = []

    def work(seed: int) -> None:
        drawn = random.Random(seed)
        for _ in range(8):
            name = drawn.choice(NAMES)
            asked = Asked(model, name, name, TEXTS[name])
            engine.submit(asked.job)
            if asked.result()[0] != wanted[name]:
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    engine.close()
    assert not wrong and model._rack.store.evictions > 0


def test_bodies_without_keys_and_values_are_refused(tmp_path: Path) -> None:
    model = HydraForCausalLM.from_pretrained(make_source(tmp_path / "model").path)
    model.backbone.config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(VocabTransferError, match="linear_attention layers cannot be served"):
        Engine(model, Limits())
