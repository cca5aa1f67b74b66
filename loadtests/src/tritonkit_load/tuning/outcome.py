"""Writes down what a search found: the result for the page, and the winner into recipe, repository and passport."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tritonkit import pipeline, tuned
from tritonkit.errors import CheckFailed
from tritonkit.recipe import Recipe, Slo, writeback
from tritonkit.repository import layout
from tritonkit_load.reporting import tuning_result
from tritonkit_load.reporting.tuning_result import TuningResult
from tritonkit_load.tuning import comparison
from tritonkit_load.tuning.comparison import Measured
from tritonkit_load.tuning.limit import BUSY_FIX, finite
from tritonkit_load.tuning.probing import bounds
from tritonkit_load.tuning.search import Search, Trial
from tritonkit_load.tuning.space import Settings
from tritonkit_load.tuning.trial_server import Built
from tritonkit_load.tuning.tuner import SLO_FIX, Final, References


def result(
    recipe: Recipe,
    search: Search,
    held: References,
    final: Final | None,
    *,
    slo: Slo,
    budget_s: float,
    environment: dict[str, str],
    command: str,
    written: tuple[str, ...] = (),
    took_s: float | None = None,
    notes: tuple[str, ...] = (),
    failure: CheckFailed | None = None,
) -> TuningResult:
    """The whole search as the page shows it; without a final and a failure it was interrupted."""
    best = final.winner.settings if final else search.best.settings if search.best and not failure else None
    ratio = comparison.ratio(final.winner, final.default) if final else None
    again = (
        {measured.settings: measured for measured in (final.winner, final.current, final.default, *final.others)}
        if final
        else {}
    )
    return TuningResult(
        model=recipe.name,
        created=_now(),
        command=command,
        environment=environment,
        slo=bounds(slo),
        slo_p99_ms=slo.p99_ms,
        budget_s=budget_s,
        trials=tuple(_trial(trial, again.get(trial.settings)) for trial in search.trials),
        best=_number(search, best),
        default=_number(search, held.default),
        ratio=ratio,
        partial=final is None and not failure,
        written=written,
        current=_number(search, held.current),
        over_current=comparison.ratio(final.winner, final.current) if final else None,
        capacity=final.confirmed.limit if final and final.confirmed else None,
        took_s=took_s,
        notes=notes,
        failure=failure.message if failure else "",
        cause=_cause(failure),
    )


def _cause(failure: CheckFailed | None) -> Literal["", "slo", "generator", "server"]:
    """What a failure is due to, as its fix tells."""
    if failure is None:
        return ""
    if failure.fix == SLO_FIX:
        return "slo"
    return "generator" if failure.fix.startswith(BUSY_FIX) else "server"


def write(
    recipe: Recipe, build: Built, final: Final, repository: Path, figures: dict[str, Any], slo: Slo
) -> tuple[str, ...]:
    """Put the winner into the recipe, ``config.pbtxt`` and the passport; names of the files.

    The repository comes first: where a configuration was edited by hand, the recipe stays as it is, too. The recipe is
    not touched either where what it says now has won. A recipe without an SLO gets the one that the winner was measured
    by: its queue's bounds follow from that, and without it one instance would have a queue without an end.

    Raises:
        TritonkitError: One of them cannot be written.
    """
    settings = final.winner.settings
    same = settings == final.current.settings
    batching = recipe.batching if same else settings.batching(recipe, build.chosen, build.target)
    new_recipe = recipe if same else writeback.checked(recipe, batching, slo)
    tuned.keep(new_recipe, build.graphs[settings.precision], build.target, figures)
    built = pipeline.build([new_recipe], repository, build.target).models[recipe.name]
    if built.precision != settings.precision:  # the gate measured anew, and chose another one: name it
        batching = batching.model_copy(update={"precision": settings.precision})
        new_recipe, same = writeback.checked(recipe, batching, slo), False
        tuned.keep(new_recipe, build.graphs[settings.precision], build.target, figures)
        pipeline.build([new_recipe], repository, build.target)
    files = [repository / recipe.name / layout.CONFIG, repository / recipe.name / layout.PASSPORT]
    if not same:
        writeback.write(recipe, batching, slo)
        files.insert(0, recipe.path)
    return tuple(map(str, files))


def figures(
    final: Final, search: Search, slo: Slo, environment: dict[str, str], load: dict[str, Any]
) -> dict[str, Any]:
    """What the passport says of the winner."""
    winner = final.winner
    return {
        "measured": _now(),
        "slo": slo.model_dump(exclude_none=True),
        "load": load,
        "settings": winner.settings.as_json(),
        "capacity": round(final.capacity, 1),
        "interval": [round(final.confirmed.low, 1), finite(final.confirmed.high)] if final.confirmed else None,
        "throughput": None if final.throughput is None else round(final.throughput, 1),
        "rounds": [round(limit, 1) for limit in winner.limits],
        "p50_ms": _rounded(winner.at_limit.p50_ms if winner.at_limit else None),
        "p99_ms": _rounded(winner.at_limit.p99_ms if winner.at_limit else None),
        "over_tritons_default": _ratio(comparison.ratio(winner, final.default)),
        "over_what_was_served": _ratio(comparison.ratio(winner, final.current)),
        "trials": len(search.trials),
        "environment": environment,
    }


def _trial(trial: Trial, again: Measured | None) -> tuning_result.Trial:
    """A trial; what the final measured of it counts more than a short probe."""
    outcome = trial.outcome
    status, capacity, p50_ms, p99_ms, why = (
        outcome.status, outcome.capacity, outcome.p50_ms, outcome.p99_ms, outcome.why
    )  # fmt: skip
    if again is not None and again.at_limit is not None:
        status, why = "measured", ""
        capacity, p50_ms, p99_ms = again.capacity, again.at_limit.p50_ms, again.at_limit.p99_ms
    return tuning_result.Trial(
        trial.number, trial.settings.words(), status, capacity, p50_ms, p99_ms, outcome.seconds, why
    )


def _number(search: Search, settings: Settings | None) -> int | None:
    return next((trial.number for trial in search.trials if trial.settings == settings), None)


def _ratio(ratio: tuning_result.Ratio | None) -> dict[str, float] | None:
    if ratio is None:
        return None
    return {"median": round(ratio.median, 3), "lowest": round(ratio.low, 3), "highest": round(ratio.high, 3)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
