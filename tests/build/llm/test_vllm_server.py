"""Generation through a real Triton with a real vLLM: the tensors of NVIDIA's backend, streams, errors, metrics."""

from __future__ import annotations

import json
import math
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from waiting import until

from tritonkit.server import TritonServer
from tritonkit_client import Client, TritonkitClientError

pytestmark = pytest.mark.llm
GREEDY = {"temperature": 0, "ignore_eos": True}


def generate(client: Client, text: Any = "Hello", **options: Any) -> list[dict[str, Any]]:
    """Every response to one request; inputs of their own are in ``options``, all others are sampling parameters."""
    names = {"stream", "exclude_input_in_output", "sampling_parameters", "image"}
    inputs = {name: [value] for name, value in options.items() if name in names or name.startswith("return_")}
    parameters = {name: value for name, value in options.items() if name not in inputs}
    inputs.setdefault("sampling_parameters", [json.dumps(GREEDY | parameters)])
    arrays = {name: np.array(value, bool if isinstance(value[0], bool) else object) for name, value in inputs.items()}
    responses = client.stream("tiny", {"text_input": np.array([text], object)} | arrays, timeout=60)
    return [{name: _decoded(array) for name, array in response.items()} for response in responses]


def _decoded(array: Any) -> Any:
    return np.array([item.decode() for item in array], object) if array.dtype == object else array


def text_of(responses: list[dict[str, Any]], index: int = 0) -> str:
    return "".join(response["text_output"].tolist()[index] for response in responses)


def metrics(server: TritonServer) -> dict[str, float]:
    """Metrics of the model, by name and bucket."""
    with urllib.request.urlopen(server.metrics_url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    samples = [line for line in lines if line.startswith(("vllm:", "tritonkit_vllm")) and 'model="tiny"' in line]
    return {line.split('{model="tiny",version="1"')[0]: float(line.rpartition(" ")[2]) for line in samples}


def post(url: str, body: Any) -> tuple[int, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_prompt_precedes_the_answer_unless_streamed_or_excluded(language_client: Client) -> None:
    (whole,) = generate(language_client, max_tokens=8)
    (excluded,) = generate(language_client, max_tokens=8, exclude_input_in_output=True)
    streamed = generate(language_client, max_tokens=8, stream=True)
    assert text_of([whole]) == "Hello" + text_of([excluded])
    assert text_of(streamed) == text_of([excluded])
    assert len(text_of([excluded])) == 8
    assert len(streamed) > 1
    with pytest.raises(TritonkitClientError, match="`exclude_input_in_output` = False is not allowed"):
        generate(language_client, stream=True, exclude_input_in_output=False)


def test_greedy_answers_are_those_of_transformers(language_client: Client, language_repository: Path) -> None:
    transformers = pytest.importorskip("transformers")
    place = language_repository / "tiny/1/weights"
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    model = transformers.AutoModelForCausalLM.from_pretrained(place, dtype="float32")
    for prompt in ("Hello", "The capital of France is", "0123456789"):
        tokens = tokenizer(prompt, return_tensors="pt")
        whole = model.generate(**tokens, max_new_tokens=16, min_new_tokens=16, do_sample=False, pad_token_id=0)
        (answer,) = generate(language_client, prompt, max_tokens=16, min_tokens=16)
        assert text_of([answer]) == tokenizer.decode(whole[0], skip_special_tokens=True)


def test_additional_outputs_are_those_of_nvidias_backend(language_client: Client) -> None:
    flags = dict.fromkeys(
        ("return_finish_reason", "return_cumulative_logprob", "return_logprobs", "return_num_input_tokens",
         "return_num_output_tokens"), True,
    )  # fmt: skip
    (whole,) = generate(language_client, max_tokens=4, logprobs=2, **flags)
    streamed = generate(language_client, max_tokens=4, logprobs=2, stream=True, **flags)
    assert whole["finish_reason"].tolist() == ["length"]
    assert [part["finish_reason"].tolist() for part in streamed][-1] == ["length"]
    assert {part["finish_reason"].tolist()[0] for part in streamed[:-1]} == {"None"}
    assert whole["num_output_tokens"].tolist() == [4]
    assert sum(part["num_output_tokens"].tolist()[0] for part in streamed) == 4
    assert whole["num_input_tokens"].tolist() == streamed[0]["num_input_tokens"].tolist() == [5]
    steps = json.loads(whole["logprobs"].tolist()[0])
    assert steps == [step for part in streamed for step in json.loads(part["logprobs"].tolist()[0])]
    assert len(steps) == 4
    first = next(iter(steps[0].values()))
    assert (first["rank"], first["decoded_token"]) == (1, text_of([whole])[5])
    total = sum(next(iter(step.values()))["logprob"] for step in steps)
    assert math.isclose(whole["cumulative_logprob"][0], total, rel_tol=1e-4)
    (plain,) = generate(language_client, max_tokens=2, return_logprobs=True, return_cumulative_logprob=True)
    assert plain["logprobs"].tolist() == ["null"]
    assert math.isnan(plain["cumulative_logprob"][0])


def test_sampling_parameters_reach_vllm(language_client: Client) -> None:
    def answer(**parameters: Any) -> str:
        return text_of(generate(language_client, exclude_input_in_output=True, **parameters))

    plain = answer(max_tokens=12)
    assert answer(max_tokens=12, stop=[plain[6]]) == plain[: plain.index(plain[6])]
    assert answer(max_tokens=12, structured_outputs=json.dumps({"regex": "[ab]{12}"})).strip("ab") == ""
    assert set(answer(max_tokens=5, logit_bias={"40": 100})) == {"B"}  # character 37 of string.printable
    warm = {"temperature": 1.0, "max_tokens": 24}
    assert answer(seed=1, **warm) == answer(seed=1, **warm) != answer(seed=2, **warm)
    (two,) = generate(language_client, n=2, exclude_input_in_output=True, **warm)
    assert two["text_output"].shape == (2,)
    streamed = generate(language_client, n=2, stream=True, return_num_output_tokens=True, **warm)
    assert [sum(part["num_output_tokens"].tolist()[i] for part in streamed) for i in (0, 1)] == [24, 24]


def test_an_adapter_answers_under_its_name(language_client: Client) -> None:
    plain, loud = (text_of(generate(language_client, max_tokens=12, **more)) for more in ({}, {"lora_name": "loud"}))
    assert plain != loud
    with pytest.raises(TritonkitClientError, match=r"LoRA quiet is not supported, we currently support \['loud'\]"):
        generate(language_client, lora_name="quiet")


@pytest.mark.parametrize(
    ("text", "parameters", "message"),
    [
        ("x" * 1100, {}, "maximum context length is 1024 tokens"),
        ("", {}, "text_input is empty"),
        ("x", {"temperature": -1}, "temperature must be non-negative, got -1.0"),
        ("x", {"top_p": 2}, r"top_p must be in \(0, 1\], got 2.0"),
        ("x", {"max_tokens": -1}, "max_tokens"),
        ("x", {"temprature": 1}, "temprature is no sampling parameter; those are n, "),
        ("x", {"image": "aGk="}, "takes no images by tensor"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_bad_input_is_refused_with_vllms_own_limit(
    text: str, parameters: dict[str, Any], message: str, stream: bool, language_client: Client
) -> None:
    with pytest.raises(TritonkitClientError, match=message):
        generate(language_client, text, stream=stream, **parameters)


def test_a_request_longer_than_the_context_ends_where_the_context_does(language_client: Client) -> None:
    (whole,) = generate(language_client, "x" * 1020, max_tokens=100, return_finish_reason=True)
    assert (len(text_of([whole])), whole["finish_reason"].tolist()) == (1024, ["length"])


def test_triton_s_http_generates_and_streams_and_says_what_is_wrong(language_server: TritonServer) -> None:
    url = f"{language_server.http_url}/v2/models/tiny"
    body = {"text_input": "Hi", "max_tokens": 4, "temperature": 0, "ignore_eos": True}
    status, answer = post(f"{url}/generate", body)
    assert (status, len(answer["text_output"])) == (200, 6)
    request = urllib.request.Request(f"{url}/generate_stream", json.dumps(body | {"stream": True}).encode())
    with urllib.request.urlopen(request, timeout=60) as stream:
        parts = [json.loads(line[6:])["text_output"] for line in stream if line.startswith(b"data: ")]
    assert "Hi" + "".join(parts) == answer["text_output"]
    status, answer = post(f"{url}/generate", {"text_input": "Hi", "temprature": 1})
    assert status == 400
    assert "temprature is no sampling parameter" in answer["error"]


def test_the_openai_address_is_loopbacks_and_answers_chats(language_server: TritonServer) -> None:
    (state,) = language_server.language_models()
    assert state.url.startswith("http://127.0.0.1:")
    messages = [{"role": "user", "content": "Hi"}]
    body = {"model": "tiny", "messages": messages, "max_tokens": 3, "ignore_eos": True}
    status, answer = post(f"{state.url}/chat/completions", body)
    assert (status, answer["usage"]["completion_tokens"]) == (200, 3)


def test_many_at_once_are_answered_as_each_alone_is(language_client: Client) -> None:
    prompts = [f"{number}:" for number in range(12)]
    alone = [text_of(generate(language_client, prompt, max_tokens=8)) for prompt in prompts]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda prompt: text_of(generate(language_client, prompt, max_tokens=8)), prompts))
    assert together == alone


def test_gauges_and_counters_stand_beside_tritons_own(language_server: TritonServer, language_client: Client) -> None:
    before = metrics(language_server)
    assert {"vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"} <= set(before)
    generate(language_client, max_tokens=16)
    counter = "vllm:generation_tokens_total"
    until(lambda: metrics(language_server)[counter] >= before[counter] + 16)
    after = metrics(language_server)
    for name in ("time_to_first_token_seconds_count", "time_per_output_token_seconds_sum", "prompt_tokens_total"):
        assert after[f"vllm:{name}"] > before.get(f"vllm:{name}", 0.0)
    assert after["tritonkit_vllm_ready"] == 1
    assert after["tritonkit_vllm_restarts_total"] == 0


def test_a_caller_that_goes_frees_its_memory(language_server: TritonServer, language_client: Client) -> None:
    stream = language_client.stream(
        "tiny", {
            "text_input": np.array(["x" * 400], object), "stream": np.array([True]),
            "sampling_parameters": np.array([json.dumps(GREEDY | {"max_tokens": 600})], object),
        }, timeout=60,
    )  # fmt: skip
    next(stream)
    until(lambda: metrics(language_server)["vllm:num_requests_running"] == 1)
    assert metrics(language_server)["vllm:kv_cache_usage_perc"] > 0
    stream.close()
    took = until(lambda: metrics(language_server)["vllm:kv_cache_usage_perc"] == 0)
    assert metrics(language_server)["vllm:num_requests_running"] == 0
    assert took < 1.5


def test_a_caller_that_does_not_read_stalls_nobody(language_client: Client) -> None:
    parameters = np.array([json.dumps(GREEDY | {"max_tokens": 600})], object)
    inputs = {"text_input": np.array(["x"], object), "stream": np.array([True]), "sampling_parameters": parameters}
    idle = [language_client.stream("tiny", inputs, timeout=60) for _ in range(3)]
    for stream in idle:
        next(stream)
    started = time.monotonic()
    assert len(text_of(generate(language_client, max_tokens=20))) == 25
    assert time.monotonic() - started < 20
    for stream in idle:
        stream.close()


def test_every_process_of_vllm_runs_below_the_server(language_server: TritonServer) -> None:
    children = psutil.Process(language_server.pid).children(recursive=True)
    commands = [" ".join(child.cmdline()) for child in children]
    assert sum("vllm.entrypoints.openai.api_server" in command for command in commands) == 1
    listening = [c for child in children for c in child.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert {connection.laddr.ip for connection in listening} <= {"127.0.0.1"}
    assert threading.active_count() < 100
