"""OpenAI's own client against the server: choices, lists of prompts, log probabilities, penalties, streams."""

import json
import math
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import torch
from hydra_samples import TEXTS, Sample, make_sample, one_thread  # noqa: F401
from serving_samples import serving

from vocabtransfer.hydra import HydraForCausalLM
from vocabtransfer.serving import Limits

TEMPLATE = "{% for m in messages %}<s>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}</s>{% endif %}"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    made = make_sample(tmp_path_factory.mktemp("sample"))
    for folder in (made.hydra, made.hydra / "heads/tatar"):
        (folder / "chat_template.jinja").write_text(TEMPLATE)
    return made


@pytest.fixture(scope="module")
def client(model: HydraForCausalLM) -> Iterator[openai.OpenAI]:
    with serving(model, Limits(rate=None, rows=8)) as running:
        url = f"http://127.0.0.1:{running.client.port}/v1"
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as made:
            yield made


def complete(client: openai.OpenAI, prompt: Any = TEXTS["tatar"], **settings: Any) -> Any:
    settings = {"model": "hydra:tatar", "max_tokens": 8, "temperature": 0, **settings}
    return client.completions.create(prompt=prompt, **settings)


def chat(client: openai.OpenAI, **settings: Any) -> Any:
    messages: Any = [{"role": "user", "content": "сәлам"}]
    settings = {"model": "hydra:tatar", "max_completion_tokens": 8, "temperature": 0, **settings}
    return client.chat.completions.create(messages=messages, **settings)


def log_probabilities(model: HydraForCausalLM, prompt: list[int], answer: list[int]) -> list[torch.Tensor]:
    """The distributions of each token of an answer, from one pass of the whole text."""
    with torch.no_grad(), model.use_head("tatar"):
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0].float()
    size = model.head("tatar").stored.config.vocabulary
    return list(logits[len(prompt) - 1 : -1, :size].log_softmax(-1))


def test_models_list_heads(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["hydra", "hydra:english", "hydra:dutch", "hydra:tatar"]
    assert client.models.retrieve("hydra:tatar").owned_by == "vocabtransfer"


def test_log_probabilities_are_those_of_the_model(client: openai.OpenAI, model: HydraForCausalLM) -> None:
    head = model.head("tatar")
    prompt = head.encode([TEXTS["tatar"]], special=True)[0]
    made = model.generate(**model.encode([("tatar", TEXTS["tatar"])]), max_new_tokens=8, do_sample=False)[0]
    answer = [i for i in made.tolist() if i not in head.end_ids][:8]
    wanted = log_probabilities(model, prompt, answer)
    got = complete(client, logprobs=3).choices[0]
    assert got.logprobs.token_logprobs == pytest.approx(
        [float(row[i]) for row, i in zip(wanted, answer, strict=True)], abs=1e-4
    )
    for row, top, place, token in zip(
        wanted, got.logprobs.top_logprobs, got.logprobs.text_offset, got.logprobs.tokens, strict=True
    ):
        assert 3 <= len(top) <= 4
        assert sorted(top.values())[-3:] == pytest.approx(sorted(row.topk(3).values.tolist()), abs=1e-4)
        assert token in top and 0 <= place <= len(got.text)


def test_log_probabilities_of_a_chat(client: openai.OpenAI) -> None:
    plain = chat(client)
    assert plain.choices[0].logprobs is None
    choice = chat(client, logprobs=True, top_logprobs=2).choices[0]
    assert choice.message.content == plain.choices[0].message.content
    entries = choice.logprobs.content
    spelled = b"".join(bytes(entry.bytes) for entry in entries).decode("utf-8", "replace")
    assert spelled == choice.message.content
    assert len(entries) in (plain.usage.completion_tokens, plain.usage.completion_tokens - 1)
    for entry in entries:
        assert len(entry.top_logprobs) == 2 and entry.logprob <= entry.top_logprobs[0].logprob <= 0
        assert entry.top_logprobs[0].token == entry.token  # greedy
    assert all(not entry.top_logprobs for entry in chat(client, logprobs=True).choices[0].logprobs.content)


def test_drawn_tokens_have_the_log_probabilities_of_before_the_settings(client: openai.OpenAI) -> None:
    cold = complete(client, logprobs=0, temperature=1.7, seed=3, extra_body={"top_k": 1}).choices[0]
    greedy = complete(client, logprobs=0).choices[0]
    assert cold.text == greedy.text
    assert cold.logprobs.token_logprobs == pytest.approx(greedy.logprobs.token_logprobs, abs=1e-4)
    biased = complete(client, logprobs=0, max_tokens=1, logit_bias={"40": 100}).choices[0]
    assert biased.logprobs.token_logprobs[0] < -0.5 and math.isfinite(biased.logprobs.token_logprobs[0])


def test_a_list_of_prompts_is_answered_in_order(client: openai.OpenAI, model: HydraForCausalLM) -> None:
    texts = [TEXTS["tatar"], "сәлам", "дөнья"]
    alone = [complete(client, text) for text in texts]
    ids = [model.head("tatar").encode([text], special=True)[0] for text in texts]
    for prompts in (texts, ids):
        together = complete(client, prompts)
        assert [choice.text for choice in together.choices] == [answer.choices[0].text for answer in alone]
        assert [choice.index for choice in together.choices] == [0, 1, 2]
        assert together.usage.prompt_tokens == sum(len(each) for each in ids)
        assert together.usage.completion_tokens == sum(answer.usage.completion_tokens for answer in alone)


def test_several_answers_to_one_prompt(client: openai.OpenAI) -> None:
    hot: dict[str, Any] = {"temperature": 1.8, "seed": 5, "max_tokens": 12}
    one, four = complete(client, **hot), complete(client, n=4, **hot)
    assert [choice.text for choice in four.choices] == [choice.text for choice in complete(client, n=4, **hot).choices]
    assert four.choices[0].text == one.choices[0].text
    assert len({choice.text for choice in four.choices}) > 1
    assert four.usage.prompt_tokens == one.usage.prompt_tokens
    both = complete(client, [TEXTS["tatar"], "сәлам"], n=2, **hot)
    assert [choice.text for choice in both.choices[:2]] == [choice.text for choice in four.choices[:2]]
    assert both.choices[2].text == complete(client, "сәлам", **hot).choices[0].text
    unsaid = complete(client, n=6, temperature=None, max_tokens=20)  # several answers are drawn
    assert len({choice.text for choice in unsaid.choices}) > 1
    assert len({choice.message.content for choice in chat(client, n=4, temperature=1.8).choices}) > 1


def test_penalties(client: openai.OpenAI) -> None:
    settings: dict[str, Any] = {"max_tokens": 30, "logprobs": 0, "logit_bias": {"1": -100}}

    def distinct(**penalty: Any) -> int:
        return len(set(complete(client, **settings, **penalty).choices[0].logprobs.tokens))

    plain = distinct()
    assert distinct(frequency_penalty=2.0, presence_penalty=2.0) > plain
    assert distinct(extra_body={"repetition_penalty": 50.0}) > plain
    assert distinct(frequency_penalty=-2.0, presence_penalty=-2.0) <= plain
    forced = complete(client, max_tokens=5, logit_bias={"40": 100}, logprobs=0).choices[0].logprobs.tokens
    assert len(set(forced)) == 1
    freed = complete(client, max_tokens=30, logit_bias={"40": 6}, logprobs=0, frequency_penalty=2.0)
    assert len(set(freed.choices[0].logprobs.tokens)) > 1


def test_cutting_the_distribution(client: openai.OpenAI) -> None:
    greedy = complete(client).choices[0].text
    for cut in ({"top_k": 1}, {"min_p": 1.0}):
        for temperature in (None, 2.0):  # without a temperature, how to draw says that tokens are drawn
            assert complete(client, temperature=temperature, extra_body=cut).choices[0].text == greedy
    for all_tokens in (-1, 0):
        assert complete(client, temperature=2.0, seed=4, extra_body={"top_k": all_tokens}).choices[0].text == (
            complete(client, temperature=2.0, seed=4).choices[0].text
        )


def test_echo_and_stop(client: openai.OpenAI) -> None:
    plain = complete(client, max_tokens=30, logprobs=1)
    assert complete(client, max_tokens=30, echo=True).choices[0].text == TEXTS["tatar"] + plain.choices[0].text
    text = plain.choices[0].text
    cut = complete(client, max_tokens=30, logprobs=1, stop=[text[4:6]]).choices[0]
    assert cut.text == text[: text.index(text[4:6])] and cut.finish_reason == "stop"
    offsets = cut.logprobs.text_offset
    assert all(offset < len(cut.text) for offset in offsets)
    assert cut.logprobs.tokens == plain.choices[0].logprobs.tokens[: len(offsets)]


@pytest.mark.parametrize("stop", [None, "к"])
def test_streams_are_the_whole_in_pieces(client: openai.OpenAI, stop: str | None) -> None:
    settings: dict[str, Any] = {
        "prompt": [TEXTS["tatar"], "сәлам"],
        **{"n": 2, "temperature": 1.5, "seed": 1, "max_tokens": 20, "logprobs": 2, "stop": stop},
    }
    whole = complete(client, **settings)
    texts, logprobs, ends = [""] * 4, [[], [], [], []], [None] * 4  # type: ignore[var-annotated]
    chunks = list(complete(client, **settings, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    for chunk in chunks[:-1]:
        assert chunk.usage is None and chunk.id == chunks[0].id
        for choice in chunk.choices:
            assert ends[choice.index] is None
            texts[choice.index] += choice.text
            logprobs[choice.index] += zip(choice.logprobs.tokens, choice.logprobs.text_offset, strict=True)
            ends[choice.index] = choice.finish_reason
    for index, choice in enumerate(whole.choices):
        assert texts[index] == choice.text and ends[index] == choice.finish_reason
        told = list(zip(choice.logprobs.tokens, choice.logprobs.text_offset, strict=True))
        assert logprobs[index] == told


def test_a_streamed_chat(client: openai.OpenAI) -> None:
    whole = chat(client, logprobs=True, top_logprobs=1)
    chunks = list(chat(client, logprobs=True, top_logprobs=1, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant" and all(chunk.usage is None for chunk in chunks)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    entries = [entry for chunk in chunks for entry in chunk.choices[0].logprobs.content]
    assert entries == whole.choices[0].logprobs.content


def test_errors_come_as_the_clients_own_exceptions(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-4'"):
        complete(client, model="gpt-4")
    for settings, said in (
        ({"extra_body": {"top_k": -4}}, "top_k"),
        ({"stream_options": {"include_usage": True}}, "set stream to true"),
        ({"logprobs": 99}, "logprobs"),
        ({"extra_body": {"beam_width": 4}}, "beam_width is no setting"),
    ):
        with pytest.raises(openai.BadRequestError, match=said):
            complete(client, **settings)
    for settings, said in (
        ({"top_logprobs": 2}, "set logprobs to true"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools is not supported"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ):
        with pytest.raises(openai.BadRequestError, match=said):
            chat(client, **settings)
    assert chat(client, user="somebody", metadata={"a": "b"}, tools=[], store=False).choices  # these ask for nothing


def test_tokens_that_are_parts_of_characters(client: openai.OpenAI, model: HydraForCausalLM) -> None:
    vocabulary = model.head("tatar").vocabulary
    part = next(i for i in range(len(vocabulary)) if vocabulary.text(i) is None)
    choice = complete(client, max_tokens=1, logit_bias={str(part): 100}, logprobs=0).choices[0]
    assert choice.logprobs.tokens == [f"bytes:\\x{vocabulary.token_bytes[part].hex()}"]
    entry = chat(client, max_completion_tokens=1, logit_bias={str(part): 100}, logprobs=True).choices[0]
    assert bytes(entry.logprobs.content[0].bytes) == vocabulary.token_bytes[part]
    assert json.dumps(entry.logprobs.content[0].token)
