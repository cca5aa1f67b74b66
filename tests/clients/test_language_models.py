"""Answers of language models, with both kinds of client over both protocols, against a real Triton.

The models are `textmodels`': upstream's tensors, optional inputs, errors and cancellation, with scripted words instead of an
engine. They test the client against the contract, not the contract against an engine.
"""

from __future__ import annotations

import asyncio
import json
import math
import pickle
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from textmodels import script

from tritonkit.server import TritonServer
from tritonkit_client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    Delta,
    Generation,
    InvalidInput,
    ModelMetadata,
    NotSupported,
    ServerError,
    TensorSpec,
    TokenLogprob,
    TritonkitClientError,
    Usage,
)

Connect = Callable[..., Client]
BOTH = pytest.mark.parametrize("model", ["llama", "llama_trt"])


def wait_for(path: Path) -> int:
    end = time.monotonic() + 5
    while not path.exists():
        assert time.monotonic() < end, "the server was not told"
        time.sleep(0.02)
    return int(path.read_text())


def test_an_answer_has_text_reason_and_usage(client: Client) -> None:
    assert client.generate("llama", "once upon a time") == Generation("once upon a time", "stop", Usage(4, 4))
    assert client.generate("llama", "once upon a time", max_tokens=2) == Generation("once upon", "length", Usage(4, 2))
    # TensorRT-LLM's template counts no tokens.
    assert client.generate("llama_trt", "once upon a time", max_tokens=2) == Generation("once upon", "length", Usage())
    assert client.generate("llama", "größe ✓ 你好").text == "größe ✓ 你好"


@BOTH
def test_a_stream_gives_each_part_as_it_comes_and_the_usage_at_the_end(client: Client, model: str) -> None:
    parts = client.stream(model, script("one two three four", pause=0.15))
    deltas = [next(parts)]
    first = time.monotonic()
    deltas += parts
    assert time.monotonic() - first > 0.3, "the last of four is made 0.45 s after the first"
    assert [delta.text for delta in deltas] == ["one", " two", " three", " four"]
    assert [delta.finish_reason for delta in deltas] == [None, None, None, "stop"]
    usage = Usage(4, 4) if model == "llama" else Usage()
    assert [delta.usage for delta in deltas] == [None, None, None, usage]
    assert parts.generation == Generation("one two three four", "stop", usage)
    assert parts.text == "one two three four"
    assert [server.in_flight for server in client._servers.all] == [0]


def test_sampling_goes_by_the_engines_own_names(client: Client) -> None:
    given: dict[str, Any] = {
        "max_tokens": 40,
        "temperature": 0.5,
        "stop": "never",
        "seed": 7,
        "top_p": 0.25,
        "top_k": 3,
    }
    echo = script("", echo=True)
    schema = {"type": "object"}
    arrived = json.loads(client.generate("llama", echo, **given, structured_outputs={"json": schema}).text)
    # As the backend wants it: JSON inside of the JSON.
    assert json.loads(arrived.pop("structured_outputs")) == {"json": schema}
    assert arrived == given | {"stop": ["never"]}
    arrived = json.loads(client.generate("llama_trt", echo, **given).text)
    sent = {f"sampling_param_{name}": value for name, value in given.items()}
    assert arrived == sent | {"sampling_param_stop": ["never"], "sampling_param_exclude_input_from_output": True}


@BOTH
def test_a_stop_text_ends_the_answer(client: Client, model: str) -> None:
    answer = client.generate(model, "one two three", stop=["two"])
    assert (answer.text, answer.finish_reason) == ("one", "stop")


def test_fields_that_an_older_backend_lacks_are_none(client: Client) -> None:
    assert client.generate("llama_old", "once upon a time") == Generation("once upon a time", None, Usage())
    deltas = list(client.stream("llama_old", "once upon"))
    assert deltas == [Delta("once"), Delta(" upon"), Delta("", None, Usage())]
    with pytest.raises(InvalidInput, match="does not tell log probabilities: it has no input 'return_logprobs'"):
        client.generate("llama_old", "once", logprobs=1)


def test_log_probabilities_are_there_if_asked_for(client: Client) -> None:
    answer = client.generate("llama", "once upon", logprobs=1, cumulative_logprob=True)
    assert answer.cumulative_logprob == -1.0
    assert answer.logprobs is not None
    assert [list(place) for place in answer.logprobs] == [[0, 99], [1, 99]]
    assert answer.logprobs[1][99] == TokenLogprob(-3.0, 2, "y")
    deltas = list(client.stream("llama", "once upon", logprobs=1))
    assert [[list(place) for place in delta.logprobs or ()] for delta in deltas] == [[[0, 99]], [[1, 99]]]
    # TensorRT-LLM's template sends it as text, whatever its configuration declares.
    assert client.generate("llama_trt", "once", cumulative_logprob=True).cumulative_logprob == -1.5
    with pytest.raises(InvalidInput, match="TensorRT-LLM of model llama_trt does not tell log probabilities"):
        client.generate("llama_trt", "once", logprobs=1)


def test_adapters_are_named_to_each_engine_in_its_way(client: Client) -> None:
    echo = script("", echo=True)
    assert json.loads(client.generate("llama", echo, lora="poet").text)["lora_name"] == "poet"
    with pytest.raises(InvalidInput, match=r"no such adapter: LoRA bard is not supported.*\['poet'\]"):
        client.generate("llama", echo, lora="bard")
    arrived = json.loads(client.generate("llama_trt", echo, lora="poet").text)
    assert (arrived["lora_name"], arrived["lora_id"], arrived["lora_path"]) == ("poet", 2, "/models/l/1/adapters/poet")
    arrived = json.loads(client.generate("llama_trt", echo, lora="bard", lora_id=9, lora_path="/bard").text)
    assert (arrived["lora_name"], arrived["lora_id"], arrived["lora_path"]) == ("bard", 9, "/bard")
    with pytest.raises(InvalidInput, match="is not enough for TensorRT-LLM") as caught:
        client.generate("llama_trt", echo, lora="bard")
    assert "critic, poet" in caught.value.fix


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"top_pp": 0.5}, "vLLM of model llama has no parameter 'top_pp'"),
        ({"n": 2}, "n= is for several answers"),
        ({"max_tokens": 0}, "max_tokens=0 is below 1"),
        ({"max_tokens": 1.5}, "max_tokens=1.5 is no whole number"),
        ({"stop": [1]}, "holds something else than text"),
        ({"stop": []}, "holds something else than text"),
        ({"lora": ""}, "is no name"),
        ({"top_p": math.nan}, "a parameter is not JSON"),
        ({"tools": []}, "tools= is for messages"),
        ({"messages": [{"role": "user", "content": "x"}]}, "a prompt is given, and messages too"),
    ],
)
def test_mistakes_are_found_before_anything_is_sent(
    noting: Connect, operations: list[str], arguments: dict[str, Any], words: str
) -> None:
    client = noting()
    client.metadata("llama")
    operations.clear()
    with pytest.raises(InvalidInput, match=words):
        client.generate("llama", "once", **arguments)
    assert operations == []


def test_other_mistakes_are_named_too(client: Client) -> None:
    with pytest.raises(InvalidInput, match="vLLM of model llama has no parameter") as caught:
        client.generate("llama", "once", top_pp=0.5)
    assert caught.value.fix.startswith("did you mean 'top_p'? It has allowed_token_ids, bad_words, ")
    with pytest.raises(InvalidInput, match="no parameter 'min_p'") as caught:
        client.generate("llama_trt", "once", min_p=0.5)
    assert "It has best_of, frequency_penalty" in caught.value.fix
    with pytest.raises(InvalidInput, match="the prompt is not given"):
        client.generate("llama")
    with pytest.raises(InvalidInput, match=r"is no language model.*its inputs are prompt"):
        client.generate("writer", "once")
    with pytest.raises((InvalidInput, NotSupported)) as named:
        list(client.stream("llama", prompt="once", max_tokens=1))
    assert "a language model's prompt has no name" in named.value.fix
    assert client.generate("llama", prompt="once").text == "once"
    with pytest.raises(InvalidInput, match="outputs= is for tensors"):
        client.stream("llama", "once", outputs=["text_output"])


def test_a_template_that_is_not_decoupled_does_not_stream(url: str, connect: Connect) -> None:
    inputs = (TensorSpec("text_input", "BYTES", (-1,)), TensorSpec("streaming", "BOOL", (1,), optional=True))
    client = connect(url, models=[ModelMetadata("llama_trt", inputs=inputs)])
    with pytest.raises(NotSupported, match="does not stream: it is not decoupled"):
        next(client.stream("llama_trt", "once"))
    assert client.generate("llama_trt", "once upon").text == "once upon"


@BOTH
def test_an_error_in_the_middle_is_typed_and_keeps_what_came_before(client: Client, model: str) -> None:
    parts = client.stream(model, script("one two three", fail=2))
    assert [next(parts).text, next(parts).text] == ["one", " two"]
    with pytest.raises(ServerError, match="the engine died") as caught:
        next(parts)
    assert caught.value.text == "one two"
    assert pickle.loads(pickle.dumps(caught.value)).text == "one two"
    assert [server.in_flight for server in client._servers.all] == [0]


@BOTH
@pytest.mark.parametrize(
    ("prompt", "arguments", "words"),
    [
        ("word " * 70, {}, "do not fit the model: .*maximum model length of 64"),
        (script("one", fail=0, words="top_p must be in (0, 1], got 7."), {}, "refuses the request: .*top_p must be"),
    ],
    ids=["too long", "out of range"],
)
def test_what_an_engine_refuses_is_the_callers_mistake(
    client: Client, model: str, prompt: str, arguments: dict[str, Any], words: str
) -> None:
    for call in (client.generate, lambda *args, **named: list(client.stream(*args, **named))):
        with pytest.raises(InvalidInput, match=words) as caught:
            call(model, prompt, **arguments)
        assert caught.value.text == ""


def test_messages_become_the_prompt_that_the_published_template_makes(client: Client) -> None:
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    # The server's tokenizer adds <s> by itself, so it is not sent.
    assert client.generate("llama", messages=messages).text == "<|system|> be brief <|user|> hello <|assistant|>"
    parts = client.stream("llama", messages=messages, chat_template_kwargs={"add_generation_prompt": False})
    assert "".join(delta.text for delta in parts) == "<|system|> be brief <|user|> hello "
    with pytest.raises(InvalidInput, match="llama_trt does not publish a chat template") as caught:
        client.generate("llama_trt", messages=messages)
    assert "chat_template=" in caught.value.fix
    template = "{% for message in messages %}[{{ message.content }}]{% endfor %}"
    assert client.generate("llama_trt", messages=messages, chat_template=template).text == "[be brief][hello]"


def test_a_stream_that_falls_silent_or_lasts_too_long_is_given_up(client: Client, tmp_path: Path) -> None:
    parts = client.stream("llama", script("one two three", pause=0.8, mark=str(tmp_path / "idle")), idle_timeout=0.3)
    assert next(parts).text == "one"
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"idle_timeout=0\.3 s") as caught:
        next(parts)
    assert time.monotonic() - started > 0.2
    assert caught.value.text == "one"
    parts = client.stream("llama", script("one two three", pause=0.4), timeout=0.6)
    with pytest.raises(DeadlineExceeded, match=r"timeout=0\.6 s") as caught:
        list(parts)
    assert caught.value.text == "one two"


def test_a_reader_that_takes_its_time_is_not_idle(client: Client) -> None:
    texts = []
    for delta in client.stream("llama", "one two three", idle_timeout=0.15):
        texts.append(delta.text)
        time.sleep(0.2)
    assert texts == ["one", " two", " three"]


LONG = "word " * 60


def leave(client: Client, way: str, mark: Path) -> None:
    """Stop reading a stream after its second part."""
    parts = client.stream("llama", script(LONG.strip(), pause=0.02, mark=str(mark)), max_tokens=60)
    if way == "close":
        next(parts)
        next(parts)
        parts.close()
    elif way == "with":
        with parts:
            next(parts)
            next(parts)
    elif way == "break":
        del parts
        for number, _ in enumerate(
            client.stream("llama", script(LONG.strip(), pause=0.02, mark=str(mark)), max_tokens=60)
        ):
            if number:
                break
    else:

        def read() -> None:
            with parts:
                for number, _ in enumerate(parts):
                    assert not number, "enough"

        with pytest.raises(AssertionError, match="enough"):
            read()


@pytest.mark.parametrize("way", ["close", "with", "break", "error"])
def test_leaving_a_stream_cancels_it_on_the_server(client: Client, way: str, tmp_path: Path) -> None:
    leave(client, way, tmp_path / "mark")
    assert wait_for(tmp_path / "mark") < 30
    assert [server.in_flight for server in client._servers.all] == [0]


def test_an_answer_that_is_given_up_is_cancelled_on_the_server_too(client: Client, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    client.metadata("llama")  # so that all of the time is the answer's
    with pytest.raises(DeadlineExceeded, match=r"timeout=0\.4 s"):
        client.generate("llama", script(LONG.strip(), pause=0.05, mark=str(mark)), max_tokens=60, timeout=0.4)
    assert wait_for(mark) < 40


def test_a_caller_who_stops_at_the_reason_cancels_nothing(url: str, connect: Connect) -> None:
    ended: list[bool] = []
    hooks = {"response": [lambda event: ended.append(event.cancelled)]}
    client = connect(url, event_hooks=hooks)
    client.metadata("llama")
    ended.clear()
    with client.stream("llama", "one two") as parts:
        for delta in parts:
            if delta.finish_reason:
                break
    assert ended == [False]


def test_a_bound_model_answers(server: TritonServer) -> None:
    with Client(server.grpc_url) as client:
        llama = client.model("llama")
        assert llama.generate("once upon").text == "once upon"
        with llama.stream("once upon") as parts:
            assert [delta.text for delta in parts] == ["once", " upon"]
        assert len(list(llama.stream(messages=[{"role": "user", "content": "x"}]))) == 3


def test_a_stream_that_gets_no_thread_keeps_its_deadline(server: TritonServer) -> None:
    async def main() -> None:
        async with AsyncClient(server.http_url) as client:
            await client.metadata("llama")
            client._servers.all[0].transport._threads = ThreadPoolExecutor(1)
            slow = client.stream("llama", script("one two", pause=0.8))
            assert (await anext(slow)).text == "one"
            second = asyncio.create_task(anext(slow))  # it holds the only thread
            await asyncio.sleep(0.05)
            with pytest.raises(DeadlineExceeded, match=r"timeout=0\.2 s"):
                await anext(client.stream("llama", "one two", timeout=0.2))
            assert not second.done()
            assert (await second).text == " two"

    asyncio.run(main())


def test_an_address_that_is_no_triton_is_an_error_of_the_client(connect: Connect, server: TritonServer) -> None:
    metrics = f"http://127.0.0.1:{server.ports['metrics']}"
    client = connect(metrics, models=[ModelMetadata("llama", inputs=(TensorSpec("text_input", "BYTES", (1,)),
                                                                     TensorSpec("stream", "BOOL", (1,))))])  # fmt: skip
    with pytest.raises(TritonkitClientError):
        client.generate("llama", "once")
