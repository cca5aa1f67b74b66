"""The search for a limit: against a limit that is known, and against a real server whose limit is known, too."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import results
from pages import read

from tritonkit.errors import CheckFailed, InputError
from tritonkit.recipe import Slo
from tritonkit.server import TritonServer
from tritonkit_load import capacity
from tritonkit_load.load import result as load_result
from tritonkit_load.load import summary
from tritonkit_load.load.durations import seconds
from tritonkit_load.load.generator import Generator
from tritonkit_load.load.plan import Plan
from tritonkit_load.load.result import GeneratorHealth, Result, Verdict
from tritonkit_load.tuning import cores, limit
from tritonkit_load.tuning.limit import Probe
from tritonkit_load.tuning.probing import Asker, bounds, probe

Recipes = Callable[..., Path]
TRUE = 300.0


def server_with(limit_: float, slope: float, seed: int, lapse: float = 0.01) -> limit.Ask:
    """A server that meets an SLO by chance: nearly always well below its limit, nearly never well above."""
    random = np.random.default_rng(seed)
    scale = slope / (2 * math.log(3))

    def ask(rate: float) -> Probe:
        chance = 1 / (1 + math.exp(min(500.0, max(-500.0, math.log(rate / limit_) / scale))))
        met = bool(random.random() < chance and random.random() > lapse)
        return Probe(rate, met, min(rate, limit_ * 1.05), 4.0, 40.0 if met else 90.0)

    return ask


def test_a_bracket_holds_the_limit_whether_it_begins_above_or_below() -> None:
    for start in (1.0, 20.0, 299.0, 5000.0):
        bracket = limit.bracket(lambda rate: Probe(rate, rate <= TRUE, min(rate, TRUE), 1.0, 1.0), start)
        assert bracket.low is not None
        assert bracket.low.rate <= TRUE < bracket.high.rate <= bracket.low.rate * 1.05


def test_an_overloaded_server_says_how_far_down_to_go() -> None:
    rates: list[float] = []

    def ask(rate: float) -> Probe:
        rates.append(rate)
        return Probe(rate, rate <= 10, min(rate, 10.0), 1.0, 1.0)

    limit.bracket(ask, 5000.0)
    assert rates[1] == 10


def test_a_server_that_meets_no_rate_is_soon_given_up() -> None:
    """It keeps up with every rate, and is too slow at each."""
    rates: list[float] = []

    def ask(rate: float) -> Probe:
        rates.append(rate)
        return Probe(rate, False, rate, 30.0, 40.0)

    assert limit.bracket(ask, 237.0, stride=1.4).low is None
    assert rates[-1] == limit.LEAST
    assert len(rates) <= 7


def test_strain_says_where_between_two_rates_the_limit_lies() -> None:
    low, high = Probe(100, True, 100, 1, 25, strain=0.5), Probe(110, False, 110, 1, 51, strain=1.02)
    assert 108 < limit.Bracket(low, high).limit < 110
    overloaded = Probe(400, False, 120, 1, 900, strain=18)
    assert 100 < limit.Bracket(low, overloaded).limit < 120


@pytest.mark.parametrize("slope", [0.01, 0.03, 0.06])
def test_the_interval_holds_the_limit_about_as_often_as_it_says(slope: float) -> None:
    """The limit is the rate that nine runs of ten meet; of 60 intervals of 95 %, 9 may miss it by chance."""
    true = TRUE * 9 ** (-slope / (2 * math.log(3)))
    estimates = [limit.capacity(server_with(TRUE, slope, seed)) for seed in range(60)]
    assert sum(estimate.low <= true <= estimate.high for estimate in estimates) >= 51
    widths = [estimate.high / estimate.low for estimate in estimates]
    assert np.median(widths) < 1.3  # a search that has had bad luck has a wider interval
    assert np.median([abs(estimate.rate / true - 1) for estimate in estimates]) < 0.06


def test_what_was_missed_by_chance_is_looked_at_again() -> None:
    """The first run near the limit fails; the search must not stay below it."""
    missed: list[float] = []

    def ask(rate: float) -> Probe:
        unlucky = 100 < rate <= TRUE and not missed
        missed.extend([rate] if unlucky else [])
        return Probe(rate, rate <= TRUE and not unlucky, min(rate, TRUE), 8.0, 1.0)

    estimate = limit.capacity(ask)
    assert missed
    assert estimate.rate > TRUE / 1.05


def test_an_slo_that_one_request_a_second_misses_is_a_clear_answer() -> None:
    with pytest.raises(CheckFailed, match=r"not met at 1 request a second: p99_ms 61, wanted at most 50"):
        limit.capacity(lambda rate: Probe(rate, False, rate, 61.0, 61.0, why="p99_ms 61, wanted at most 50"))


def test_a_server_that_falls_behind_misses_the_slo_even_in_a_short_run() -> None:
    model = replace(results.result().model, requests=400, offered=400.0, throughput=310.0)
    result = replace(results.result(models={"net": model}), verdict=Verdict(met=True, valid=True, checks=()))
    slow = probe(400.0, result)
    assert not slow.met
    assert slow.why == "310 of 400 requests/s served"
    assert probe(400.0, replace(result, models={"net": replace(model, throughput=380.0)})).met


def test_a_run_is_long_enough_for_its_slo_and_its_rate() -> None:
    plans: list[Plan] = []

    class Keeps:
        def run(self, plan: Plan, *, slo: Slo | None = None) -> Result:  # noqa: ARG002 -- as a generator takes them
            plans.append(plan)
            return results.result()

    for slo, rate in ((Slo(p99_ms=50), 100.0), (Slo(p99_ms=2000), 100.0), (Slo(p99_ms=50), 0.5)):
        Asker(Keeps(), slo, Plan(duration_s=2.0))(rate)
    assert [plan.duration_s for plan in plans] == [2.0, 10.0, 6.0]


class Late:
    """A generator that is always late; it is what a busy machine makes of a real one."""

    def __init__(self, result: Result) -> None:
        self.result = result
        self.runs = 0

    def run(self, plan: Plan, *, slo: Slo | None = None) -> Result:  # noqa: ARG002 -- as a generator takes them
        self.runs += 1
        return self.result


def test_a_late_generator_ends_the_search_and_is_never_the_servers_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tritonkit_load.tuning.probing.PAUSES_S", (0.0, 0.0))
    health = GeneratorHealth(1.0, 9.0, 90.0, 0.4, 0.9, 0, valid=False, why=("it was late",))
    late = Late(results.result(generator=health))
    with pytest.raises(CheckFailed, match=r"could not keep its schedule at 100 requests/s: it was late"):
        Asker(late, Slo(p99_ms=50), Plan())(100.0)
    assert late.runs == 3


def test_capacity_is_a_lower_bound_where_a_gpu_serves_more_than_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tritonkit_load.tuning.probing.FEW_PAUSES_S", (0.0,))
    most = 5000.0

    class Weak:
        """A generator that keeps 5,000 requests a second, before a server that serves any rate."""

        def run(self, plan: Plan, *, slo: Slo | None = None) -> Result:  # noqa: ARG002 -- as a generator takes them
            rate = float((plan.arrivals or "").removeprefix("poisson:"))
            kept = rate <= most
            health = GeneratorHealth(0.1, 0.5, 9.0, 0.9, 0.2, 0, valid=kept, why=() if kept else ("it was late",))
            model = replace(results.result().model, offered=rate, throughput=rate)
            verdict = Verdict(met=True, valid=kept, checks=())
            return replace(results.result(models={"net": model}, generator=health), verdict=verdict)

    estimate, result = capacity.capacity(Weak(), Slo(p99_ms=20), 600.0)  # type: ignore[arg-type]
    assert most / 1.06 < estimate.rate <= most
    assert "is a lower bound" in result.environment["generator"]
    assert any("lower bound" in line for line in capacity.lines(estimate, result))
    assert f"at least {estimate.rate:.1f} requests/s" in "\n".join(capacity.lines(estimate, result))
    assert (estimate.at_least, estimate.high, estimate.confirmed >= 3) == (True, math.inf, True)
    assert result.capacity == load_result.Limit(estimate.rate, estimate.low, None, estimate.confirmed, at_least=True)
    json.dumps(capacity.as_json(estimate, result), allow_nan=False)


def test_what_was_proved_stays_when_the_search_ends_early() -> None:
    def late(rate: float) -> Probe:
        return Probe(rate, rate < 385, rate, 5.0, 20.0, kept=rate < 385)

    def interrupted(rate: float) -> Probe:
        if rate > 100:
            raise KeyboardInterrupt
        return Probe(rate, True, rate, 5.0, 20.0)

    estimate = limit.capacity(late, 300.0)
    assert 300 <= estimate.rate < 385
    assert estimate.at_least
    cut = limit.capacity(interrupted, 60.0)
    assert (cut.rate, cut.at_least, cut.interrupted) == (60.0, True, True)
    with pytest.raises(KeyboardInterrupt):
        limit.capacity(raises)
    with pytest.raises(CheckFailed, match=r"nothing is proved: at 1 requests/s it was late"):
        limit.capacity(lambda rate: Probe(rate, False, rate, None, None, why="it was late", kept=False))


def raises(_: float) -> Probe:
    raise KeyboardInterrupt


def test_where_something_was_missed_above_a_late_rate_is_no_upper_bound() -> None:
    points = [Probe(rate, rate < 300, rate, 5.0, 20.0) for rate in (1.0, 200.0, 200.0, 200.0, 400.0)]
    assert not limit.of_points(points, 200.0).at_least
    late = [*points, Probe(250.0, False, 250.0, None, None, kept=False)]
    estimate = limit.of_points(late, 200.0)
    assert estimate.at_least
    assert estimate.high < 420


def test_what_a_busy_generator_could_not_send_is_not_the_servers_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tritonkit_load.tuning.probing.PAUSES_S", ())
    capped = GeneratorHealth(1.0, 9.0, 90.0, 0.5, 0.9, 100, valid=False, why=("100 requests were not sent",))
    assert not Asker(Late(results.result(generator=capped)), Slo(p99_ms=50), Plan())(100.0).met
    busy = replace(capped, cpu=0.97, why=("a generator process used 97% of a core", *capped.why))
    with pytest.raises(CheckFailed, match="used 97% of a core"):
        Asker(Late(results.result(generator=busy)), Slo(p99_ms=50), Plan())(100.0)


@pytest.mark.parametrize(
    ("available", "server", "generator"),
    [([0, 1], (0,), (1,)), ([2, 5], (2,), (5,)), (range(8), tuple(range(6)), (6, 7)), ([0, 1, 2, 3, 4, 5, 6, 9], (0, 1, 2, 3, 4, 5, 6), (9,))],
)  # fmt: skip
def test_cores_are_divided(available: list[int], server: tuple[int, ...], generator: tuple[int, ...]) -> None:
    assert cores.divide(available) == cores.Cores(server, generator)


def test_a_gpus_generator_has_half_of_the_cores() -> None:
    assert cores.divide(range(16), target="cuda") == cores.Cores(tuple(range(8)), tuple(range(8, 16)))
    assert cores.divide([0, 1], target="cuda") == cores.Cores((0,), (1,))


def test_one_core_cannot_be_divided() -> None:
    with pytest.raises(InputError, match="two CPU cores"):
        cores.divide([3])


def test_times_and_slos_in_words() -> None:
    assert (seconds("BUDGET", "10m"), seconds("BUDGET", "90s"), seconds("BUDGET", "2")) == (600, 90, 2)
    for wrong in ("", "m", "0s", "-1m", "nan", "ten"):
        with pytest.raises(InputError, match="BUDGET"):
            seconds("BUDGET", wrong)
    assert bounds(Slo(p50_ms=10, p99_ms=50, goodput=0.99)) == "p50 ≤ 10 ms, p99 ≤ 50 ms, errors ≤ 0.1 %, goodput ≥ 99%"


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever else uses the machine makes a generator late; these tests are about something else."""
    monkeypatch.setattr(summary, "LATEST_MS", 1000.0)


@pytest.mark.usefixtures("patient")
def test_capacity_of_a_model_that_sleeps_20_ms_a_request(server: TritonServer, write_recipe: Recipes) -> None:
    """One instance and no batches: 50 requests a second is all it can do, and an SLO of 300 ms allows most of that."""
    path = write_recipe("sleep", slo={"p99_ms": 300})
    with Generator(server.grpc_url, recipes=[path]) as generator:
        estimate, result = capacity.capacity(
            generator, Slo(p99_ms=300), 30.0, plan=Plan(duration_s=1.0, warm_up_s=0.2), resolution=1.6, times=1
        )
    assert 12 < estimate.rate <= 60  # of so few seconds, chance makes some
    assert estimate.low < estimate.high
    rates = [point.rate for point in result.curve]
    assert rates == sorted(set(rates))
    assert {point.rate: point.met for point in result.curve}[estimate.rate]
    assert not result.curve[-1].met
    assert result.load.arrivals == f"poisson:{estimate.rate:.6g}"


@pytest.mark.usefixtures("patient")
def test_the_verb_says_that_an_slo_cannot_be_met_and_exits_1(
    server: TritonServer, write_recipe: Recipes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run("--model", write_recipe("sleep"), "--slo", "p99_ms=5", "--host", server.grpc_url, "--duration", "1s",
               "--warm-up", "0s", "--reports", tmp_path / "reports")  # fmt: skip
    output = capsys.readouterr()
    assert code == 1
    assert re.search(r"the SLO is not met at 1 request a second: p99_ms \d", output.err)
    page = tmp_path / "reports/sleep/index.html"
    assert f"; the last run is in {page}" in output.err
    shown = read(page.read_text(encoding="utf-8")).visible_text()
    for text in ("The SLO is not met", "What to do next", "make tune MODEL=", "SLO=p99_ms=5"):
        assert text in shown


def test_bad_input_is_found_before_anything_runs(
    write_recipe: Recipes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_recipe("sleep")
    assert run("--model", path) == 2
    assert "has no SLO to search by" in capsys.readouterr().err
    assert run("--model", path, "--slo", "error_rate=0.1") == 2
    assert run("--model", path, "--slo", "p99_ms=50", "--duration", "0s") == 2
    assert "DURATION" in capsys.readouterr().err
    assert run("--model", tmp_path / "absent.yaml") == 2


def test_what_the_verb_prints_and_keeps(tmp_path: Path) -> None:
    points = tuple(Probe(rate, rate <= 200, rate, 5.0, rate / 4) for rate in (1.0, 250.0, 200.0, 200.0))
    estimate = limit.Capacity(200.0, 190.0, 240.0, 2, points)
    result = results.result()
    assert "200.0 requests/s" in "\n".join(capacity.lines(estimate, result))
    assert "(95 % interval 190.0 to 240.0)" in "\n".join(capacity.lines(estimate, result))
    assert [point.rate for point in capacity.merged(points)] == [1.0, 200.0, 250.0]
    capacity.write(tmp_path / "net", result)
    assert Result.from_json(json.loads((tmp_path / "net/result.json").read_text())) == result
    assert (tmp_path / "net/index.html").read_text().startswith("<!doctype html>")


def test_a_report_that_cannot_be_written_costs_no_figures(
    monkeypatch: pytest.MonkeyPatch, write_recipe: Recipes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    estimate = limit.Capacity(200.0, 190.0, 240.0, 1, (Probe(200.0, True, 200.0, 5.0, 50.0),))
    monkeypatch.setattr(capacity, "_run", lambda _: (estimate, results.result()))
    (tmp_path / "reports").write_text("no folder", encoding="utf-8")
    assert run("--model", write_recipe("sleep"), "--reports", tmp_path / "reports") == 2
    output = capsys.readouterr()
    assert "200.0 requests/s" in output.out
    assert "is in the way" in output.err


def test_a_polite_kill_in_the_middle_leaves_a_report_of_what_was_proved(
    server: TritonServer, write_recipe: Recipes, tmp_path: Path
) -> None:
    command = [
        sys.executable, str(capacity.__file__), "--model", str(write_recipe("sleep")), "--slo", "p99_ms=500", "--host",
        server.grpc_url, "--duration", "1s", "--warm-up", "0s", "--reports", str(tmp_path / "reports"),
    ]  # fmt: skip
    log = tmp_path / "progress.txt"
    with (
        log.open("w") as progress,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=progress, text=True) as process,
    ):
        for _ in range(600):
            if len(re.findall(r": [\d.]+ requests/s", log.read_text())) >= 2:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == capacity.INTERRUPTED
    assert "at least" in out
    assert "interrupted: it may be higher" in out
    assert (tmp_path / "reports/sleep/result.json").exists()


def run(*arguments: Any) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["capacity.py", *map(str, arguments)])
        return capacity.main()
