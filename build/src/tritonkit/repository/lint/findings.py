"""What lint is asked and what it answers: plain data, no rule and no printing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tritonkit import gpus
from tritonkit.errors import InputError
from tritonkit.gpus import Gpu

# error: Triton refuses it, or answers wrongly. warning: it runs, and hurts. info: worth knowing.
Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
Origin = Literal["", "nvidia", "other"]
_STOCK = re.compile(r"(?:.*/)?nvidia/tritonserver[:@].*", re.DOTALL)
_FLAG = re.compile(r"--(?P<name>[a-z0-9-]+)(?:[= ](?P<value>.*))?", re.DOTALL)


@dataclass(frozen=True)
class Problem:
    """What a rule found in one model.

    Attributes:
        message: What is wrong, as one sentence without its end.
        fix: What to do, beginning with a verb.
        line: The line of the field in ``config.pbtxt``; None where there is none.
        path: Another file than ``config.pbtxt``.
        severity: A milder one than the rule's own, where the rule cannot be sure.
    """

    message: str
    fix: str
    line: int | None = None
    path: Path | None = None
    severity: Severity | None = None


@dataclass(frozen=True)
class Finding:
    """One problem with its rule and place; ``path`` is under the repository, ``line`` starts at 1."""

    rule: str
    slug: str
    severity: Severity
    model: str
    path: Path
    line: int | None
    message: str
    fix: str


@dataclass(frozen=True)
class Options:
    """What is known about where the repository will run.

    Attributes:
        image: Year and month of the NGC image, ``(26, 8)`` for 26.08; None where unknown.
        origin: Whether it is NVIDIA's own image or another made of it, such as that of build/Dockerfile; empty where
            only its release is known.
        gpu: The GPU of the nodes; None where unknown.
        variant: What follows the release in the image's tag, ``py3``; empty where unknown.
        has_gpu: Whether the nodes have a GPU, where it is not known which; None where unknown.
        server: Flags of ``tritonserver``, such as ``--cache-config=local,size=1048576``; None where unknown.
    """

    image: tuple[int, int] | None = None
    gpu: Gpu | None = None
    server: tuple[str, ...] | None = None
    origin: Origin = ""
    variant: str = ""
    has_gpu: bool | None = None

    @property
    def on_gpu(self) -> bool | None:
        """Whether the nodes have a GPU; None where unknown."""
        return True if self.gpu else self.has_gpu

    def flag(self, name: str) -> list[str]:
        """The values of a server flag, given without its dashes."""
        matches = (_FLAG.fullmatch(word) for word in self.server or ())
        return [match["value"] or "true" for match in matches if match and match["name"] == name]


@dataclass(frozen=True)
class Report:
    """All findings of one repository, models in their order, the worst of each first."""

    repository: Path
    models: int
    findings: tuple[Finding, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many findings of each severity."""
        counter = Counter(finding.severity for finding in self.findings)
        return {severity: counter[severity] for severity in SEVERITIES}


def parse_image(text: str) -> tuple[int, int]:
    """Year and month of an NGC tag: ``26.08``, ``26.08-py3`` or ``nvcr.io/nvidia/tritonserver:26.08-py3``.

    Raises:
        InputError: The text has none of these forms.
    """
    match = re.fullmatch(r"(?:.*:)?(\d{2})\.(\d{2})(?:-[\w.-]+)?", text.strip())
    if match is None or not 1 <= int(match[2]) <= 12:
        raise InputError(f"{text!r} is no tag of an NGC Triton image", "give one such as 26.08 or 26.08-py3")
    return int(match[1]), int(match[2])


def parse_variant(text: str) -> str:
    """``py3`` of an NGC tag; empty where it says none."""
    match = re.fullmatch(r"(?:.*:)?\d{2}\.\d{2}-([\w.-]+)", text.strip())
    return match[1] if match else ""


def parse_gpu(text: str) -> tuple[Gpu | None, bool | None]:
    """The GPU of the nodes and whether they have one: ``l4``, ``any`` for one that is not known, ``none``.

    Raises:
        InputError: There is no such GPU.
    """
    word = text.strip().lower()
    return (None, word == "any") if word in {"any", "none"} else (gpus.get(text), True)


def parse_origin(text: str) -> Origin:
    """Whose image a reference names; empty for a tag alone."""
    if ":" not in text:
        return ""
    return "nvidia" if _STOCK.fullmatch(text.strip()) else "other"


def join_flags(words: Sequence[str]) -> tuple[str, ...]:
    """Server flags as ``--name=value`` each, also where name and value were given as two words.

    Raises:
        InputError: A word is neither a flag nor the value of one.
    """
    joined: list[str] = []
    for word in words:
        if word.startswith("--"):
            joined.append(word)
        elif joined and "=" not in joined[-1]:
            joined[-1] += f"={word}"
        else:
            raise InputError(f"{word!r} is no flag of tritonserver", "write --server-arg=--name=value")
    return tuple(joined)
