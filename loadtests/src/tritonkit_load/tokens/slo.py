"""SLOs of language models: how they are written, what they bound, and whether a load test kept them.

The words are the recipe's (:class:`tritonkit.recipe.TokenSlo`), written flat on a command line:
``ttft_p95_ms=500,itl_p95_ms=120,error_rate=0.01,goodput=0.95``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from tritonkit.cli.arguments import closest, did_you_mean
from tritonkit.errors import InputError
from tritonkit.recipe import LanguageRecipe, TokenSlo
from tritonkit_load.load.result import Check
from tritonkit_load.load.slo import SHARES, TOKEN_TIMES
from tritonkit_load.tokens.result import TokenFigures

NAMES = (*(f"{time}_{share}" for time in TOKEN_TIMES for share in SHARES), "error_rate", "goodput")
EXAMPLE = "ttft_p95_ms=500,itl_p95_ms=120"
KNOWN = "ttft, itl, tpot and e2e, each with _p50_ms, _p95_ms or _p99_ms, error_rate and goodput"


def parse(text: str) -> TokenSlo | None:
    """Read an SLO written ``ttft_p95_ms=500,goodput=0.95``; None for empty.

    Raises:
        InputError: The text is no SLO of a language model.
    """
    if not text.strip():
        return None
    values: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name in SHARES:
            raise _unusable(
                text, f"{name}: a language model streams its answers, and their length is the caller's; it has {KNOWN}"
            )
        if name not in NAMES:
            suggestion = closest(name, NAMES)
            raise _unusable(text, f"{name}: unknown{did_you_mean([suggestion] if suggestion else [])}")
        time, _, share = name.partition("_")
        section = values.setdefault(time, {}) if time in TOKEN_TIMES else values
        key = share if time in TOKEN_TIMES else name
        if key in section:
            raise _unusable(text, f"{name}: given twice")
        section[key] = value
    try:
        return TokenSlo.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = "_".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "value_error" and not where:
            message = "goodput counts requests that keep their times; add ttft_p95_ms=500"
        raise _unusable(text, f"{where + ': ' if where else ''}{message}") from error


def slo_of(recipe: LanguageRecipe, text: str) -> TokenSlo | None:
    """The SLO that was given, or the recipe's.

    Raises:
        InputError: The text is no SLO of a language model.
    """
    return parse(text) or recipe.slo


def bounds(slo: TokenSlo) -> dict[str, float]:
    """Every bound by its flat name, error rate and goodput last."""
    flat = {
        f"{time}_{share}": bound
        for time, percentiles in slo.times.items()
        for share in SHARES
        if (bound := getattr(percentiles, share)) is not None
    }
    flat["error_rate"] = slo.error_rate
    return flat | ({"goodput": slo.goodput} if slo.goodput is not None else {})


def has_times(slo: TokenSlo | None) -> bool:
    """Whether it bounds a time."""
    return slo is not None and any(part.latency_ms is not None for part in slo.times.values())


def longest_s(slo: TokenSlo) -> float:
    """The largest of its times, in seconds; 0 without any."""
    return max((part.latency_ms or 0.0 for part in slo.times.values()), default=0.0) / 1000


def format_slo(slo: TokenSlo) -> str:
    """In words: ``ttft p95 ≤ 500 ms, error rate ≤ 0.1 %``."""
    words = []
    for name, bound in bounds(slo).items():
        sign = "≥" if name == "goodput" else "≤"
        value = f"{bound:g} ms" if name.endswith("_ms") else f"{bound * 100:g} %"
        words.append(f"{name.removesuffix('_ms').replace('_', ' ')} {sign} {value}")
    return ", ".join(words)


def kept(slo: TokenSlo, times_ms: Mapping[str, float], gaps_ms: list[float]) -> bool:
    """Whether one answer keeps every bound.

    Args:
        slo: What it is held against.
        times_ms: Its own ``ttft``, ``tpot`` and ``e2e``: each against the largest bound of that name.
        gaps_ms: Its own gaps, sorted: for each bound of ``itl`` that share of them has to keep it.
    """
    for name, value in times_ms.items():
        bound = slo.times[name].latency_ms
        if bound is not None and value > bound:
            return False
    for share, part in SHARES.items():
        bound = getattr(slo.itl, share)
        if bound is not None and gaps_ms and gaps_ms[math.ceil(part * len(gaps_ms)) - 1] > bound:
            return False
    return True


def checks(model: str, slo: TokenSlo, figures: TokenFigures) -> tuple[Check, ...]:
    """Every bound beside its figure; where there is no figure, a bound is not met."""
    judged = []
    for name, bound in bounds(slo).items():
        value = _value(name, figures)
        met = value is not None and (value >= bound if name == "goodput" else value <= bound)
        judged.append(Check(model, name, bound, value, met))
    return tuple(judged)


def _value(name: str, figures: TokenFigures) -> float | None:
    if name == "error_rate":
        return figures.failed / figures.requests if figures.requests else None
    if name == "goodput":
        return figures.goodput
    time, share, _ = name.split("_")
    value: float = getattr(getattr(figures, f"{time}_ms"), share)
    return value if math.isfinite(value) else None


def _unusable(text: str, message: str) -> InputError:
    return InputError(f"the SLO {text!r} cannot be used: {message}", f"{EXAMPLE}; known are {KNOWN}")
