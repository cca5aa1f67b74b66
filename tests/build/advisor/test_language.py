"""Advice for language models: memory as vLLM reported it, times as published and measured, and what a person is told."""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tritonkit import gpus
from tritonkit.advisor import engine_choice, language, language_fit, language_table, memory, validate_language
from tritonkit.advisor.engine_choice import Facts
from tritonkit.advisor.language import Request
from tritonkit.cli import advise_language
from tritonkit.errors import InputError, SourceError, TritonkitError
from tritonkit.llm import kv_cache, parameters

GIB = 2**30
LLAMA = language_fit.model("llama-3.1-8b").config


def plan(model: str, gpu: str, precision: str, kv: str, count: int = 1, **flags: Any) -> memory.Plan:
    directory = language_fit.model(model)
    parts, cache = parameters.of(directory), kv_cache.of(directory, kv, count)
    return memory.plan(parts, directory.hidden, cache, gpus.get(gpu), count, precision, memory.Settings(**flags))


def config(folder: Path, **changes: Any) -> Path:
    fields = {name: value for name, value in {**LLAMA, **changes}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(fields))
    return folder / "config.json"


@pytest.mark.parametrize(
    ("model", "precision", "kv", "tokens"),
    [("llama-3.1-8b", "bf16", "bf16", 891_760), ("llama-3.1-8b", "fp8", "fp8", 1_889_968),
     ("smollm2-135m", "bf16", "bf16", 5_828_112)],
)  # fmt: skip
def test_tokens_of_the_cache_are_those_that_vllm_had_on_an_h200(
    model: str, precision: str, kv: str, tokens: int
) -> None:
    # vLLM 0.26.0 offline: 0.9 of the GPU, steps of 16,384 tokens, 256 sequences.
    ours = plan(model, "h200", precision, kv, max_num_batched_tokens=16_384, max_num_seqs=256)
    assert ours.tokens == pytest.approx(tokens, rel=0.01)


def test_blocks_are_those_of_vllms_log_on_an_a100() -> None:
    # vllm#12330: weights 14.96 GiB, activations 9.37, and 5,691 blocks of 16 tokens: 11.12 times 8,192.
    ours = plan("llama-3.1-8b", "a100-sxm-40", "bf16", "bf16")
    assert ours.weights_bytes / GIB == pytest.approx(14.96, abs=0.005)
    left = ours.total_bytes * 0.9 - ours.weights_bytes - 9.37 * GIB
    assert ours.blocks.count(int(left)) == pytest.approx(5691, rel=0.01)
    assert ours.blocks.sequences(int(left), 8192, 2048) == pytest.approx(11.12, rel=0.01)


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [("llama-3.1-8b", 8.03, 7.50), ("llama-3.3-70b", 70.55, 69.5), ("llama-3.1-405b", 405.85, 403.7),
     ("gpt-oss-20b", 20.91, 3.61), ("gpt-oss-120b", 116.83, 5.13), ("qwen3-30b-a3b", 30.53, 3.04)],
)  # fmt: skip
def test_parameters_are_those_that_are_published(name: str, total: float, active: float) -> None:
    parts = parameters.of(language_fit.model(name))
    assert parts.total / 1e9 == pytest.approx(total, rel=0.002)
    assert parts.active / 1e9 == pytest.approx(active, rel=0.005)


def test_each_flag_that_is_named_does_start_it() -> None:
    flags: dict[str, Any] = {"max_model_len": 8192, "max_num_batched_tokens": 2048, "max_num_seqs": 256}
    refused = plan("llama-3.3-70b", "h100-sxm", "fp8", "bf16", **flags)
    assert not refused.starts
    named = [flag.removeprefix("--").replace("-", "_").split(" ") for flag in memory.flags(refused, None)]
    changed = {name: float(value) if "." in value else int(value) for name, value in named}
    assert set(changed) == {"gpu_memory_utilization", "max_num_batched_tokens", "max_num_seqs", "max_model_len"}
    for name, value in changed.items():
        assert plan("llama-3.3-70b", "h100-sxm", "fp8", "bf16", **{**flags, name: value}).starts
    more = {**flags, "max_model_len": changed["max_model_len"] + 32}
    assert not plan("llama-3.3-70b", "h100-sxm", "fp8", "bf16", **more).starts


def test_predictions_hold_on_a_gpu_and_a_size_that_were_held_out() -> None:
    done = validate_language.checks()
    barred = [check for check in done if check.median_bar or check.worst_bar]
    assert len(barred) >= 7
    assert [check.name for check in done if not check.kept] == []
    assert "held out" in validate_language.text(done)


def test_stored_coefficients_are_those_of_the_rows() -> None:
    stored = Path(validate_language.__file__).with_name("language_coefficients.json")
    kept, fitted = json.loads(stored.read_text()), json.loads(validate_language.stored())
    for engine in ("vllm", "tensorrt_llm"):
        assert kept[engine] == pytest.approx(fitted[engine], rel=0.01)


def test_every_row_names_its_source_and_is_used() -> None:
    rows = language_fit.rows()
    assert len(rows) >= 140
    assert all(row.source and (not row.stage or row.stage in language_fit.STAGES) for row in rows)


def test_an_8b_on_every_gpu(tmp_path: Path) -> None:
    wish = Request(prompt=1024, context=8192, concurrency=64, ttft_ms=500, itl_ms=40)
    result = language.advise(config(tmp_path), wish)
    assert {choice.gpu.key for choice in result.choices} == {gpu.key for gpu in gpus.all()}
    verdicts = [choice.verdict for choice in result.choices]
    assert verdicts == sorted(verdicts, key=["ok", "too slow", "no room", "does not start"].index)
    best = result.best
    assert best is not None
    assert best.served is not None
    assert best.served.ttft_p99_ms <= 500
    assert best.served.itl_ms <= 40
    by_name = {(choice.gpu.key, choice.gpu_count, choice.precision): choice for choice in result.choices}
    assert by_name["h200", 1, "bf16"].basis == "measured"
    assert {by_name[key, 1, "int4"].basis for key in ("t4", "a10g", "a100-sxm-80")} == {"extrapolated"}
    assert not any(
        choice.precision == "fp8" for choice in result.choices if choice.gpu.family in {"t4", "a10g", "a100"}
    )
    assert by_name["l4", 1, "bf16"].reasons
    # More GPUs a replica answer sooner, and a promise that is kept stays kept with fewer requests.
    h100 = [by_name["h100-sxm", count, "bf16"].served for count in (1, 2, 4)]
    assert all(a and b and a.itl_ms > b.itl_ms for a, b in pairwise(h100))
    json.dumps(result.to_json())
    text = language_table.text(result)
    assert "a100-sxm-80*" in language_table.text(result, everything=True)
    assert "* carried over by published peaks" in text
    assert "to change it" not in text.partition("GPU")[0]


def test_a_rate_needs_more_replicas_than_half_of_it(tmp_path: Path) -> None:
    path = config(tmp_path)
    counts = []
    for rate in (5.0, 50.0, 500.0):
        wish = Request(prompt=1024, rps=rate, itl_ms=40, gpus=("h200",), gpu_counts=(1,), precisions=("bf16",))
        (choice,) = language.advise(path, wish).choices
        assert choice.replicas is not None
        counts.append(choice.replicas)
    assert counts[0] == 1
    assert counts[1] < counts[2] <= 10 * counts[1]


def test_a_known_prefix_answers_sooner(tmp_path: Path) -> None:
    path = config(tmp_path)
    times = []
    for reuse in (0.0, 0.8):
        wish = Request(prompt=6000, concurrency=16, reuse=reuse, gpus=("h200",), gpu_counts=(1,), precisions=("bf16",))
        (choice,) = language.advise(path, wish).choices
        assert choice.served is not None
        times.append(choice.served.ttft_p99_ms)
    assert times[1] < 0.5 * times[0]


def test_an_impossible_promise_says_which_bound_forbids_it(tmp_path: Path) -> None:
    wish = Request(prompt=1024, itl_ms=1, ttft_ms=2, gpus=("l4",), gpu_counts=(1,), precisions=("bf16",))
    (choice,) = language.advise(config(tmp_path), wish).choices
    assert choice.verdict == "too slow"
    reasons = " ".join(choice.reasons)
    assert "reading the weights alone takes 50.0 ms at the full 300 GB/s" in reasons
    assert "no software makes it" in reasons
    assert "prompts of" in " ".join(choice.changes) or choice.changes == (
        "more GPUs a replica, or weights of fewer bits, are read in less time",
    )


def test_what_does_not_start_says_by_how_much(tmp_path: Path) -> None:
    wish = Request(context=65_536, prompt=1024, gpus=("l4",), gpu_counts=(1,), precisions=("bf16",))
    (choice,) = language.advise(config(tmp_path), wish).choices
    assert choice.verdict == "does not start"
    assert "one sequence of 65,536 tokens takes" in choice.reasons[0]
    assert f"--max-model-len {choice.plan.longest} starts it" in choice.changes
    wish = Request(context=8192, gpus=("t4",), gpu_counts=(1,), precisions=("fp16",))
    (choice,) = language.advise(config(tmp_path), wish).choices
    assert "more than the 13.1 GiB that vLLM takes" in choice.reasons[0]
    assert "each GPU lacks" in choice.changes[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["LlamaForCausalLN"]}, "did you mean LlamaForCausalLM?"),
        ({"architectures": None}, "names no architecture"),
        ({"num_key_value_heads": 5}, "5 KV heads do not divide 32 attention heads"),
        ({"num_hidden_layers": 0}, "num_hidden_layers 0"),
        ({"num_hidden_layers": -32}, "num_hidden_layers -32"),
        ({"layer_types": ["full_attention"] * 31}, "layer_types names 31"),
        ({"num_attention_heads": 30, "num_key_value_heads": 30, "head_dim": None}, "is no whole number"),
        ({"quantization_config": {"quant_method": "magic"}}, "quantized by magic"),
        ({"num_local_experts": 4, "num_experts_per_tok": 8}, "8 experts a token, and there are 4"),
    ],
)  # fmt: skip
def test_a_broken_configuration_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as refused:
        language.advise(config(tmp_path, **changes), Request())
    assert message in str(refused.value)
    assert refused.value.fix


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Request(rps=-1), "--rps -1 is no positive number"),
        (Request(concurrency=0), "--concurrency 0"),
        (Request(itl_ms=float("nan")), "--itl-ms nan"),
        (Request(reuse=1), "--reuse 1"),
        (Request(gpu_memory_utilization=1.5), "--gpu-memory-utilization 1.5"),
        (Request(rps=1, concurrency=1), "two ways to say the load"),
        (Request(context=10**6), "--context 131072, or less"),
        (Request(prompt=9000), "--context 9256"),
        (Request(gpus=("h1000",)), "h1000"),
        (Request(gpu_counts=(3,)), "one of 1, 2, 4, 8"),
        (Request(gpus=("t4",), precisions=("fp8",)), "none of t4 runs fp8"),
        (Request(prices={"l4": -1.0}), "the price of l4"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_is_refused(wish: Request, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        language.advise(config(tmp_path), wish)
    assert message in str(refused.value)


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--rps", type=float)
    parser.add_argument("--gpu", default="")
    for name in ("--engine", "--precision"):
        parser.add_argument(name, type=lambda text: tuple(text.split(",")))
    parser.set_defaults(price=[("h200", 3.0)])
    for name in ("--all", "--json"):
        parser.add_argument(name, action="store_true")
    advise_language.add_arguments(parser)
    return parser.parse_args(words)


def test_the_command_prints_a_table_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(config(tmp_path)), "--gpu", "h200,l4", "--context", "8192", "--prompt", "1024", "--concurrency", "64"]
    assert advise_language.run(options(*words, "--itl-ms", "40", "--tensor-parallel-size", "1,2")) == 0
    text = capsys.readouterr().out
    assert "h200" in text
    assert "Engine: vllm" in text
    assert advise_language.run(options(*words, "--itl-ms", "1", "--precision", "bf16", "--json")) == 1
    report = json.loads(capsys.readouterr().out)
    assert {choice["verdict"] for choice in report["choices"]} == {"too slow"}
    assert report["request"]["prices"] == {"h200": 3.0}
    with pytest.raises(InputError):
        advise_language.run(options(*words, "--engine", "onnxruntime"))
    assert advise_language.request(options(*words, "--engine", "tensorrt_llm")).engine == "tensorrt_llm"


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(TritonkitError):
        language.advise(tmp_path / "config.json", Request())


def test_engines_are_chosen_by_rules_with_reason_and_source() -> None:
    choices = {
        Facts("graph", steady=True): "triton_tensorrt",
        Facts("graph", steady=True, tensorrt_takes_it=False): "triton_onnxruntime_cuda",
        Facts("graph"): "triton_onnxruntime_cuda",
        Facts("graph", gpu=False): "triton_onnxruntime_cpu",
        Facts("forest"): "triton_fil",
        Facts("language"): "vllm",
        Facts("language", needs_triton=True): "triton_vllm",
        Facts("language", steady=True): "tensorrt_llm",
        Facts("language", steady=True, openai_only=True): "vllm",
        Facts("language", vllm_has_it=False): "vllm_transformers",
    }
    for facts, engine in choices.items():
        advice = engine_choice.choose(facts)
        assert advice.engine == engine
        assert advice.reason
        assert advice.source
        assert advice.flips or engine == "triton_fil"
    assert {rule["name"] for rule in engine_choice.rules()} == {engine_choice.choose(facts).rule for facts in choices}
    with pytest.raises(InputError):
        engine_choice.choose(Facts("picture"))  # type: ignore[arg-type]
