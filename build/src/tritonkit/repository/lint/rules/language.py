"""Models of NVIDIA's backends for language models: vLLM, TensorRT-LLM's llmapi template, and its engines of before."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from tritonclient.grpc import model_config_pb2 as pb

from tritonkit.repository.lint import needs
from tritonkit.repository.lint.contents import Json, Model, is_file, read_json
from tritonkit.repository.lint.findings import Problem
from tritonkit.repository.lint.registry import TENSORRT_LLM, VLLM, Context, rule

_VLLM_DOCS = "triton-inference-server/vllm_backend, src/model.py"
_LLMAPI_DOCS = "NVIDIA/TensorRT-LLM, triton_backend/all_models/llmapi/tensorrt_llm/1/model.py"
_REMOVAL = "NVIDIA/TensorRT-LLM#15907; docs/source/legacy/tensorrt-backend-removal.md"
_GROUP = pb.ModelInstanceGroup
_ARGUMENTS, _ADAPTERS = "model.json", "multi_lora.json"


def _arguments(model: Model) -> Iterator[tuple[Path, Json]]:
    """``model.json`` of each loaded version of a vLLM model."""
    if model.served.backend == needs.VLLM:
        for number in model.loaded:
            path = model.version(number) / _ARGUMENTS
            yield path, read_json(path)


def _llmapi(model: Model) -> Iterator[tuple[Path, Any]]:
    """``model.yaml`` of each loaded version that runs TensorRT-LLM's template: its content, or the error."""
    for source in needs.llmapi_sources(model):
        path = source.with_name(needs.LLMAPI_ARGUMENTS)
        if not is_file(path):
            yield path, None
            continue
        try:
            yield path, yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            yield path, error


def _number(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 1


@rule("TK160", "vllm-arguments", "error", "a vLLM model without usable model.json", enforced_by=VLLM, source=_VLLM_DOCS)
def vllm_arguments(model: Model, _: Context) -> Iterator[Problem]:
    """The backend passes what `model.json` in the version's folder says to vLLM's AsyncEngineArgs. Without the file, or
    where it is no JSON object, the model does not load; without `model` vLLM takes a small one of its own default from
    the hub.
    """
    for path, arguments in _arguments(model):
        if not is_file(path):
            yield Problem(f"there is no {_ARGUMENTS} in {path.parent.name}/", 'write one: {"model": "…"}', path=path)
        elif arguments.problem:
            yield Problem(f"{_ARGUMENTS} {arguments.problem}", "write a JSON object of engine arguments", path=path)
        elif "model" not in arguments.data:
            yield Problem(
                f"{_ARGUMENTS} names no model, and vLLM takes its default from the hub", 'add "model": "…"', path=path,
                severity="warning",
            )  # fmt: skip


@rule("TK161", "vllm-argument-unknown", "warning", "an engine argument that vLLM does not have", source=_VLLM_DOCS)
def vllm_argument_unknown(model: Model, _: Context) -> Iterator[Problem]:
    """AsyncEngineArgs refuses a keyword that it does not have, and they change from release to release:
    `disable_log_requests` is one that examples still carry. Lint knows those of vLLM 0.24.0 (image 26.07) and 0.32.0;
    an older image may have the word, so this is a warning.
    """
    known = _known_arguments()
    names = {name for release in known.values() for name in release}
    for path, arguments in _arguments(model):
        for name in arguments.data:
            if name not in names:
                near = next(iter(difflib.get_close_matches(name, names, n=1, cutoff=0.8)), "")
                yield Problem(
                    f"vLLM {' and '.join(known)} have no engine argument {name!r}",
                    f"did you mean {near}?" if near else "remove it, or serve it with the release that has it",
                    path=path,
                )  # fmt: skip


@cache
def _known_arguments() -> dict[str, list[str]]:
    file = Path(__file__).parents[1] / "vllm_arguments.json"
    known: dict[str, list[str]] = json.loads(file.read_text(encoding="utf-8"))["releases"]
    return known


@rule("TK162", "vllm-device", "error", "KIND_GPU for a vLLM model on several GPUs", enforced_by=VLLM, source=_VLLM_DOCS)
def vllm_device(model: Model, _: Context) -> Iterator[Problem]:
    """An instance of KIND_GPU gets one GPU, and the backend refuses it where `tensor_parallel_size` times
    `pipeline_parallel_size` is above 1. KIND_MODEL leaves the devices to vLLM.
    """
    for _path, arguments in _arguments(model):
        count = _number(arguments.data.get("tensor_parallel_size", 1)) * _number(
            arguments.data.get("pipeline_parallel_size", 1)
        )
        for index, group in enumerate(model.config.instance_group):
            if count > 1 and group.kind == _GROUP.KIND_GPU:
                yield Problem(
                    f"KIND_GPU gives the engine one GPU, and model.json asks for {count}", "say kind: KIND_MODEL",
                    model.line(("instance_group", index), "kind"),
                )  # fmt: skip


@rule(
    "TK163", "vllm-adapters", "error", "enable_lora without usable multi_lora.json", enforced_by=VLLM, source=_VLLM_DOCS
)
def vllm_adapters(model: Model, _: Context) -> Iterator[Problem]:
    """With `enable_lora` the backend reads `multi_lora.json` beside `model.json`, an object of adapter name to path,
    and does not load the model without it. Without `enable_lora` it never reads the file.
    """
    for path, arguments in _arguments(model):
        place = path.with_name(_ADAPTERS)
        enabled = str(arguments.data.get("enable_lora", "")).lower() == "true"
        adapters = read_json(place)
        if enabled and not is_file(place):
            yield Problem(f"enable_lora is set, and there is no {_ADAPTERS}", "write name → path into it", path=path)
        elif enabled and (adapters.problem or not all(isinstance(value, str) for value in adapters.data.values())):
            why = adapters.problem or "has values that are no paths"
            yield Problem(f"{_ADAPTERS} {why}", "write one JSON object of adapter name to path", path=place)
        elif not enabled and is_file(place) and not arguments.problem:
            yield Problem(
                f"{_ADAPTERS} is not read without enable_lora", 'add "enable_lora": true to model.json', path=place,
                severity="warning",
            )  # fmt: skip


@rule(
    "TK164",
    "vllm-decoupled",
    "error",
    "a vLLM model with batches, or without decoupled answers",
    enforced_by=VLLM,
    source=_VLLM_DOCS,
)
def vllm_decoupled(model: Model, _: Context) -> Iterator[Problem]:
    """The backend completes the configuration with `decoupled: true` and `max_batch_size: 0`, as vLLM batches itself;
    Triton's Python utilities refuse that where the configuration says otherwise.
    """
    if model.served.backend != needs.VLLM:
        return
    if model.config.max_batch_size > 0:
        yield Problem(
            f"max_batch_size is {model.config.max_batch_size}, and vLLM batches by itself", "remove it",
            model.line("max_batch_size"),
        )  # fmt: skip
    if model.config.HasField("model_transaction_policy") and not model.config.model_transaction_policy.decoupled:
        yield Problem(
            "model_transaction_policy is not decoupled", "say decoupled: true, or remove it",
            model.line("model_transaction_policy"),
        )  # fmt: skip


@rule("TK165", "vllm-metrics", "info", "a vLLM model whose own metrics are off", source=_VLLM_DOCS)
def vllm_metrics(model: Model, _: Context) -> Iterator[Problem]:
    """Times to the first token and between tokens are exported only with the parameter REPORT_CUSTOM_METRICS, and with
    `disable_log_stats` not set in model.json.
    """
    exported = (
        "REPORT_CUSTOM_METRICS" in model.config.parameters
        and model.config.parameters["REPORT_CUSTOM_METRICS"].string_value.lower() == "true"
    )
    for path, arguments in _arguments(model):
        if not exported:
            yield Problem(
                "vLLM's metrics are not exported",
                'add parameters { key: "REPORT_CUSTOM_METRICS" value { string_value: "true" } }',
            )
        elif arguments.data.get("disable_log_stats"):
            yield Problem(
                "disable_log_stats switches off what REPORT_CUSTOM_METRICS asks for", "remove disable_log_stats",
                path=path, severity="warning",
            )  # fmt: skip


@rule("TK166", "tensorrtllm-removed", "warning", "a model of TensorRT-LLM's backend for engines", source=_REMOVAL)
def tensorrtllm_removed(model: Model, _: Context) -> Iterator[Problem]:
    """TensorRT-LLM removed its engines, and the Triton backend that ran them, in July 2026. Images with TensorRT-LLM
    1.2.x still run them (26.04 to 26.07 have 1.2.1); the layout `llmapi` is what follows.
    """
    if model.served.backend == needs.TENSORRT_LLM:
        yield Problem(
            "TensorRT-LLM after 1.2.x has no backend for engines",
            "stay with an image of 1.2.x (26.07-trtllm-python-py3), or build the directory with engine: tensorrt_llm",
            model.line("backend"),
        )


@rule(
    "TK167",
    "tensorrtllm-engine",
    "error",
    "a TensorRT-LLM engine that is not named",
    enforced_by=TENSORRT_LLM,
    source="NVIDIA/TensorRT-LLM, triton_backend/all_models/inflight_batcher_llm (up to 1.2)",
)
def tensorrtllm_engine(model: Model, _: Context) -> Iterator[Problem]:
    """The backend looks for its engine where the parameter `gpt_model_path` says (`encoder_model_path` where only an
    encoder is served). A placeholder such as `${engine_dir}` of NVIDIA's template counts as no value.
    """
    if model.served.backend != needs.TENSORRT_LLM:
        return
    values = {
        name: model.config.parameters[name].string_value
        for name in ("gpt_model_path", "encoder_model_path")
        if name in model.config.parameters
    }
    if not any(value and not value.startswith("${") for value in values.values()):
        left = next((name for name, value in values.items() if value), "")
        yield Problem(
            f"parameter {left} is still {values[left]}" if left else "no gpt_model_path says where the engine is",
            "give gpt_model_path the engine's directory", model.line(("parameters", left)) if left else None,
        )  # fmt: skip


@rule(
    "TK168",
    "llmapi-arguments",
    "error",
    "a TensorRT-LLM model without usable model.yaml",
    enforced_by=TENSORRT_LLM,
    source=_LLMAPI_DOCS,
)
def llmapi_arguments(model: Model, _: Context) -> Iterator[Problem]:
    """The template reads `model.yaml` in the version's folder: keyword arguments of `tensorrt_llm.LLM`, and under
    `triton_config` max_batch_size (0) and decoupled, which it must find and which config.pbtxt may not contradict.
    """
    for path, arguments in _llmapi(model):
        if arguments is None:
            yield Problem(
                f"there is no {needs.LLMAPI_ARGUMENTS} in {path.parent.name}/",
                "write one with model and triton_config",
                path=path,
            )
        elif not isinstance(arguments, dict):
            yield Problem(
                f"{needs.LLMAPI_ARGUMENTS} is no YAML mapping", "write keyword arguments of tensorrt_llm.LLM", path=path
            )
        elif not isinstance(triton := arguments.get("triton_config"), dict) or not {
            "decoupled",
            "max_batch_size",
        } <= set(triton):
            yield Problem(
                f"{needs.LLMAPI_ARGUMENTS} has no triton_config with max_batch_size and decoupled",
                "add  triton_config: {max_batch_size: 0, decoupled: true}", path=path,
            )  # fmt: skip
        elif model.config.max_batch_size > _number(triton["max_batch_size"]):
            yield Problem(
                f"max_batch_size is {model.config.max_batch_size}, and {triton['max_batch_size']} in model.yaml",
                "remove it here: the template says it", model.line("max_batch_size"),
            )  # fmt: skip


@rule(
    "TK169",
    "llmapi-devices",
    "error",
    "several instances of a TensorRT-LLM model without gpu_device_ids for each",
    enforced_by=TENSORRT_LLM,
    source=_LLMAPI_DOCS,
)
def llmapi_devices(model: Model, _: Context) -> Iterator[Problem]:
    """With more than one instance the template takes each one's GPUs from the parameter `gpu_device_ids`: `0,1;2,3`
    gives two to each of two instances.
    """
    groups = model.config.instance_group
    count = groups[0].count if groups else 1
    ids = model.config.parameters["gpu_device_ids"].string_value if "gpu_device_ids" in model.config.parameters else ""
    if count > 1 and len([part for part in ids.split(";") if part.strip()]) < count and any(_llmapi(model)):
        yield Problem(
            f"{count} instances, and gpu_device_ids is {ids!r}", f'give it GPUs for each of {count}, such as "0;1"',
            model.line(("instance_group", 0), "count"),
        )  # fmt: skip


@rule(
    "TK170",
    "engine-not-in-image",
    "error",
    "a language model's backend that the image does not have",
    enforced_by="Triton's core, in an image without the backend",
    source="docs/introduction/compatibility.md of triton-inference-server/server",
)
def engine_not_in_image(model: Model, context: Context) -> Iterator[Problem]:
    """NVIDIA builds its backends for language models into images of their own: `-vllm-python-py3` and
    `-trtllm-python-py3`. Checked where `--image` names NVIDIA's image with another variant.
    """
    options = context.options
    variant = needs.variant(model)
    if not variant or options.image is None or options.origin == "other" or options.variant in {"", variant}:
        return
    yield Problem(
        f"the image's variant {options.variant} has no such engine", f"serve it with the variant {variant}",
        model.line("backend"),
    )  # fmt: skip
