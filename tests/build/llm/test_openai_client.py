"""OpenAI's own client against the OpenAI API of a language model that a real Triton serves."""

from __future__ import annotations

import asyncio
import json
import string
import urllib.request
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel
from waiting import until

from tritonkit.server import TritonServer

pytestmark = pytest.mark.llm
Messages = Any  # openai's types of messages are unions of a dozen mappings
HELLO: Messages = [{"role": "user", "content": "Hello"}]
GREEDY: dict[str, Any] = {"model": "tiny", "temperature": 0, "extra_body": {"ignore_eos": True}}
# Random weights fill a JSON document with whatever its grammar allows: for ever with white space, if they may.
SPACES = {str(3 + string.printable.index(space)): -100 for space in string.whitespace}  # three special tokens are first
SHAPED: dict[str, Any] = {
    "model": "tiny", "messages": HELLO, "temperature": 1, "seed": 1, "max_tokens": 200, "logit_bias": SPACES,
    "extra_body": {"top_k": -1},
}  # fmt: skip
CITY = {
    "type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}, "days": {"enum": [1, 2, 3]}},
    "required": ["city", "days"], "additionalProperties": False,
}  # fmt: skip
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "strict": True, "parameters": CITY}}]


class Visit(BaseModel):
    city: Literal["Oslo", "Rome"]
    days: Literal[1, 2, 3]


@pytest.fixture(scope="session")
def openai_url(language_server: TritonServer) -> str:
    return language_server.language_models()[0].url


@pytest.fixture(scope="session")
def client(openai_url: str) -> Iterator[openai.OpenAI]:
    direct = openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(base_url=openai_url, api_key="none", max_retries=0, timeout=60, http_client=direct) as opened:
        yield opened


def test_the_model_and_its_adapter_are_listed(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {"tiny", "loud"}


def test_a_chat_in_one_piece_is_the_chat_that_is_streamed(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(messages=HELLO, max_tokens=12, **GREEDY)
    (choice,) = whole.choices
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "length"
    assert whole.usage
    assert whole.usage.completion_tokens == 12
    assert whole.usage.prompt_tokens == len("user: Hello\n")  # a token a character, and nothing in front
    usage = {"include_usage": True}
    create: Any = client.chat.completions.create  # whose overloads no mapping of options fits
    parts = list(create(messages=HELLO, max_tokens=12, stream=True, stream_options=usage, **GREEDY))
    texts = [part.choices[0].delta.content or "" for part in parts if part.choices]
    assert "".join(texts) == choice.message.content
    assert sum(map(bool, texts)) > 1
    assert parts[-1].usage == whole.usage


def test_completions_are_those_of_the_tensors(client: openai.OpenAI, language_server: TritonServer) -> None:
    from tritonkit_client import Client

    answer = client.completions.create(prompt="Hello", max_tokens=12, **GREEDY)
    streamed = client.completions.create(prompt="Hello", max_tokens=12, stream=True, **GREEDY)
    with Client(language_server.grpc_url) as ours:
        tensors = ours.generate("tiny", "Hello", max_tokens=12, temperature=0, ignore_eos=True)
    assert answer.choices[0].text == "".join(part.choices[0].text for part in streamed) == tensors.text


def test_an_adapter_answers_as_a_model(client: openai.OpenAI) -> None:
    plain = client.completions.create(prompt="Hello", max_tokens=12, **GREEDY)
    loud = client.completions.create(prompt="Hello", max_tokens=12, **(GREEDY | {"model": "loud"}))
    assert loud.model == "loud"
    assert loud.choices[0].text != plain.choices[0].text


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_that_must_be_called_is_called_with_arguments_of_its_shape(client: openai.OpenAI, stream: bool) -> None:
    named: Any = {"type": "function", "function": {"name": "weather"}}
    if stream:
        with client.chat.completions.stream(tools=TOOLS, tool_choice=named, **SHAPED) as events:
            message: Any = events.get_final_completion().choices[0].message
    else:
        message = client.chat.completions.create(tools=TOOLS, tool_choice=named, **SHAPED).choices[0].message
    (call,) = message.tool_calls
    assert call.function.name == "weather"
    Visit.model_validate_json(call.function.arguments)


def test_some_tool_is_called_where_one_is_required(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(tools=TOOLS, tool_choice="required", **SHAPED)
    calls: Any = answer.choices[0].message.tool_calls
    assert calls
    assert {call.function.name for call in calls} == {"weather"}
    for call in calls:
        Visit.model_validate_json(call.function.arguments)


def test_a_model_that_may_call_a_tool_may_answer_instead(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(messages=HELLO, tools=TOOLS, tool_choice="auto", max_tokens=4, **GREEDY)
    assert answer.choices[0].message.content
    assert not answer.choices[0].message.tool_calls


def test_an_answer_has_the_schema_that_was_asked_for(client: openai.OpenAI) -> None:
    response_format: Any = {"type": "json_schema", "json_schema": {"name": "visit", "schema": CITY, "strict": True}}
    answer = client.chat.completions.create(response_format=response_format, **SHAPED)
    assert set(json.loads(answer.choices[0].message.content or "")) == {"city", "days"}
    parsed = client.chat.completions.parse(response_format=Visit, **SHAPED)
    assert isinstance(parsed.choices[0].message.parsed, Visit)


def test_an_unknown_model_and_a_prompt_that_is_too_long_are_typed_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="`nobody` does not exist"):
        client.chat.completions.create(messages=HELLO, max_tokens=2, **(GREEDY | {"model": "nobody"}))
    with pytest.raises(openai.BadRequestError, match="maximum context length is 1024 tokens"):
        client.completions.create(prompt="x" * 1100, max_tokens=2, **GREEDY)
    with pytest.raises(openai.BadRequestError, match="temperature must be non-negative"):
        client.completions.create(prompt="x", max_tokens=2, **(GREEDY | {"temperature": -1}))


def test_a_model_that_generates_has_no_embeddings(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError):
        client.embeddings.create(model="tiny", input="Hello")


def test_a_caller_that_closes_its_stream_frees_the_model(openai_url: str, language_server: TritonServer) -> None:
    async def begin_and_leave() -> str:
        direct = openai.DefaultAsyncHttpxClient(trust_env=False)
        async with openai.AsyncOpenAI(base_url=openai_url, api_key="none", timeout=60, http_client=direct) as opened:
            stream = await opened.completions.create(prompt="x" * 400, max_tokens=600, stream=True, **GREEDY)
            async for part in stream:
                await stream.close()
                return str(part.choices[0].text)
        return ""

    def running() -> float:
        with urllib.request.urlopen(language_server.metrics_url, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("vllm:num_requests_running{"))

    assert asyncio.run(begin_and_leave())
    until(lambda: running() == 0)
