"""Signals and alerts of language models' engines, run by Prometheus' own engine, and refused where no metric is."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import promtool
import pytest
import yaml
from manifests import rendering

NAME = "triton"
A, B = f"{NAME}-6d4cf56db6-abcde", f"{NAME}-6d4cf56db6-fghij"
OWN = {"repository": "registry.example/triton-vllm", "tag": "1"}
RULES = {"prometheusRule": {"enabled": True, "slo": {"firstTokenMs": 500}}}
SIGNALS = {
    "engineRequests": "engine_requests",
    "waitingRequests": "waiting_requests",
    "kvCacheUsage": "kv_cache_usage",
}
Series = dict[str, str]


def render(kind: str, **values: Any) -> dict[str, Any]:
    """The one rendered object of a kind, of a workload with vLLM."""
    base: dict[str, Any] = {"fullnameOverride": NAME, "models": {"uri": "s3://bucket/prefix"}, "monitoring": RULES}
    base |= {"engine": "vllm", "image": OWN}
    documents = rendering.documents(rendering.case(values={**base, **values}))
    (document,) = [document for document in documents if document["kind"] == kind]
    return document


def groups(part: str = "", **values: Any) -> list[dict[str, Any]]:
    rule_groups: list[dict[str, Any]] = render("PrometheusRule", **values)["spec"]["groups"]
    return [group for group in rule_groups if group["name"].endswith(part)]


def engine(pod: str, model: str = "llama", **values: str) -> Series:
    """What one pod exports of one model: nothing happens unless ``values`` says so."""
    labels = f'namespace="serving",pod="{pod}",model="{model}",version="1"'
    names = {
        "seconds": "e2e_request_latency_seconds_sum",
        "requests": "e2e_request_latency_seconds_count",
        "waiting": "num_requests_waiting",
        "usage": "kv_cache_usage_perc",
        "preemptions": "num_preemptions_total",
    }
    return {f"vllm:{metric}{{{labels}}}": values.get(short, "0x80") for short, metric in names.items()}


def test_the_engines_signals_are_recorded_and_what_keda_asks(tmp_path: Path) -> None:
    """4 requests a second of 2.5 s are 10 in the engine; half as many are 5."""
    series = engine(A, seconds="0+150x80", waiting="6x80", usage="0.9x80")
    series |= engine(B, seconds="0+75x80", waiting="0x80", usage="0.3x80")
    pods = {"engineRequests": (10, 5), "waitingRequests": (6, 0), "kvCacheUsage": (0.9, 0.3)}
    expected: list[tuple[str, str, dict[str, float]]] = []
    for signal, recorded in SIGNALS.items():
        scaling = {"enabled": True, "kind": "keda", "signal": signal, "target": 4}
        (trigger,) = render("ScaledObject", autoscaling=scaling)["spec"]["triggers"]
        assert trigger["metricType"] == "AverageValue"
        first, second = pods[signal]
        by_pod = {f'{{pod="{A}"}}': float(first), f'{{pod="{B}"}}': float(second)}
        labels = f'{{namespace="serving",release="demo",workload="{NAME}"}}'
        expected += [
            ("10m", f"round(max by (pod) (tritonkit:{recorded}:pod), 0.001)", by_pod),
            ("10m", f"round(tritonkit:{recorded}:total, 0.001)", {labels: first + second}),
            ("10m", f"round({trigger['metadata']['query']}, 0.001)", {"{}": first + second}),
        ]
    promtool.check(tmp_path, series=series, expected=expected, groups=groups("signals"))


@pytest.mark.parametrize("kind", ["hpa", "keda"])
def test_two_signals_scale_one_workload(kind: str) -> None:
    scaling = {"enabled": True, "kind": kind, "signal": "waitingRequests", "moreSignals": {"kvCacheUsage": 0.75}}
    if kind == "hpa":
        metrics = render("HorizontalPodAutoscaler", autoscaling=scaling)["spec"]["metrics"]
        targets = {m["pods"]["metric"]["name"]: m["pods"]["target"]["averageValue"] for m in metrics}
        assert targets == {"tritonkit_waiting_requests": "2", "tritonkit_kv_cache_usage": "0.75"}
    else:
        triggers = render("ScaledObject", autoscaling=scaling)["spec"]["triggers"]
        thresholds = {trigger["name"]: trigger["metadata"]["threshold"] for trigger in triggers}
        assert thresholds == {"waiting-requests": "2", "kv-cache-usage": "0.75"}


def test_prometheus_adapter_serves_the_engines_signals_by_the_guides_rules(root: Path) -> None:
    guide = (root / "docs/reference/monitoring.md").read_text(encoding="utf-8")
    rules = next(
        yaml.safe_load(block.split("```")[0])["rules"] for block in guide.split("```yaml\n") if "seriesQuery" in block
    )
    recorded = {rule["record"] for group in groups() for rule in group["rules"] if "record" in rule}
    for kind, named, suffix in (("pods", "custom", "pod"), ("external", "external", "total")):
        for signal in SIGNALS:
            scaling = {"enabled": True, "signal": signal, "target": 4, "hpa": {"metric": kind}}
            (metric,) = render("HorizontalPodAutoscaler", autoscaling=scaling)["spec"]["metrics"]
            name = metric[kind]["metric"]["name"]
            (series,) = [rule["seriesQuery"] for rule in rules[named] if rule["name"]["as"] == name]
            assert series.split("{")[0] in recorded
            assert series.split("{")[0].endswith(f":{suffix}")


def state(name: str) -> str:
    """1 while the alert fires."""
    return f'clamp_max(count(ALERTS{{alertname="{name}",alertstate="firing"}}), 1) or vector(0)'


ALERTS: dict[str, tuple[Series, Series]] = {  # fires after an hour, does not
    "TritonEngineWaiting": (engine(A, waiting="17x80"), engine(A, waiting="9x80")),
    "TritonKvCacheFull": (engine(A, usage="0.99x80"), engine(A, usage="0.8x80")),
    "TritonPreemptions": (
        engine(A, requests="0+100x80", preemptions="0+10x80"),
        engine(A, requests="0+100x80", preemptions="0+2x80"),
    ),
}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_of_an_engine_fires_and_does_not(tmp_path: Path, name: str) -> None:
    rules = groups("alerts")
    for fires, series in enumerate(reversed(ALERTS[name])):
        promtool.check(
            tmp_path / str(fires),
            series=series,
            expected=[("60m", state(name), {"{}": float(fires)})],
            groups=rules,
            interval="1m",
        )


def first_tokens(model: str, late: int, bound: str = "0.5", before: int = 0) -> Series:
    """100 requests a minute, of which ``late`` had no first token by the bound, after ``before`` minutes of none late."""
    labels = f'namespace="serving",pod="{A}",model="{model}",version="1"'
    steps = f"0+100x{before} {100 * before}+{100 - late}x{500 - before}" if before else f"0+{100 - late}x500"
    return {
        f"vllm:time_to_first_token_seconds_count{{{labels}}}": "0+100x500",
        f'vllm:time_to_first_token_seconds_bucket{{{labels},le="{bound}"}}': steps,
        f'vllm:time_to_first_token_seconds_bucket{{{labels},le="0.25"}}': "0x500",
    }


def test_late_first_tokens_burn_their_budget(tmp_path: Path) -> None:
    """1 % may be late: 20 % page at once, 2 % open a ticket, half a per cent does neither."""
    series = first_tokens("twenty", 20, before=430) | first_tokens("two", 2) | first_tokens("half", 0)
    fires = {"Fast": {"twenty": 1.0}, "Slow": {"twenty": 1.0, "two": 1.0}}
    expected = [
        (
            "8h",
            f'count by (model) (ALERTS{{alertname="TritonFirstTokenBudgetBurn{speed}",alertstate="firing"}})',
            {f'{{model="{model}"}}': value for model, value in models.items()},
        )
        for speed, models in fires.items()
    ]
    promtool.check(tmp_path, series=series, expected=expected, groups=groups("slo"), interval="1m")


@pytest.mark.parametrize("bound", ["1", "1.0"])
def test_a_whole_second_is_found_as_triton_and_as_vllm_write_it(tmp_path: Path, bound: str) -> None:
    rules = groups("slo", monitoring={"prometheusRule": {"enabled": True, "slo": {"firstTokenMs": 1000}}})
    ratio = "round(tritonkit:first_token_late_ratio:rate5m, 0.001)"
    expected = [("60m", ratio, {'{model="m",namespace="serving",release="demo"}': 0.2})]
    promtool.check(tmp_path, series=first_tokens("m", 20, bound), expected=expected, groups=rules, interval="1m")


def test_every_alert_of_an_engine_is_tested_here_and_no_other_workload_has_it() -> None:
    def named(**values: Any) -> set[str]:
        return {rule["alert"] for group in groups(**values) for rule in group["rules"] if "alert" in rule}

    burns = {f"TritonFirstTokenBudgetBurn{speed}" for speed in ("Fast", "Slow")}
    assert named() - named(engine="") == burns | ALERTS.keys()
    assert named(engine="tensorrtLlm") == named(engine="")


def test_promtool_finds_no_fault_in_the_engines_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": groups(variants={"a": {}, "b": {"engine": ""}})}))
    done = subprocess.run(
        [promtool.find(), "check", "rules", "--lint=all", "--lint-fatal", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_gauges_are_no_signal_of_nvidias_image_unless_it_is_said_to_have_them() -> None:
    scaling = {"enabled": True, "signal": "kvCacheUsage"}
    with pytest.raises(rendering.Refused, match="NVIDIA's vLLM backend exports none"):
        render("HorizontalPodAutoscaler", image={}, autoscaling=scaling)
    exporting = {"exportsGauges": True}
    assert render("HorizontalPodAutoscaler", image={}, autoscaling=scaling, languageModel=exporting)
    histogram = {**scaling, "signal": "engineRequests", "target": 24}
    assert render("HorizontalPodAutoscaler", image={}, autoscaling=histogram)


def test_the_metrics_are_those_that_the_kits_own_backend_exports(root: Path) -> None:
    queries = (root / "helm/tritonkit/files/queries.yaml").read_text(encoding="utf-8")
    source = (root / "build/src/tritonkit/server/backends/vllm/vllm_engine/metrics.py").read_text(encoding="utf-8")
    names = {word.split("{")[0].removeprefix("vllm:") for word in queries.split("(") if word.startswith("vllm:")}
    bases = {name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name in names}
    assert len(bases) >= 6
    assert {base for base in bases if base not in source} == set()
