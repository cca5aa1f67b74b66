"""What all pages share: their templates, and how figures, shares and times are written."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import jinja2
from markupsafe import Markup, escape

from tritonkit.cli.output import counted as counted

NOTHING = "–"  # where there is no figure to show
NAMES = {"cpu": "processor", "gpu": "GPU", "python": "Python", "triton": "Triton", "torch": "PyTorch",
         "onnxruntime": "ONNX Runtime", "locust": "Locust", "grpc": "gRPC", "http": "HTTP",
         "vllm": "vLLM", "openai": "OpenAI's client", "server_start": "server start"}  # fmt: skip
Tone = Literal["good", "bad", "unsure"]


@dataclass(frozen=True)
class Headline:
    """The result, as a reader meets it first.

    Attributes:
        tone: Whether it is good news; "unsure" where the figures may not be used, or are not all there.
        title: A few words.
        why: Sentences.
    """

    tone: Tone
    title: str
    why: tuple[str, ...]


def render(template: str, **values: Any) -> str:
    """A page from its template; what UTF-8 cannot hold, as in a stranger's error, becomes a question mark."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "figure": figure, "short": short, "percent": percent, "bar": bar, "when": when, "named": named, "tied": tied,
        "coded": coded, "counted": counted,
    }  # fmt: skip
    page = environment.get_template(template).render(values | {"nan": math.nan})
    return page.encode("utf-8", "replace").decode()


def figure(value: float | None, form: str = ",.1f") -> str:
    """A number in a format of Python's, or a dash where there is none."""
    return NOTHING if value is None or not math.isfinite(value) else format(value, form)


def short(value: float | None) -> str:
    """A number with as many digits as a reader needs: 0.42, 4.20, 42.0, 420, 4,200."""
    if value is None or not math.isfinite(value):
        return NOTHING
    size = abs(value)
    return format(value, ",.0f" if size >= 99.95 else ".1f" if size >= 9.995 or size == 0 else ".2f")


def percent(part: float | None) -> str:
    """A part of one in percent; what is neither all nor nothing is never shown as 100 or 0."""
    if part is None or not math.isfinite(part):
        return NOTHING
    if 0 < part < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= part < 1:
        return "> 99.9 %"
    return f"{part * 100:.1f} %"


def bar(part: float) -> str:
    """The width in CSS of a bar for a part of one; what is below zero has none."""
    return f"{min(max(part, 0.0), 1.0) * 100:.1f}%" if math.isfinite(part) else "0"


def when(iso: str) -> str:
    """An ISO time as a person writes it, in its own time zone; any other text comes back unchanged."""
    try:
        return f"{datetime.fromisoformat(iso):%-d %B %Y, %H:%M %Z}".rstrip()
    except ValueError:
        return iso


def named(key: str) -> str:
    """A key of an environment as a person writes it."""
    return NAMES.get(key, key)


def coded(words: str) -> Markup:
    """Text with what stands between backticks as code; everything is escaped."""
    parts = [escape(part) for part in words.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(part) if at % 2 else part for at, part in enumerate(parts))


def tied(words: str) -> str:
    """The text, with a space that does not break between each number and its unit."""
    return re.sub(r"(?<=\d) (?=%|(?:ms|s|MB|GB)\b)", "\u00a0", words)


def listed(models: Collection[str]) -> str:
    """The names of a few models, or how many there are."""
    return ", ".join(models) if len(models) <= 3 else f"{len(models)} models"
