"""The vLLM backend without vLLM: command line, sampling parameters, output tensors, metrics, the life of processes."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tritonkit.server import end_with_parent
from tritonkit.server.backends.vllm.vllm_engine.answers import Answer
from tritonkit.server.backends.vllm.vllm_engine.arguments import SettingsError, check_memory, read_settings
from tritonkit.server.backends.vllm.vllm_engine.metrics import Exposition, exported
from tritonkit.server.backends.vllm.vllm_engine.sampling import ParameterError, completion_request


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A version of a model, in a repository that is not where `model.json` says."""
    place = tmp_path / "elsewhere/llama/1"
    (place / "weights").mkdir(parents=True)
    (place / "adapters/fr").mkdir(parents=True)
    return place


def settings(
    place: Path, adapters: Any = None, /, *, kind: str = "MODEL", on_cpu: bool = False, **arguments: Any
) -> Any:
    (place / "model.json").write_text(json.dumps(arguments))
    if adapters is not None:
        (place / "multi_lora.json").write_text(json.dumps(adapters))
    return read_settings(place, "llama", kind, on_cpu=on_cpu)


def test_arguments_become_vllms_options_and_the_images_paths_this_machines(model: Path) -> None:
    line = settings(
        model, {"fr": "/models/llama/1/adapters/fr"}, model="/models/llama/1/weights", enable_lora="true",
        disable_log_stats=False, enable_prefix_caching=False, max_model_len=64, seed=None,
        override_generation_config={"top_k": 3}, cudagraph_capture_sizes=[1, 2],
    ).command_line(12345)  # fmt: skip
    text = " ".join(line)
    assert line[:4] == ["--host", "127.0.0.1", "--port", "12345"]
    for words in (
        f"--model={model}/weights", "--enable-lora", "--no-enable-prefix-caching", "--max-model-len=64",
        '--override-generation-config {"top_k": 3}', "--served-model-name llama", "--cudagraph-capture-sizes 1 2",
    ):  # fmt: skip
        assert words in text
    assert "seed" not in text
    assert "log-stats" not in text
    assert json.loads(line[line.index("--lora-modules") + 1]) == {"name": "fr", "path": f"{model}/adapters/fr"}


@pytest.mark.parametrize("path", ["facebook/opt-125m", "/nowhere/at/all", "weights"])
def test_a_name_on_a_hub_and_a_path_of_somewhere_else_stay_as_they_are(path: str, model: Path) -> None:
    assert settings(model, model=path).arguments["model"] == path


def test_a_cpu_gets_fp32_only_where_the_recipe_leaves_it_open(model: Path) -> None:
    assert settings(model, on_cpu=True, dtype="auto").arguments["dtype"] == "float32"
    assert settings(model, on_cpu=True, dtype="bfloat16").arguments["dtype"] == "bfloat16"
    for dtype, chosen in ((None, "float32"), ("bf16", "bfloat16")):
        passport = {"recipe": {"engine": "vllm", "dtype": dtype}}
        (model.parent / "passport.json").write_text(json.dumps(passport))
        assert settings(model, on_cpu=True, dtype="bfloat16").arguments["dtype"] == chosen
    assert settings(model, dtype="bfloat16").arguments["dtype"] == "bfloat16"
    assert "--enforce-eager" in settings(model, on_cpu=True).command_line(1)
    assert "--no-enforce-eager" in settings(model, on_cpu=True, enforce_eager=False).command_line(1)


def test_a_cpus_kv_cache_is_for_a_few_contexts(model: Path) -> None:
    shape = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}
    (model / "weights/config.json").write_text(json.dumps(shape | {"max_position_embeddings": 1024}))
    path = "/models/llama/1/weights"
    for length, size in ((256, 2**28), (None, 2**30), (4096, 2**32), (32768, 2**33 * 9 // 8)):
        chosen = settings(model, on_cpu=True, model=path, max_model_len=length).arguments["kv_cache_memory_bytes"]
        assert chosen == size, length
    assert settings(model, on_cpu=True, model="acme/other").arguments["kv_cache_memory_bytes"] == 2**32
    assert "kv_cache_memory_bytes" not in settings(model, model=path).arguments


def test_what_does_not_fit_the_memory_is_refused_in_bytes(model: Path) -> None:
    (model / "weights/config.json").write_text('{"torch_dtype": "bfloat16"}')
    (model / "weights/model.safetensors").write_bytes(bytes(2**20))
    model_settings = settings(model, on_cpu=True, model="/models/llama/1/weights", kv_cache_memory_bytes=2**31)
    check_memory(model_settings, 2**31 + 2**21)
    with pytest.raises(SettingsError, match=r"llama needs 2.0 GiB: 0.0 GiB for weights in float32 and 2.0 GiB for the"):
        check_memory(model_settings, 2**31)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"enable_lora": True}, "MODEL", "multi_lora.json is missing"),
        ({"tensor_parallel_size": 2}, "GPU", "KIND_MODEL"),
    ],
)
def test_contradictions_are_refused(arguments: dict[str, Any], kind: str, message: str, model: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        settings(model, kind=kind, **arguments)


def test_sampling_parameters_have_the_engines_defaults_not_the_directorys() -> None:
    body, adapter = completion_request('{"temperature": "0", "stop": ["x"], "lora_name": "fr", "top_k": 5.0}', 64)
    assert adapter == "fr"
    assert body == {
        "temperature": 0.0, "stop": ["x"], "top_k": 5, "top_p": 1.0, "min_p": 0.0, "presence_penalty": 0.0,
        "frequency_penalty": 0.0, "repetition_penalty": 1.0,
    }  # fmt: skip
    assert completion_request('{"max_tokens": null}', 64)[0]["max_tokens"] == 64
    assert completion_request('{"max_tokens": 99}', 64)[0]["max_tokens"] == 64
    assert completion_request('{"structured_outputs": "{\\"regex\\": \\"a+\\"}"}', 64)[0]["structured_outputs"] == {
        "regex": "a+"
    }
    assert completion_request("", 64) == completion_request('{"triton_enable_empty_final_response": true}', 64)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ('{"temprature": 0}', "temprature is no sampling parameter; those are n, presence_penalty"),
        ('{"detokenize": false}', "detokenize is no sampling parameter"),
        ('{"temperature": "hot"}', 'temperature is "hot": could not convert'),
        ('{"top_k": 1.5}', "top_k is 1.5: not a whole number"),
        ('{"ignore_eos": "perhaps"}', 'ignore_eos is "perhaps": not true or false'),
        ("{", "the sampling parameters are not JSON"),
        ("[1]", "the sampling parameters are no JSON object"),
    ],
)
def test_a_bad_sampling_parameter_is_named(parameters: str, message: str) -> None:
    with pytest.raises(ParameterError, match="^" + message.replace(".", r"\.").replace("{", r"\{")):
        completion_request(parameters, 64)


def event(index: int = 0, text: str = "", tokens: list[int] = [], ended: str | None = None, **more: Any) -> Any:  # noqa: B006
    return {"choices": [{"index": index, "text": text, "token_ids": tokens, "finish_reason": ended} | more]}


def test_parts_that_were_not_sent_are_joined_and_counts_are_of_what_is_new() -> None:
    flags = {"return_finish_reason", "return_num_output_tokens", "return_cumulative_logprob", "return_logprobs"}
    answer = Answer("Hi", {"n": 2}, stream=True, prepend=False, flags=flags)
    answer.add(event(0, "a", [1]))
    answer.add(event(0, "b", [2]))
    answer.add(event(1, "c", [3, 4]))
    outputs, last = answer.take()
    assert not last
    assert list(outputs["text_output"]) == [b"ab", b"c"]
    assert list(outputs["num_output_tokens"]) == [2, 2]
    assert list(outputs["finish_reason"]) == [b"None", b"None"]
    assert list(outputs["logprobs"]) == [b"null", b"null"]
    assert all(map(math.isnan, outputs["cumulative_logprob"]))
    assert answer.take() == ({}, False)
    answer.add(event(1, "", [], "stop"))
    answer.add(event(0, "d", [5], "length"))
    outputs, last = answer.take()
    assert last
    assert list(outputs["text_output"]) == [b"d", b""]
    assert list(outputs["finish_reason"]) == [b"length", b"stop"]


def test_the_prompt_stands_before_the_text_once() -> None:
    answer = Answer("Hi", {}, stream=False, prepend=True, flags=set())
    answer.add(event(0, " there", [1], "stop"))
    assert list(answer.take()[0]["text_output"]) == [b"Hi there"]


def test_logprobs_are_written_as_nvidias_backend_writes_them() -> None:
    answer = Answer("Hi", {"logprobs": 1}, stream=False, prepend=False, flags={"return_logprobs"})
    of_steps = {
        "token_logprobs": [-0.5, -3.0], "top_logprobs": [{"token_id:7": -0.5}, {"token_id:9": -3.0, "token_id:7": -0.1}],
    }  # fmt: skip
    value = event(0, "xy", [7, 9], "stop", logprobs=of_steps)
    assert answer.tokens(value) == {7, 9}
    answer.add(value, {7: "x", 9: "y"})
    assert json.loads(answer.take()[0]["logprobs"][0]) == [
        {"7": {"logprob": -0.5, "rank": 1, "decoded_token": "x"}},
        {
            "9": {"logprob": -3.0, "rank": None, "decoded_token": "y"},
            "7": {"logprob": -0.1, "rank": 1, "decoded_token": "x"},
        },
    ]


def test_counters_go_on_after_a_restart_and_gauges_are_what_they_are() -> None:
    text = (
        'vllm:num_requests_running{engine="0",model_name="m"} 3.0\nvllm:kv_cache_usage_perc{engine="0"} 0.25\n'
        'vllm:generation_tokens_total{engine="0"} %d\nvllm:num_preemptions_total{engine="0"} 0.0\n'
        'vllm:inter_token_latency_seconds_bucket{engine="0",le="0.01"} %d\n# HELP vllm:other x\nother_total 5\n'
    )
    exposition = Exposition()
    gauges, added = exposition.read(text % (10, 4))
    assert gauges == {"num_requests_running": 3.0, "kv_cache_usage_perc": 0.25}
    assert added == {
        ("generation_tokens_total", ""): 10.0, ("num_preemptions_total", ""): 0.0,
        ("inter_token_latency_seconds_bucket", "0.01"): 4.0,
    }  # fmt: skip
    assert exposition.read(text % (12, 4))[1] == {("generation_tokens_total", ""): 2.0}
    assert exposition.read(text % (1, 4))[1] == {("generation_tokens_total", ""): 1.0}
    assert exported("inter_token_latency_seconds_bucket") == (
        "inter_token_latency_seconds_bucket", "time_per_output_token_seconds_bucket",
    )  # fmt: skip


CHILD = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
PARENT = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]]).wait()"


@pytest.mark.parametrize("set_by", ["a variable", "nobody"])
def test_a_process_of_the_environment_ends_with_the_one_that_started_it(set_by: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(Path(end_with_parent.__file__).read_text())
    variables = os.environ | {"PYTHONPATH": str(tmp_path)}
    if set_by == "a variable":
        variables["TRITONKIT_PARENT"] = str(os.getpid())
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], env=variables, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    time.sleep(0.5)
    alive = Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split(") ")[1][:1]
    if alive:
        os.kill(child, signal.SIGKILL)
    assert alive == (set_by == "nobody")
