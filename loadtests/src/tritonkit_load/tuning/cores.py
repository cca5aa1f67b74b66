"""Divides this machine's CPU cores between the server and the generator, so that neither measures the other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from tritonkit.errors import InputError
from tritonkit_load.load.target import Target

# Cores of which the generator gets one. A process of it sends some thousand small requests a second, which few models
# take on a CPU; a GPU takes more, and its server computes nothing on the CPU.
ONE_IN: dict[Target, int] = {"cpu": 4, "cuda": 2}


@dataclass(frozen=True)
class Cores:
    """Who runs where; the generator's cores follow each other."""

    server: tuple[int, ...]
    generator: tuple[int, ...]

    def __str__(self) -> str:
        return f"server on {_named(self.server)}, generator on {_named(self.generator)}"


def divide(available: Sequence[int] | None = None, *, target: Target = "cpu") -> Cores:
    """One core in four for the generator, or in two where a GPU serves, at least one; the others for the server.

    Args:
        available: All that this process may use if not given.
        target: What models run on.

    Raises:
        InputError: There is only one.
    """
    cores = sorted(available if available is not None else os.sched_getaffinity(0))
    if len(cores) < 2:
        raise InputError("two CPU cores are needed, one for the server and one for the load", "use a machine with two")
    last = cores[-max(1, len(cores) // ONE_IN[target]) :]
    while last[-1] - last[0] >= len(last):  # a gap between them
        last = last[1:]
    return Cores(tuple(core for core in cores if core not in last), tuple(last))


def _named(cores: Sequence[int]) -> str:
    return f"core {cores[0]}" if len(cores) == 1 else f"cores {', '.join(map(str, cores))}"
