"""The client's answers from a real vLLM in a real Triton, over both protocols, beside vLLM's own OpenAI API."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tritonkit.server import TritonServer
from tritonkit_client import Client, DeadlineExceeded, InvalidInput, Usage

pytestmark = pytest.mark.llm
GREEDY: dict[str, Any] = {"temperature": 0, "ignore_eos": True}
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?"}]


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, language_server: TritonServer) -> Iterator[Client]:
    url = language_server.grpc_url if request.param == "grpc" else language_server.http_url
    with Client(url, timeout=60) as client:
        yield client


def metric(server: TritonServer, name: str) -> float:
    with urllib.request.urlopen(server.metrics_url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}{{") and '"tiny"' in line)


def test_an_answer_and_a_stream_are_the_same_and_counted(client: Client) -> None:
    answer = client.generate("tiny", "Hello", max_tokens=8, **GREEDY)
    assert (len(answer.text), answer.finish_reason, answer.usage) == (8, "length", Usage(5, 8))
    with client.stream("tiny", "Hello", max_tokens=8, **GREEDY) as parts:
        deltas = list(parts)
    assert "".join(delta.text for delta in deltas) == answer.text
    assert [delta.usage for delta in deltas if delta.usage] == [answer.usage]
    assert parts.generation == answer
    stopped = client.generate("tiny", "Hello", max_tokens=8, stop=answer.text[3], **GREEDY)
    assert (stopped.text, stopped.finish_reason) == (answer.text[: answer.text.index(answer.text[3])], "stop")


def test_messages_are_the_prompt_that_vllms_own_chat_makes_of_them(
    client: Client, language_server: TritonServer
) -> None:
    body = {"model": "tiny", "messages": MESSAGES, "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    (state,) = language_server.language_models()
    request = urllib.request.Request(
        f"{state.url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        theirs = json.load(reply)
    ours = client.generate("tiny", messages=MESSAGES, max_tokens=8, **GREEDY)
    assert ours.text == theirs["choices"][0]["message"]["content"]
    assert ours.usage == Usage(theirs["usage"]["prompt_tokens"], 8)


def test_probabilities_adapters_and_structure_come_from_the_engine(client: Client) -> None:
    answer = client.generate("tiny", "Hello", max_tokens=3, logprobs=2, cumulative_logprob=True, **GREEDY)
    assert answer.logprobs is not None
    assert answer.cumulative_logprob is not None
    chosen = [next(iter(place.values())) for place in answer.logprobs]
    assert "".join(token.token or "" for token in chosen) == answer.text
    assert answer.cumulative_logprob == pytest.approx(sum(token.logprob for token in chosen), rel=1e-3)
    alone = client.generate("tiny", "Hello", max_tokens=3, cumulative_logprob=True, **GREEDY)
    assert alone.cumulative_logprob == pytest.approx(answer.cumulative_logprob, rel=1e-3)
    loud = client.generate("tiny", "Hello", max_tokens=8, lora="loud", **GREEDY)
    assert loud.text != client.generate("tiny", "Hello", max_tokens=8, **GREEDY).text
    digits = client.generate("tiny", "Hello", max_tokens=6, structured_outputs={"regex": "[0-9]{6}"}, **GREEDY)
    assert digits.text.isdigit()


@pytest.mark.parametrize(
    ("prompt", "options", "words"),
    [
        ("x" * 2000, {}, "do not fit the model"),
        ("x", {"temperature": -1.0}, "temperature"),
        ("x", {"top_p": 7.0}, "top_p"),
        ("x", {"lora": "absent"}, r"no such adapter.*\['loud'\]"),
        ("", {}, "empty|at least"),
    ],
    ids=["long", "temperature", "top_p", "adapter", "empty"],
)
def test_what_vllm_refuses_is_the_callers_mistake(
    client: Client, prompt: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        client.generate("tiny", prompt, max_tokens=4, **options)
    with pytest.raises(InvalidInput, match=words):
        list(client.stream("tiny", prompt, max_tokens=4, **options))


@pytest.mark.parametrize("way", ["close", "deadline"])
def test_what_nobody_waits_for_ends_in_the_engine(client: Client, language_server: TritonServer, way: str) -> None:
    client.metadata("tiny")
    before = metric(language_server, "vllm:generation_tokens_total")
    if way == "close":
        with client.stream("tiny", "Hello", max_tokens=900, **GREEDY) as parts:
            for _ in range(3):
                next(parts)
            assert not parts.generation
    else:
        with pytest.raises(DeadlineExceeded):
            client.generate("tiny", "Hello", max_tokens=900, timeout=0.4, **GREEDY)
    end = time.monotonic() + 2
    while metric(language_server, "vllm:num_requests_running"):
        assert time.monotonic() < end, "it still runs"
        time.sleep(0.05)
    assert metric(language_server, "vllm:generation_tokens_total") - before < 800
