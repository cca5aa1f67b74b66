"""An engine's passport: JSON beside a plan that says who built it, from what, and where it may run.

It is taken whole or refused with what is wrong in it; whether its plan may run on a node is for
:mod:`tritonkit.engines.check`. :class:`EngineFacts` is what is left of one that may be damaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tritonkit.errors import InputError
from tritonkit.passport.reading import first_mistake, parse_readable, read_object
from tritonkit.passport.sections import Section
from tritonkit.recipe import Precision

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

    @classmethod
    def parse(cls, data: Any, where: str | Path) -> EnginePassport:
        """The passport that plain data holds.

        Raises:
            InputError: It is no passport, or contradicts itself.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise InputError(
                f"{where}: {first_mistake(error)}",
                "it was edited, or written by another version: build the engine again",
            ) from error

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability as two numbers."""
        major, minor = self.compute_capability.split(".")
        return int(major), int(minor)


class ShapeBounds(Section):
    """The least and the largest shape of an input in one profile."""

    min: list[int]
    max: list[int]


class EngineFacts(Section):
    """What a plan's passport says where parts of it may be missing or damaged; fields as in :class:`EnginePassport`."""

    kind: str = ""
    plan_sha256: str = ""
    plan_bytes: int | None = None
    graph_sha256: str = ""
    precision: str = ""
    layers: dict[str, int] | None = None
    builder: str = ""
    compute_capability: str = ""
    hardware_compatibility: str = ""
    profiles: tuple[dict[str, ShapeBounds], ...] = ()
    memory_bytes: int = 0

    @classmethod
    def parse_readable(cls, data: Mapping[str, Any]) -> EngineFacts:
        """What can be read of a plan's passport."""
        return parse_readable(cls, data)


def find_engine(path: Path) -> EngineFacts | None:
    """What a plan's passport says; None where the file holds no passport of an engine."""
    facts = EngineFacts.parse_readable(read_object(path))
    return facts if facts.kind == "engine" else None
