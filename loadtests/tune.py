"""`make tune`: searches the configuration of Triton that serves most within the SLO, on the real server.

Writes the winner into the recipe's ``batching`` section, ``config.pbtxt`` and the passport, and a page of all
trials. It can be interrupted: what was found is kept, and the next call continues. Exit code: 0 done, 1 no
configuration meets the SLO (the page has the trials), 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from capacity import INTERRUPTED, slo_of
from load import environment, models, payloads
from load import target as targets
from load.plan import AS_SAMPLED, Plan
from reporting import tunepage
from reporting.tuning_result import TuningResult
from rich.console import Console
from rich.table import Table
from tuning import losses, outcome, tuner, writeback
from tuning.asking import at_least, bounds, seconds
from tuning.cores import Cores, divide
from tuning.rig import Built, Rig, built
from tuning.search import Search
from tuning.space import Settings
from tuning.tuner import Effort, Final

from tritonkit import atomic, progress, recipe
from tritonkit.cli.arguments import Parser
from tritonkit.cli.output import ended
from tritonkit.errors import CheckFailed, InputError
from tritonkit.recipe import Recipe, Slo
from tritonkit.server import runtime

JOURNAL = "journal.log"
SHOWN = 10  # trials in the table
LEAST_BUDGET_S = 10.0
OVERRUN = 1.1  # times the budget; a little more is no news
WRITES_S = 3.0  # for recipe, repository and page, roughly
DEFAULTS = Effort()


@dataclass(frozen=True)
class Wanted:
    """What was asked for."""

    recipe: Recipe
    slo: Slo
    plan: Plan
    budget_s: float
    repository: Path
    folder: Path
    effort: Effort = DEFAULTS
    target: targets.Target = "cpu"
    write: bool = True

    @property
    def load(self) -> dict[str, str]:
        """What every run sends."""
        return {"arrivals": "poisson", "batch_sizes": self.plan.batch_sizes, "lengths": self.plan.lengths}


def main() -> int:
    """Search, print, and write."""
    return ended(_main)


def _main() -> int:
    options = _parser().parse_args()
    try:
        wanted = _wanted(options)
        result, found = run(wanted)
    except KeyboardInterrupt:
        print("interrupted before anything was tried; nothing was written", file=sys.stderr)
        return INTERRUPTED
    if options.json:
        print(json.dumps(result.to_json(), indent=2))
    else:
        _print(wanted, result, found)
    return INTERRUPTED if result.partial else 0


def run(wanted: Wanted) -> tuple[TuningResult, Final | None]:
    """Search, and write what was found; without a final, the search was interrupted and the recipe is as it was.

    Raises:
        CheckFailed: No configuration meets the SLO, or the generator could not keep its schedule. Trials are kept, and
            the page has them.
    """
    began = time.monotonic()
    if wanted.write:
        writeback.check_writable(wanted.recipe.path)
    runtime.find()  # a server that is missing is said before anything is built
    cores = divide(target=wanted.target)
    smallest = max(payloads.distribution(wanted.plan.batch_sizes, "batch sizes").values)
    title = f"tune {wanted.recipe.name} for {wanted.target} at {bounds(wanted.slo)}"
    with built(wanted.recipe, wanted.target) as made, progress.task(title) as say:
        held = tuner.references(made, cores)
        whole = tuner.all_settings(made, cores, held, smallest)
        opening = tuner.opening(made, held, whole)
        search = Search(
            whole,
            opening,
            journal=wanted.folder / JOURNAL,
            identity=tuner.identity(made, wanted.slo, cores, wanted.load, wanted.effort),
        )
        say(_begins(search, cores))
        if short := _too_short(wanted, search, held):
            print(short, file=sys.stderr)
        late_at: list[float] = []
        lost: list[str] = []
        # What the first build of a recipe takes counts, but never for more than half.
        end = max(began + wanted.budget_s, time.monotonic() + wanted.budget_s / 2) - WRITES_S
        found: Final | None = None
        failure: CheckFailed | None = None
        try:
            found = _searched(wanted, made, search, held, cores, say, late_at, lost, end)
        except CheckFailed as error:
            failure = error
        where = environment.machine() | {"target": wanted.target, "divided": str(cores)}
        where |= {"generator": text} if (text := at_least(late_at)) else {}
        written: tuple[str, ...] = ()
        if found is not None and wanted.write:
            say("write the winner")
            figures = outcome.figures(found, search, wanted.slo, where, wanted.load)
            written = outcome.write(wanted.recipe, made, found, wanted.repository, figures, wanted.slo)
        result = outcome.result(
            wanted.recipe, search, held, found, slo=wanted.slo, budget_s=wanted.budget_s, environment=where,
            command=shlex.join(["python", "loadtests/tune.py", *sys.argv[1:]]), written=written,
            took_s=time.monotonic() - began, failure=failure,
            notes=(*losses.note(lost), *_notes(search, opening, wanted.budget_s, time.monotonic() - began)),
        )  # fmt: skip
    page = wanted.folder / "index.html"
    atomic.write(wanted.folder / "result.json", (json.dumps(result.to_json(), indent=2) + "\n").encode())
    atomic.write(page, tunepage.render(result).encode())
    if failure is not None:
        raise CheckFailed(failure.message, f"{failure.fix}; every trial is in {page}") from failure
    return result, found


def _too_short(wanted: Wanted, search: Search, held: tuner.References) -> str:
    """A line where the least that has to be measured takes longer than the budget; empty where it does not."""
    least_s = wanted.effort.least_s(held, search) + WRITES_S
    if least_s <= wanted.budget_s:
        return ""
    return (
        f"{wanted.budget_s:.0f} s are too short: what is served now, Triton's default and one round side by side take "
        f"about {least_s:.0f} s on a machine with nothing else to do; going on with that"
    )


def _searched(
    wanted: Wanted, made: Built, search: Search, held: tuner.References, cores: Cores, say: tuner.Say,
    late_at: list[float], lost: list[str], end: float,
) -> Final | None:  # fmt: skip
    """The final; None if a person interrupted it or the search before it.

    Rates that were late, and servers that were lost, are added.

    No measurement begins after ``end`` (``time.monotonic()``), but for what a result cannot do without.
    """
    plan = Plan(
        duration_s=wanted.effort.probe_s, warm_up_s=wanted.effort.warm_up_s, batch_sizes=wanted.plan.batch_sizes,
        lengths=wanted.plan.lengths,
    )  # fmt: skip
    try:
        with Rig(made, wanted.slo, plan, cores) as rig:
            search_end = time.monotonic() + wanted.effort.search_s(max(end - time.monotonic(), 0.0))

            def more() -> bool:
                say(f"{max(search_end - time.monotonic(), 0):.0f} s of the search left")
                return time.monotonic() < search_end or not held.tried(search)

            try:
                needed = {held.current, held.default}
                tuner.search_for(rig, search, wanted.effort.probe_s, more, say, search_end, needed)
                return tuner.final(rig, search, held, wanted.effort, say, end)
            finally:
                late_at += rig.late_at
                lost += rig.lost
    except KeyboardInterrupt:
        if not search.trials:
            raise
        return None


def _notes(search: Search, opening: Sequence[Settings], budget_s: float, took_s: float) -> tuple[str, ...]:
    """What a reader must know of a search: that it had no time to propose anything, say."""
    found = []
    tried = {trial.settings for trial in search.trials}
    if tried <= set(opening):
        found.append(
            f"Nothing was searched: there was time for {len(tried)} of the {len(opening)} configurations that every "
            "search begins with. The same command with a larger BUDGET goes on."
        )
    if took_s > OVERRUN * budget_s:
        found.append(
            f"It took {took_s:.0f} s and not {budget_s:.0f}: what is served now, Triton's default and one round side "
            "by side are measured in any case. A busy machine, or a first build, makes that long."
        )
    return tuple(found)


def _begins(search: Search, cores: Cores) -> str:
    if search.resumed:
        return f"continues after {search.resumed} trials; {cores}"
    if search.changed:
        return f"begins anew, as what trials depend on has changed: {', '.join(search.changed)}; {cores}"
    return f"begins; {cores}"


def _wanted(options: argparse.Namespace) -> Wanted:
    found = recipe.load(models.recipe_path(options.model))
    target = targets.resolve(options)
    if options.repository.exists() and not options.repository.is_dir():
        raise InputError(f"{options.repository} is not a directory", "name a model repository")
    plan = Plan(batch_sizes=options.batch_sizes, lengths=options.lengths)
    payloads.check(found, plan)
    return Wanted(
        found,
        slo_of(found, options.slo),
        plan,
        seconds("BUDGET", options.budget, least=LEAST_BUDGET_S),
        options.repository,
        options.reports / found.name,
        write=not options.dry_run,
        target=target,
    )


def _parser() -> Parser:
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        examples=["python loadtests/tune.py --model efficientnet_lite0 --budget 10m",
                  "python loadtests/tune.py --model efficientnet_lite0 --budget 2m --dry-run"],
    )  # fmt: skip
    parser.add_argument("--model", required=True, help=models.HELP)
    parser.add_argument("--budget", default="10m", help="how long, for example 10m")
    parser.add_argument("--slo", default="", help="p99_ms=50,error_rate=0.001; the recipe's where it is not given")
    parser.add_argument("--batch-sizes", default="1", help="samples a request: 4, 1-8, or 1:0.7,8:0.3")
    parser.add_argument("--lengths", default=AS_SAMPLED, help="sizes of the dynamic dimension, likewise")
    targets.add_options(parser, "where the winner goes")
    parser.add_argument("--reports", type=Path, default=Path("reports/tune"))
    parser.add_argument("--dry-run", action="store_true", help="write neither recipe nor repository")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    return parser


def _print(wanted: Wanted, result: TuningResult, found: Final | None) -> None:
    out = Console(highlight=False, soft_wrap=True)
    best = sorted(result.trials, key=lambda trial: -(trial.capacity or 0.0))[:SHOWN]
    columns = list(dict.fromkeys(name for trial in best for name in trial.settings))
    table = Table("trial", *columns, "requests/s", "p50 ms", "p99 ms", box=None, pad_edge=False)
    for trial in best:
        values = (trial.capacity, trial.p50_ms, trial.p99_ms)
        shown = ["-" if value is None else f"{value:.1f}" for value in values]
        table.add_row(str(trial.number), *(trial.settings.get(name, "-") for name in columns), *shown)
    out.print(table)
    if late := result.environment.get("generator"):
        out.print(f"The generator {late}.", markup=False)
    page = f"Report: {wanted.folder / 'index.html'}"
    if found is None:
        out.print(f"Interrupted. {len(result.trials)} trials are kept; recipe and repository are as they were.")
        out.print(f"The same command continues.\n{page}", markup=False)
        return
    out.print("\n".join([*_said(result, found), *_written(wanted, result, found), page]), markup=False)


def _said(result: TuningResult, found: Final) -> list[str]:
    """What was found, in the same words as on the page."""
    capacity = tunepage.served(result) or f"{found.capacity:.0f}"
    spent = f"{result.took_s or 0:.0f} of {result.budget_s:.0f} s"
    return [
        f"{found.winner.settings}: {capacity} requests/s within the SLO, after {spent}",
        *(f"  {text}" for text in tunepage.gains(result)),
        *result.notes,
    ]


def _written(wanted: Wanted, result: TuningResult, found: Final) -> list[str]:
    if not wanted.write:
        return ["Nothing was written (--dry-run)."]
    said = [f"Written: {', '.join(result.written)}"]
    if found.winner.settings == found.current.settings:
        said.append("The recipe stays as it is: nothing was better by more than a tie.")
    elif wanted.recipe.batching.target not in {None, wanted.target}:
        before = wanted.recipe.batching.target
        said.append(f"Its batching section held for {before} and now holds for {wanted.target}: {before} has defaults.")
    if wanted.recipe.slo is None and str(wanted.recipe.path) in result.written:
        said.append("The recipe had no slo: it has the one measured by now, and its queue's bounds follow from it.")
    if 0 < found.winner.settings.max_batch_size < found.current.settings.max_batch_size:
        most = found.winner.settings.max_batch_size
        said.append(f"Requests of more than {most} sample{'s' if most > 1 else ''} are refused from now on.")
    return said


if __name__ == "__main__":
    sys.exit(main())
