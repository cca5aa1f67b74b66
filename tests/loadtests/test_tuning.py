"""The search for a configuration, on surfaces that are known; its journal; what a configuration is, and which one wins.

The surfaces stand for no server: they test how little of a space the search has to see.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from tritonkit.errors import CheckFailed, InputError
from tritonkit.recipe import Recipe, Slo
from tritonkit_load.load import environment
from tritonkit_load.tuning import comparison, limit, space, tuner
from tritonkit_load.tuning.comparison import Measured
from tritonkit_load.tuning.cores import Cores
from tritonkit_load.tuning.limit import Probe
from tritonkit_load.tuning.search import Outcome, Search
from tritonkit_load.tuning.space import Settings, Space
from tritonkit_load.tuning.trial import explore, timed
from tritonkit_load.tuning.trial_server import Built
from tritonkit_load.tuning.tuner import Effort, References

SPACE = Space(("fp32", "int8"), (1, 4, 16), (0, 500, 2000), (1, 2, 3), (1,))
OPENING = [Settings("int8", 16, 2000, 2, 1), *(Settings(p, 16, 0, 1, 1) for p in SPACE.precision)]


# --- the search ---


@dataclass
class Surface:
    """A made-up server: how much each setting gives, and runs that are noisy as real ones are."""

    best_batch: int
    best_instances: int
    int8: float
    seed: int
    runs: int = 0

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def configure(self, settings: Settings) -> None:
        self.settings = settings

    def limit(self, settings: Settings) -> float:
        rate = 120 * (self.int8 if settings.precision == "int8" else 1.0)
        rate /= 1 + 0.15 * abs(math.log2(settings.max_batch_size) - math.log2(self.best_batch))
        rate *= 1 - 0.08 * abs(settings.instances - self.best_instances)
        rate *= 1 - 0.06 * settings.queue_delay_us / 2000
        return rate

    def ask(self, rate: float) -> Probe:
        """Latency as in a queue: it rises with what is used, and with the backlog of 2 s above that."""
        self.runs += 1
        most = 1.12 * self.limit(self.settings) * math.exp(self.random.normal(0, 0.02))
        used = rate / most
        p99_ms = 6 + min(5.3 * used / max(1 - used, 1e-9), 105.0) + 2000 * max(used - 1, 0)
        p99_ms *= math.exp(self.random.normal(0, 0.15))
        return Probe(rate, p99_ms <= 50, min(rate, most), p99_ms / 3, p99_ms, strain=p99_ms / 50)


def searched(surface: Surface, allowed: int) -> Search:
    search = Search(SPACE, OPENING, seed=surface.seed)
    while surface.runs < allowed and (settings := search.propose()) is not None:
        best = search.best.outcome.estimate if search.best else None
        search.tell(settings, timed(surface.configure, surface.ask, settings, best, 100.0))
    return search


def test_the_search_finds_95_percent_in_15_percent_of_the_grids_runs() -> None:
    shares = []
    for seed in range(12):
        shape = ((4, 3), (16, 2), (4, 1))[seed % 3]
        surface = Surface(*shape, int8=1.5 + 0.3 * (seed % 4), seed=seed)
        for settings in SPACE.grid():
            surface.configure(settings)
            explore(surface.ask, None, 100.0)
        grid, surface.runs = surface.runs, 0
        best = tuner.choose(surface, searched(surface, int(0.15 * grid) - tuner.CHOOSING_RUNS))[0]
        assert surface.runs <= 0.15 * grid
        shares.append(surface.limit(best.settings) / max(map(surface.limit, SPACE.grid())))
    assert sum(share >= 0.95 for share in shares) >= 11, shares
    assert min(shares) > 0.85


def test_a_configuration_that_is_clearly_worse_costs_one_run() -> None:
    surface = Surface(4, 2, int8=2.5, seed=0)
    surface.configure(Settings("fp32", 1, 0, 1, 1))
    outcome = explore(surface.ask, 290.0, 100.0)
    assert (outcome.status, outcome.probes, outcome.capacity) == ("pruned", 1, None)
    assert outcome.estimate == pytest.approx(surface.limit(surface.settings), rel=0.3)
    surface.configure(Settings("int8", 4, 0, 2, 1))
    better = explore(surface.ask, 200.0, 100.0)
    assert better.status == "measured"
    assert better.capacity is not None
    assert better.capacity <= (better.estimate or 0)
    assert better.estimate == pytest.approx(300, rel=0.2)


def test_a_configuration_that_does_not_load_is_an_outcome() -> None:
    def refuse(_: Settings) -> None:
        raise CheckFailed("not served")

    def unasked(_: float) -> Probe:
        raise AssertionError("it was asked for a rate")

    search = Search(SPACE, OPENING)
    settings = search.propose()
    assert settings is not None
    search.tell(settings, timed(refuse, unasked, settings, None, 1.0))
    assert search.trials[0].outcome.status == "failed"
    assert search.best is None
    assert search.propose() != settings


def test_every_configuration_is_tried_once_and_then_there_is_no_more() -> None:
    few = replace(SPACE, precision=("fp32",), instances=(1, 2))
    search = Search(few)
    while (settings := search.propose()) is not None:
        search.tell(settings, Outcome("measured", 1.0, 1.0))
    tried = [trial.settings for trial in search.trials]
    assert len(tried) == len(set(tried))
    assert set(tried) == set(few.grid())


# --- the journal ---


def measured_in(journal: Path, count: int, **identity: int) -> Search:
    search = Search(SPACE, OPENING, journal=journal, identity=identity)
    for number in range(count):
        settings = search.propose()
        assert settings is not None
        search.tell(settings, Outcome("measured", 100.0 + number, 100.0, 5.0, 40.0, 2, 1.0))
    return search


def test_a_search_continues_from_its_journal(tmp_path: Path) -> None:
    before = measured_in(tmp_path / "journal.log", 6, graph=1)
    before.propose()  # is never told: the process ended
    after = Search(SPACE, OPENING, journal=tmp_path / "journal.log", identity={"graph": 1})
    assert (after.resumed, after.changed) == (6, [])
    assert after.trials == before.trials
    assert after.propose() not in {trial.settings for trial in before.trials}


def test_a_search_begins_anew_and_says_why_when_its_identity_changed(tmp_path: Path) -> None:
    measured_in(tmp_path / "journal.log", 2, graph=1, server=1)
    after = Search(SPACE, OPENING, journal=tmp_path / "journal.log", identity={"graph": 2, "server": 1})
    assert (after.resumed, after.changed) == (0, ["graph"])


def test_an_interruption_between_journal_and_sampler_loses_no_trial(tmp_path: Path) -> None:
    journal = tmp_path / "journal.log"
    search = Search(SPACE, OPENING, journal=journal, identity={})
    settings = search.propose()
    assert settings is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search._study, "tell", interrupted)
        with pytest.raises(KeyboardInterrupt):
            search.tell(settings, Outcome("measured", 7.0, 7.0))
    assert [trial.settings for trial in search.trials] == [settings]
    after = Search(SPACE, OPENING, journal=journal, identity={})
    assert [(trial.settings, trial.outcome.estimate) for trial in after.trials] == [(settings, 7.0)]
    assert after.propose() != settings


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_journals_unfinished_line_costs_one_trial(tmp_path: Path) -> None:
    journal = tmp_path / "journal.log"
    measured_in(journal, 4)
    os.truncate(journal, journal.stat().st_size - 20)
    assert measured_in(journal, 2).resumed >= 3
    assert Search(SPACE, OPENING, journal=journal, identity={}).resumed >= 5
    journal.write_text("no journal\n")
    with pytest.raises(InputError, match="cannot be read"):
        Search(SPACE, journal=journal)


# --- settings, and who wins ---


def a_recipe(**batching: object) -> Recipe:
    fields = {"name": "net", "source": "net.py:load", "max_batch_size": 16, "precisions": ["fp32", "int8"],
            "inputs": {"x": {"dtype": "fp32", "dims": [4]}}, "outputs": {"y": {"dtype": "fp32", "dims": [3]}},
            "batching": batching}  # fmt: skip
    return Recipe.model_validate(fields)


@pytest.mark.parametrize("settings", SPACE.grid(), ids=str)
def test_a_recipe_says_every_configuration_and_means_the_same(settings: Settings) -> None:
    recipe = a_recipe(**settings.batching(a_recipe(), "int8", "cpu").model_dump())
    assert space.of_recipe(recipe, recipe.batching.precision or "int8") == settings


ON_A_GPU = replace(SPACE, by_size=(True, False))


@pytest.mark.parametrize("settings", ON_A_GPU.grid(), ids=str)
def test_a_recipe_says_every_configuration_of_a_gpu_for_gpus_only(settings: Settings) -> None:
    recipe = a_recipe(**settings.batching(a_recipe(), "int8", "cuda").model_dump())
    assert space.of_recipe(recipe, recipe.batching.precision or "int8", "cuda") == settings
    untouched = space.of_recipe(a_recipe(), "int8", "cpu")
    assert space.of_recipe(recipe, "int8", "cpu") == untouched, "what a GPU was tuned to is nothing to a CPU"
    assert recipe.batching.target == "cuda"


def test_what_a_cpu_was_tuned_to_is_nothing_to_a_gpu() -> None:
    settings = Settings("int8", 1, 0, 1, 1)
    recipe = a_recipe(**settings.batching(a_recipe(), "int8", "cpu").model_dump())
    assert space.of_recipe(recipe, "int8", "cuda") == space.of_recipe(a_recipe(), "int8", "cuda")


def test_sizes_of_a_recipes_own_stay_as_far_as_they_fit() -> None:
    recipe = a_recipe(batch_sizes=[2, 6, 16], cuda_graphs=False)
    some, all_of_them = (Settings("int8", most, 0, 2, 1, by_size=True) for most in (8, 16))
    assert some.batching(recipe, "int8", "cuda").batch_sizes == (2, 6, 8)
    assert all_of_them.batching(recipe, "int8", "cuda").batch_sizes == (2, 6, 16)
    assert some.batching(a_recipe(), "int8", "cuda").batch_sizes is None, "the default's"
    assert replace(some, by_size=False).batching(recipe, "int8", "cuda").batch_sizes == ()
    assert some.batching(recipe, "int8", "cuda").cuda_graphs is False
    assert some.batching(recipe, "int8", "cpu").batch_sizes is None


def test_the_space_of_a_gpu() -> None:
    gpu_space = space.of(a_recipe(), ("fp32", "fp16"), 12, target="cuda")
    assert gpu_space.queue_delay_us[0] == 0
    assert (gpu_space.instances, gpu_space.threads, gpu_space.by_size) == (tuple(range(1, 9)), (1,), (True,))
    assert space.of(a_recipe(), ("fp32",), 3, target="cuda").instances == (1, 2, 3)
    default = space.tritons_default(a_recipe(), 12, "cuda")
    assert default == Settings("fp32", 16, 0, 1, 1, by_size=False)
    current = space.of_recipe(a_recipe(), "fp16", "cuda")
    assert (current.by_size, current.instances, current.queue_delay_us) == (True, 4, 0)


def test_a_gpus_search_opens_with_references_and_the_other_variants(tmp_path: Path) -> None:
    build = Built(a_recipe(), tmp_path, "cuda", "fp16", {"fp32": 100.0, "fp16": 200.0}, {})
    held = tuner.references(build, Cores((0, 1, 2), (3,)))
    whole = tuner.all_settings(build, Cores((0, 1, 2), (3,)), held)
    assert tuner.opening(build, held, whole) == [held.current, held.default, replace(held.current, precision="fp32")]
    assert all(whole.holds(settings) for settings in tuner.opening(build, held, whole))


def test_trials_belong_to_the_gpus_that_they_ran_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "gpus", lambda: ["NVIDIA H200"])
    cores = Cores((0,), (1,))
    identities = [
        tuner.identity(
            Built(a_recipe(), tmp_path, target, "fp32", {"fp32": None}, {}), Slo(p99_ms=50), cores, {}, Effort()
        )
        for target in ("cpu", "cuda")
    ]
    assert [(identity["target"], identity.get("GPUs")) for identity in identities] == [
        ("cpu", None),
        ("cuda", ["NVIDIA H200"]),
    ]


def test_a_recipes_queue_bounds_stay_and_the_rest_follows_from_the_slo() -> None:
    section = Settings("int8", 4, 0, 1, 1).batching(a_recipe(max_queue_size=9), "int8", "cpu")
    assert (section.max_queue_size, section.queue_timeout_ms, section.preferred_batch_size) == (9, None, None)
    section = Settings("int8", 4, 0, 2, 1).batching(a_recipe(), "int8", "cpu")
    assert (section.max_queue_size, section.queue_timeout_ms, section.preferred_batch_size) == (None, None, None)


def test_the_space_holds_what_is_served_and_refuses_no_request() -> None:
    recipe = a_recipe(max_queue_delay_us=1234, instances=7)
    current, default = space.of_recipe(recipe, "int8"), space.tritons_default(recipe, 1)
    recipe_space = space.of(recipe, ("fp32", "int8"), 1, smallest_batch=3).with_values_of(current, default)
    assert recipe_space.holds(current)
    assert recipe_space.holds(default)
    assert recipe_space.max_batch_size == (4, 8, 16)


def test_a_neighbour_differs_in_one_setting_by_one_step() -> None:
    near = SPACE.near(Settings("int8", 4, 0, 1, 1))
    assert Settings("int8", 16, 0, 1, 1) in near
    assert Settings("fp32", 4, 0, 1, 1) in near
    assert Settings("int8", 4, 0, 3, 1) not in near
    assert len(near) == 5


def measured(precision: str, *limits: float) -> Measured:
    return Measured(Settings(precision, 8, 0, 1, 1), limits, None, len(limits))  # type: ignore[arg-type]


def test_what_stands_first_wins_ties() -> None:
    current = measured("fp32", 100, 102, 98)
    assert comparison.winner([current, measured("int8", 102, 103, 99)]) == current  # better each time, by too little
    assert comparison.winner([current, measured("int8", 150, 150, 97)]) == current  # better, but not each time
    assert comparison.winner([current, measured("int8", 110, 112, 108)]).settings.precision == "int8"
    assert comparison.winner([measured("fp32", 0, 0, 0), measured("int8", 5, 5, 5)]).settings.precision == "int8"


def test_rounds_go_back_and_forth() -> None:
    surface, order = Surface(4, 2, int8=2.0, seed=1), []
    first, second = Settings("int8", 4, 0, 2, 1), Settings("fp32", 4, 0, 2, 1)

    def configure(settings: Settings) -> None:
        order.append(settings)
        surface.configure(settings)

    by_settings = comparison.rounds(configure, surface.ask, {first: 200.0, second: 200.0}, 3)
    assert order == [first, second, second, first, first, second]
    assert sum(measured.runs for measured in by_settings.values()) == surface.runs
    ratio = comparison.ratio(by_settings[first], by_settings[second])
    assert ratio is not None
    assert ratio.low <= ratio.median <= ratio.high
    assert ratio.median == pytest.approx(2.0, rel=0.2)


def test_an_interval_needs_three_rounds_and_holds_a_ratio_of_one() -> None:
    assert comparison.ratio(measured("fp32", 150, 160), measured("fp32", 100, 100)) is None
    assert not comparison.beats(measured("fp32", 150, 160), measured("fp32", 100, 100))
    random = np.random.default_rng(3)
    claims = 0
    for _ in range(300):
        ours, theirs = (measured("fp32", *(100 * np.exp(random.normal(0, 0.1, 3)))) for _ in range(2))
        ratio = comparison.ratio(ours, theirs)
        assert ratio is not None
        claims += ratio.low > 1
    assert claims <= 15  # 2.5 % on either side, and chance


class Slow(Surface):
    """A run takes as many seconds as it is asked for."""

    def ask(self, rate: float, seconds: float = 0.0) -> Probe:
        time.sleep(seconds)
        return super().ask(rate)


def test_a_final_keeps_its_time_and_confirms_the_winner() -> None:
    surface = Slow(4, 2, int8=2.0, seed=1)
    search = searched(surface, 60)
    held = References(Settings("fp32", 16, 1000, 2, 1), Settings("fp32", 16, 0, 1, 1))
    began = time.monotonic()
    effort = Effort(final_s=0.02, rounds=100)
    final = tuner.final(surface, search, held, effort, end=began + 3.0)  # type: ignore[arg-type]
    assert time.monotonic() - began < 4.5  # its hundred rounds would take many times that
    assert 3 <= len(final.winner.limits) < 100
    assert final.winner.settings.precision == "int8"
    assert final.confirmed is not None
    assert final.capacity == final.confirmed.rate <= surface.limit(final.winner.settings) * 1.12
    gain = comparison.ratio(final.winner, final.default)
    assert gain is not None
    assert gain.low > 1


def test_rounds_end_with_their_time_and_only_whole_ones_count() -> None:
    first, second = Settings("int8", 4, 0, 2, 1), Settings("fp32", 4, 0, 2, 1)

    def for_a_while(asks: int) -> limit.Ask:
        left = iter(range(asks))

        def ask(rate: float) -> limit.Probe:
            if next(left, None) is None:
                raise limit.Ended
            return limit.Probe(rate, rate <= 200, min(rate, 200), 5.0, 20.0)

        return ask

    by_settings = comparison.rounds(lambda _: None, for_a_while(10), {first: 200.0, second: 200.0}, 5)
    assert {len(measured.limits) for measured in by_settings.values()} == {2}
    with pytest.raises(limit.Ended):
        comparison.rounds(lambda _: None, for_a_while(3), {first: 200.0, second: 200.0}, 5)
