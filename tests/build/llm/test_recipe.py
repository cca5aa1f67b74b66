"""Every value that an engine would refuse is refused by the build first, with its line, limit and fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from languagemodels import copy, cut, described, header_length, save_adapter, shard
from support import Project


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(project.directory)
    return project


def build(project: Project, source: Path, **changes: Any) -> tuple[int, str]:
    fields = {"engine": "vllm", "name": "net", "source": {"hf": str(source)}} | changes
    path = project.directory / "net.yaml"
    path.write_text(yaml.safe_dump(fields, sort_keys=False))
    status, _, err = project.build()
    assert not project.repository.exists() or not status
    return status, err


@pytest.mark.parametrize(
    ("changes", "words", "fix"),
    [
        ({"max_model_len": 129}, ["net.yaml:5: max_model_len: 129 is above 128", "max_position_embeddings"], "128, or less"),
        ({"tensor_parallel_size": 3}, ["tensor_parallel_size: 3 does not divide the model's 4 attention heads"], "1, 2, 4"),
        ({"quantization": "awq"}, ["quantization: awq, and ", "has no quantization_config"], "leave quantization out"),
        ({"kv_cache_dtype": "fp8", "gpus": ["a100"]}, ["fp8 needs compute capability 8.9", "a100 has compute capability 8.0"], "l4"),
        ({"quantization": "fp8", "gpus": ["h100", "t4"]}, ["quantization: fp8 needs compute capability 8.9, and t4"], "8.9"),
        ({"dtype": "bf16", "gpus": ["t4"]}, ["dtype: bf16 needs compute capability 8.0, and t4"], "dtype: fp16"),
        ({"generation": {"max_tokens": 128}}, ["generation.max_tokens: 128 leaves no room for a prompt"], "below 128"),
        ({"gpus": ["h1000"]}, ["there is no GPU 'h1000'"], "h100"),
        ({"max_lora_rank": 8}, ["max_lora_rank is for adapters"], ""),
        ({"max_lora_rank": 9, "adapters": {"a": "a"}}, ["9 is no rank that vLLM prepares for"], ""),
        ({"max_modellen": 64}, ["unknown key, did you mean 'max_model_len'?"], "keys known here: "),
        ({"slo": {"ttft": {"p99": 3}}}, ["slo.ttft.p99: unknown key, did you mean 'p99_ms'?"], "p50_ms"),
        ({"slo": {"goodput": 0.9}}, ["goodput counts requests within a latency"], ""),
        ({"engine": "vlm"}, ["net.yaml:1: engine: there is no engine 'vlm', did you mean 'vllm'?"], ""),
        ({"engine": "tensorrt_llm", "generation": {"top_k": 4}}, ["TensorRT-LLM has no generation"], ""),
        ({"engine": "tensorrt_llm", "tool_call_parser": "hermes"}, ["TensorRT-LLM has no tool_call_parser"], ""),
        ({"tool_call_parser": "Hermes, please"}, ["net.yaml:5: tool_call_parser: "], "[a-z0-9_]"),
        ({"engine": "tensorrt_llm", "quantization": "fp8"}, ["fp8, and ", "has no quantization_config"], "leave"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_the_directory_is_refused(
    changes: dict[str, Any], words: list[str], fix: str, here: Project, llama: Path
) -> None:
    status, err = build(here, llama, **changes)
    assert status == 2
    for word in [*words, fix]:
        assert word in err


def test_several_mistakes_are_said_at_once(here: Project, llama: Path) -> None:
    _, err = build(here, llama, max_model_len=500, tensor_parallel_size=3, quantization="gptq")
    assert all(f"net.yaml:{line}: " in err for line in (5, 6, 7))


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, 512),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}}, 256),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 16,
                           "low_freq_factor": 1.0, "high_freq_factor": 4.0}}, 128),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, 256),
    ],
)  # fmt: skip
def test_the_longest_context_minds_how_positions_are_scaled(
    config: dict[str, Any], longest: int, here: Project, llama: Path, tmp_path: Path
) -> None:
    source = copy(llama, tmp_path / "scaled", rope_parameters=None, **config)
    assert f"above {longest}, the longest" in build(here, source, max_model_len=longest + 1)[1]
    assert build(here, source, max_model_len=longest)[0] == 0


def test_quantization_that_contradicts_the_directory_is_refused(here: Project, llama: Path, tmp_path: Path) -> None:
    source = copy(llama, tmp_path / "awq", quantization_config={"quant_method": "awq", "bits": 4})
    for method in ("none", "gptq", "fp8"):
        assert (
            f"quantization: {method}, and the weights are quantized by awq"
            in build(here, source, quantization=method)[1]
        )
    assert build(here, source, quantization="awq")[0] == 0


def test_an_architecture_unknown_to_vllm_needs_the_transformers_backend(
    here: Project, llama: Path, tmp_path: Path
) -> None:
    source = copy(llama, tmp_path / "unknown", architectures=["LlamaForCausalLN"])
    status, err = build(here, source)
    assert status == 2
    assert "LlamaForCausalLN, which vLLM 0.24.0 and 0.32.0 do not have" in err
    assert "did you mean LlamaForCausalLM?" in err
    assert build(here, source, model_impl="transformers")[0] == 0


def test_weights_that_are_missing_or_cut_off_are_refused(here: Project, llama: Path, tmp_path: Path) -> None:
    def refused(source: Path) -> str:
        status, err = build(here, source)
        assert status == 2
        assert "Traceback" not in err
        return err

    source = copy(llama, tmp_path / "cut")
    size = (source / "model.safetensors").stat().st_size
    cut(source / "model.safetensors", 10)
    assert f"is cut off: {size - 10:,} bytes where its header says {size:,}" in refused(source)
    cut(source / "model.safetensors", size - 10 - header_length(source / "model.safetensors") + 20)
    assert "is cut off in its header" in refused(source)
    (source / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "git lfs pull" in refused(source)
    (source / "model.safetensors").unlink()
    (source / "pytorch_model.bin").touch()
    assert "only pytorch_model.bin" in refused(source)

    source = copy(llama, tmp_path / "shards")
    shard(source)
    (source / "model-00002-of-00002.safetensors").rename(source / "elsewhere")
    assert "lacks 1 of 2 files of weights: model-00002-of-00002.safetensors" in refused(source)
    (source / "model.safetensors.index.json").unlink()
    assert "lacks model-00002-of-00002.safetensors" in refused(source)
    assert "no weights of layer 2: config.json has 3" in refused(copy(llama, tmp_path / "3", num_hidden_layers=3))
    assert build(here, llama)[0] == 0


def test_a_directory_that_is_no_model_is_refused(here: Project, llama: Path, tmp_path: Path) -> None:
    assert "is not a directory" in build(here, tmp_path / "nowhere")[1]
    (tmp_path / "empty").mkdir()
    assert "has no config.json" in build(here, tmp_path / "empty")[1]
    source = copy(llama, tmp_path / "mute")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (source / name).unlink()
    assert "has no tokenizer" in build(here, source)[1]
    (source / "config.json").write_text("{")
    assert "is not JSON" in build(here, source)[1]
    assert "names no architecture" in build(here, described(tmp_path / "nameless", model_type="llama"))[1]


def test_adapters_that_vllm_would_refuse_are_refused(here: Project, llama: Path, tmp_path: Path) -> None:
    def refused(path: Path, **changes: Any) -> str:
        status, err = build(here, llama, adapters={"sql": str(path)}, **changes)
        assert status == 2
        return err

    assert "there is no directory" in refused(tmp_path / "nowhere")
    assert "has no adapter_config.json" in refused(llama)
    wide = save_adapter(tmp_path / "wide", width=48)
    assert "is for a width of 48, this model's matrix is 32 × 32" in refused(wide)
    other = save_adapter(tmp_path / "other", module="c_attn")
    assert "it changes model.layers.0.self_attn.c_attn, which this one does not have" in refused(other)
    ranked = save_adapter(tmp_path / "ranked", rank=20)
    assert "its rank is 20, above max_lora_rank 16" in (err := refused(ranked, max_lora_rank=16))
    assert "max_lora_rank: 32" in err
    assert "above 512, the largest" in refused(save_adapter(tmp_path / "large", rank=600))
    assert "has no target_modules, which vLLM needs" in refused(save_adapter(tmp_path / "aimless", target_modules=[]))
    assert "use_dora is set" in refused(save_adapter(tmp_path / "dora", use_dora=True))


def test_a_model_without_a_chat_template_is_built_and_that_is_said(here: Project, llama: Path, tmp_path: Path) -> None:
    source = copy(llama, tmp_path / "base")
    (source / "chat_template.jinja").unlink()
    assert build(here, source)[0] == 0
    passport = json.loads((here.repository / "net/passport.json").read_text())
    assert any("no chat template" in note for note in passport["llm"]["notes"])
