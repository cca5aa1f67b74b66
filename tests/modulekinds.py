"""The list of modules in :mod:`modules` and :mod:`transformersmodules`: how to make each, and its inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

IMAGE = {"image": "fp32:3,32,32"}
TOKENS = {"input_ids": "int64:length", "attention_mask": "int64:length"}
VECTOR = {"x": "fp32:16"}
SERIES = {"x": "fp32:length,16"}
SAMPLES = 24


@dataclass(frozen=True)
class Kind:
    """A module.

    Attributes:
        file: Where it is defined; a recipe's source is ``FILE:NAME``, and its samples are ``FILE:NAME_samples``.
        load: Makes the module.
        inputs: Name to dtype and dims, as ``tritonkit init --input`` takes them.
        batched: Whether its first dimension is a batch.
        below: The integers in its inputs are below this.
        refused: The error of its export, where PyTorch cannot export it.
    """

    file: Path
    load: Callable[[], nn.Module]
    inputs: dict[str, str]
    batched: bool = True
    below: int = 50
    refused: str = ""


KINDS: dict[str, Kind] = {}


def kind(inputs: dict[str, str], **more: Any) -> Callable[[Callable[[], Any]], Callable[[], nn.Module]]:
    """Add a module to the list, by the function that makes it."""

    def add(function: Callable[[], Any]) -> Callable[[], nn.Module]:
        @functools.wraps(function)
        def load() -> nn.Module:
            torch.manual_seed(0)
            module: nn.Module = function()
            return module

        entry = Kind(Path(function.__code__.co_filename), load, inputs, **more)
        KINDS[function.__name__] = entry
        function.__globals__[f"{function.__name__}_samples"] = functools.partial(_samples, entry)
        return load

    return add


def _samples(entry: Kind) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    random = np.random.default_rng(0)
    for _ in range(SAMPLES):
        length = int(random.integers(4, 13))
        sample: dict[str, np.ndarray[Any, Any]] = {}
        for name, text in entry.inputs.items():
            dtype, _, dims = text.partition(":")
            shape = tuple(length if dim == "length" else int(dim) for dim in dims.split(",") if dim)
            if dtype == "fp32":
                sample[name] = random.standard_normal(shape).astype(np.float32)
            elif name == "attention_mask":
                sample[name] = np.ones(shape, np.int64)
                sample[name][..., length // 2 + 1 :] = 0
            elif dtype == "bool":
                sample[name] = random.random(shape) < 0.5
            else:
                sample[name] = random.integers(1, entry.below, shape).astype(dtype)
        yield sample
