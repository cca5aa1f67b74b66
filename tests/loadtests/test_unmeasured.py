"""A search whose configurations could not be measured: what it says of them, and that the next one tries them again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tritonkit.errors import CheckFailed
from tritonkit_load.tuning import comparison, limit, tuner
from tritonkit_load.tuning.limit import Probe
from tritonkit_load.tuning.search import Outcome, Search
from tritonkit_load.tuning.space import Settings, Space
from tritonkit_load.tuning.trial import FIRST_RESOLUTION, timed
from tritonkit_load.tuning.tuner import Effort, References

SPACE = Space(("fp32", "int8"), (1, 4, 16), (0, 500, 2000), (1, 2, 3), (1,))
OPENING = [Settings("int8", 16, 2000, 2, 1), *(Settings(p, 16, 0, 1, 1) for p in SPACE.precision)]


@pytest.mark.parametrize("interrupted_first", [False, True])
def test_what_could_not_be_sent_is_tried_again_by_the_next_search(tmp_path: Path, *, interrupted_first: bool) -> None:
    journal = tmp_path / "journal.log"
    before = Search(SPACE, OPENING, journal=journal, identity={})
    settings = before.propose()
    assert settings == OPENING[0]
    if not interrupted_first:
        before.tell(settings, timed(lambda _: None, busy, settings, None, 10.0))
        assert [trial.outcome.status for trial in before.trials] == ["unsent"]
        assert before.propose() == OPENING[1]  # once a search is enough
    after = Search(SPACE, OPENING, journal=journal, identity={})
    assert after.resumed == 0
    proposals = []
    for _ in OPENING:
        proposal = after.propose()
        assert proposal is not None
        proposals.append(proposal)
        after.tell(proposal, Outcome("pruned", 1.0))
    assert set(proposals) == {settings.normal() for settings in OPENING}


def test_a_rate_met_below_the_generators_limit_is_a_lower_bound() -> None:
    def ask(rate: float) -> Probe:
        return busy(rate) if rate > 900 else Probe(rate, True, rate, 4.0, 20.0)

    outcome = timed(lambda _: None, ask, OPENING[0], None, 500.0)
    assert outcome.status == "measured"
    assert outcome.estimate == outcome.capacity  # nothing between what was met and what could not be sent is guessed
    assert 900 / FIRST_RESOLUTION <= (outcome.capacity or 0) <= 900
    assert timed(lambda _: None, ask, OPENING[0], 890.0, 500.0).capacity == 890.0


def test_a_comparison_goes_on_below_what_the_generator_can_send() -> None:
    served = {OPENING[0]: 2000.0, OPENING[1]: 300.0}
    now: list[Settings] = []

    def ask(rate: float) -> Probe:
        if rate > 600:
            busy(rate)
        limit_of = served[now[-1]]
        return Probe(rate, rate <= limit_of, min(rate, limit_of), 4.0, 20.0, strain=rate / limit_of)

    first, second = comparison.rounds(now.append, ask, {OPENING[0]: 900.0, OPENING[1]: 590.0}, 3).values()
    assert all(600 / comparison.STRIDE < capacity <= 600 for capacity in first.limits)
    assert second.limits == pytest.approx([300.0] * 3, rel=0.05)
    ratio = comparison.ratio(first, second)
    assert ratio is not None
    assert ratio.median == pytest.approx(2.0, rel=0.12)


def test_a_generator_that_can_send_nothing_ends_a_comparison() -> None:
    rates: list[float] = []

    def ask(rate: float) -> Probe:
        rates.append(rate)
        return busy(rate)

    with pytest.raises(limit.Unsent):
        comparison.rounds(lambda _: None, ask, {OPENING[0]: 900.0}, 1)
    assert len(rates) == limit.MOST_UNSENT


def test_the_least_that_a_search_takes_is_what_no_budget_leaves_out() -> None:
    search, held = Search(SPACE, OPENING), References(OPENING[0], OPENING[1])
    runs_s = (2 * 4 + 1) * 4.5  # both in one round, and the winner once more
    assert Effort().least_s(held, search) == (2 + 2 + 2) * 3.0 + 2 * 6 * 2.5 + runs_s
    for _ in OPENING:
        settings = search.propose()
        assert settings is not None
        search.tell(settings, Outcome("measured", 10.0, 10.0))
    assert Effort().least_s(held, search) == (3 + 2) * 3.0 + runs_s + 4 * 4.5  # with a third that was tried
    assert Effort().least_s(References(OPENING[1], OPENING[1]), search) == (2 + 2) * 3.0 + runs_s


def test_a_short_final_gives_up_finalists_before_it_gives_up_rounds() -> None:
    effort = Effort()
    whole = (3 + 4 * 3) * effort.limit_s / 0.9
    assert effort.field(whole) == (2, 3)
    assert effort.field(whole - 1) == (2, 0)
    assert effort.field(250.0) == effort.field(0.0) == (1, 0)
    assert effort.field(float("inf")) == (2, 3)


def busy(_: float) -> Probe:
    raise limit.Unsent("the generator could not keep its schedule at 10 requests/s")


@pytest.mark.parametrize(
    ("outcome", "reason", "fix"),
    [
        (
            Outcome("unsent", why="the generator was late"),
            "2 configurations could be measured",
            "the same command again",
        ),
        (Outcome("failed", why="it did not load"), "2 configurations was served: it did not load", "tritonkit build"),
        (Outcome("pruned", 1.0, why="misses the SLO"), "2 configurations meets the SLO: misses", "loosen the SLO"),
    ],
)
def test_an_slo_is_blamed_only_where_a_configuration_missed_it(outcome: Outcome, reason: str, fix: str) -> None:
    search = Search(SPACE, OPENING)
    for came in (Outcome("failed", why="it did not load") if outcome.status == "pruned" else outcome, outcome):
        settings = search.propose()
        assert settings is not None
        search.tell(settings, came)
    held = References(OPENING[0], OPENING[1])
    with pytest.raises(CheckFailed) as raised:
        tuner.final(None, search, held, Effort())  # type: ignore[arg-type]  # it is never asked
    assert reason in raised.value.message
    assert fix in str(raised.value)
