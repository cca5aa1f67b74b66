"""Cuts large batches and many samples into requests that a model takes, and joins the outputs in order. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .._protocol.device_array import on_device
from .._protocol.errors import InvalidInput, Origin, ServerError
from .._protocol.metadata import ModelMetadata
from .._protocol.tensors import Array

# One request of any batch size: inputs by name, or the one input of a model that has only one.
Sample = Mapping[str, npt.ArrayLike] | npt.NDArray[Any]


@dataclass(frozen=True)
class Part:
    """One request: the number of its sample, its rows (0: the model does not batch), its inputs."""

    sample: int
    rows: int
    values: Mapping[str, npt.ArrayLike]


def is_single(samples: object) -> bool:
    """Whether this is a single sample, however large, and not several."""
    return isinstance(samples, (Mapping, np.ndarray)) or on_device(samples)


def listed(samples: Sample | Iterable[Sample]) -> Iterable[Sample]:
    """Samples as an iterable, also where there is only one."""
    return [cast(Sample, samples)] if is_single(samples) else cast("Iterable[Sample]", samples)


def parts(metadata: ModelMetadata, samples: Iterable[Sample], origin: Origin) -> Iterator[Part]:
    """Every request, in order; takes a sample only when its first part is asked for.

    Raises:
        InvalidInput: A sample is neither a mapping nor an array, or cannot be cut.
    """
    limit = metadata.max_batch_size
    for index, sample in enumerate(samples):
        values = _named(metadata, sample, origin)
        if not limit:
            yield Part(index, 0, values)
            continue
        rows = _rows(values, origin)
        if rows <= limit:
            yield Part(index, rows, values)
            continue
        for start in range(0, rows, limit):
            cut = {name: value[start : start + limit] for name, value in values.items()}  # type: ignore[index]
            yield Part(index, min(limit, rows - start), cut)


@dataclass
class JoinedOutputs:
    """Puts the outputs of parts together; they arrive in the order of `parts`."""

    origin: Origin
    _outputs: list[list[tuple[Part, dict[str, Array]]]] = field(default_factory=list)

    def add(self, part: Part, outputs: dict[str, Array]) -> None:
        """Take the outputs of one part."""
        if part.sample == len(self._outputs):
            self._outputs.append([])
        self._outputs[part.sample].append((part, outputs))

    def all(self) -> list[dict[str, Array]]:
        """The outputs of every sample; read-only, as those of a single inference.

        Raises:
            ServerError: An output has no row for each row of its input.
        """
        return [self._join(pairs) for pairs in self._outputs]

    def _join(self, pairs: Sequence[tuple[Part, dict[str, Array]]]) -> dict[str, Array]:
        if len(pairs) == 1:
            return pairs[0][1]
        for part, outputs in pairs:
            for name, array in outputs.items():
                if array.shape[:1] != (part.rows,):
                    raise ServerError(
                        f"output {name!r} has shape {list(array.shape)} for a batch of {part.rows}",
                        "the model does not give one row a sample: send batches that it takes whole",
                        self.origin,
                    )
        joined = {name: np.concatenate([outputs[name] for _, outputs in pairs]) for name in pairs[0][1]}
        for array in joined.values():
            array.flags.writeable = False
        return joined


def _named(metadata: ModelMetadata, sample: Sample, origin: Origin) -> Mapping[str, npt.ArrayLike]:
    if isinstance(sample, Mapping):
        return sample
    needed = [spec.name for spec in metadata.inputs if not spec.optional]
    if len(needed) != 1:
        raise InvalidInput(
            f"model {origin.model} has {len(needed)} inputs, given a {type(sample).__name__}",
            f"give mappings with {', '.join(needed) or 'the names of inputs'}",
            origin,
        )
    return {needed[0]: sample}


def _rows(values: Mapping[str, npt.ArrayLike], origin: Origin) -> int:
    rows = {name: len(value) if _has_rows(value) else -1 for name, value in values.items()}  # type: ignore[arg-type]
    for name, count in rows.items():
        if count < 0:
            raise InvalidInput(f"input {name!r} has no rows", "give a list or an array with a batch dimension", origin)
    if len(set(rows.values())) > 1:
        listed = ", ".join(f"{name}: {count}" for name, count in rows.items())
        raise InvalidInput(
            f"the inputs of model {origin.model} have different batch sizes: {listed}",
            "give every input the same first dimension",
            origin,
        )
    return next(iter(rows.values()), 0)


def _has_rows(value: object) -> bool:
    if isinstance(value, np.ndarray) or on_device(value):
        return len(getattr(value, "shape", ())) > 0
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))
