"""The rendered PromQL, run by Prometheus' own engine: autoscaling signals first, then every alert."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import promtool
import pytest
import yaml
from manifests import rendering

NAME = "triton"
A, B = f"{NAME}-6d4cf56db6-abcde", f"{NAME}-6d4cf56db6-fghij"
RULES: dict[str, Any] = {"prometheusRule": {"enabled": True, "slo": {"latencyMs": 100}}}
Series = dict[str, str]


def render(values: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The one rendered object of a kind."""
    base: dict[str, Any] = {"fullnameOverride": NAME, "models": {"uri": "s3://bucket/prefix"}, "monitoring": RULES}
    documents = rendering.documents(rendering.case(values={**base, **values}))
    (document,) = [document for document in documents if document["kind"] == kind]
    return document


def groups(part: str = "", **values: Any) -> list[dict[str, Any]]:
    """The rules' groups whose name ends with ``part``."""
    rule_groups: list[dict[str, Any]] = render(values, "PrometheusRule")["spec"]["groups"]
    return [group for group in rule_groups if group["name"].endswith(part)]


def keda(signal: str, **more: Any) -> str:
    """The query that KEDA asks."""
    values = {"autoscaling": {"enabled": True, "kind": "keda", "signal": signal} | more}
    query: str = render(values, "ScaledObject")["spec"]["triggers"][0]["metadata"]["query"]
    return query


def server(pod: str, model: str, *, namespace: str = "serving", **counters: str) -> Series:
    """What one pod exports of one model: nothing happens unless ``counters`` says so."""
    labels = f'namespace="{namespace}",pod="{pod}",model="{model}",version="1"'
    names = {
        "success": "nv_inference_request_success",
        "duration": "nv_inference_request_duration_us",
        "queue": "nv_inference_queue_duration_us",
        "pending": "nv_inference_pending_request_count",
    }
    return {f"{metric}{{{labels}}}": counters.get(short, "0x80") for short, metric in names.items()}


def signals(
    place: Path, series: Series, pods: Mapping[str, Mapping[str, float]], total: Mapping[str, float], **more: Any
) -> None:
    """Fails unless each signal has these values a pod and this total, recorded and as KEDA asks, after 10 minutes."""
    expected: list[tuple[str, str, Mapping[str, float]]] = []
    names = {
        "inFlightRequests": "in_flight_requests",
        "pendingRequests": "pending_requests",
        "queueTime": "queue_time",
    }
    for signal, recorded in names.items():
        by_pod = {f'{{pod="{pod}"}}': values[signal] for pod, values in pods.items()}
        expected.append(("10m", f"round(max by (pod) (tritonkit:{recorded}:pod), 0.001)", by_pod))
        labels = f'{{namespace="serving",release="demo",workload="{NAME}"}}'
        expected.append(("10m", f"round(tritonkit:{recorded}:total, 0.001)", {labels: total[signal]}))
        expected.append(("10m", f"round({keda(signal, **more)}, 0.001)", {"{}": total[signal]}))
    promtool.check(place, series=series, expected=expected, groups=groups("signals", autoscaling=more))


def test_busy_pods_hold_as_many_requests_as_littles_law_says(tmp_path: Path) -> None:
    """10 requests a second of 300 ms are 3 in the server; 5 a second of 100 ms that waited 20 are a half."""
    series = server(A, "m", success="0+150x80", duration="0+45000000x80", queue="0+15000000x80", pending="1x80")
    series |= server(B, "m", success="0+75x80", duration="0+7500000x80", queue="0+1500000x80")
    signals(
        tmp_path,
        series,
        {
            A: {"inFlightRequests": 3, "pendingRequests": 1, "queueTime": 100},
            B: {"inFlightRequests": 0.5, "pendingRequests": 0, "queueTime": 20},
        },
        {"inFlightRequests": 3.5, "pendingRequests": 1, "queueTime": 73.333},
    )


def test_below_one_request_a_second_the_wait_of_a_request_stays_whole(tmp_path: Path) -> None:
    """One request in 15 s that waited 40 ms: the usual clamp_min(rate, 1) would say 2.7 ms."""
    series = server(A, "m", success="0+1x80", duration="0+90000x80", queue="0+40000x80")
    values = {"inFlightRequests": 0.006, "pendingRequests": 0, "queueTime": 40}
    signals(tmp_path, series, {A: values}, values)


def test_an_idle_model_neither_dilutes_nor_makes_nan(tmp_path: Path) -> None:
    busy = server(A, "m", success="0+150x80", duration="0+45000000x80", queue="0+15000000x80", pending="2x80")
    idle = {key: value for n in range(5) for key, value in server(A, f"idle{n}").items()}
    values = {"inFlightRequests": 3, "pendingRequests": 2, "queueTime": 100}
    signals(tmp_path, busy | idle, {A: values}, values)


def test_an_idle_pod_says_zero_so_that_the_autoscaler_may_scale_down(tmp_path: Path) -> None:
    nothing = {"inFlightRequests": 0, "pendingRequests": 0, "queueTime": 0}
    signals(tmp_path, server(A, "m") | server(B, "m"), {A: nothing, B: nothing}, nothing)


def test_a_fast_model_does_not_hide_the_wait_for_a_slow_one(tmp_path: Path) -> None:
    series = server(A, "slow", success="0+15x80", duration="0+4500000x80", queue="0+3000000x80", pending="1x80")
    series |= server(A, "fast", success="0+1500x80", duration="0+1500000x80", queue="0+15000x80")
    values = {"inFlightRequests": 1, "pendingRequests": 1, "queueTime": 200}
    signals(tmp_path, series, {A: values}, values)


def ensemble(pod: str) -> Series:
    """5 requests a second to an ensemble of two steps of 100 and 300 ms, as the real server counts them.

    It adds the steps' time to the ensemble's, and keeps the ensemble's own queue empty.
    """
    return (
        server(pod, "both", success="0+75x80", duration="0+30000000x80")
        | server(pod, "first", success="0+75x80", duration="0+7500000x80", queue="0+1500000x80")
        | server(pod, "second", success="0+75x80", duration="0+22500000x80", queue="0+7500000x80", pending="1x80")
    )


def test_a_request_to_an_ensemble_counts_once(tmp_path: Path) -> None:
    values = {"inFlightRequests": 2, "pendingRequests": 1, "queueTime": 100}
    signals(tmp_path, ensemble(A), {A: values}, values, ensembles=["both", "other"])


def test_an_unnamed_ensemble_counts_twice_and_scales_too_early(tmp_path: Path) -> None:
    """Too early is the safe side: too late would lose requests."""
    values = {"inFlightRequests": 4, "pendingRequests": 1, "queueTime": 100}
    signals(tmp_path, ensemble(A), {A: values}, values)


def test_a_restarted_container_makes_no_jump(tmp_path: Path) -> None:
    """Its counters begin at 0 again, half a minute before the question."""
    counters = {"success": 150, "duration": 45_000_000, "queue": 15_000_000}
    again = {name: f"0+{step}x38 0+{step}x40" for name, step in counters.items()}
    close = "abs(max by (pod) (tritonkit:{}:pod) - {}) < bool {}"
    expected = [
        ("10m", close.format("in_flight_requests", 3, 1.01), {f'{{pod="{A}"}}': 1.0}),
        ("10m", close.format("queue_time", 100, 1), {f'{{pod="{A}"}}': 1.0}),
        ("9m45s", close.format("in_flight_requests", 3, 1.01), {f'{{pod="{A}"}}': 1.0}),
        ("9m30s", close.format("in_flight_requests", 3, 0.01), {f'{{pod="{A}"}}': 1.0}),
    ]
    promtool.check(tmp_path, series=server(A, "m", **again), expected=expected, groups=groups("signals"))


def test_a_pod_that_stopped_answering_is_as_full_as_its_queue(tmp_path: Path) -> None:
    """Little's law sees requests when they end, and none does."""
    series = server(A, "m", success="100x80", duration="45000000x80", queue="15000000x80", pending="20x80")
    values = {"inFlightRequests": 20, "pendingRequests": 20, "queueTime": 0}
    signals(tmp_path, series, {A: values}, values)


def test_another_deployment_whose_name_begins_alike_is_not_counted(tmp_path: Path) -> None:
    series = server(A, "m", success="0+15x80", duration="0+15000000x80", queue="0+150000x80")
    for pod in (f"{NAME}-b-6d4cf56db6-abcde", f"x-{NAME}-6d4cf56db6-abcde", f"{NAME}-0"):
        series |= server(pod, "m", success="0+150x80", duration="0+45000000x80", pending="9x80")
    series |= server(B, "m", namespace="dev", success="0+150x80", duration="0+45000000x80", pending="9x80")
    values = {"inFlightRequests": 1, "pendingRequests": 0, "queueTime": 10}
    signals(tmp_path, series, {A: values}, values)


def test_the_longest_name_leaves_its_pods_names_whole(tmp_path: Path) -> None:
    """Kubernetes makes a pod's name of 58 characters and 5 of its own; a longer Deployment would not be found."""
    release, variant = "r" * 38, "v" * 7
    pod = f"{release}-{variant}-6d4cf56db6-"[:58] + "abcde"
    rules = groups("signals", fullnameOverride=release, variants={variant: {}})
    series = server(pod, "m", success="0+15x80", duration="0+15000000x80")
    expected = [("10m", "round(max by (pod) (tritonkit:in_flight_requests:pod), 0.001)", {f'{{pod="{pod}"}}': 1.0})]
    promtool.check(tmp_path, series=series, expected=expected, groups=rules)
    with pytest.raises(rendering.Refused, match="more than 46 characters"):
        groups("signals", fullnameOverride=release, variants={variant + "v": {}})


def test_variants_are_scaled_apart(tmp_path: Path) -> None:
    pods = {"a10g": f"{NAME}-a10g-6d4cf56db6-abcde", "t4": f"{NAME}-t4-6d4cf56db6-abcde"}
    series = server(pods["a10g"], "m", success="0+15x80", duration="0+15000000x80")
    series |= server(pods["t4"], "m", success="0+15x80", duration="0+60000000x80")
    labels = '{{namespace="serving",release="demo",workload="triton-{}"}}'
    expected = [
        (
            "10m",
            "round(tritonkit:in_flight_requests:total, 0.001)",
            {labels.format("a10g"): 1.0, labels.format("t4"): 4.0},
        ),
    ]
    promtool.check(
        tmp_path, series=series, expected=expected, groups=groups("signals", variants={"a10g": {}, "t4": {}})
    )


def test_with_no_pod_the_users_query_asks_for_one_and_no_more(tmp_path: Path) -> None:
    scaling = {
        "enabled": True,
        "kind": "keda",
        "minReplicas": 0,
        "keda": {"activation": {"query": "sum(rate(arrivals[2m]))"}},
    }
    signal, activation = (
        trigger["metadata"] for trigger in render({"autoscaling": scaling}, "ScaledObject")["spec"]["triggers"]
    )
    assert signal["ignoreNullValues"] == activation["ignoreNullValues"] == "true"
    expected: list[tuple[str, str, dict[str, float]]] = [
        ("1m", activation["query"], {"{}": 0}),  # the Gateway has not said anything yet
        ("10m", activation["query"], {"{}": 0}),
        ("20m", activation["query"], {"{}": 1}),
        ("20m", signal["query"], {}),
    ]
    promtool.check(tmp_path, series={"arrivals": "_x10 0x40 0+500x40"}, expected=expected)


def test_a_silent_prometheus_is_no_reason_to_scale_down() -> None:
    """While there are pods: KEDA keeps their number when the query has no value."""
    scaled = render({"autoscaling": {"enabled": True, "kind": "keda"}}, "ScaledObject")
    assert scaled["spec"]["triggers"][0]["metadata"]["ignoreNullValues"] == "false"
    assert len(scaled["spec"]["triggers"]) == 1


def test_the_hpa_names_the_metrics_of_the_guides_prometheus_adapter(root: Path) -> None:
    """docs/reference/monitoring.md carries prometheus-adapter's rules."""
    guide = (root / "docs/reference/monitoring.md").read_text(encoding="utf-8")
    rules = next(
        yaml.safe_load(block.split("```")[0])["rules"] for block in guide.split("```yaml\n") if "seriesQuery" in block
    )
    recorded = {rule["record"] for group in groups() for rule in group["rules"] if "record" in rule}
    for kind, named, suffix in (("pods", "custom", "pod"), ("external", "external", "total")):
        for signal in ("inFlightRequests", "pendingRequests", "queueTime"):
            values = {"autoscaling": {"enabled": True, "signal": signal, "hpa": {"metric": kind}}}
            (metric,) = render(values, "HorizontalPodAutoscaler")["spec"]["metrics"]
            name = metric[kind]["metric"]["name"]
            (series,) = [rule["seriesQuery"] for rule in rules[named] if rule["name"]["as"] == name]
            assert series.split("{")[0] in recorded
            assert series.split("{")[0].endswith(f":{suffix}")


def failing(model: str, failures: str, success: str, *, reason: str = "OTHER") -> Series:
    labels = f'namespace="serving",pod="{A}",model="{model}",version="1"'
    return {
        f"nv_inference_request_success{{{labels}}}": success,
        f'nv_inference_request_failure{{{labels},reason="{reason}"}}': failures,
        f'nv_inference_request_failure{{{labels},reason="CANCELED"}}': "0+600x250",
    }


def state(name: str) -> str:
    """1 while the alert fires."""
    return f'clamp_max(count(ALERTS{{alertname="{name}",alertstate="firing"}}), 1) or vector(0)'


BURN: dict[
    str, tuple[str, str, dict[str, int]]
] = {  # failures and successes of 2 minutes each; after 8 hours, which fire
    "none": ("0x250", "0+1200x250", {"Fast": 0, "Slow": 0}),
    "two per cent": ("0+24x250", "0+1176x250", {"Fast": 1, "Slow": 1}),
    "two per cent, for 50 minutes": ("0x215 0+24x35", "0+1176x250", {"Fast": 1, "Slow": 1}),
    "two per cent, for 30 minutes": ("0x225 0+24x25", "0+1176x250", {"Fast": 0, "Slow": 1}),
    "two per cent, for 10 minutes": ("0x235 0+24x15", "0+1176x250", {"Fast": 0, "Slow": 0}),
    "0.7 per cent": ("0+84x250", "0+11916x250", {"Fast": 1, "Slow": 1}),
    "0.4 per cent": ("0+48x250", "0+11952x250", {"Fast": 0, "Slow": 1}),
    "under the budget": ("0+6x250", "0+11994x250", {"Fast": 0, "Slow": 0}),
    "four per cent, mended 40 minutes ago": ("0+48x220 10560x30", "0+1152x250", {"Fast": 0, "Slow": 1}),
    "few failures of few requests": ("0x50 1x50 2x150", "0+2x250", {"Fast": 0, "Slow": 0}),
}


def fired(alert: str, cases: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str, Mapping[str, float]]]:
    """What is expected of Fast and Slow, after 8 hours, for each case: a model of that name."""
    return [
        (
            "8h",
            f'count by (model) (ALERTS{{alertname="{alert}{speed}",alertstate="firing"}})',
            {f'{{model="{case}"}}': 1.0 for case, fires in cases.items() if fires[speed]},
        )
        for speed in ("Fast", "Slow")
    ]


def test_the_error_budgets_alerts(tmp_path: Path) -> None:
    series = {key: value for case, burn in BURN.items() for key, value in failing(case, burn[0], burn[1]).items()}
    expected = fired("TritonErrorBudgetBurn", {case: burn[2] for case, burn in BURN.items()})
    promtool.check(tmp_path, series=series, expected=expected, groups=groups("slo"), interval="2m")


SLOW: dict[str, tuple[str, dict[str, int]]] = {  # time in the server of 100 requests a minute; 100 ms are promised
    "60 ms": ("0+6000000x500", {"Fast": 0, "Slow": 0}),
    "120 ms": ("0+12000000x500", {"Fast": 1, "Slow": 1}),
    "120 ms for 20 minutes, mended": (
        "0+6000000x380 2292000000+12000000x20 2538000000+6000000x98",
        {"Fast": 0, "Slow": 1},
    ),
    "no requests": ("0x500", {"Fast": 0, "Slow": 0}),
}


def test_the_latency_budgets_alerts(tmp_path: Path) -> None:
    series: Series = {}
    for case, (duration, _) in SLOW.items():
        labels = f'namespace="serving",pod="{A}",model="{case}",version="1"'
        series[f"nv_inference_request_success{{{labels}}}"] = "0x500" if case == "no requests" else "0+100x500"
        series[f"nv_inference_request_duration_us{{{labels}}}"] = duration
    expected = fired("TritonLatencyBudgetBurn", {case: fires for case, (_, fires) in SLOW.items()})
    promtool.check(tmp_path, series=series, expected=expected, groups=groups("slo"), interval="1m")


def waiting(container: str, reason: str, values: str, *, init: bool = False) -> Series:
    metric = f"kube_pod_{'init_' if init else ''}container_status_waiting_reason"
    return {f'{metric}{{namespace="serving",pod="{A}",container="{container}",reason="{reason}"}}': values}


def gpu(used: str) -> Series:
    labels = f'{{namespace="serving",pod="{A}",gpu_uuid="GPU-1"}}'
    return {f"nv_gpu_memory_used_bytes{labels}": used, f"nv_gpu_memory_total_bytes{labels}": "100x80"}


def engine(value: int) -> Series:
    return {f'tritonkit_engine_fallback{{namespace="serving",pod="{A}"}}': f"{value}x80"}


ALERTS: dict[str, tuple[Series, Series]] = {  # fires after an hour, does not
    "TritonQueueSaturated": (server(A, "m", pending="17x80"), server(A, "m", pending="9x80")),
    "TritonRequestsRejected": (
        failing("m", "0+1x80", "0+60x80", reason="REJECTED"),
        failing("m", "0+1x80", "0+60x80", reason="BACKEND"),
    ),
    "TritonLoadFailing": (
        waiting("prepare", "CrashLoopBackOff", "1x80", init=True),
        waiting("triton", "ContainerCreating", "1x80"),
    ),
    "TritonModelMissing": (
        server(A, "m") | server(A, "lost") | server(B, "m"),
        server(A, "m") | server(A, "lost") | server(B, "m") | server(B, "lost"),
    ),
    "TritonMetricsAbsent": ({}, server(A, "m")),
    "TritonGpuMemory": (gpu("98x80"), gpu("90x80")),
    "TritonEngineFallback": (engine(1), engine(0)),
}
EVERYTHING: dict[str, Any] = {"engineBuild": {"mode": "init"}}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_fires_and_does_not(tmp_path: Path, name: str) -> None:
    rules = groups("alerts", **EVERYTHING)
    for fires, series in enumerate(reversed(ALERTS[name])):
        promtool.check(
            tmp_path / str(fires),
            series=series,
            expected=[("60m", state(name), {"{}": float(fires)})],
            groups=rules,
            interval="1m",
        )


def test_a_container_in_a_crash_loop_alerts_like_an_init_container(tmp_path: Path) -> None:
    series = waiting("triton", "CrashLoopBackOff", "1x80")
    promtool.check(
        tmp_path,
        series=series,
        expected=[("60m", state("TritonLoadFailing"), {"{}": 1.0})],
        groups=groups("alerts"),
        interval="1m",
    )


def test_every_alert_is_tested_here() -> None:
    named = {rule["alert"] for group in groups(**EVERYTHING) for rule in group["rules"] if "alert" in rule}
    burns = {f"Triton{kind}BudgetBurn{speed}" for kind in ("Error", "Latency") for speed in ("Fast", "Slow")}
    assert named == burns | ALERTS.keys()


def test_an_alert_says_what_to_do_and_where_to_send_it() -> None:
    routed = {"alertLabels": {"team": "vision"}, "runbookUrl": "https://runbooks.example/triton"}
    for group in groups(monitoring={"prometheusRule": {"enabled": True} | routed}):
        for rule in group["rules"]:
            if "alert" in rule:
                assert rule["labels"]["team"] == "vision"
                assert rule["labels"]["severity"] in {"critical", "warning"}
                assert rule["annotations"].keys() >= {"summary", "description", "runbook_url"}


def test_a_deployment_that_may_have_no_pod_is_not_missed() -> None:
    scaling = {"kind": "keda", "enabled": True, "minReplicas": 0, "keda": {"activation": {"query": "arrivals"}}}
    named = {rule.get("alert") for group in groups(autoscaling=scaling) for rule in group["rules"]}
    assert "TritonMetricsAbsent" not in named


def test_promtool_finds_no_fault_in_the_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": groups(**EVERYTHING, variants={"a": {}, "b": {}})}))
    done = subprocess.run(
        [promtool.find(), "check", "rules", "--lint=all", "--lint-fatal", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
