"""Judges a result against its SLO, and turns the verdict into an exit code.

The words and bounds of an SLO are the recipe's (:class:`tritonkit.recipe.Slo`): p50_ms, p95_ms, p99_ms, error_rate,
goodput.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from pydantic import ValidationError

from tritonkit.cli.arguments import closest, did_you_mean
from tritonkit.errors import CheckFailed, InputError
from tritonkit.recipe import Slo
from tritonkit.recipe.problems import in_words
from tritonkit_load.load.result import Check, ModelResult, Percentiles, Result, Verdict

__all__ = [
    "MET", "NOT_MET", "Slo", "checks", "exit_code", "few", "format_slo", "judge", "least_requests", "parse", "too_few",
]  # fmt: skip

MET, NOT_MET = 0, CheckFailed.exit_code
CONFIDENCE = 0.95
EXAMPLE = "p99_ms=50,error_rate=0.001; of a language model ttft_p95_ms=500,itl_p95_ms=120"  # for --help
TOKEN_TIMES = ("ttft", "itl", "tpot", "e2e")  # of language models; see tokens.slo
SHARES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}  # of the requests, that each bound is about


def parse(text: str) -> Slo | None:
    """Read an SLO written ``p99_ms=50,error_rate=0.001``; None for empty.

    Raises:
        InputError: The text is no SLO.
    """
    if not text.strip():
        return None
    words = dict(part.strip().partition("=")[::2] for part in text.split(","))
    try:
        return Slo.model_validate(words)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if where.partition("_")[0] in TOKEN_TIMES:
            message = "it counts tokens, and this model gives none; it has p50_ms, p95_ms and p99_ms, of whole answers"
        elif first["type"] == "extra_forbidden":
            suggestion = closest(where, Slo.model_fields)
            message = "unknown" + did_you_mean([suggestion] if suggestion else [])
        elif first["type"] == "value_error":
            message = first["msg"].removeprefix("Value error, ")
        else:
            message = in_words(first, first["loc"])
        raise InputError(
            f"the SLO {text!r} cannot be used: {where + ': ' if where else ''}{message}",
            f"p99_ms=50,error_rate=0.001; known are {', '.join(Slo.model_fields)}",
        ) from error


def format_slo(slo: Slo) -> str:
    """An SLO as `parse` reads it."""
    return ",".join(f"{name}={value:g}" for name, value in slo.model_dump(exclude_none=True).items())


def judge(models: Mapping[str, ModelResult], *, valid: bool) -> Verdict:
    """Every bound of every model's SLO beside what was found.

    Args:
        models: Each with its own ``slo``.
        valid: Whether the run is whole and the generator kept up; otherwise the verdict may not be used.
    """
    all_checks = tuple(
        check for name, model in models.items() if model.slo for check in _of_model(name, model, model.slo)
    )
    notes = [_hopeless(name, model) for name, model in models.items()]
    if valid:
        notes += [too_few(name, model.slo, model.requests - model.failed) for name, model in models.items()]
    met = all(check.met for check in all_checks) if all_checks else None
    return Verdict(met, valid, all_checks, " ".join(filter(None, notes)))


def least_requests(slo: Slo | None) -> int:
    """How many answers it takes to show that an SLO's strictest latency bound is kept; that of a p99 without an SLO.

    The largest of n values is above the quantile q with a probability of 1 - q**n, whatever their distribution (S. S.
    Wilks, "Determination of sample sizes for setting tolerance limits", Annals of Mathematical Statistics 12, 1941).
    With fewer than this, that is less than :data:`CONFIDENCE`: 5 for a p50, 59 for a p95, 299 for a p99.
    """
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(_strictest(slo)[1]))


def too_few(model: str, slo: Slo | None, answers: int) -> str:
    """A sentence where so few answers do not show that a bound is kept; empty where they do, or there is none."""
    needed = least_requests(slo)
    if not 0 < answers < needed:
        return ""
    name, share = _strictest(slo)
    rests = f"The {name} of {model} rests on {answers} request{'s' if answers > 1 else ''}"
    if slo is None:
        return f"{rests}; it takes {needed} to have, with {CONFIDENCE * 100:g} % confidence, any above the true {name}."
    shows = f"{CONFIDENCE * 100:g} % confidence that {share * 100:g} % of all requests keep it"
    return f"{rests}; it takes {needed}, all within the bound, to show with {shows}."


def few(models: Mapping[str, ModelResult]) -> bool:
    """Whether a model has too few answers for its SLO, :func:`too_few`."""
    return any(too_few(name, model.slo, model.requests - model.failed) for name, model in models.items())


def _strictest(slo: Slo | None) -> tuple[str, float]:
    """The latency bound about the largest share of the requests, and that share."""
    named = [name for name in SHARES if slo is not None and getattr(slo, name) is not None]
    bounds = {name.removesuffix("_ms"): SHARES[name] for name in named}
    if slo is not None and slo.goodput is not None and slo.goodput < 1:
        bounds["goodput"] = slo.goodput
    return max(bounds.items(), key=lambda bound: bound[1], default=("p99", SHARES["p99_ms"]))


def checks(
    model: str, slo: Slo, latency: Percentiles | None, error_rate: float | None, good_share: float | None
) -> tuple[Check, ...]:
    """The bounds of one SLO; where there is no figure, a bound is not met."""
    most = {
        "p50_ms": latency.p50 if latency else None,
        "p95_ms": latency.p95 if latency else None,
        "p99_ms": latency.p99 if latency else None,
        "error_rate": error_rate,
    }
    bounds = {name: getattr(slo, name) for name in most}
    slo_checks = [
        Check(model, name, bound, value, value is not None and value <= bound)
        for (name, bound), value in zip(bounds.items(), most.values(), strict=True)
        if bound is not None
    ]
    if slo.goodput is not None:
        kept = good_share is not None and good_share >= slo.goodput
        slo_checks.append(Check(model, "goodput", slo.goodput, good_share, kept))
    return tuple(slo_checks)


def exit_code(result: Result) -> int:
    """0: valid, whole and met (without an SLO: no request failed); else 1."""
    met = result.verdict.met
    if met is None:
        met = not any(model.failed for model in result.models.values())
    return MET if met and result.verdict.valid else NOT_MET


def _of_model(name: str, model: ModelResult, slo: Slo) -> tuple[Check, ...]:
    share = None if model.goodput is None or not model.offered else model.goodput / model.offered
    return checks(name, slo, model.latency, model.error_rate if model.requests else None, share)


def _hopeless(name: str, model: ModelResult) -> str:
    """A sentence where not even a request alone keeps the SLO's largest latency."""
    bound = model.slo.latency_ms if model.slo else None
    if bound is None or model.alone_ms is None or model.alone_ms <= bound:
        return ""
    if model.latency is not None and model.latency.p50 <= bound:
        return ""  # the first requests met a cold model
    return (
        f"No rate can meet this SLO: sent alone, the fastest request to {name} took {model.alone_ms:.1f} ms, "
        f"and {bound:g} ms are allowed."
    )
