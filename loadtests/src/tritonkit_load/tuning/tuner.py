"""One search from beginning to end: many short trials, then the best of them side by side with what is served now.

It says what won; :mod:`.tuning.outcome` writes it down.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from tritonkit.errors import CheckFailed
from tritonkit.precision import gate
from tritonkit.recipe import Slo
from tritonkit.server import runtime
from tritonkit_load.load import environment
from tritonkit_load.tuning import comparison, limit, space
from tritonkit_load.tuning.comparison import Measured
from tritonkit_load.tuning.cores import Cores
from tritonkit_load.tuning.limit import BUSY_FIX, Ask, Capacity, Ended, Probe
from tritonkit_load.tuning.losses import ServerLost, twice
from tritonkit_load.tuning.search import Search, Trial
from tritonkit_load.tuning.space import Settings, Space
from tritonkit_load.tuning.trial import timed
from tritonkit_load.tuning.trial_server import Built, TrialServer

SLO_FIX = "loosen the SLO, or make the model faster"
FIRST_RATE = 50.0  # where the gate measured no speed
# Requests a second where a search begins at most, for each process of the generator: a rate that it cannot keep costs
# half a minute.
MOST_FIRST_RATE = 500.0
LOADS_S = 3.0  # a configuration, roughly
Say = Callable[[str], None]
PROBES = 4  # of a configuration in a final round, roughly: of 37 on two cores half took over 16 s, a quarter over 24
TRIAL_PROBES = 6  # that the first trials take, roughly: nothing is known yet of where the limit is
QUALIFIERS = 3  # trials that are measured again: the estimate that put one of them first is partly luck
CHOOSING_RUNS = 13  # that `choose` takes, at most as a rule
OVERLOAD = 1.5  # times its capacity keep the winner busy, without a backlog that takes long to serve
LEAST_SHARE = 0.4  # of the budget for the search, however short it is
QUALIFYING, COMPARING = 0.2, 0.75  # of the final's time have passed when the best are measured again, and compared
CLAIMING = 0.9  # the same of the rounds without which no gain can be claimed: they come before the winner's other runs
CONFIRMS_S = 10.0  # a run of `make capacity`, which the winner has to stand
NEARLY = 0.95  # of the winner's limit: half of the runs meet the SLO at a limit, and nearly all a little below


@dataclass(frozen=True)
class Effort:
    """How much is measured: seconds of a run, rounds and finalists.

    Attributes:
        probe_s: Measured seconds of a trial's runs.
        final_s: Measured seconds of the final's runs.
        warm_up_s: Seconds before either.
        rounds: Most rounds of the final: it ends with its time, and claims no gain of fewer than three.
        finalists: How many trials take part in it, beside what is served now and Triton's default.
    """

    probe_s: float = 2.0
    final_s: float = 4.0
    warm_up_s: float = 0.5
    rounds: int = 5
    finalists: int = 2

    @property
    def limit_s(self) -> float:
        """Seconds that one configuration takes in one round of the final, roughly."""
        return LOADS_S + PROBES * (self.final_s + self.warm_up_s)

    @property
    def final_takes_s(self) -> float:
        """Seconds that the final takes, roughly."""
        return (QUALIFIERS + (2 + self.finalists) * self.rounds) * self.limit_s

    def field(self, left_s: float) -> tuple[int, int]:
        """How many of the best trials take part in a final of so many seconds, and how many are measured before it.

        Whole rounds come first: with fewer than :data:`comparison.LEAST_ROUNDS` no gain can be claimed at all.
        """
        for finalists, qualifiers in ((self.finalists, QUALIFIERS), (self.finalists, 0)):
            limits = qualifiers + (2 + finalists) * comparison.LEAST_ROUNDS
            if limits * self.limit_s <= CLAIMING * left_s:
                return finalists, qualifiers
        return 1, 0

    def least_s(self, held: References, search: Search) -> float:
        """Seconds of what is measured whatever the budget, roughly, without the build.

        What is served now and Triton's default as trials, unless they have been; both and the best in one round; the
        winner without a pause. The first of a second round is loaded before the time is looked at.
        """
        references = {held.current, held.default}
        tried = {trial.settings for trial in search.ranked()} | references
        entrants = len(references) + min(1, len(tried - references))
        loads = held.missing(search) + entrants + 2
        probes_s = held.missing(search) * TRIAL_PROBES * (self.probe_s + self.warm_up_s)
        return loads * LOADS_S + probes_s + (entrants * PROBES + 1) * (self.final_s + self.warm_up_s)

    def search_s(self, budget_s: float) -> float:
        """Seconds that are left for the search."""
        return max(budget_s - self.final_takes_s, budget_s * LEAST_SHARE)


class Configurable(Protocol):
    """Serves one configuration at a time and can be asked for rates, as a :class:`.tuning.trial_server.TrialServer`."""

    def configure(self, settings: Settings, /) -> None:
        """Serve this one from now on."""

    def ask(self, rate: float, /) -> Probe:
        """Run one rate."""


@dataclass(frozen=True)
class Final:
    """What the final measured.

    Attributes:
        winner: The best; of those that tie, what is served now.
        current: What the recipe says now.
        default: Triton's ``dynamic_batching {}`` with one instance.
        others: The other finalists.
        throughput: Requests a second that the winner answered when it was never idle.
        confirmed: The winner's capacity as `make capacity` measures it; None where there was no time for that.
    """

    winner: Measured
    current: Measured
    default: Measured
    others: tuple[Measured, ...]
    throughput: float | None = None
    confirmed: Capacity | None = None

    @property
    def capacity(self) -> float:
        """The winner's: the rate that stood further runs, or the median of its rounds."""
        return self.confirmed.rate if self.confirmed else self.winner.capacity


@dataclass(frozen=True)
class References:
    """The two configurations that everything is held against."""

    current: Settings
    default: Settings

    def tried(self, search: Search) -> bool:
        """Whether the search has measured both, as far as its space has them: short of that, no budget is enough."""
        return not self.missing(search)

    def missing(self, search: Search) -> int:
        """How many of the two the search has not measured, as far as its space has them."""
        both = {settings.normal() for settings in (self.current, self.default) if search.space.holds(settings)}
        return len(both - {trial.settings.normal() for trial in search.trials})


def references(build: Built, cores: Cores) -> References:
    """Both references of a recipe, on this many cores."""
    return References(
        space.of_recipe(build.recipe, build.chosen, build.target),
        space.tritons_default(build.recipe, len(cores.server), build.target),
    )


def all_settings(build: Built, cores: Cores, held: References, smallest_batch: int = 1) -> Space:
    """The space of the search, with the references' own values."""
    recipe_space = space.of(build.recipe, tuple(build.accurate), len(cores.server), smallest_batch, build.target)
    return recipe_space.with_values_of(held.current, held.default)


def opening(build: Built, held: References, whole: Space) -> list[Settings]:
    """What is tried first, as far as it is in the space.

    The references; then, on a CPU, Triton's default in every other accurate variant, and no batches at all, as a batch
    often costs what its samples cost one by one; on a GPU, what is served now in every other accurate variant.
    """
    if build.target == "cuda":
        others = [replace(held.current, precision=precision) for precision in build.accurate]
        return list(dict.fromkeys([held.current, held.default, *others]))
    variants = [replace(held.default, precision=precision) for precision in build.accurate]
    single = replace(held.default, precision=build.chosen, max_batch_size=min(held.default.max_batch_size, 1)).normal()
    return [
        settings for settings in dict.fromkeys([held.current, held.default, *variants, single]) if whole.holds(settings)
    ]


def identity(build: Built, slo: Slo, cores: Cores, load: dict[str, Any], effort: Effort) -> dict[str, Any]:
    """What trials depend on; ``batching``, which is what they vary, is not part of it."""
    recipe = build.recipe
    fields = recipe.model_dump(
        mode="json", include={"name", "inputs", "outputs", "shapes", "max_batch_size", "samples"}
    )
    devices = {"target": build.target} | ({"GPUs": environment.gpus()} if build.target == "cuda" else {})
    return {
        "recipe": fields,
        "graph": dict(build.graphs),
        "server": f"{runtime.WHEEL} {runtime.find().path.name}",
        "machine": gate.machine(),
        **devices,
        "cores": str(cores),
        "SLO": slo.model_dump(),
        "load": load,
        "effort": [effort.probe_s, effort.warm_up_s],
    }


def search_for(
    server: TrialServer, search: Search, probe_s: float, more: Callable[[], bool], say: Say = lambda _: None,
    end: float = math.inf, needed: Collection[Settings] = (),
) -> None:  # fmt: skip
    """Try configurations for as long as ``more`` says, or until everything was tried.

    Args:
        server: Serves them.
        search: Proposes them, and keeps what came of them.
        probe_s: Measured seconds of a run.
        more: Whether another one should be tried.
        say: Called with a line on each trial.
        end: By ``time.monotonic()``: a trial that is not whole by then is dropped.
        needed: Configurations that are measured to the end all the same.
    """
    start = min(server.build.accurate[server.build.chosen] or FIRST_RATE, MOST_FIRST_RATE * server.senders)
    while more():
        settings = search.propose()
        if settings is None:
            say("every configuration was tried")
            return
        best = search.best
        say(f"trial {len(search.trials) + 1}: {settings}{_so_far(best)}")
        best_so_far = best.outcome.estimate if best else None
        ask = limit.until(lambda rate: server.ask(rate, probe_s), math.inf if settings in needed else end, probe_s)
        try:
            outcome = timed(server.configure, ask, settings, best_so_far, start)
        except Ended:
            return
        search.tell(settings, outcome)


def final(
    server: TrialServer,
    search: Search,
    held: References,
    effort: Effort,
    say: Say = lambda _: None,
    end: float = math.inf,
) -> Final:
    """Measure the best trials again, in turn with the references, and say which one wins.

    Args:
        server: Serves them.
        search: Its trials are measured again.
        held: The references.
        effort: How much is measured.
        say: Called with a line on what is measured.
        end: By ``time.monotonic()``: no run begins later, but for those of one whole round.

    Raises:
        CheckFailed: No configuration meets the SLO.
    """
    if not search.ranked():
        raise _fruitless(search)

    left_s = max(end - time.monotonic(), 0.0)

    def ask(rate: float) -> Probe:
        return server.ask(rate, effort.final_s)

    def until(share: float) -> Ask:
        last = end - (1 - share) * left_s if left_s < math.inf else math.inf
        return limit.until(ask, last, effort.final_s)

    finalists, qualifiers = effort.field(left_s)
    best = qualified(server.configure, until(QUALIFYING), search, say, qualifiers)[:finalists]
    entrants = _entrants(held, [contender.settings for contender in best])
    highest = best[0].capacity or FIRST_RATE
    known = {trial.settings: trial.outcome.estimate or highest for trial in search.trials}
    known |= {contender.settings: contender.capacity or highest for contender in best}
    guesses = {settings: known.get(settings, highest) for settings in entrants}
    measured = comparison.rounds(server.configure, ask, guesses, 1, lambda text: say(f"final, first {text}"))
    needed = min(effort.rounds, comparison.LEAST_ROUNDS) - 1
    for count, share in ((needed, CLAIMING), (effort.rounds - needed - 1, COMPARING)):
        guesses = {
            settings: contender.capacity or guesses[settings] for settings, contender in reversed(measured.items())
        }
        with contextlib.suppress(Ended, CheckFailed):
            later = comparison.rounds(
                server.configure, until(share), guesses, count, lambda text: say(f"final, next {text}")
            )
            measured = {settings: contender.and_then(later[settings]) for settings, contender in measured.items()}
    winner = comparison.winner(list(measured.values()))
    if not winner.capacity:
        raise CheckFailed("no configuration met the SLO when it was measured again", SLO_FIX)
    others = tuple(
        contender for settings, contender in measured.items() if settings not in {held.current, held.default}
    )
    rest_s = end - time.monotonic()
    seconds = CONFIRMS_S if rest_s == math.inf else min(CONFIRMS_S, max(effort.final_s, rest_s / 5))

    def alone() -> tuple[float, Capacity | None]:
        say("the winner, never idle")
        server.configure(winner.settings)
        throughput = winner.capacity
        with contextlib.suppress(limit.Unsent):  # the generator cannot send as much
            throughput = max(throughput, ask(OVERLOAD * winner.capacity).served)
        say("the winner, once more as `make capacity` does")
        return throughput, _confirmed(
            limit.until(lambda rate: server.ask(rate, seconds), end, seconds), NEARLY * winner.capacity
        )

    try:
        throughput, confirmed = twice(alone)
    except ServerLost:  # twice, and not in its rounds
        throughput, confirmed = winner.capacity, None
    return Final(winner, measured[held.current], measured[held.default], others, throughput, confirmed)


def _fruitless(search: Search) -> CheckFailed:
    """Why no trial was measured: the SLO is to blame only where a configuration missed it."""
    why = {trial.outcome.status: trial.outcome.why for trial in reversed(search.trials)}  # the first of each
    count = len(search.trials)
    if "pruned" in why:
        return CheckFailed(f"none of {count} configurations meets the SLO: {why['pruned']}", SLO_FIX)
    if "unsent" in why:
        return CheckFailed(
            f"none of {count} configurations could be measured: {why['unsent']}",
            f"{BUSY_FIX}; then run the same command again, which tries them again",
        )
    return CheckFailed(
        f"none of {count} configurations was served: {why.get('failed', 'nothing was tried')}",
        "correct that; `tritonkit build` and `make loadtest` with the same recipe show it alone",
    )


def _confirmed(ask: Ask, rate: float) -> Capacity | None:
    """The capacity near a rate, by further runs; None if there was no time for it, or nothing near it holds."""
    points: list[Probe] = []

    def note(rate: float) -> Probe:
        points.append(ask(rate))
        return points[-1]

    try:
        rate = limit.confirm(note, rate)
        return limit.of_points(points, rate)
    except ServerLost:
        raise
    except (Ended, CheckFailed):
        proved = limit.proved(points)
        return limit.of_points(points, proved) if proved else None


def choose(server: Configurable, search: Search, say: Say = lambda _: None) -> list[Measured]:
    """The best trials measured again, the best one first: all of them once, and the better two of them twice."""
    once = qualified(server.configure, server.ask, search, say, QUALIFIERS)
    guesses = {measured.settings: measured.capacity or FIRST_RATE for measured in once[:2]}
    again = comparison.rounds(server.configure, server.ask, guesses, 1, say)
    both = [measured.and_then(again[measured.settings]) for measured in once[:2]]
    return [*sorted(both, key=lambda measured: -measured.capacity), *once[2:]]


def qualified(configure: Callable[[Settings], None], ask: Ask, search: Search, say: Say, again: int) -> list[Measured]:
    """The trials that were measured, the best first; the first of them, ``again`` in number, after one more round.

    A trial's own estimate counts as a round, too. Where any are measured again, only those are returned.
    """
    known = {trial.settings: trial.outcome.estimate or FIRST_RATE for trial in search.ranked()}
    if not again:
        return [Measured(settings, (guess,), None, 0) for settings, guess in known.items()]
    both = []
    for settings, guess in list(known.items())[:again]:
        once = Measured(settings, (guess,), None, 0)
        with contextlib.suppress(Ended, CheckFailed):
            later = comparison.rounds(configure, ask, {settings: guess}, 1, lambda text: say(f"once more, {text}"))
            once = once.and_then(later[settings])
        both.append(once)
    return sorted(both, key=lambda measured: -measured.capacity)


def _entrants(held: References, best: Sequence[Settings]) -> list[Settings]:
    """In order of preference, for ties: what is served now, the best, Triton's default."""
    return list(dict.fromkeys([held.current, *best, held.default]))


def _so_far(best: Trial | None) -> str:
    return f"; best so far {best.outcome.estimate or 0:.0f}/s: {best.settings}" if best else ""
