"""Which engine serves a model: rules as data (``engines.json``), each with its reason and source; the first that fits.

The rules decide by facts alone, so the same facts give the same answer. An answer names what would change it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

from tritonkit.errors import InputError

Kind = Literal["graph", "language", "forest"]
KINDS: tuple[Kind, ...] = ("graph", "language", "forest")


@dataclass(frozen=True)
class Facts:
    """What is known of a model and its callers.

    Attributes:
        kind: A graph, a causal language model, or a forest of trees.
        gpu: Whether it runs on a GPU.
        steady: Whether the same weights stay for weeks and fill their GPUs.
        tensorrt_takes_it: Whether TensorRT has all of a graph's operators.
        vllm_has_it: Whether vLLM has a language model's architecture.
        needs_triton: Whether it shares its endpoint with models of other kinds, or callers speak KServe's protocol.
        openai_only: Whether callers need what only vLLM's own server has: tools, structured output, its gauges.
    """

    kind: Kind
    gpu: bool = True
    steady: bool = False
    tensorrt_takes_it: bool = True
    vllm_has_it: bool = True
    needs_triton: bool = False
    openai_only: bool = False


@dataclass(frozen=True)
class EngineAdvice:
    """An engine, and why.

    Attributes:
        engine: ``triton_tensorrt``, ``triton_onnxruntime_cuda``, ``triton_onnxruntime_cpu``, ``triton_fil``, ``vllm``,
            ``vllm_transformers``, ``triton_vllm`` or ``tensorrt_llm``.
        rule: The name of the rule that decided.
        reason: Why.
        source: Where that is from.
        flips: What would change the answer.
    """

    engine: str
    rule: str
    reason: str
    source: str
    flips: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """For people."""
        flips = f" It depends: {'; '.join(self.flips)}." if self.flips else ""
        return f"{self.engine}: {self.reason} ({self.source}).{flips}"

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {**dataclasses.asdict(self), "flips": list(self.flips)}


def choose(facts: Facts) -> EngineAdvice:
    """The engine of the first rule whose conditions the facts meet.

    Raises:
        InputError: The kind is none of :data:`KINDS`.
    """
    if facts.kind not in KINDS:
        raise InputError(f"there is no kind of model {facts.kind!r} here", f"one of {', '.join(KINDS)}")
    known = dataclasses.asdict(facts)
    rule = next(rule for rule in rules() if all(known[name] in values for name, values in rule["when"].items()))
    return EngineAdvice(rule["engine"], rule["name"], rule["reason"], rule["source"], tuple(rule["flips"]))


@functools.cache
def rules() -> tuple[Mapping[str, Any], ...]:
    """All rules, in the order in which they are tried."""
    text = resources.files("tritonkit.advisor").joinpath("engines.json").read_text(encoding="utf-8")
    return tuple(json.loads(text)["rules"])
