"""The autoscaler's simulation: its arithmetic against Kubernetes' documents, its queues against theory, its signals
against Prometheus, and the chart's defaults against what it recommends."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tritonkit.errors import InputError
from tritonkit.kubetools import binaries, manifest
from tritonkit_load.benchmarks.proofs import choice, hpa, service, signals, steady, trace
from tritonkit_load.benchmarks.proofs.kernel import Kernel
from tritonkit_load.benchmarks.proofs.service import Service
from tritonkit_load.benchmarks.proofs.simulation import Setting, Start, replay

POD = Service((1, 4, 16), (0.008, 0.024, 0.08), max_batch=16, queue=64, cv=0.1, load_s=3)
START = Start(load_s=3)


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return Kernel(POD, 0.1, replicates=16)


def traffic(*stretches: tuple[float, int]) -> trace.Trace:
    """Rates in pods' capacities, each for so many seconds."""
    rate = np.concatenate([np.full(seconds, share * POD.capacity) for share, seconds in stretches])
    return trace.Trace("test", rate, np.random.default_rng(5).poisson(rate))


# --- The HPA's arithmetic. Examples: kubernetes.io, "Horizontal Pod Autoscaling".


@pytest.mark.parametrize(
    ("value", "replicas"), [(200, 8), (50, 2), (109, 4), (91, 4), (110, 4), (90, 4), (111, 5), (89, 4), (74, 3)]
)
def test_replicas_follow_the_ratio_and_a_tenth_is_tolerated(value: float, replicas: int) -> None:
    assert hpa.for_pods([value] * 4, 100, 4) == replicas
    assert hpa.for_total(value * 4, 100, 4) == replicas
    assert hpa.for_value(value, 100, 4, 4) == replicas


def test_a_pod_without_a_metric_counts_as_idle_when_growing() -> None:
    assert hpa.for_pods([150, 150], 100, 2) == 3
    assert hpa.for_pods([150, 150], 100, 3, missing=1) == 3  # 300 over three pods: at the target
    assert hpa.for_pods([300, 300], 100, 3, missing=1) == 6


def test_a_pod_without_a_metric_counts_as_at_the_target_when_shrinking() -> None:
    assert hpa.for_pods([20, 20, 20, 20], 100, 4) == 1
    assert hpa.for_pods([20, 20, 20, 20], 100, 6, missing=2) == 3  # 80 and 2 x 100


def test_a_pending_pod_dampens_growth_and_does_not_hinder_shrinking() -> None:
    assert hpa.for_pods([180, 180], 100, 4, pending=2) == 4
    assert hpa.for_pods([40, 40], 100, 4, pending=2) == 1


def test_pods_that_turn_the_direction_round_change_nothing() -> None:
    assert hpa.for_pods([120], 100, 4, missing=3) == 4  # 1.2 alone, 0.3 with three idle ones


def test_no_metric_is_no_decision() -> None:
    assert hpa.for_pods([], 100, 7, missing=7) == 7


def test_shrinking_waits_for_the_windows_maximum_and_growing_does_not() -> None:
    scaler = hpa.Autoscaler(1, 100, down=hpa.Rules(300, (hpa.Policy("Percent", 100),)))
    current = scaler.decide(0, 10, 10)
    for now in range(15, 300, 15):
        current = scaler.decide(now, current, 4)
        assert current == 10
    assert scaler.decide(300, current, 5) == 5  # the wish for 10 is 300 s old; the highest since is 5
    assert scaler.decide(315, 5, 9) == 9


def test_growing_with_a_window_takes_the_lowest_wish_in_it() -> None:
    scaler = hpa.Autoscaler(1, 100, up=hpa.Rules(60, (hpa.Policy("Percent", 900),)))
    assert [scaler.decide(now, 2, wish) for now, wish in ((0, 2), (15, 8), (45, 8))] == [2, 2, 2]
    assert scaler.decide(60, 2, 6) == 6


def test_shrinking_by_ten_percent_or_four_pods_follows_the_documentation() -> None:
    down = hpa.Rules(0, (hpa.Policy("Pods", 4, 60), hpa.Policy("Percent", 10, 60)))
    scaler = hpa.Autoscaler(1, 100, down=down)
    seen = [80]
    for minute in range(1, 14):
        seen.append(scaler.decide(minute * 60, seen[-1], 10))
    assert seen[:3] == [80, 72, 64]  # 10 % of 72 is 7.2, and 8 pods go
    assert [before - after for before, after in itertools.pairwise(seen)][-4:] == [4, 4, 4, 4]  # below 40


def test_min_selects_the_slower_policy_and_disabled_selects_none() -> None:
    policies = (hpa.Policy("Pods", 4, 60), hpa.Policy("Percent", 10, 60))
    assert hpa.Autoscaler(1, 100, down=hpa.Rules(0, policies, "Min")).decide(60, 80, 10) == 76
    assert hpa.Autoscaler(1, 100, down=hpa.Rules(0, policies, "Disabled")).decide(60, 80, 10) == 80


def test_growing_by_default_doubles_or_adds_four_in_a_quarter_of_a_minute() -> None:
    scaler = hpa.Autoscaler(1, 100)
    assert scaler.decide(15, 1, 50) == 5
    assert scaler.decide(16, 5, 50) == 5  # the same period
    assert scaler.decide(31, 5, 50) == 10
    assert scaler.decide(46, 10, 12) == 12


def test_neither_bound_is_passed() -> None:
    scaler = hpa.Autoscaler(2, 6, down=hpa.Rules(0, (hpa.Policy("Percent", 100),)))
    assert scaler.decide(15, 4, 50) == 6
    assert scaler.decide(60, 6, 0) == 2


def test_keda_goes_to_zero_after_its_cooldown_and_begins_again_when_asked() -> None:
    keda = hpa.Zero(polling_s=30, cooldown_s=300)
    assert keda.decide(30, 1, 5.0) is None
    assert keda.decide(330, 1, 0.0) is None
    assert keda.decide(360, 1, 0.0) == 0
    assert keda.decide(390, 0, 0.0) == 0
    assert keda.decide(420, 0, 1.0) == 1


# --- The pod, against queueing theory.


@pytest.mark.parametrize(("cv", "load"), [(1.0, 0.5), (1.0, 0.8), (0.0, 0.5), (0.0, 0.8)])
def test_a_pod_without_batches_has_the_queue_that_theory_says(cv: float, load: float) -> None:
    """M/M/1 and M/D/1 by Pollaczek and Khinchine."""
    point = steady.point(Service((1,), (0.01,), max_batch=1, delay_s=0, cv=cv), load * 100, seconds=100)
    in_flight = load + load**2 * (1 + cv**2) / (2 * (1 - load))
    assert point.in_flight == pytest.approx(in_flight, rel=0.06)
    assert point.busy == pytest.approx(load, rel=0.02)


def test_whole_seconds_add_up_to_what_the_event_simulation_says(kernel: Kernel) -> None:
    random = np.random.default_rng(3)
    for share in (0.5, 0.8):
        exact = steady.point(POD, share * POD.capacity, seconds=40)
        left, in_flight, waiting = np.zeros(100, np.int32), [], []
        for _ in range(80):
            arrivals = random.poisson(exact.rate, 100).astype(np.int32)
            second = kernel(arrivals, left, kernel.draws(random, (100,)))
            left = second.left
            in_flight.append(second.integrals[:, 0].mean())
            waiting.append(kernel.waiting(second).mean())
        assert np.mean(in_flight[10:]) == pytest.approx(exact.in_flight, rel=0.08)
        # The gauge is what a second ends with: one sample of each simulated second.
        assert np.mean(waiting[10:]) == pytest.approx(exact.waiting, rel=0.25)


def test_an_overloaded_pod_fills_its_queue_and_refuses_the_rest(kernel: Kernel) -> None:
    random = np.random.default_rng(3)
    left, completed, lost = np.zeros(50, np.int32), 0, 0
    arrivals = np.full(50, round(1.5 * POD.capacity), np.int32)
    for second in range(40):
        second_result = kernel(arrivals, left, kernel.draws(random, (50,)))
        left = second_result.left
        if second >= 20:
            completed, lost = completed + int(second_result.completed.sum()), lost + int(second_result.lost.sum())
            assert (second_result.late + second_result.lost).sum() > 0.95 * arrivals.sum()
    assert left.max() == POD.queue + POD.max_batch
    assert completed / 50 / 20 == pytest.approx(POD.capacity, rel=0.04)
    assert lost / 50 / 20 == pytest.approx(arrivals[0] - POD.capacity, rel=0.1)


def test_an_overloaded_pod_carries_further_requests_into_the_next_second(kernel: Kernel) -> None:
    random = np.random.default_rng(3)
    chance = kernel.draws(random, (400,))
    left, arrivals = np.full(400, 25, np.int32), np.full(400, round(1.13 * POD.capacity), np.int32)
    fewer, more = kernel(arrivals, left, chance), kernel(arrivals + 1, left, chance)
    assert np.median(more.left + more.lost - fewer.left - fewer.lost) == 1


# --- The fleet.


def test_no_request_gets_lost_on_the_way(kernel: Kernel) -> None:
    settings = [
        Setting("calm", target=1.5), Setting("late", "pendingRequests", 8), Setting("few", fixed=1),
        Setting("none", least=0, target=2, metric="external", zero=hpa.Zero(cooldown_s=60)),
    ]  # fmt: skip
    for outcome in replay(traffic((0.5, 200), (6, 200), (0, 200), (1, 120)), settings, kernel, START):
        kept = outcome.completed + outcome.lost + outcome.refused + outcome.left
        assert kept == outcome.requests > 0, outcome.setting.name


def test_a_pod_serves_nobody_before_it_has_loaded(kernel: Kernel) -> None:
    slow = Start(load_s=200)
    setting = Setting("two", least=1, target=1)
    quick, waiting = (replay(traffic((2, 180)), [setting], kernel, start)[0] for start in (START, slow))
    assert quick.replicas[-1] > 1
    assert quick.ready[-1] > 1
    assert waiting.ready.max() == 1
    assert waiting.lost > quick.lost


def test_a_fleet_without_an_autoscaler_stays_as_it_is(kernel: Kernel) -> None:
    outcome = replay(traffic((2, 120)), [Setting("fixed", fixed=4)], kernel, START)[0]
    assert outcome.changes == 0
    assert outcome.pod_hours == pytest.approx(4 * 120 / 3600)
    assert outcome.bad_minutes == 0


def test_at_zero_the_first_request_is_refused_and_starts_a_pod(kernel: Kernel) -> None:
    setting = Setting("zero", least=0, target=2, metric="external", zero=hpa.Zero(polling_s=15, cooldown_s=60))
    outcome = replay(traffic((0.3, 60), (0, 240), (0.3, 240)), [setting], kernel, START)[0]
    assert outcome.refused > 0
    assert outcome.ready.min() == 0
    assert outcome.ready[-1] >= 1
    (wait,) = outcome.first_s[-1:]
    least = START.seconds(0, 0)
    assert least <= wait <= least + 15 + 15 + 1


# --- The signals, against Prometheus and the chart's own expressions.


def _rendered(root: Path) -> dict[str, str]:
    """The recording rules that the chart makes for its pods, by signal."""
    text = subprocess.run(
        [str(binaries.helm()), "template", "demo", str(root / "helm/tritonkit"), "--namespace", "serving", "--set",
         "models.uri=s3://bucket/models,autoscaling.enabled=true,monitoring.prometheusRule.enabled=true"],
        capture_output=True, text=True, check=True, env=binaries.rendering_environment(),
    ).stdout  # fmt: skip
    names = {"tritonkit:in_flight_requests:pod": "inFlightRequests", "tritonkit:pending_requests:pod": "pendingRequests",
             "tritonkit:queue_time:pod": "queueTime"}  # fmt: skip
    kinds = [document for document in manifest.objects(text) if document["kind"] == "PrometheusRule"]
    rules = [rule for kind in kinds for group in kind["spec"]["groups"] for rule in group["rules"]]
    return {names[rule["record"]]: rule["expr"] for rule in rules if rule.get("record") in names}


def test_the_signals_are_what_prometheus_makes_of_the_charts_expressions(
    root: Path, kernel: Kernel, tmp_path: Path
) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    expressions = _rendered(root)
    assert set(expressions) == {"inFlightRequests", "pendingRequests", "queueTime"}
    samples: list[tuple[signals.Floats, np.ndarray[Any, np.dtype[np.bool_]]]] = []
    # Quiet, then too much for the pods that are there, then new pods beside them, then next to nothing.
    replay(
        traffic((1, 120), (4, 200), (0.01, 100)), [Setting("one", target=2, least=2, most=8)], kernel, START,
        watch=lambda _, counters, up: samples.append((counters[:, 0].copy(), up[0].copy())),
    )  # fmt: skip
    pods = int(np.flatnonzero(np.any([up for _, up in samples], axis=0)).max()) + 1
    assert pods > 3
    rows = {"nv_inference_request_success": signals.REQUESTS, "nv_inference_request_duration_us": signals.DURATION_US,
            "nv_inference_queue_duration_us": signals.QUEUE_US, "nv_inference_pending_request_count": signals.PENDING}  # fmt: skip
    series = []
    for pod in range(pods):
        label = f'namespace="serving",pod="demo-tritonkit-abc12-pod0{pod}"'
        for metric, row in rows.items():
            values = " ".join(repr(float(counters[row, pod])) if up[pod] else "stale" for counters, up in samples)
            # Prometheus has no sample of the time before the first scrape.
            series.append({"series": f'{metric}{{{label},model="m"}}', "values": f"_ {values}"})
    scrapes = signals.Scrapes((1, samples[0][0].shape[1]), 15, 60)
    per_pod: dict[str, list[signals.Floats]] = {name: [] for name in expressions}
    for index, (counters, up) in enumerate(samples):
        scrapes.add(15 * (index + 1), counters[:, None], up[None])
        for name, measurements in signals.per_pod(scrapes, 15 * (index + 1) + 7).items():
            if name in per_pod:
                per_pod[name].append(measurements[0, :pods])
    tests = []
    for name, steps in per_pod.items():
        for pod in range(pods):
            label = f'signal="{name}",namespace="serving",pod="demo-tritonkit-abc12-pod0{pod}"'
            values = " ".join("stale" if np.isnan(step[pod]) else repr(float(step[pod])) for step in steps)
            series.append({"series": f"simulated{{{label}}}", "values": f"_ {values}"})
        for index, step in enumerate(steps):
            known = int(np.isfinite(step).sum())
            same = f'count(abs(({expressions[name]}) - on (pod) simulated{{signal="{name}"}}) < 1e-6)'
            tests.append({"expr": same, "eval_time": f"{15 * (index + 1) + 7}s",
                          "exp_samples": [{"labels": "{}", "value": known}]})  # fmt: skip
            tests.append({"expr": f"count({expressions[name]})", "eval_time": f"{15 * (index + 1) + 7}s",
                          "exp_samples": [{"labels": "{}", "value": known}]})  # fmt: skip
    assert len(tests) > 100
    assert max(np.nanmax(step) for step in per_pod["inFlightRequests"]) > POD.queue / 2
    text = {"rule_files": [], "evaluation_interval": "15s",
            "tests": [{"interval": "15s", "input_series": series, "promql_expr_test": tests}]}  # fmt: skip
    file = tmp_path / "signals.test.yaml"
    file.write_text(yaml.safe_dump(text, sort_keys=False, width=1_000_000), encoding="utf-8")
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[:3000]


# --- What follows for the chart.


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(choice.RESULT.read_text(encoding="utf-8"))
    return kept


def _autoscaling(root: Path) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((root / "helm/tritonkit/values.yaml").read_text(encoding="utf-8"))
    return dict(values["autoscaling"])


def test_the_kept_result_is_of_this_code_and_these_measurements(result: dict[str, Any]) -> None:
    assert result["made_of"] == choice.made_of(), "run `make bench-autoscaler KEEP=1`"


def test_the_best_setting_follows_from_the_kept_rows(result: dict[str, Any]) -> None:
    rows = [choice.Row(**row) for row in result["rows"]]
    assert {row.name for row in rows} == {setting.name for setting in choice.compared()}
    assert result["best"] == choice.best(rows)
    assert result["recommended"] == choice.recommended(rows)


def _rendered_target(root: Path, accelerator: str, *more: str) -> float:
    text = subprocess.run(
        [str(binaries.helm()), "template", "demo", str(root / "helm/tritonkit"), "--show-only", "templates/hpa.yaml",
         "--set", "models.uri=s3://bucket/models,autoscaling.enabled=true,monitoring.prometheusRule.enabled=true",
         "--set", ",".join((f"accelerator.kind={accelerator}", *more))],
        capture_output=True, text=True, check=True, env=binaries.rendering_environment(),
    ).stdout  # fmt: skip
    (metric,) = yaml.safe_load(text)["spec"]["metrics"]
    return float(metric["pods"]["target"]["averageValue"])


@pytest.mark.parametrize("kind", list(choice.MEASURED))
def test_the_charts_defaults_are_what_the_simulation_recommends(root: Path, result: dict[str, Any], kind: str) -> None:
    defaults, recommended = _autoscaling(root), result["recommended"][kind]
    assert defaults["target"] is None
    target = _rendered_target(root, kind)
    assert choice.from_values(defaults | {"target": target}) == choice.from_values(recommended)
    assert defaults["window"] == recommended["window"]


def test_a_users_target_wins_and_other_signals_have_their_own(root: Path) -> None:
    assert _rendered_target(root, "mig", "accelerator.mig.profile=1g.10gb") == _rendered_target(root, "gpu")
    assert _rendered_target(root, "gpu", "autoscaling.target=5") == 5
    assert _rendered_target(root, "gpu", "autoscaling.signal=queueTime") == 2


def test_the_best_setting_of_each_kind_of_pod_is_the_cheapest_good_one() -> None:
    def row(name: str, hours: float, *, bad: int = 0, good: bool = True, signal: str = choice.OUR_SIGNAL) -> choice.Row:
        return choice.Row("gpu", name, signal, 1, bad, 0, 0, hours, 0, 0, good)

    rows = [row("a", 90), row("b", 70, bad=1), row("c", 1, good=False), row("d", 1, signal="queueTime")]
    assert choice.best(rows) == {"gpu": "b"}
    assert choice.best([*rows, row("e", 71)]) == {"gpu": "e"}, "a tie, with fewer bad minutes"
    assert choice.best([*rows, row("e", 74)]) == {"gpu": "b"}, "no tie"
    assert choice.best([*rows, choice.Row("cpu", "a", choice.OUR_SIGNAL, 1, 0, 0, 0, 9, 0, 0, True)])["cpu"] == "a"
    with pytest.raises(InputError, match="no setting is good on the pod gpu"):
        choice.best(rows[2:])


@pytest.mark.parametrize("kind", list(choice.MEASURED))
def test_measured_service_times_rise_with_the_batch_and_batches_pay(kind: str) -> None:
    pod = service.load(choice.MEASURED[kind])
    assert list(pod.seconds) == sorted(pod.seconds)
    assert pod.capacity > 1 / pod.seconds[0]
