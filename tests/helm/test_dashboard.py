"""What the dashboard, the rules and the autoscalers ask for exists in a real Triton; traces reach a real collector."""

from __future__ import annotations

import http.server
import itertools
import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from manifests import rendering

from tritonkit.server import TritonServer
from tritonkit_client import Client

PYTHON_MODEL = """
import triton_python_backend_utils as u

class TritonPythonModel:
    def execute(self, requests):
        return [u.InferenceResponse([u.Tensor("y", u.get_input_tensor_by_name(r, "x").as_numpy())]) for r in requests]
"""
TENSORS = """
input { name: "x" data_type: TYPE_FP32 dims: 1 }
output { name: "y" data_type: TYPE_FP32 dims: 1 }
"""
ENSEMBLE = """
platform: "ensemble"
ensemble_scheduling { step [
  { model_name: "first" model_version: -1 input_map { key: "x" value: "x" } output_map { key: "y" value: "z" } },
  { model_name: "second" model_version: -1 input_map { key: "x" value: "z" } output_map { key: "y" value: "y" } }
] }
"""
# Units of Grafana's own list (packages/grafana-data/src/valueFormats/categories.ts) that the panels use.
UNITS = {"short", "percentunit", "reqps", "ms", "watt", "joule"}
METRIC = re.compile(r"\b(?:(?:nv|kube|tritonkit)_|vllm:)[a-z0-9_]+")


@dataclass
class Collector:
    """An OpenTelemetry collector as far as the protocol goes: takes what is posted to it and says 200."""

    url: str
    bodies: list[tuple[str, bytes]] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.bodies.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            taken.arrived.set()
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        taken = Collector(f"http://127.0.0.1:{server.server_port}/v1/traces")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield taken
        server.shutdown()
        thread.join()


def everything(**values: Any) -> list[dict[str, Any]]:
    """The objects that ask for metrics, all switched on."""
    base = {
        "models": {"uri": "s3://bucket/prefix"},
        "engineBuild": {"mode": "init"},
        "monitoring": {
            "podMonitor": {"enabled": True},
            "prometheusRule": {"enabled": True, "slo": {"latencyMs": 50}},
            "dashboard": {"enabled": True},
        },
    }
    return rendering.documents(rendering.case(values={**base, **values}))


@pytest.fixture(scope="module")
def running(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A real Triton with the rendered tracing arguments, after one request to an ensemble of two models."""
    repository = tmp_path_factory.mktemp("repository")
    for name in ("first", "second"):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "1/model.py").write_text(PYTHON_MODEL)
        (repository / name / "config.pbtxt").write_text(f'backend: "python"{TENSORS}')
    (repository / "both/1").mkdir(parents=True)
    (repository / "both/config.pbtxt").write_text(ENSEMBLE + TENSORS)
    tracing = {"enabled": True, "url": collector.url, "rate": 1, "resource": {"deployment.environment": "testing"}}
    (deployment,) = [d for d in everything(tracing=tracing) if d["kind"] == "Deployment"]
    (triton,) = [c for c in deployment["spec"]["template"]["spec"]["containers"] if c["name"] == "triton"]
    arguments = [argument for argument in triton["args"] if argument.startswith("--trace-config")]
    assert arguments
    with TritonServer(repository, arguments=arguments) as server:
        with Client(f"grpc://127.0.0.1:{server.ports['grpc']}") as client:
            client.infer("both", x=np.zeros(1, np.float32))
        yield server


@pytest.fixture(scope="module")
def exported(running: TritonServer) -> set[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{running.ports['metrics']}/metrics", timeout=10) as answer:
        return set(re.findall(r"^(nv_\w+)", answer.read().decode(), re.MULTILINE))


@pytest.fixture(scope="module")
def elsewhere(root: Path) -> set[str]:
    """Metrics that the guide says come from a GPU, from kube-state-metrics or from ourselves."""
    guide = (root / "docs/reference/monitoring.md").read_text(encoding="utf-8")
    table = guide.split("| metric | where it comes from |")[1].split("\n\n")[0]
    return {name for row in table.splitlines()[2:] for name in METRIC.findall(row.split("|")[1])}


def dashboard() -> dict[str, Any]:
    (config_map,) = [d for d in everything() if d["metadata"]["name"].endswith("-dashboard")]
    text: str = config_map["data"]["tritonkit.json"]
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    """Every PromQL expression that the chart renders, variables of the dashboard included."""
    queries = [target["expr"] for panel in panels() for target in panel["targets"]]
    queries += [v["definition"] for v in dashboard()["templating"]["list"] if v["type"] == "query"]
    engine = everything(
        engine="vllm",
        engineBuild={},
        monitoring={"prometheusRule": {"enabled": True, "slo": {"firstTokenMs": 500}}},
    )
    for document in everything() + engine:
        if document["kind"] == "PrometheusRule":
            queries += [rule["expr"] for group in document["spec"]["groups"] for rule in group["rules"]]
    for signal in ("inFlightRequests", "pendingRequests", "queueTime"):
        scaling = {"enabled": True, "kind": "keda", "signal": signal}
        (scaled,) = [d for d in everything(autoscaling=scaling) if d["kind"] == "ScaledObject"]
        queries.append(scaled["spec"]["triggers"][0]["metadata"]["query"])
    return queries


def test_every_metric_is_exported_or_its_source_is_in_the_guide(exported: set[str], elsewhere: set[str]) -> None:
    named = {name for expression in expressions() for name in METRIC.findall(expression)}
    assert len(named & exported) >= 10
    assert named - exported - elsewhere == set()


def test_the_guide_lists_no_exported_and_no_unused_metric(exported: set[str], elsewhere: set[str]) -> None:
    named = {name for expression in expressions() for name in METRIC.findall(expression)}
    assert elsewhere & exported == set()
    assert elsewhere - named == set()


def test_the_labels_that_rules_choose_by_are_those_of_the_real_server(running: TritonServer) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{running.ports['metrics']}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    reasons = {m[1] for line in lines if (m := re.search(r'^nv_inference_request_failure\{.*reason="(\w+)"', line))}
    named = {reason for e in expressions() for reason in re.findall(r'reason!?="([A-Z]+)"', e)}
    assert named == {"CANCELED", "REJECTED"}
    assert named <= reasons
    assert any(re.match(r'nv_inference_request_success\{.*version="1"', line) for line in lines)
    assert any("by (model, version" in expression for expression in expressions())


def test_an_ensembles_time_is_that_of_its_steps_again_and_it_has_no_queue(running: TritonServer) -> None:
    """What `autoscaling.ensembles` is for."""
    with urllib.request.urlopen(f"http://127.0.0.1:{running.ports['metrics']}/metrics", timeout=10) as answer:
        text = answer.read().decode()

    def value(metric: str, model: str) -> float:
        match = re.search(rf'^{metric}{{model="{model}",version="1"}} (\S+)$', text, re.MULTILINE)
        assert match
        return float(match[1])

    time = {model: value("nv_inference_request_duration_us", model) for model in ("both", "first", "second")}
    assert time["both"] == pytest.approx(time["first"] + time["second"], rel=0.25)
    assert value("nv_inference_queue_duration_us", "both") <= value("nv_inference_queue_duration_us", "first")


def test_a_span_of_a_request_reaches_the_collector(running: TritonServer, collector: Collector) -> None:
    """Protobuf keeps strings as they are, so the names can be read without its schema."""
    assert collector.arrived.wait(30)
    assert {path for path, _ in collector.bodies} == {"/v1/traces"}
    sent = b"".join(body for _, body in collector.bodies)
    for word in (b"service.name", b"demo-tritonkit", b"deployment.environment", b"testing", b"InferRequest", b"both"):
        assert word in sent


def test_every_expression_of_the_dashboard_is_in_the_file_of_queries(root: Path) -> None:
    queries = yaml.safe_load((root / "helm/tritonkit/files/queries.yaml").read_text(encoding="utf-8"))
    source = json.loads((root / "helm/tritonkit/files/dashboard.json").read_text(encoding="utf-8"))
    named = {target["expr"] for panel in source["panels"] for target in panel.get("targets", [])}
    assert named <= queries.keys()
    assert not [name for name, text in queries.items() if "\t" in text]


def test_every_query_is_used(root: Path) -> None:
    queries = yaml.safe_load((root / "helm/tritonkit/files/queries.yaml").read_text(encoding="utf-8"))
    chart = root / "helm/tritonkit"
    places = [*chart.glob("templates/*"), chart / "files/dashboard.json", chart / "files/queries.yaml"]
    used = "".join(path.read_text(encoding="utf-8") for path in places if path.is_file())
    signals = {
        f"{signal}{total}"
        for signal in (
            "inFlightRequests",
            "pendingRequests",
            "queueTime",
            "engineRequests",
            "waitingRequests",
            "kvCacheUsage",
        )
        for total in ("", "Total")
    }
    assert {name for name in queries if f'"{name}"' not in used and f"<{name}>" not in used} <= signals


def test_no_panel_overlaps_another_or_the_edge() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    rows = {y for _, y in taken}
    assert len(taken) == 24 * len(rows), "a row has a hole"
    assert rows == set(range(max(rows) + 1)), "there is an empty row"


def test_every_panel_says_what_it_shows_and_in_which_unit() -> None:
    for panel in panels():
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["type"] in {"timeseries", "stat"}
        for target in panel["targets"]:
            labels = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert all(label in target["expr"] for label in labels), panel["title"]


def test_panels_have_identities_and_variables_that_exist() -> None:
    board = dashboard()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    variables = {variable["name"] for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(board)))
    assert used == variables
