"""`make tune`: searches the configuration of Triton that serves most within the SLO, on the real server.

Writes the winner into the recipe's ``batching`` section, ``config.pbtxt`` and the passport, and a page of all
trials. It can be interrupted: what was found is kept, and the next call continues. Exit code: 0 done, 1 no
configuration meets the SLO (the page has the trials), 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tritonkit import atomic, progress
from tritonkit.cli.arguments import Parser
from tritonkit.cli.output import run_command
from tritonkit.errors import CheckFailed, InputError
from tritonkit.recipe import Recipe, Slo, writeback
from tritonkit.recipe import load as load_recipe
from tritonkit.server import runtime
from tritonkit_load.capacity import INTERRUPTED, slo_of
from tritonkit_load.load import environment, models, payloads
from tritonkit_load.load import target as targets
from tritonkit_load.load.durations import seconds
from tritonkit_load.load.plan import AS_SAMPLED, Plan
from tritonkit_load.reporting import tunepage, verbs
from tritonkit_load.reporting.tuning_result import TuningResult
from tritonkit_load.tuning import losses, outcome, tuner
from tritonkit_load.tuning.cores import Cores, divide
from tritonkit_load.tuning.probing import at_least, bounds
from tritonkit_load.tuning.search import Search
from tritonkit_load.tuning.space import Settings
from tritonkit_load.tuning.trial_server import Built, TrialServer, built
from tritonkit_load.tuning.tuner import Effort, Final

JOURNAL = "journal.log"
SHOWN = 10  # trials in the table
LEAST_BUDGET_S = 10.0
OVERRUN = 1.1  # times the budget; a little more is no news
WRITES_S = 3.0  # for recipe, repository and page, roughly
DEFAULTS = Effort()


@dataclass(frozen=True)
class TuningJob:
    """One search: what is tuned, for which SLO and load, how long, and where results go."""

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
    return run_command(_main)


def _main() -> int:
    options = _parser().parse_args()
    try:
        job = _job(options)
        result, final = run(job)
    except KeyboardInterrupt:
        print("interrupted before anything was tried; nothing was written", file=sys.stderr)
        return INTERRUPTED
    if options.json:
        print(json.dumps(result.to_json(), indent=2))
    else:
        _print(job, result, final)
    return INTERRUPTED if result.partial else 0


def run(job: TuningJob) -> tuple[TuningResult, Final | None]:
    """Search, and write what was found; without a final, the search was interrupted and the recipe is as it was.

    Raises:
        CheckFailed: No configuration meets the SLO, or the generator could not keep its schedule. Trials are kept, and
            the page has them.
    """
    began = time.monotonic()
    if job.write:
        writeback.check_writable(job.recipe.path)
    runtime.find()  # a missing server is reported before anything is built
    cores = divide(target=job.target)
    smallest = max(payloads.distribution(job.plan.batch_sizes, "batch sizes").values)
    title = f"tune {job.recipe.name} for {job.target} at {bounds(job.slo)}"
    with built(job.recipe, job.target) as build, progress.task(title) as say:
        references = tuner.references(build, cores)
        space = tuner.all_settings(build, cores, references, smallest)
        opening = tuner.opening(build, references, space)
        search = Search(
            space,
            opening,
            journal=job.folder / JOURNAL,
            identity=tuner.identity(build, job.slo, cores, job.load, job.effort),
        )
        say(_begins(search, cores))
        if short := _too_short(job, search, references):
            print(short, file=sys.stderr)
        late_at: list[float] = []
        lost: list[str] = []
        # What the first build of a recipe takes counts, but never for more than half.
        end = max(began + job.budget_s, time.monotonic() + job.budget_s / 2) - WRITES_S
        final: Final | None = None
        failure: CheckFailed | None = None
        try:
            final = _run_search(job, build, search, references, cores, say, late_at, lost, end)
        except CheckFailed as error:
            failure = error
        where = environment.machine() | {"target": job.target, "divided": str(cores)}
        where |= {"generator": text} if (text := at_least(late_at)) else {}
        written: tuple[str, ...] = ()
        if final is not None and job.write:
            say("write the winner")
            figures = outcome.figures(final, search, job.slo, where, job.load)
            written = outcome.write(job.recipe, build, final, job.repository, figures, job.slo)
        result = outcome.result(
            job.recipe, search, references, final, slo=job.slo, budget_s=job.budget_s, environment=where,
            command=verbs.running("tune"), written=written,
            took_s=time.monotonic() - began, failure=failure,
            notes=(*losses.note(lost), *_notes(search, opening, job.budget_s, time.monotonic() - began)),
        )  # fmt: skip
    page = job.folder / "index.html"
    atomic.write(job.folder / "result.json", (json.dumps(result.to_json(), indent=2) + "\n").encode())
    atomic.write(page, tunepage.render(result).encode())
    if failure is not None:
        raise CheckFailed(failure.message, f"{failure.fix}; every trial is in {page}") from failure
    return result, final


def _too_short(job: TuningJob, search: Search, references: tuner.References) -> str:
    """A line where the least that has to be measured takes longer than the budget; empty where it does not."""
    least_s = job.effort.least_s(references, search) + WRITES_S
    if least_s <= job.budget_s:
        return ""
    return (
        f"{job.budget_s:.0f} s are too short: what is served now, Triton's default and one round side by side take "
        f"about {least_s:.0f} s on a machine with nothing else to do; going on with that"
    )


def _run_search(
    job: TuningJob, build: Built, search: Search, references: tuner.References, cores: Cores, say: tuner.Say,
    late_at: list[float], lost: list[str], end: float,
) -> Final | None:  # fmt: skip
    """The final; None if a person interrupted it or the search before it.

    Rates that were late, and servers that were lost, are added.

    No measurement begins after ``end`` (``time.monotonic()``), but for what a result cannot do without.
    """
    plan = Plan(
        duration_s=job.effort.probe_s, warm_up_s=job.effort.warm_up_s, batch_sizes=job.plan.batch_sizes,
        lengths=job.plan.lengths,
    )  # fmt: skip
    try:
        with TrialServer(build, job.slo, plan, cores) as trial_server:
            search_end = time.monotonic() + job.effort.search_s(max(end - time.monotonic(), 0.0))

            def more() -> bool:
                say(f"{max(search_end - time.monotonic(), 0):.0f} s of the search left")
                return time.monotonic() < search_end or not references.tried(search)

            try:
                needed = {references.current, references.default}
                tuner.search_for(trial_server, search, job.effort.probe_s, more, say, search_end, needed)
                return tuner.final(trial_server, search, references, job.effort, say, end)
            finally:
                late_at += trial_server.late_at
                lost += trial_server.lost
    except KeyboardInterrupt:
        if not search.trials:
            raise
        return None


def _notes(search: Search, opening: Sequence[Settings], budget_s: float, took_s: float) -> tuple[str, ...]:
    """What a reader must know of a search: that it had no time to propose anything, say."""
    notes = []
    tried = {trial.settings for trial in search.trials}
    if tried <= set(opening):
        notes.append(
            f"Nothing was searched: there was time for {len(tried)} of the {len(opening)} configurations that every "
            "search begins with. The same command with a larger BUDGET goes on."
        )
    if took_s > OVERRUN * budget_s:
        notes.append(
            f"It took {took_s:.0f} s and not {budget_s:.0f}: what is served now, Triton's default and one round side "
            "by side are measured in any case. A busy machine, or a first build, makes that long."
        )
    return tuple(notes)


def _begins(search: Search, cores: Cores) -> str:
    if search.resumed:
        return f"continues after {search.resumed} trials; {cores}"
    if search.changed:
        return f"begins anew, as what trials depend on has changed: {', '.join(search.changed)}; {cores}"
    return f"begins; {cores}"


def _job(options: argparse.Namespace) -> TuningJob:
    recipe = load_recipe(models.recipe_path(options.model))
    target = targets.resolve(options)
    if options.repository.exists() and not options.repository.is_dir():
        raise InputError(f"{options.repository} is not a directory", "name a model repository")
    plan = Plan(batch_sizes=options.batch_sizes, lengths=options.lengths)
    payloads.check(recipe, plan)
    return TuningJob(
        recipe,
        slo_of(recipe, options.slo),
        plan,
        seconds("BUDGET", options.budget, least=LEAST_BUDGET_S),
        options.repository,
        options.reports / recipe.name,
        write=not options.dry_run,
        target=target,
    )


def _parser() -> Parser:
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        examples=["tritonkit-load tune --model efficientnet_lite0 --budget 10m",
                  "tritonkit-load tune --model efficientnet_lite0 --budget 2m --dry-run"],
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


def _print(job: TuningJob, result: TuningResult, final: Final | None) -> None:
    out = Console(highlight=False, soft_wrap=True)
    best = sorted(result.trials, key=lambda trial: -(trial.capacity or 0.0))[:SHOWN]
    columns = list(dict.fromkeys(name for trial in best for name in trial.settings))
    table = Table("trial", *columns, "requests/s", "p50 ms", "p99 ms", box=None, pad_edge=False)
    for trial in best:
        values = (trial.capacity, trial.p50_ms, trial.p99_ms)
        cells = ["-" if value is None else f"{value:.1f}" for value in values]
        table.add_row(str(trial.number), *(trial.settings.get(name, "-") for name in columns), *cells)
    out.print(table)
    if late := result.environment.get("generator"):
        out.print(f"The generator {late}.", markup=False)
    page = f"Report: {job.folder / 'index.html'}"
    if final is None:
        out.print(f"Interrupted. {len(result.trials)} trials are kept; recipe and repository are as they were.")
        out.print(f"The same command continues.\n{page}", markup=False)
        return
    out.print("\n".join([*_summary(result, final), *_written_lines(job, result, final), page]), markup=False)


def _summary(result: TuningResult, final: Final) -> list[str]:
    """The winner, its gains and the notes, in the same words as on the page."""
    capacity = tunepage.served(result) or f"{final.capacity:.0f}"
    spent = f"{result.took_s or 0:.0f} of {result.budget_s:.0f} s"
    return [
        f"{final.winner.settings}: {capacity} requests/s within the SLO, after {spent}",
        *(f"  {text}" for text in tunepage.gains(result)),
        *result.notes,
    ]


def _written_lines(job: TuningJob, result: TuningResult, final: Final) -> list[str]:
    if not job.write:
        return ["Nothing was written (--dry-run)."]
    lines = [f"Written: {', '.join(result.written)}"]
    if final.winner.settings == final.current.settings:
        lines.append("The recipe stays as it is: nothing was better by more than a tie.")
    elif job.recipe.batching.target not in {None, job.target}:
        before = job.recipe.batching.target
        lines.append(f"Its batching section held for {before} and now holds for {job.target}: {before} has defaults.")
    if job.recipe.slo is None and str(job.recipe.path) in result.written:
        lines.append("The recipe had no slo: it has the one measured by now, and its queue's bounds follow from it.")
    if 0 < final.winner.settings.max_batch_size < final.current.settings.max_batch_size:
        most = final.winner.settings.max_batch_size
        lines.append(f"Requests of more than {most} sample{'s' if most > 1 else ''} are refused from now on.")
    return lines


if __name__ == "__main__":
    sys.exit(main())
