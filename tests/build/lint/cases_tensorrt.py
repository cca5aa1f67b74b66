"""TensorRT plans. No server here loads one, so these are lint's own word; the plans are a few bytes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tritonkit import gpus
from tritonkit.repository.lint import Options

from .lab import BATCHED, XY, Case, Files

PLAN = b"ptrt not a plan that anybody could run"
L4 = Options(gpu=gpus.get("l4"))
KEYS = 'cc_model_filenames { key: "8.6" value: "model_sm86.plan" }\n'


def passport(**changes: Any) -> str:
    """What ``tritonkit engine`` writes beside a plan."""
    fields = {
        "format": 1, "kind": "engine", "model": "m", "plan_sha256": hashlib.sha256(PLAN).hexdigest(),
        "plan_bytes": len(PLAN), "precision": "fp16", "layers": {"fp32": 1, "fp16": 9}, "builder": "tensorrt",
        "tensorrt_version": "10.14.1.48", "compute_capability": "8.6", "hardware_compatibility": "none",
        "profiles": [{"x": {"min": [1, 4], "opt": [4, 4], "max": [8, 16]}}], "memory_bytes": 1000,
    }  # fmt: skip
    return json.dumps(fields | changes)


def plan(
    config: str = BATCHED + XY + KEYS, name: str = "model_sm86.plan", content: bytes = PLAN, **changes: Any
) -> Files:
    """A model with one plan and its passport."""
    return {
        "config.pbtxt": f'backend: "tensorrt"\n{config}',
        f"1/{name}": content,
        f"1/{name}.json": passport(**changes),
    }


GPU = "instance_group { kind: KIND_GPU %s }\n"
GOOD = plan()


def case(rule: str, bad: Files, good: Files = GOOD, label: str = "", options: Options | None = None) -> Case:
    return Case(rule, bad, good, label=label, runs=False, options=options or Options())


CASES = [
    case("TK024", plan(BATCHED + XY + KEYS + "instance_group { kind: KIND_CPU }\n"), plan(BATCHED + XY + KEYS + GPU % "")),
    case("TK090", plan(BATCHED + XY + KEYS + 'cc_model_filenames { key: "8.9" value: "model_sm89.plan" }\n'), label="key"),
    case("TK090", plan(BATCHED + XY), plan(BATCHED + XY, name="model.plan"), "default"),
    case("TK091", plan(BATCHED + XY + KEYS.replace("8.6", "86"), compute_capability="86")),
    case("TK092", {name: content for name, content in GOOD.items() if not name.endswith(".json")}),
    case("TK093", plan(content=PLAN[:-9]), label="cut"),
    Case("TK093", plan(content=PLAN[::-1]), GOOD, label="another", runs=False, severity="warning"),
    case("TK094", GOOD | {"1/model_sm86.plan.json": passport()[:40]}, label="plan"),
    case("TK094", GOOD | {"passport.json": "[]"}, label="model"),
    case("TK095", plan(compute_capability="8.9"), plan(BATCHED + XY + KEYS.replace("sm86", "sm80"), name="model_sm80.plan", compute_capability="8.0",
         hardware_compatibility="ampere_plus")),
    case("TK095", plan(BATCHED + XY + KEYS.replace("8.6", "7.5"), compute_capability="8.6",
                       hardware_compatibility="ampere_plus"), label="older"),
    case("TK096", plan(builder="tensorrt_rtx")),
    case("TK097", plan("max_batch_size: 16\n" + XY + KEYS)),
    case("TK098", plan(BATCHED + XY.replace("dims: 4", "dims: 32") + KEYS), plan(BATCHED + XY.replace("4", "-1") + KEYS)),
    case("TK099", plan(BATCHED + XY + KEYS + GPU % 'profile: "1"'), plan(BATCHED + XY + KEYS + GPU % 'profile: "0"')),
    case("TK100", GOOD, plan(BATCHED + XY + KEYS.replace("8.6", "8.9").replace("sm86", "sm89"), name="model_sm89.plan",
                             compute_capability="8.9"), options=L4),
    case("TK106", plan(layers={"fp32": 10}), label="plan"),
]  # fmt: skip
