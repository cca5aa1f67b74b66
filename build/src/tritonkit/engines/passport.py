"""An engine's passport: JSON beside a plan that says who built it, from what, and where it may run.

``model_sm86.plan`` has ``model_sm86.plan.json``. A passport is read whole or refused with what is wrong in it; whether
its plan may run on a node is for :mod:`tritonkit.engines.check`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tritonkit import atomic
from tritonkit.errors import InputError
from tritonkit.recipe import Precision

SUFFIX = ".json"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class ShapeRange(BaseModel):
    """The shapes that an input may have in one profile, batch dimension included."""

    model_config = ConfigDict(frozen=True)

    min: tuple[Count, ...]
    opt: tuple[Count, ...]
    max: tuple[Count, ...]

    @model_validator(mode="after")
    def _ordered(self) -> ShapeRange:
        ranks = {len(self.min), len(self.opt), len(self.max)}
        if len(ranks) > 1 or any(not a <= b <= c for a, b, c in zip(self.min, self.opt, self.max, strict=False)):
            raise ValueError(f"min <= opt <= max must hold, got {self.min}, {self.opt}, {self.max}")
        return self


class EnginePassport(BaseModel):
    """What is known about a plan.

    Attributes:
        layers: Compute layers by precision, and ``other`` (:mod:`tritonkit.engines.layer_precision`).
        builder: Triton's ``tensorrt`` backend loads plans of ``tensorrt`` only.
        tensorrt_version: Of the builder, four numbers.
        compute_capability: Of the GPU it was built for, ``8.6``.
        gpu: The GPU it was built on; null where it was built without one.
        profiles: In order: input name to its shapes.
        memory_bytes: Weights and activations of one execution context; only the plan's size if it was built
            without a GPU.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    kind: Literal["engine"] = "engine"
    model: str
    plan_sha256: Sha256
    plan_bytes: Annotated[int, Field(ge=1)]
    graph_sha256: Sha256
    precision: Precision
    layers: dict[str, Count]
    builder: Literal["tensorrt", "tensorrt_rtx"]
    tensorrt_version: Annotated[str, Field(pattern=r"^\d+(\.\d+){2,3}$")]
    compute_capability: Annotated[str, Field(pattern=r"^\d+\.\d$")]
    gpu: str | None
    hardware_compatibility: Literal["none", "ampere_plus", "same_compute_capability"]
    version_compatible: bool
    weight_stripped: bool
    plugins: tuple[str, ...]
    profiles: tuple[dict[str, ShapeRange], ...]
    memory_bytes: Count
    created: str
    tritonkit: str

    @model_validator(mode="after")
    def _proved(self) -> EnginePassport:
        if self.precision != "fp32" and not self.layers.get(self.precision):
            raise ValueError(f"precision says {self.precision}, and layers counts none of it")
        return self

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability as two numbers."""
        major, minor = self.compute_capability.split(".")
        return int(major), int(minor)


def path_of(plan: Path) -> Path:
    """Where the passport of a plan lies."""
    return plan.with_name(plan.name + SUFFIX)


def read(plan: Path) -> EnginePassport:
    """The passport of a plan.

    Raises:
        InputError: The passport is missing, is cut short, is no passport, or contradicts itself.
    """
    place = path_of(plan)
    try:
        data = json.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{plan} has no passport ({place.name})", "build it with `tritonkit engine`") from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"{place} is no JSON, perhaps cut short: {error}", "copy it again from where it was built, or build again"
        ) from error
    try:
        return EnginePassport.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "passport"
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(
            f"{place}: {where}: {message}", "it was edited, or written by another version: build the engine again"
        ) from error


def write(plan: Path, passport: EnginePassport) -> None:
    """Put a passport beside its plan, whole or not at all."""
    atomic.write(path_of(plan), (passport.model_dump_json(indent=2) + "\n").encode())


def sha256_of(path: Path) -> str:
    """The hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
