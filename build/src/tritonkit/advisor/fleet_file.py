"""Reads the file of a fleet: models with their rates and promises, and the nodes that may carry them.

What is wrong in it is said with its line, as in a recipe.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tritonkit import gpus
from tritonkit.advisor.advise import UTILIZATION
from tritonkit.errors import InputError
from tritonkit.recipe import problems
from tritonkit.unique_keys import UniqueKeyLoader

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
_Whole = Annotated[int, Field(gt=0, strict=True)]
EXAMPLE = "models: [{model: my_model.yaml, rps: 100, p99_ms: 50}]"
# Which keys a model may have, by what it is.
GRAPH_KEYS = ("shape", "p99_ms", "precision", "engine", "max_batch", "instances")
LANGUAGE_KEYS = (
    "prompt", "answer", "context", "ttft_ms", "itl_ms", "precision", "engine", "kv_cache_dtype", "tensor_parallel_size",
)  # fmt: skip


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class NodeEntry(_Section):
    """One kind of node; what is not given is the catalogue's instance for that GPU.

    Attributes:
        gpu: Its GPUs: a key of the catalogue.
        name: Its instance type.
        gpus: How many it has.
        usd_per_hour: US dollars an hour of a whole node.
        most: How many of it there can be.
    """

    gpu: str
    name: str | None = None
    gpus: _Whole | None = None
    usd_per_hour: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] | None = None
    most: Annotated[int, Field(ge=0, strict=True)] | None = None

    @field_validator("gpu")
    @classmethod
    def _known(cls, name: str) -> str:
        return _gpu(name)


class ModelEntry(_Section):
    """One model.

    Attributes:
        model: A recipe, an ONNX graph, or a Hugging Face directory or its ``config.json``.
        rps: Requests a second, of one sample or prompt each.
        name: What it is called in the repository; that of the recipe, file or directory if not given.
        p99_ms: What 99 % of a graph's answers stay within; a recipe's ``slo`` if not given.
        shape: The usual size of each moving dimension of a graph.
        precision: Of the weights; else the fastest that a recipe names, or the graph's own and fp16, and a language
            model's own.
        engine: What runs it: onnxruntime or tensorrt, vllm or tensorrt_llm.
        max_batch: The largest batch of a graph.
        instances: Of a graph on each device.
        prompt: Tokens of a prompt.
        answer: Tokens of an answer.
        context: Longest sequence.
        ttft_ms: What 99 % get their first token within.
        itl_ms: Mean time between the tokens of an answer.
        kv_cache_dtype: fp8 halves the KV cache.
        tensor_parallel_size: How many GPUs share each layer; those that do best if not given.
    """

    model: str
    rps: _Positive
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")] | None = None
    p99_ms: _Positive | None = None
    shape: dict[str, _Whole] = Field(default_factory=dict)
    precision: Literal["fp32", "fp16", "bf16", "int8", "fp8", "int4", "fp4", "mxfp4"] | None = None
    engine: Literal["onnxruntime", "tensorrt", "vllm", "tensorrt_llm"] | None = None
    max_batch: _Whole | None = None
    instances: _Whole | None = None
    prompt: _Whole | None = None
    answer: _Whole | None = None
    context: _Whole | None = None
    ttft_ms: _Positive | None = None
    itl_ms: _Positive | None = None
    kv_cache_dtype: Literal["auto", "fp8"] | None = None
    tensor_parallel_size: _Whole | None = None


class FleetFile(_Section):
    """All of the file.

    Attributes:
        models: At least one.
        gpus: Keys or families of GPUs to consider, as the catalogue's instances; every one with a price if neither
            this nor ``nodes`` is given.
        nodes: Nodes to consider, besides ``gpus``.
        utilization: The largest share of its time that a device is busy; the rest is headroom.
        spare_nodes: 1: with any one node gone the others keep every promise; 0: no node is spare.
    """

    models: Annotated[tuple[ModelEntry, ...], Field(min_length=1)]
    gpus: tuple[str, ...] = ()
    nodes: tuple[NodeEntry, ...] = ()
    utilization: Annotated[float, Field(gt=0, le=0.95, strict=True)] = UTILIZATION
    spare_nodes: Literal[0, 1] = 1

    @field_validator("gpus")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(part.key for name in names for part in _members(name))


def load(path: Path) -> FleetFile:
    """Read the file of a fleet.

    Raises:
        InputError: It is missing, empty, or no YAML mapping, or a value is not allowed; the message has the line and,
            for an unknown key or GPU, the nearest known one.
    """
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=UniqueKeyLoader)
        data = yaml.load(text, Loader=UniqueKeyLoader)
    except (OSError, UnicodeDecodeError) as error:
        reason = "there is no file" if isinstance(error, FileNotFoundError) else "cannot read"
        raise InputError(f"{reason} {path}", f"name the file of a fleet, such as  {EXAMPLE}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {error}", "correct the syntax at that line") from error
    if data is None:
        raise InputError(f"{path} is empty", f"write what is to be served, such as  {EXAMPLE}")
    if not isinstance(data, dict):
        raise InputError(f"{path}: a fleet is a mapping with models", f"such as  {EXAMPLE}")
    try:
        return FleetFile.model_validate(data)
    except ValidationError as error:
        raise _explain(path, node, error) from error


def line(path: Path, *keys: int | str) -> str:
    """``fleet.yaml:7``, for a message about what stands there."""
    node = yaml.compose(path.read_text(encoding="utf-8"), Loader=UniqueKeyLoader)
    return f"{path}:{problems.line(node, keys)}"


def _explain(path: Path, node: yaml.Node | None, error: ValidationError) -> InputError:
    sentences, fixes = [], []
    for item in error.errors():
        keys = tuple(part for part in item["loc"] if isinstance(part, int | str))
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            known = _known_keys(keys)
            near = difflib.get_close_matches(str(keys[-1]), known, n=1)
            message = "unknown key" + (f", did you mean {near[0]!r}?" if near else "")
            fixes.append(f"keys known here: {', '.join(known)}")
        elif item["type"] != "value_error":
            message = problems.in_words(item, keys)
        sentences.append(f"{path}:{problems.line(node, keys)}: {'.'.join(map(str, keys))}: {message}")
    return InputError("\n".join(dict.fromkeys(sentences)), fixes[0] if fixes else "correct the file at that line")


def _known_keys(keys: tuple[int | str, ...]) -> list[str]:
    sections: Mapping[Any, type[BaseModel]] = {"models": ModelEntry, "nodes": NodeEntry}
    section = sections.get(keys[0], FleetFile) if len(keys) > 1 else FleetFile
    return list(section.model_fields)


def _gpu(name: str) -> str:
    return _members(name)[0].key


def _members(name: str) -> tuple[gpus.Gpu, ...]:
    try:
        return gpus.members(name)
    except InputError as error:
        raise ValueError(f"{error.message}; {error.fix}") from error
