"""Which architectures vLLM has, by release: a list that is read from vLLM's own registry (``vllm_architectures.json``).

The file names its source. A release that is not in it is not known here.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Support:
    """What vLLM has of an architecture.

    Attributes:
        releases: The releases in the list that have it.
        missing: The releases that lack it.
        generates: Whether it answers with text; one that only embeds or classifies does not.
    """

    releases: tuple[str, ...]
    missing: tuple[str, ...]
    generates: bool


def find(architecture: str) -> Support:
    """Look an architecture up."""
    releases = _registry()
    having = tuple(name for name, kinds in releases.items() if any(architecture in names for names in kinds.values()))
    generates = any(architecture in kinds[kind] for kinds in releases.values() for kind in ("generate", "multimodal"))
    return Support(having, tuple(name for name in releases if name not in having), generates)


def releases() -> tuple[str, ...]:
    """The releases in the list, in order."""
    return tuple(_registry())


def nearest(architecture: str) -> str:
    """The architecture that is called most alike; empty where none is."""
    names = {name for kinds in _registry().values() for known in kinds.values() for name in known}
    return next(iter(difflib.get_close_matches(architecture, names, n=1, cutoff=0.75)), "")


@cache
def _registry() -> dict[str, dict[str, list[str]]]:
    data: dict[str, Any] = json.loads(Path(__file__).with_name("vllm_architectures.json").read_text(encoding="utf-8"))
    registry: dict[str, dict[str, list[str]]] = data["releases"]
    return registry
