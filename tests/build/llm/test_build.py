"""A language model's directory in the repository: what NVIDIA's backends read, and a passport to size it by."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from languagemodels import TEMPLATE, copy, save_adapter
from support import Project
from tritonclient.grpc import model_config_pb2 as pb

from tritonkit.repository import lint
from tritonkit.repository.lint import pbtxt


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(project.directory)
    return project


def write(project: Project, source: Path, **changes: Any) -> Path:
    path = project.directory / "net.yaml"
    path.write_text(yaml.safe_dump({"engine": "vllm", "name": "net", "source": {"hf": str(source)}} | changes))
    return path


def built(project: Project, source: Path, *arguments: str, **changes: Any) -> dict[str, Any]:
    write(project, source, **changes)
    status, out, err = project.build("--json", *arguments)
    assert status == 0, err
    return dict(json.loads(out)["language_models"])


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_vllm_gets_its_arguments_a_configuration_and_the_weights_as_links(here: Project, llama: Path) -> None:
    facts = built(
        here, llama, max_model_len=64, kv_cache_dtype="fp8", generation={"temperature": 0.2, "max_tokens": 16},
        gpus=["h100"], slo={"ttft": {"p99_ms": 300}}, tool_call_parser="hermes",
    )["models"]["net"]  # fmt: skip
    model = here.repository / "net"
    assert read(model / "1/model.json") == {
        "model": "/models/net/1/weights", "served_model_name": "net", "gpu_memory_utilization": 0.9,
        "tensor_parallel_size": 1, "max_model_len": 64, "dtype": "bfloat16", "disable_log_stats": False,
        "kv_cache_dtype": "fp8", "override_generation_config": {"temperature": 0.2, "max_new_tokens": 16},
    }  # fmt: skip
    config = pbtxt.parse((model / "config.pbtxt").read_text())
    assert isinstance(config, pb.ModelConfig)
    assert (config.backend, config.max_batch_size, config.model_transaction_policy.decoupled) == ("vllm", 0, True)
    assert [(group.kind, group.count) for group in config.instance_group] == [(pb.ModelInstanceGroup.KIND_MODEL, 1)]
    values = {name: parameter.string_value for name, parameter in config.parameters.items()}
    assert values == {
        "REPORT_CUSTOM_METRICS": "true", "ENABLE_VLLM_HEALTH_CHECK": "true", "chat_template": TEMPLATE,
        "special_tokens": '{"eos_token": "</s>", "unk_token": "<unk>"}', "tool_call_parser": "hermes",
    }  # fmt: skip
    assert (model / "1/weights/model.safetensors").samefile(llama / "model.safetensors")
    assert {"config.json", "tokenizer.json"} <= {path.name for path in (model / "1/weights").iterdir()}
    passport = read(model / "passport.json")
    digest = hashlib.sha256((llama / "model.safetensors").read_bytes()).hexdigest()
    assert passport["files"]["1/weights/model.safetensors"] == digest
    assert facts["kv_cache"]["bytes_per_token"] == 2 * 2 * 2 * 8  # layers, keys and values, KV heads, head size; fp8
    assert facts["weights_bytes"] == facts["checkpoint_bytes"] == 2 * facts["parameters"]
    assert passport["llm"]["kv_cache"] == facts["kv_cache"]
    assert not [finding for finding in lint.check(here.repository).findings if finding.severity == "error"]


def test_adapters_go_along_with_the_names_that_requests_choose_by(here: Project, llama: Path, tmp_path: Path) -> None:
    sql = save_adapter(tmp_path / "sql", rank=20)
    built(here, llama, "--mounted-at", "/repository", adapters={"sql": str(sql)})
    version = here.repository / "net/1"
    places = {"sql": "/repository/net/1/adapters/sql"}
    assert read(version / "multi_lora.json") == places
    arguments = read(version / "model.json")
    assert arguments["model"] == "/repository/net/1/weights"
    assert (arguments["enable_lora"], arguments["max_lora_rank"]) == (True, 32)
    assert (version / "adapters/sql/adapter_model.safetensors").samefile(sql / "adapter_model.safetensors")
    # TensorRT-LLM is told the place with each request; clients are told by the configuration.
    built(here, llama, "--mounted-at", "/repository", engine="tensorrt_llm", adapters={"sql": str(sql)})
    config = pbtxt.parse((here.repository / "net/config.pbtxt").read_text())
    assert isinstance(config, pb.ModelConfig)
    assert json.loads(config.parameters["lora_adapters"].string_value) == places


def test_tensorrt_llm_gets_the_llmapi_layout(here: Project, llama: Path) -> None:
    built(here, llama, engine="tensorrt_llm", tensor_parallel_size=2, max_num_seqs=8)
    model = here.repository / "net"
    llm_arguments = yaml.safe_load((model / "1/model.yaml").read_text())
    assert llm_arguments["triton_config"] == {"max_batch_size": 0, "decoupled": True}
    assert llm_arguments["model"] == "/models/net/1/weights"
    assert (llm_arguments["backend"], llm_arguments["max_seq_len"]) == ("pytorch", 128)
    assert (llm_arguments["tensor_parallel_size"], llm_arguments["max_batch_size"]) == (2, 8)
    config = pbtxt.parse((model / "config.pbtxt").read_text())
    assert isinstance(config, pb.ModelConfig)
    assert config.backend == "python"
    assert not config.HasField("model_transaction_policy")
    assert [entry.name for entry in config.input if not entry.optional] == ["text_input"]
    assert "TRTLLM_LLMAPI_TEMPLATE" in (model / "1/model.py").read_text()
    assert not [finding for finding in lint.check(here.repository).findings if finding.severity == "error"]


def test_model_py_runs_the_images_template_or_says_where_it_looked(
    here: Project, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import runpy
    import sys

    built(here, llama, engine="tensorrt_llm")
    shim = str(here.repository / "net/1/model.py")
    with pytest.raises(RuntimeError, match=r"/app/all_models/llmapi/tensorrt_llm/1/model.py.*trtllm-python-py3"):
        runpy.run_path(shim)
    (tmp_path / "helpers_of_template.py").write_text("WORD = 'helper'\n")
    code = "from helpers_of_template import WORD\nclass TritonPythonModel:\n    word = WORD\n"
    (tmp_path / "model.py").write_text(code)
    monkeypatch.setenv("TRTLLM_LLMAPI_TEMPLATE", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert runpy.run_path(shim)["TritonPythonModel"].word == "helper"


def test_a_second_build_writes_nothing_and_changed_weights_are_noticed(
    here: Project, llama: Path, tmp_path: Path
) -> None:
    source = copy(llama, tmp_path / "mine")
    assert built(here, source)["written"] == ["net"]
    before = here.repository.stat().st_mtime_ns
    assert built(here, source)["written"] == []
    assert here.repository.stat().st_mtime_ns == before
    data = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").unlink()  # a new file of the same size, as a download writes it
    (source / "model.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert built(here, source)["written"] == ["net"]
    assert (here.repository / "net/1/weights/model.safetensors").samefile(source / "model.safetensors")


def test_links_of_a_download_cache_are_followed_and_a_copy_is_made_once(
    here: Project, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = copy(llama, tmp_path / "snapshot")
    blob = tmp_path / "blob"
    (source / "model.safetensors").rename(blob)
    (source / "model.safetensors").symlink_to(blob)
    link = os.link

    def other_disk(origin: Any, target: Any, **options: Any) -> None:
        if not Path(origin).is_relative_to(here.directory):
            raise OSError(18, "Invalid cross-device link")
        link(origin, target, **options)

    monkeypatch.setattr(os, "link", other_disk)
    built(here, source)
    weights = here.repository / "net/1/weights/model.safetensors"
    assert not weights.is_symlink()
    assert not weights.samefile(blob)
    first = weights.stat().st_ino
    assert built(here, source, max_model_len=32)["written"] == ["net"]
    assert weights.stat().st_ino == first, "the copy of the first build is linked, not made again"


def test_a_configuration_edited_by_hand_is_not_replaced(here: Project, llama: Path) -> None:
    built(here, llama)
    config = here.repository / "net/config.pbtxt"
    config.write_text(config.read_text() + "# mine\n")
    write(here, llama, max_model_len=32, version=1)
    status, _, err = here.build()
    assert status == 2
    assert "was edited by hand" in err
    assert 'max_model_len": 128' in (here.repository / "net/1/model.json").read_text()


def test_init_writes_a_recipe_that_builds(here: Project, llama: Path) -> None:
    status, out, err = here.run("init", llama, "--output", "net.yaml")
    assert status == 0, err
    text = (here.directory / "net.yaml").read_text()
    assert yaml.safe_load(text) == {"engine": "vllm", "name": "llama", "source": {"hf": str(llama)}}
    assert "# max_model_len: 128" in text
    status, out, err = here.build()
    assert status == 0, err
    assert "26.07-vllm-python-py3" in out


@pytest.mark.parametrize("verb", [["sensitivity"], ["engine", "--gpu", "l4"], ["engine", "--preflight", "--gpu", "l4"]])
def test_a_verb_that_does_not_take_it_says_so_in_one_line(verb: list[str], here: Project, llama: Path) -> None:
    status, _, err = here.run(*verb[:1], write(here, llama), *verb[1:])
    assert status == 2
    assert "net is a language model (engine: vllm)" in err
    assert "docs/guides/llm.md" in err


@pytest.mark.parametrize(
    ("engine", "problem", "fix"),
    [
        ("vllm", "net: served by vLLM, which is not installed", "tritonkit install-server --engine vllm"),
        ("tensorrt_llm", "net is a language model for tensorrt_llm, which the embedded server does not have",
         "26.07-trtllm-python-py3"),
    ],
)  # fmt: skip
def test_the_embedded_server_says_what_an_engine_lacks(
    engine: str, problem: str, fix: str, here: Project, llama: Path
) -> None:
    built(here, llama, engine=engine)
    status, _, err = here.run("serve", here.repository, "--http-port", "0")
    assert status == 3
    assert problem in err
    assert fix in err


def test_such_a_model_is_published_and_fetched_whole(here: Project, llama: Path, tmp_path: Path) -> None:
    built(here, llama)
    status, _, err = here.run("publish", here.repository, tmp_path / "store")
    assert status == 0, err
    status, _, err = here.run("fetch", tmp_path / "store", tmp_path / "fetched")
    assert status == 0, err
    path = "net/1/weights/model.safetensors"
    assert (tmp_path / "fetched" / path).read_bytes() == (here.repository / path).read_bytes()


def test_one_command_builds_both_kinds_of_recipe_with_distinct_names(here: Project, llama: Path) -> None:
    chat = write(here, llama, name="chat").rename(here.directory / "chat.yaml")
    here.write()
    status, out, err = here.build(chat, "--json")
    assert status == 0, err
    assert list(json.loads(out)["language_models"]["models"]) == ["chat"]
    assert {path.name for path in here.repository.iterdir()} == {"chat", "net"}
    write(here, llama, name="net").rename(chat)
    here.write()
    status, _, err = here.build(chat)
    assert status == 2
    assert "two recipes have the name 'net'" in err
