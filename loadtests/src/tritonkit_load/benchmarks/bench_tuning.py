"""`make bench-tuning`: what tuning wins over Triton's defaults, and how little of a grid it needs to measure.

For each model it searches, and then measures the winner beside `dynamic_batching {}` with one instance: of the exported
graph, and of the winner's own variant, so that what the variant wins is told apart from what the settings win. For the
last model it measures every configuration of a small space, lets a search find its way in a part of that many runs,
and measures both bests again side by side. It can be interrupted; the same command continues.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tritonkit import atomic, progress, recipe
from tritonkit.cli.arguments import Parser
from tritonkit.cli.output import run_command
from tritonkit.errors import CheckFailed
from tritonkit_load.capacity import INTERRUPTED, slo_of
from tritonkit_load.load import models
from tritonkit_load.load.plan import Plan
from tritonkit_load.reporting.tuning_result import Ratio
from tritonkit_load.tuning import comparison, tuner
from tritonkit_load.tuning.comparison import Measured
from tritonkit_load.tuning.cores import divide
from tritonkit_load.tuning.limit import Probe
from tritonkit_load.tuning.probing import bounds
from tritonkit_load.tuning.search import Outcome, Search
from tritonkit_load.tuning.space import Settings, Space
from tritonkit_load.tuning.trial import timed
from tritonkit_load.tuning.trial_server import TrialServer, built
from tritonkit_load.tuning.tuner import Effort

LEAST_GAIN = 1.5  # on one of the models
LEAST_RATIO = 1.0  # on every one
LEAST_OF_GRID, MOST_RUNS = 0.95, 0.15


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        trials: Of the search against the defaults.
        rounds: Of every comparison.
        effort: Of every run.
    """

    trials: int = 30
    rounds: int = 5
    effort: Effort = Effort(probe_s=1.5, final_s=3.0, rounds=2)  # noqa: RUF009 -- frozen


FULL, QUICK = Size(), Size(15, 3, Effort(probe_s=1.0, final_s=2.0, rounds=1))


def main() -> int:
    """Measure, print, and say with the exit code whether the promises were kept."""
    return run_command(_main)


def _main() -> int:
    options = _parser().parse_args()
    size, folder = (QUICK, options.reports / "quick") if options.quick else (FULL, options.reports)
    parts = options.part or ["defaults", "grid"]
    results: dict[str, Any] = {}
    try:
        paths = models.recipe_paths(options.model or ())
        for path in paths:
            with Bench(path, folder, size) as bench:
                if "defaults" in parts:
                    results[bench.recipe.name] = bench.against_defaults()
                if "grid" in parts and path == paths[-1]:
                    results[f"grid, {bench.recipe.name}"] = bench.against_grid()
        atomic.write(folder / "result.json", (json.dumps(results, indent=2) + "\n").encode())
    except KeyboardInterrupt:
        print(f"interrupted; what was measured is kept in {folder}, and the same command continues", file=sys.stderr)
        return INTERRUPTED
    return _print(results)


def _parser() -> Parser:
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        examples=["python -m tritonkit_load.benchmarks.bench_tuning --part defaults --quick"],
    )  # fmt: skip
    parser.add_argument("--model", action="append", help=f"{models.HELP}; all of that folder if not given")
    parser.add_argument("--part", choices=["defaults", "grid"], action="append", help="only that")
    parser.add_argument("--quick", action="store_true", help="shorter runs and fewer of them")
    parser.add_argument("--reports", type=Path, default=Path("reports/bench-tuning"))
    return parser


class Bench:
    """One model's server and generator, and everything that is measured with them."""

    def __init__(self, path: Path, folder: Path, size: Size) -> None:
        self.recipe = recipe.load(path)
        self.folder = folder / self.recipe.name
        self.size = size
        self.slo = slo_of(self.recipe, "")
        self.cores = divide()

    def __enter__(self) -> Bench:
        self._building = built(self.recipe)
        self.built = self._building.__enter__()
        try:
            effort = self.size.effort
            plan = Plan(duration_s=effort.probe_s, warm_up_s=effort.warm_up_s)
            self.server = TrialServer(self.built, self.slo, plan, self.cores).__enter__()
        except BaseException:
            self._building.__exit__(None, None, None)
            raise
        self._task = progress.task(f"{self.recipe.name} at {bounds(self.slo)}")
        self.say = self._task.__enter__()
        self.references = tuner.references(self.built, self.cores)
        return self

    def __exit__(self, *_: object) -> None:
        self._task.__exit__(None, None, None)
        self.server.__exit__()
        self._building.__exit__(None, None, None)

    def against_defaults(self) -> dict[str, Any]:
        """Search; then the winner beside both defaults, in fresh rounds: those that chose it flatter it."""
        effort = self.size.effort
        search = self._search("search", tuner.all_settings(self.built, self.cores, self.references))
        tuner.search_for(self.server, search, effort.probe_s, lambda: len(search.trials) < self.size.trials, self.say)

        def final() -> list[Measured]:
            return [tuner.final(self.server, search, self.references, effort, self.say).winner]

        (winner,) = self._kept("final", len(search.trials), final)
        default = self.references.default
        alike = replace(default, precision=winner.settings.precision)
        known = {trial.settings: trial.outcome.estimate or winner.capacity for trial in search.trials}
        guesses = {settings: known.get(settings, winner.capacity) for settings in (default, alike)}
        measured = self._rounds("defaults", guesses | {winner.settings: winner.capacity})
        return {
            "trials": len(search.trials),
            "tuned": _as_json(measured[winner.settings]),
            "default": _as_json(measured[default]),
            "over_default": asdict(_ratio(measured[winner.settings], measured[default])),
            "default_in_the_same_variant": _as_json(measured[alike]),
            "over_default_in_the_same_variant": asdict(_ratio(measured[winner.settings], measured[alike])),
        }

    def against_grid(self) -> dict[str, Any]:
        """Every configuration of a small space; a search in it; then both bests side by side."""
        space = small(self.recipe.max_batch_size, tuple(self.built.accurate))
        grid = self._grid(space)
        runs = sum(outcome.probes for outcome in grid.values())
        allowed = int(runs * MOST_RUNS)
        search = self._search("grid-search", space, runs=runs)

        def used() -> int:
            return sum(trial.outcome.probes for trial in search.trials)

        effort = self.size.effort
        tuner.search_for(self.server, search, effort.probe_s, lambda: used() < allowed - tuner.CHOOSING_RUNS, self.say)
        finalists = self._kept("chosen", [runs, used()], lambda: tuner.choose(self.server, search, self.say))
        winner = finalists[0]
        spent = used() + sum(finalist.runs for finalist in finalists)
        best = max(grid, key=lambda settings: grid[settings].estimate or 0.0)
        measured = self._rounds("bests", {best: grid[best].estimate or 1.0, winner.settings: winner.capacity})
        return {
            "configurations": len(grid), "runs": runs,
            "seconds": round(sum(outcome.seconds for outcome in grid.values())),
            "best": _as_json(measured[best]),
            "search_configurations": len(search.trials), "search_runs": spent, "part_of_runs": spent / runs,
            "search_seconds": round(sum(trial.outcome.seconds for trial in search.trials)),
            "found": _as_json(measured[winner.settings]),
            "of_best": asdict(_ratio(measured[winner.settings], measured[best])),
        }  # fmt: skip

    def _search(self, name: str, space: Space, **more: Any) -> Search:
        """A search that continues where it was interrupted."""
        identity = tuner.identity(self.built, self.slo, self.cores, {}, self.size.effort) | more
        first = tuner.opening(self.built, self.references, space)
        return Search(space, first, journal=self.folder / f"{name}.log", identity=identity)

    def _grid(self, space: Space) -> dict[Settings, Outcome]:
        """Every configuration's outcome, each looked for by itself; kept, and continued after an interruption."""
        path = self.folder / "grid.json"
        identity, rows = self._read(path, asdict(space))
        grid = {Settings(**settings): Outcome(**outcome) for settings, outcome in rows}
        every = space.grid()
        for number, settings in enumerate(every, 1):
            if settings in grid:
                continue
            self.say(f"grid, {number} of {len(every)}: {settings}")
            start = self.built.accurate[settings.precision] or tuner.FIRST_RATE
            grid[settings] = timed(self.server.configure, self.server.ask, settings, None, start)
            rows.append([settings.as_json(), asdict(grid[settings])])
            self._write(path, identity, rows)
        return grid

    def _rounds(self, name: str, guesses: dict[Settings, float]) -> dict[Settings, Measured]:
        def ask(rate: float) -> Probe:
            return self.server.ask(rate, self.size.effort.final_s)

        def measure() -> list[Measured]:
            measured = comparison.rounds(self.server.configure, ask, guesses, self.size.rounds, self.say)
            return list(measured.values())

        configurations = [settings.as_json() for settings in guesses]
        return {measured.settings: measured for measured in self._kept(name, configurations, measure)}

    def _kept(self, name: str, what: Any, measure: Callable[[], list[Measured]]) -> list[Measured]:
        """What was measured before the command was interrupted, or now."""
        path = self.folder / f"{name}.json"
        identity, rows = self._read(path, what)
        if not rows:
            rows = [[measured.settings.as_json(), list(measured.limits), measured.runs] for measured in measure()]
            self._write(path, identity, rows)
        return [Measured(Settings(**settings), tuple(limits), None, runs) for settings, limits, runs in rows]

    def _read(self, path: Path, what: Any) -> tuple[Any, list[Any]]:
        """What this measurement depends on, and the file's rows if they depended on the same."""
        basis = tuner.identity(self.built, self.slo, self.cores, {}, self.size.effort)
        identity = json.loads(json.dumps([basis, asdict(self.size), what]))
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return identity, kept["rows"] if kept.get("identity") == identity else []

    def _write(self, path: Path, identity: Any, rows: list[Any]) -> None:
        atomic.write(path, (json.dumps({"identity": identity, "rows": rows}) + "\n").encode())


def small(max_batch_size: int, precisions: Sequence[recipe.Precision]) -> Space:
    """54 configurations, where two variants are accurate: few enough to measure every one."""
    ends = tuple(dict.fromkeys([precisions[0], precisions[-1]]))
    sizes = tuple(size for size in (1, 4, 16) if size <= max_batch_size)
    return Space(ends, sizes, (0, 500, 2000), (1, 2, 3), (1,))


def _ratio(ours: Measured, theirs: Measured) -> Ratio:
    ratio = comparison.ratio(ours, theirs)
    if ratio is None:
        raise CheckFailed(f"{theirs.settings} met the SLO at no rate: there is no ratio to it", "loosen the SLO")
    return ratio


def _as_json(measured: Measured) -> dict[str, Any]:
    rounds = [round(limit, 1) for limit in measured.limits]
    return {"settings": str(measured.settings), "capacity": round(measured.capacity, 1), "rounds": rounds}


def _print(results: dict[str, Any]) -> int:
    out = Console(highlight=False, soft_wrap=True)
    gains, kept = [], []
    table = Table("model", "configuration", "requests/s", "tuned : this", box=None, pad_edge=False)
    for model, result in results.items():
        if model.startswith("grid, "):
            continue
        table.add_row(model, result["tuned"]["settings"], f"{result['tuned']['capacity']:.0f}", "")
        for key in ("default", "default_in_the_same_variant"):
            table.add_row("", result[key]["settings"], f"{result[key]['capacity']:.0f}", _words(result[f"over_{key}"]))
        gains.append(result["over_default"]["median"])
    if gains:
        out.print(table)
        kept.append(_promise(out, f"at least {LEAST_GAIN}x on one model", max(gains) >= LEAST_GAIN))
        kept.append(_promise(out, f"never below {LEAST_RATIO}x", min(gains) >= LEAST_RATIO))
    for model, result in results.items():
        if model.startswith("grid, "):
            out.print(
                f"{model}: {result['configurations']} configurations in {result['runs']} runs and "
                f"{result['seconds']} s; best {result['best']['settings']}, {result['best']['capacity']:.0f}/s\n"
                f"  search: {result['search_configurations']} configurations in {result['search_runs']} runs "
                f"({result['part_of_runs']:.1%}) and {result['search_seconds']} s; "
                f"found {result['found']['settings']}, {_words(result['of_best'])} of the grid's best",
                markup=False,
            )
            kept.append(_promise(out, f"at least {LEAST_OF_GRID:.0%}", result["of_best"]["median"] >= LEAST_OF_GRID))
            kept.append(_promise(out, f"at most {MOST_RUNS:.0%} of the runs", result["part_of_runs"] <= MOST_RUNS))
    return 0 if all(kept) else 1


def _promise(out: Console, what: str, kept: bool) -> bool:
    out.print(f"  {what}: {'kept' if kept else 'MISSED'}", markup=False)
    return kept


def _words(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


if __name__ == "__main__":
    sys.exit(main())
