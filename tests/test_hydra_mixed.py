"""Several vocabularies in one sequence or one batch: the same tokens and losses as each alone."""

import itertools
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra_samples import TEXTS, Sample, make_sample, one_thread, tokenizer  # noqa: F401
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from transformers import DynamicCache

from vocabtransfer.errors import UsageError, VocabTransferError
from vocabtransfer.hydra import HydraForCausalLM
from vocabtransfer.hydra.translate import COMPLETION

NAMES = ("english", "tatar", "dutch")
GREEDY: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False}
SEGMENT = st.sampled_from(NAMES).flatmap(
    lambda name: st.tuples(
        st.just(name), st.lists(st.sampled_from(TEXTS[name].split()), min_size=1, max_size=3).map(" ".join)
    )
)
ROW = st.lists(SEGMENT, min_size=1, max_size=3)


def embedded(plain: dict[str, Any], row: list[tuple[str, str]]) -> torch.Tensor:
    """The row's embeddings, from the standalone checkpoints: (1, length, hidden)."""
    parts = []
    for name, text in row:
        ids = torch.tensor([tokenizer(name)(text, add_special_tokens=False)["input_ids"]])
        parts.append(plain[name].get_input_embeddings()(ids))
    return torch.cat(parts, dim=1)


def by_hand(plain: dict[str, Any], row: list[tuple[str, str]], output: str, steps: int) -> list[int]:
    """Go on from a row greedily with the standalone checkpoints alone, without a cache."""
    rows, tokens = embedded(plain, row), []
    writer = plain[output]
    for _ in range(steps):
        token = int(writer(inputs_embeds=rows).logits[0, -1].argmax())
        tokens.append(token)
        if token == tokenizer(output).eos_token_id:
            break
        rows = torch.cat([rows, writer.get_input_embeddings()(torch.tensor([[token]]))], dim=1)
    return tokens


def padded(tokens: list[int], like: torch.Tensor, name: str) -> list[int]:
    return tokens + [tokenizer(name).pad_token_id] * (len(like) - len(tokens))


@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.tuples(ROW, st.sampled_from(NAMES)), min_size=1, max_size=4))
def test_any_batch_is_its_rows_by_hand(
    model: HydraForCausalLM, plain: dict[str, Any], rows: list[tuple[list[tuple[str, str]], str]]
) -> None:
    """Whatever heads the segments and the answers have, every row gets the tokens that it gets alone."""
    outputs = [output for _, output in rows]
    encoding = model.encode([row for row, _ in rows], output=outputs)
    made = model.generate(**encoding, **GREEDY)
    for tokens, (row, output) in zip(made, rows, strict=True):
        assert tokens.tolist() == padded(by_hand(plain, row, output, 5), tokens, output)


@pytest.mark.parametrize(
    "how",
    [{"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2}, {"repetition_penalty": 1.2}, {"min_new_tokens": 4}],
)
def test_batches_of_several_languages_generate_as_alone(model: HydraForCausalLM, how: dict[str, Any]) -> None:
    rows = [[(name, TEXTS[name])] for name in NAMES]
    together = model.generate(**model.encode(rows), **{**GREEDY, **how})
    factor = how.get("num_return_sequences", 1)
    for place, row in enumerate(rows):
        alone = model.generate(**model.encode(row), **{**GREEDY, **how})
        name = row[0][0]
        for mine, its in zip(together[place * factor : (place + 1) * factor], alone, strict=True):
            shown, wanted = (model.decode(tokens, name) for tokens in (mine, its))
            if "repetition_penalty" not in how:  # alone, transformers does not see the prompt that it embeds
                assert shown == wanted
            assert all(0 <= i < len(tokenizer(name)) for i in mine.tolist())


def test_sampling_stays_in_each_rows_vocabulary(model: HydraForCausalLM) -> None:
    rows = [[(name, TEXTS[name])] for name in NAMES * 3]
    torch.manual_seed(0)
    settings: dict[str, Any] = {"do_sample": True, "temperature": 5.0, "top_k": 0, "max_new_tokens": 30}
    made = model.generate(**model.encode(rows), **settings, return_dict_in_generate=True, output_logits=True)
    sizes = [len(tokenizer(name)) for name in NAMES * 3]
    for row, size in zip(made.sequences, sizes, strict=True):
        assert int(row.max()) < size
    for step in made.logits:
        assert torch.isfinite(step).sum(dim=1).tolist() == sizes


def test_one_language_a_batch_is_the_standalone_checkpoint(model: HydraForCausalLM, plain: dict[str, Any]) -> None:
    for name in NAMES:
        ids = torch.tensor([tokenizer(name)(TEXTS[name])["input_ids"]])
        made = model.generate(**model.encode([(name, TEXTS[name])]), **GREEDY)
        assert torch.equal(made, plain[name].generate(ids, **GREEDY)[:, ids.shape[1] :])


def test_encoding(model: HydraForCausalLM) -> None:
    encoding = model.encode([("english", "hello world"), ("tatar", "сәлам")])
    assert encoding["heads"] == ("english", "tatar") and encoding["output_heads"] == ("tatar",)
    english, tatar = (tokenizer(name) for name in ("english", "tatar"))
    expected = english("hello world")["input_ids"] + [i + len(english) for i in tatar("сәлам")["input_ids"]]
    assert encoding["input_ids"].tolist() == [expected]
    same = model.encode([("english", english("hello world")["input_ids"]), ("tatar", "сәлам")])
    assert same["input_ids"].tolist() == [expected]
    left = model.encode([[("english", "hello")], [("tatar", "сәлам дөнья")]])
    assert left["attention_mask"][0].tolist() == [0] * (left["input_ids"].shape[1] - 1) + [1]
    right = model.encode([[("english", "hello")], [("tatar", "сәлам дөнья")]], padding_side="right")
    assert right["attention_mask"][0].tolist() == [1] + [0] * (right["input_ids"].shape[1] - 1)


@pytest.mark.parametrize(
    "segments",
    [
        "hello",
        [],
        [("english",)],
        [["english", "hello"]],
        [("english", 3)],
        [[]],
        [("english", "")],
        [("english", [9999])],
    ],
)
def test_what_is_no_row_is_refused(model: HydraForCausalLM, segments: Any) -> None:
    with pytest.raises(UsageError):
        model.encode(segments)


def test_other_misuse_is_refused(model: HydraForCausalLM) -> None:
    both = [[("english", "hello")], [("tatar", "сәлам")]]
    with pytest.raises(VocabTransferError, match="no head named 'frisian'"):
        model.encode([("frisian", "hoi")])
    with pytest.raises(UsageError, match="cannot be trained on"):
        model.encode([("english", "hello")], train="tatar")
    with pytest.raises(UsageError, match="one output head"):
        model.encode(both, output=["tatar"] * 3)
    with pytest.raises(UsageError, match="left or right"):
        model.encode(both, padding_side="middle")
    with pytest.raises(UsageError, match="eos_token_id cannot be given"):
        model.generate(**model.encode(both), eos_token_id=3)
    with pytest.raises(UsageError, match="no label"):
        encoding = model.encode(both, train="tatar")
        model(**{**encoding, "labels": torch.full_like(encoding["input_ids"], -100)})


def test_answers_may_come_in_a_language_no_segment_has(model: HydraForCausalLM, plain: dict[str, Any]) -> None:
    row = [("english", "hello world")]
    encoding = model.encode(row)
    made = model.generate(**{**encoding, "output_heads": ["dutch"]}, **GREEDY)
    assert made[0].tolist() == padded(by_hand(plain, row, "dutch", 5), made[0], "dutch")


@settings(max_examples=20, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=3), end=st.booleans(), side=st.sampled_from(["left", "right"]))
def test_the_loss_is_that_of_the_trained_segments_alone(
    model: HydraForCausalLM, plain: dict[str, Any], rows: list[list[tuple[str, str]]], end: bool, side: str
) -> None:
    """Each labelled token is scored within its own vocabulary, from the states of everything before it."""
    trained = rows[0][-1][0]
    losses: list[torch.Tensor] = []
    for row in rows:
        states = plain["english"].model(inputs_embeds=embedded(plain, row)).last_hidden_state[0]
        place = 0
        for number, (name, text) in enumerate(row):
            ids = tokenizer(name)(text)["input_ids"]
            ids = [*ids, tokenizer(name).eos_token_id] if end and number == len(row) - 1 else ids
            for i in ids:
                if name == trained and place > 0:
                    logits = plain[name].lm_head(states[place - 1])
                    losses.append(functional.cross_entropy(logits, torch.tensor(i)))
                place += 1
    encoding = model.encode(rows, train=trained, end=end, padding_side=side)
    if not losses:
        return
    assert int((encoding["labels"] != -100).sum()) == len(losses)
    loss = model(**encoding).loss
    torch.testing.assert_close(loss, torch.stack(losses).mean(), rtol=1e-4, atol=1e-4)
    summed = model(**encoding, num_items_in_batch=2).loss
    torch.testing.assert_close(summed, torch.stack(losses).sum() / 2, rtol=1e-4, atol=1e-4)


def test_joined_logits_are_each_positions_own(model: HydraForCausalLM, plain: dict[str, Any]) -> None:
    encoding = model.encode([("english", "hello world"), ("tatar", "сәлам дөнья")])
    logits = model(**encoding).logits[0]
    states = plain["english"].model(
        inputs_embeds=embedded(plain, [("english", "hello world"), ("tatar", "сәлам дөнья")])
    )
    size = len(tokenizer("english"))
    for place, state in enumerate(states.last_hidden_state[0]):
        follows = encoding["input_ids"][0, place + 1] if place + 1 < len(logits) else torch.tensor(size)
        name, begin = ("english", 0) if follows < size else ("tatar", size)
        wanted = plain[name].lm_head(state)
        torch.testing.assert_close(logits[place, begin : begin + len(wanted)], wanted, rtol=1e-4, atol=1e-4)
        assert int(torch.isfinite(logits[place]).sum()) == len(wanted)


def test_autocast(model: HydraForCausalLM) -> None:
    """Training in mixed precision: the tables give bfloat16 where the states are float32."""
    encoding = model.encode([[("english", TEXTS["english"]), ("tatar", TEXTS["tatar"])]], train="tatar")
    wanted = model(**encoding)
    with torch.autocast("cpu", torch.bfloat16):
        ours = model(**encoding)
    seen = torch.isfinite(wanted.logits)
    assert torch.equal(seen, torch.isfinite(ours.logits))
    torch.testing.assert_close(ours.logits[seen].float(), wanted.logits[seen], rtol=0.1, atol=0.3)
    torch.testing.assert_close(ours.loss, wanted.loss, rtol=0.05, atol=0.05)


def test_training_on_mixed_rows_moves_the_trained_head(sample: Sample) -> None:
    model = sample.load()
    model.load_head("tatar", is_trainable=True)
    encoding = model.encode([("english", "hello world"), ("tatar", "сәлам дөнья")], train="tatar", end=True)
    loss = model(**encoding).loss
    loss.backward()
    gradient = model.head("tatar").tables.input.grad
    assert gradient is not None and gradient.abs().sum() > 0
    assert model.head("english").tables.input.grad is not None  # the prompt was read with these rows


def test_decoding(model: HydraForCausalLM) -> None:
    ids = [tokenizer(name)(TEXTS[name])["input_ids"] for name in NAMES]
    assert model.decode(ids, NAMES) == [TEXTS[name] for name in NAMES]
    assert model.decode(torch.tensor(ids[1]), "tatar") == TEXTS["tatar"]
    with model.use_head(input="english", output="dutch"):
        assert model.decode(ids[2]) == TEXTS["dutch"]
    with pytest.raises(UsageError, match="cannot be divided"):
        model.decode(ids, NAMES[:2])


def test_translation_is_generation_across_heads(model: HydraForCausalLM, plain: dict[str, Any]) -> None:
    text = "hello world"
    prompt = COMPLETION.format(source="English", target="Tatar", text=text)
    wanted = by_hand(plain, [("english", prompt)], "tatar", 5)
    made = model.translate(text, source="english", target="tatar", begin_suppress_tokens=None, **GREEDY)
    stop = next((i for i, token in enumerate(wanted) if "\n" in tokenizer("tatar").decode([token])), len(wanted))
    assert made == tokenizer("tatar").decode(wanted[:stop], skip_special_tokens=True).strip()


def test_many_translations_keep_their_order(model: HydraForCausalLM) -> None:
    texts = ["hello", "hello world the fox the quick", "the", "two\nlines", "world"]
    targets = ["tatar", "dutch", "tatar", "dutch", "dutch"]
    together = model.translate(texts, source="english", target=targets, batch_size=2, **GREEDY)
    alone = [
        model.translate(text, source="english", target=target, **GREEDY)
        for text, target in zip(texts, targets, strict=True)
    ]
    assert together == alone
    assert not any("\n" in made for text, made in zip(texts, together, strict=True) if "\n" not in text)
    assert model.translate([], source="english", target="tatar") == []


def test_translating_with_a_template_of_ones_own(model: HydraForCausalLM) -> None:
    first = model.translate("hello", source="english", target="tatar", template="{text} =", **GREEDY)
    encoding = model.encode([("english", "hello =")], output="tatar")
    answer = model.decode(model.generate(**encoding, **GREEDY)[0], "tatar")
    assert first == answer.split("\n")[0].strip()
    for template in ("{txt}", "{", "{0}"):
        with pytest.raises(UsageError, match="a template may hold"):
            model.translate("hello", source="english", target="tatar", template=template)
    with pytest.raises(UsageError, match="one target"):
        model.translate(["a", "b"], source="english", target=["tatar"])


def test_joined_vocabularies_of_a_model_that_caps_its_logits(tmp_path: Path) -> None:
    """Gemma 2 squeezes logits after the head, so vocabularies must be hidden after that too."""
    from hydra_samples import transferred
    from transformers import Gemma2Config, Gemma2ForCausalLM

    from vocabtransfer.checkpoint import open_checkpoint
    from vocabtransfer.hydra import add_head, create_hydra
    from vocabtransfer.tokenization.save import save_tokenizer

    own = tokenizer("english")
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=len(own),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=128,
        initializer_range=0.3,
        final_logit_softcapping=5.0,
        bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id,
        pad_token_id=own.pad_token_id,
    )
    Gemma2ForCausalLM(config).save_pretrained(tmp_path / "source")
    save_tokenizer(own, tmp_path / "source")
    source = open_checkpoint(tmp_path / "source")
    create_hydra(source, tmp_path / "hydra", own_name="english")
    result = transferred(source, "tatar")
    add_head(tmp_path / "hydra", "tatar", result)
    standalone = result.save(tmp_path / "tatar").path
    made = Sample(tmp_path / "hydra", {"english": source.path, "tatar": standalone})
    model, plain = made.load(), {name: made.plain(name) for name in ("english", "tatar")}
    rows = [[("english", TEXTS["english"])], [("tatar", TEXTS["tatar"])]]
    together = model.generate(**model.encode(rows), **GREEDY, num_beams=2)
    for tokens, row in zip(together, rows, strict=True):
        name, text = row[0]
        ids = torch.tensor([tokenizer(name)(text)["input_ids"]])
        alone = plain[name].generate(ids, **GREEDY, num_beams=2)[0, ids.shape[1] :]
        assert model.decode(tokens, name) == model.decode(alone, name)
    ids = torch.tensor([tokenizer("tatar")(TEXTS["tatar"])["input_ids"]])
    assert torch.equal(model(ids, head="tatar").logits, plain["tatar"](ids).logits)


def test_a_cache_goes_on_in_another_vocabulary(model: HydraForCausalLM) -> None:
    """By hand what mixed sequences do: the body's keys and values know of no vocabulary."""
    segments = [("english", TEXTS["english"]), ("tatar", TEXTS["tatar"])]
    whole = model(**model.encode(segments)).logits[0, -1]
    english = torch.tensor(model.head("english").encode([TEXTS["english"]], special=True))
    tatar = torch.tensor(model.head("tatar").encode([TEXTS["tatar"]], special=False))
    cache = DynamicCache()
    model(english, head="english", cache=cache, use_cache=True)
    logits = model(tatar, head="tatar", cache=cache, use_cache=True).logits[0, -1]
    torch.testing.assert_close(logits, whole[torch.isfinite(whole)], rtol=1e-4, atol=1e-4)


def test_whoever_looks_while_heads_are_switched_sees_one_head(sample: Sample) -> None:
    """Tables, sizes, ids and tying always belong together, whatever another thread sets meanwhile."""
    model = sample.load()
    done = threading.Event()
    sizes = {(len(tokenizer(name)), tokenizer(name).eos_token_id) for name in NAMES}

    def switch() -> None:
        pairs = itertools.cycle(itertools.product(NAMES, NAMES))
        while not done.is_set():
            reader, writer = next(pairs)
            model.set_head(input=reader, output=writer)

    thread = threading.Thread(target=switch)
    thread.start()
    seen: list[Any] = []
    try:
        while len(seen) < 300 or len(set(seen)) < 4:
            view = model.view()
            ids = (view.config.vocab_size, view.generation_config.eos_token_id)
            assert ids in sizes and ids[1] == view.config.eos_token_id
            assert view.get_output_embeddings().weight.shape[0] == view.get_output_embeddings().out_features == ids[0]
            same = view.get_input_embeddings().weight is view.get_output_embeddings().weight
            assert same == view.config.tie_word_embeddings
            seen.append(view)
            assert len(seen) < 1_000_000
    finally:
        done.set()
        thread.join()
