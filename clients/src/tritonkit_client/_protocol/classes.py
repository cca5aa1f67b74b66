"""Triton's classification extension: the best classes of an output instead of all of its numbers. No I/O.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_classification.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .calls import Outputs, RequestedOutput
from .errors import InvalidInput, NotSupported, Origin, ServerError
from .metadata import ModelMetadata
from .tensors import INTEGERS, Array

# Triton 24.10 refuses the other types, and ends with signal 11 where it is asked for the classes of a BYTES output.
_TYPES = INTEGERS | {"FP32", "FP64"}


@dataclass(frozen=True)
class Class:
    """One class of an output, as ``outputs={"logits": 5}`` asks for.

    Attributes:
        score: Its value in the output. The server writes it as text with six digits after the point.
        index: Its place in the output.
        label: Its line in the file that the model's configuration names as ``label_filename``; empty without one.
    """

    score: float
    index: int
    label: str = ""

    def __str__(self) -> str:
        return f"{self.label or self.index} {self.score:g}"


def has_classes(datatype: str) -> bool:
    """Whether the server gives outputs of a type as classes."""
    return datatype in _TYPES


def requested_outputs(
    metadata: ModelMetadata, outputs: Outputs, names: Sequence[str], origin: Origin
) -> tuple[RequestedOutput, ...]:
    """The outputs of these names, for a request.

    Raises:
        InvalidInput: Classes are requested of a type that has none.
    """
    if not isinstance(outputs, Mapping):
        return tuple(RequestedOutput(name) for name in names)
    datatypes = {spec.name: spec.datatype for spec in metadata.outputs}
    for name in names:
        if outputs[name] and not has_classes(datatypes.get(name, "FP32")):
            raise InvalidInput(
                f"output {name!r} of model {origin.model} is {datatypes[name]}, which has no classes",
                "ask for it without classes",
                origin,
            )
    return tuple(RequestedOutput(name, classes=outputs[name] or 0) for name in names)


def classified(outputs: dict[str, Array], requested: tuple[RequestedOutput, ...], origin: Origin) -> dict[str, Array]:
    """The outputs, with an object array of `Class` for each that was requested as classes.

    Raises:
        NotSupported: The server sent the numbers themselves.
        ServerError: An element is not SCORE:INDEX or SCORE:INDEX:LABEL.
    """
    names = {output.name for output in requested if output.classes}
    if not names:
        return outputs
    return {name: _classes(name, array, origin) if name in names else array for name, array in outputs.items()}


def _classes(name: str, array: Array, origin: Origin) -> Array:
    if array.dtype != object:
        raise NotSupported(
            f"the server answered with output {name!r} itself: it does not know Triton's classification extension",
            "ask for the output by its name alone, and sort it: outputs=[...]",
            origin,
        )
    flat = np.empty(array.size, object)
    for place, item in enumerate(array.reshape(-1)):
        score, _, rest = item.decode(errors="replace").partition(":")
        index, _, label = rest.partition(":")
        try:
            flat[place] = Class(float(score), int(index), label)
        except ValueError as error:
            raise ServerError(f"output {name!r} has {item!r} for a class", "see the server's log", origin) from error
    classes: Array = flat.reshape(array.shape)
    classes.flags.writeable = False
    return classes
