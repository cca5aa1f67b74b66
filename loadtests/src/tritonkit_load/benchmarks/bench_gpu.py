"""`make bench-gpu`: what a GPU does with the shipped models, in process and served, with spreads.

Parts can be measured in separate calls: each adds to `result.json` and draws the page again from all of it. Answers are
checked before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from tritonkit import atomic, progress
from tritonkit.cli.arguments import Parser
from tritonkit.cli.output import run_command
from tritonkit.errors import InputError
from tritonkit_load.benchmarks.gpu import device, inprocess, models, served
from tritonkit_load.benchmarks.gpu.inprocess import Effort
from tritonkit_load.benchmarks.gpu.models import Model
from tritonkit_load.load import environment
from tritonkit_load.reporting import gpu_goals, gpupage
from tritonkit_load.reporting.gpu_result import GpuResult
from tritonkit_load.reporting.page import counted

PARTS = ("build", "inprocess", "served", "scaling", "page")
INTERRUPTED = 130
SCALING_IN_FLIGHT = (256, 512)
TITLE = "bench-gpu"
WIDE = 260  # of a log, where no row should be folded


def main() -> int:
    """Measure what was chosen, write the page and print the tables."""
    return run_command(_main)


def _main() -> int:
    options = _parser().parse_args()
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    try:
        bench = Bench(options)
        bench.run()
    except KeyboardInterrupt:
        print(f"interrupted; what was measured is in {options.reports}", file=sys.stderr)
        return INTERRUPTED
    for table in tables(bench.result):
        console.print(table)
        console.print()
    console.print(f"Report: {options.reports / 'index.html'}")
    return 0


class Bench:
    """One call of the verb.

    Args:
        options: Its arguments.

    Raises:
        MissingError: There is no GPU.
        InputError: A model or a part is unknown, or the result of earlier calls cannot be read.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.parts = _chosen("--only", options.only, PARTS) or list(PARTS[:-1])
        self.recipes = models.recipes(
            _chosen("--models", options.models, tuple(models.VARIANTS)) or list(models.VARIANTS)
        )
        self.result = _stored(options.reports)
        self.errors = Console(stderr=True, highlight=False, soft_wrap=True)
        self.gpus: list[str] = []
        if self.parts == ["page"]:
            return
        self.gpus = device.names()
        facts = environment.machine() | {"driver": device.driver()}
        self.result = GpuResult(_now(), shlex.join(["python", *sys.argv]), facts).merged(self.result)

    def run(self) -> None:
        """Measure; what is finished is written at once."""
        effort = Effort(self.options.seconds, self.options.rounds)
        plan = served.Plan(_numbers("--in-flight", self.options.in_flight), effort, self.options.callers)
        work = models.work_folder()
        work.mkdir(parents=True, exist_ok=True)
        if self.parts != ["page"]:
            with _steps() as step, tempfile.TemporaryDirectory(prefix="run-", dir=work) as folder:
                step("build")
                built, gate = models.build(self.recipes, work)
                self._add(GpuResult(_now(), "", {}, gate=tuple(gate)))
                for model in built:
                    self._measure(model, plan, Path(folder), step)
        self._write()

    def _measure(self, model: Model, plan: served.Plan, folder: Path, step: Callable[[str], None]) -> None:
        behind = "served" in self.parts and model.served
        if "inprocess" in self.parts or behind:
            step(f"{model.name} {model.precision}: prepare its sizes")
            with inprocess.opened(model) as prepared:
                if "inprocess" in self.parts:
                    self._in_process(model, prepared, plan, step)
                if behind:
                    self._serve(model, prepared, plan, folder, step)
        if "scaling" in self.parts and model.served and len(self.gpus) > 1:
            wide = replace(plan, in_flight=SCALING_IN_FLIGHT)
            count = model.recipe.serving("cuda").instances
            scaling = served.scaling(model, count, len(self.gpus), folder, wide, step)
            self._add(GpuResult(_now(), "", {}, scaling=scaling))

    def _in_process(
        self, model: Model, prepared: inprocess.Prepared, plan: served.Plan, step: Callable[[str], None]
    ) -> None:
        figures = inprocess.measure(model, prepared, plan.effort, step)
        self._add(GpuResult(_now(), "", {}, in_process=(figures,)))
        if model.of_texts:
            step(f"{model.name} {model.precision}: mixed lengths")
            mixed = inprocess.mixed(model, prepared, plan.effort)
            self._add(GpuResult(_now(), "", {}, mixed=(mixed,)))

    def _serve(
        self, model: Model, prepared: inprocess.Prepared, plan: served.Plan, folder: Path, step: Callable[[str], None]
    ) -> None:
        own = model.recipe.serving("cuda").instances
        counts = _numbers("--instances", self.options.instances) if self.options.instances else (own,)
        for count in sorted(set(counts), key=lambda count: (count != own, count)):  # the one that is built first
            step(f"{model.name} {model.precision}: a server with {counted(count, 'instance')}")
            # On one GPU, as what it is held against runs in process on one.
            with served.running(model, count, folder, plan.processes, only_first_gpu=True) as running:
                chosen = plan if count == own else served.fewer(plan)
                figures = served.measure(running, prepared, chosen, 1, step)
                self._add(GpuResult(_now(), "", {}, served=(figures,)))
                if model.of_texts and count == own:
                    mixed = served.mixed(running, plan, step)
                    self._add(GpuResult(_now(), "", {}, mixed=(mixed,)))

    def _add(self, part: GpuResult) -> None:
        """Merge a part into the result, write it and print its goals: a GPU may be rented by the minute."""
        for goal in gpu_goals.goals(part):
            self.errors.print(f"  {goal.subject}: {goal.what} {goal.figure}, {goal.bound}", markup=False)
        self.result = replace(part.merged(self.result), command=self.result.command)
        self._write()

    def _write(self) -> None:
        folder: Path = self.options.reports
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write(folder / "result.json", (json.dumps(self.result.to_json(), indent=2) + "\n").encode())
        atomic.write(folder / "index.html", gpupage.render(self.result).encode())


def tables(result: GpuResult) -> Iterator[Table]:
    """What the page has, for a terminal."""
    for title, columns, rows in gpupage.tables(result):
        table = Table(*columns, title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for row in rows:
            table.add_row(*row)
        yield table


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    with progress.task(TITLE) as step:
        yield step


def _stored(reports: Path) -> GpuResult:
    """What earlier calls measured; nothing where there is no result.

    Raises:
        InputError: The result in ``reports`` cannot be read.
    """
    path = reports / "result.json"
    if not path.exists():
        return GpuResult(_now(), "", {})
    try:
        return GpuResult.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        raise InputError(f"cannot read {path}: {error}", "move it away, and it is measured anew") from error


def _chosen(argument: str, text: str, known: Sequence[str]) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := sorted(set(names) - set(known)):
        raise InputError(f"{argument} names {unknown[0]!r}", f"some of {', '.join(known)}")
    return names


def _numbers(argument: str, text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        numbers = (0,)
    if numbers[0] < 1:
        raise InputError(f"{argument} {text!r} is no list of numbers from 1", "for example 1,8,64")
    return numbers


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _parser() -> Parser:
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        examples=["python -m tritonkit_load.benchmarks.bench_gpu --only inprocess --models bert_base"],
    )  # fmt: skip
    parser.add_argument("--only", default="", metavar="PART,…", help=f"some of {', '.join(PARTS)}; all that measure")
    parser.add_argument("--models", default="", metavar="NAME,…", help=f"some of {', '.join(models.VARIANTS)}")
    parser.add_argument("--instances", default="1,2,4,6", help="numbers of instances; empty: the built one only")
    parser.add_argument("--in-flight", default="1,8,64,256", help="requests in flight; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each load; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="of everything; default: %(default)s")
    parser.add_argument("--callers", type=int, default=8, help="processes that send; default: %(default)s")
    parser.add_argument("--reports", type=Path, default=Path("reports/gpu"), help="default: %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())
