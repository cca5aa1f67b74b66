"""One model's comparison: every contender in its best variant, all running at once, measured turn by turn."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from tritonkit.errors import CheckFailed, TritonkitError
from tritonkit.recipe import Recipe, Slo
from tritonkit_load.benchmarks.peers import harness, turns
from tritonkit_load.benchmarks.peers.harness import USERS, Contender
from tritonkit_load.load.generator import Generator
from tritonkit_load.load.plan import Plan
from tritonkit_load.load.result import ModelResult
from tritonkit_load.load.target import Target
from tritonkit_load.reporting.comparison_result import Row, Trial
from tritonkit_load.reporting.page import short
from tritonkit_load.tuning.cores import Cores
from tritonkit_load.tuning.limit import Ask, Bracket, Probe, bracket, interval
from tritonkit_load.tuning.probing import Asker, at_least

# Callers of the trials that choose a variant: on a GPU as many as its largest batches hold.
IN_FLIGHT: dict[Target, int] = {"cpu": 8, "cuda": 64}
FIRST_STRIDE, STRIDE = 1.4, 1.15  # between the first rates of a round, and of the rounds after it
HALF_TIMES = 2  # as long as other runs: the run at half the capacity
PATIENCE, PAUSE_S = 4, 5.0  # tries at a rate that the generator could not keep, and between them
SURE = 0.5  # the interval is of the rate that meets the SLO as often as not


T = TypeVar("T")


@dataclass(frozen=True)
class Effort:
    """How long and how often.

    Attributes:
        seconds: Of a run.
        warm_up_s: Before it.
        rounds: Searches for each contender's capacity.
        resolution: Factor between the rates that are told apart.
        trials: Of each way to serve a model, in turns, before one is chosen.
    """

    seconds: float = 4.0
    warm_up_s: float = 1.0
    rounds: int = 3
    resolution: float = 1.05
    trials: int = 2

    @property
    def plan(self) -> Plan:
        """The plan of one run, without its rate."""
        return Plan(duration_s=self.seconds, warm_up_s=self.warm_up_s)


@dataclass(frozen=True)
class Stage:
    """Where a contest is held: what models run on, and who has which cores."""

    target: Target
    cores: Cores


@dataclass(frozen=True)
class Candidate:
    """One way to serve the model.

    Attributes:
        settings: In words.
        lines: What a team writes for it.
        make: Makes the contender, which starts when it is entered.
        as_configured: It is how the recipe says.
    """

    settings: str
    lines: int
    make: Callable[[], Contender]
    as_configured: bool = True


@dataclass
class Entry:
    """One server in the contest, and its figures.

    Attributes:
        name, version, ours: As in the report.
        candidates: Of which the fastest is measured.
        chosen: The candidate that is measured.
        contender: The chosen one, running.
        asker: Runs a rate.
        guess: Where the next round begins.
        rates: The capacity that each round found.
        probes: Every run.
        half: The run at half the capacity.
        memory_bytes: After it.
        problem: Why it was not measured further.
        fix: What cures that.
        failures: Candidates that did not start, each with its reason.
        trials: What the others did.
    """

    name: str
    version: str
    candidates: Sequence[Candidate]
    ours: bool = False
    chosen: Candidate | None = None
    contender: Contender | None = None
    asker: Asker | None = None
    guess: float = 1.0
    rates: list[float] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    half: Probe | None = None
    memory_bytes: int | None = None
    problem: str | None = None
    fix: str = ""
    failures: list[str] = field(default_factory=list)
    trials: tuple[Trial, ...] = ()

    @property
    def capacity(self) -> float | None:
        """The median of the rounds."""
        return statistics.median(self.rates) if self.rates else None

    def _late(self) -> list[str]:
        late = at_least(self.asker.late_at) if self.asker else ""
        return [f"the generator {late}"] if late else []

    def _unfinished(self) -> str | None:
        """What is known of a capacity whose search was interrupted."""
        if self.rates:
            return None
        if rates := [probe.rate for probe in self.probes if probe.met]:
            return f"interrupted; it meets the SLO at {max(rates):.0f} requests/s"
        chosen = [trial for trial in self.trials if self.chosen and trial.settings == self.chosen.settings]
        if chosen:
            trial = chosen[0]
            return (
                f"interrupted; {trial.callers} callers who wait got {short(trial.throughput)} answers/s "
                f"(p99 {short(trial.p99_ms)} ms), no rate was looked for yet"
            )
        return "interrupted; no rate was looked for yet"

    def row(self) -> Row:
        """The row of the report."""
        low, high = interval(self.probes, sure=SURE) if self.rates else (None, None)
        chosen = self.chosen or self.candidates[0]
        return Row(
            name=self.name,
            version=self.version,
            ours=self.ours,
            capacity=self.capacity,
            low=low,
            high=high,
            p50_ms=self.half.p50_ms if self.half else None,
            p99_ms=self.half.p99_ms if self.half else None,
            memory_mb=self.memory_bytes / 1e6 if self.memory_bytes else None,
            ready_s=self.contender.ready_s if self.contender else None,
            config_lines=chosen.lines,
            settings="; ".join([chosen.settings, *self.failures, *self._late()]),
            problem=self.problem or self._unfinished(),
            fix=self.fix,
            late_at=min(self.asker.late_at) if self.asker and self.asker.late_at else None,
            as_configured=chosen.as_configured,
            trials=self.trials,
        )


def hold(entries: Sequence[Entry], recipe: Recipe, effort: Effort, stage: Stage, say: Callable[[str], None]) -> None:
    """Measure all entries; what each has come to is in its :meth:`Entry.row`, also after an interruption.

    Args:
        entries: Who takes part; one that has a problem already stays in the table.
        recipe: Of the model that they serve, with the SLO.
        effort: How long and how often.
        stage: Where.
        say: Is told what happens.
    """
    with contextlib.ExitStack() as stack:
        for entry in _left(entries):
            with _noting(entry):
                _enter(stack, entry, recipe, effort, stage, say)
        for number in range(effort.rounds):
            _round(_left(entries), number, effort, say)
        for entry in _left(entries):
            with _noting(entry):
                _finish(entry, effort, say)


def _left(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.problem is None]


@contextlib.contextmanager
def _noting(entry: Entry) -> Iterator[None]:
    """An entry that fails stays in the table, with the reason, and the others go on."""
    try:
        yield
    except TritonkitError as error:
        entry.problem, entry.fix = error.message, error.fix


def _enter(
    stack: contextlib.ExitStack, entry: Entry, recipe: Recipe, effort: Effort, stage: Stage, say: Callable[[str], None]
) -> None:
    """Start every candidate, and keep the best one with callers who wait (:func:`best`)."""
    assert recipe.slo is not None
    running: list[tuple[Candidate, Contender, Generator, contextlib.ExitStack]] = []
    with contextlib.ExitStack() as trial:
        stacks = [trial.enter_context(contextlib.ExitStack()) for _ in entry.candidates]
        # On a CPU all have one core. Threads outlive servers: the kernel ends a server with the thread that started it.
        pool = None if stage.target == "cpu" else stack.enter_context(futures.ThreadPoolExecutor(len(stacks)))
        starts = [partial(_start, entry, say, *each) for each in zip(entry.candidates, stacks, strict=True)]
        started = _together(pool, starts)
        for candidate, own, contender in zip(entry.candidates, stacks, started, strict=True):
            if isinstance(contender, CheckFailed):  # one that this model or this machine is not for; others may do
                entry.failures.append(f"not started ({candidate.settings}): {contender.message}")
                last = contender
                continue
            load = stage.cores.generator
            generator = Generator(
                contender.url, USERS[contender.protocol], [recipe.path], core=load[0], processes=len(load)
            )
            running.append((candidate, contender, own.enter_context(generator), own))
        if not running:
            raise last
        callers = IN_FLIGHT[stage.target]
        plan = replace(effort.plan, users=callers, duration_s=max(effort.seconds / 2, 1))
        results: list[list[ModelResult]] = [[] for _ in running]
        for _ in range(effort.trials):
            for (candidate, contender, generator, _), own_results in zip(running, results, strict=True):
                say(f"{entry.name}: {callers} callers ({candidate.settings})")
                own_results.append(_valid(contender, partial(_with_callers, generator, plan, recipe.slo)))
                entry.trials = _trials([candidate for candidate, *_ in running], results, callers, recipe.slo)
        place = best(results, recipe.slo)
        entry.guess = _throughput(results[place])
        entry.chosen, entry.contender, generator, own = running[place]
        stack.enter_context(own.pop_all())
        _together(pool, [others.close for others in stacks])
    entry.asker = Asker(generator, recipe.slo, effort.plan, lenient=stage.target == "cuda")


def _start(
    entry: Entry, say: Callable[[str], None], candidate: Candidate, own: contextlib.ExitStack
) -> Contender | CheckFailed:
    """A candidate, running until its stack is closed, or why it does not run; a failed start is tried once more.

    Some servers give their own processes only a second.
    """
    say(f"{entry.name}: start ({candidate.settings})")
    try:
        return own.enter_context(candidate.make())
    except CheckFailed:
        try:
            return own.enter_context(candidate.make())
        except CheckFailed as error:
            return error


def _with_callers(generator: Generator, plan: Plan, slo: Slo) -> ModelResult:
    return generator.run(plan, slo=slo).model


def _together(pool: futures.Executor | None, tasks: Sequence[Callable[[], T]]) -> list[T]:
    """What tasks return: at the same time in a pool, else in turn; none runs on when this ends."""
    if pool is None:
        return [task() for task in tasks]
    running = [pool.submit(task) for task in tasks]
    try:
        return [task.result() for task in running]
    finally:
        futures.wait(running)


def _trials(
    candidates: Sequence[Candidate], results: Sequence[Sequence[ModelResult]], callers: int, slo: Slo
) -> tuple[Trial, ...]:
    """For the report: those that have been tried at least once."""
    return tuple(
        Trial(
            candidate.settings,
            callers,
            _throughput(own),
            max((result.latency.p99 for result in own if result.latency), default=None),
            in_slo=all(_keeps(result, slo) for result in own),
        )
        for candidate, own in zip(candidates, results, strict=True)
        if own
    )


def best(trials: Sequence[Sequence[ModelResult]], slo: Slo) -> int:
    """Which candidate is measured: of those whose trials kept the SLO's latency, the one that answered most.

    Where none kept it, as callers who wait may be more than an SLO allows, the one that answered most of all.
    """
    kept = [place for place, results in enumerate(trials) if all(_keeps(result, slo) for result in results)]
    return max(kept or range(len(trials)), key=lambda place: _throughput(trials[place]))


def _throughput(results: Sequence[ModelResult]) -> float:
    return statistics.median(result.throughput for result in results)


def _keeps(result: ModelResult, slo: Slo) -> bool:
    bounds = {"p50": slo.p50_ms, "p95": slo.p95_ms, "p99": slo.p99_ms}
    latency = result.latency
    return latency is not None and all(
        bound is None or getattr(latency, name) <= bound for name, bound in bounds.items()
    )


def _round(entries: Sequence[Entry], number: int, effort: Effort, say: Callable[[str], None]) -> None:
    stride = max(effort.resolution, STRIDE if number else FIRST_STRIDE)
    searches: dict[str, Callable[[Ask], Bracket]] = {
        entry.name: partial(bracket, start=entry.guess, stride=stride, resolution=effort.resolution)
        for entry in entries
    }
    outcomes = turns.take(searches, {entry.name: _patient(entry, number, effort, say) for entry in entries})
    for entry in entries:
        outcome = outcomes[entry.name]
        if isinstance(outcome, TritonkitError):
            entry.problem, entry.fix = outcome.message, outcome.fix
        elif outcome.low is None:
            entry.problem = f"misses the SLO at {outcome.high.rate:g} request a second: {outcome.high.why}"
            entry.fix = "it needs a looser SLO (SLO=p99_ms=…)"
        else:
            entry.rates.append(outcome.low.rate)
            entry.guess = outcome.low.rate


def _patient(entry: Entry, number: int, effort: Effort, say: Callable[[str], None]) -> Ask:
    """What answers a search: a rate that is missed by a server that keeps up with it is asked once more."""

    def run(rate: float) -> Probe:
        place = f"round {number + 1} of {effort.rounds}, {entry.name}: {rate:.0f} requests/s"
        say(place)
        probe = _ask(entry, rate)
        entry.probes.append(probe)
        say(f"{place} {'meets the SLO' if probe.met else probe.why}")
        return probe

    def ask(rate: float) -> Probe:
        assert entry.asker is not None
        probe = run(rate)
        return probe if probe.met or probe.overloaded or rate in entry.asker.late_at else run(rate)

    return ask


def _valid(contender: Contender, run: Callable[[], T]) -> T:
    """One run while a contender is awake; a machine that is too busy for it gets some time to recover.

    So does a server that answers its first request with an error: some do, for requests that waited while they stood
    still.
    """
    for _ in range(PATIENCE - 1):
        try:
            with contender.awake():
                return run()
        except CheckFailed:
            time.sleep(PAUSE_S)
    with contender.awake():
        return run()


def _ask(entry: Entry, rate: float) -> Probe:
    assert entry.contender is not None
    assert entry.asker is not None
    return _valid(entry.contender, partial(entry.asker, rate))


def _finish(entry: Entry, effort: Effort, say: Callable[[str], None]) -> None:
    """Latency at half of the capacity, then memory."""
    assert entry.asker is not None
    assert entry.contender is not None
    rate = (entry.capacity or 0.0) / 2
    say(f"{entry.name}: half of its capacity, {rate:.0f} requests/s")
    entry.asker.plan = replace(effort.plan, duration_s=HALF_TIMES * effort.seconds)
    entry.half = _ask(entry, rate)
    entry.memory_bytes = harness.memory_bytes(entry.contender.processes())
