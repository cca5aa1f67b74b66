"""`tritonkit advise fleet`: the cheapest nodes that carry several models, with a node to spare, and what forbids a fleet."""

from __future__ import annotations

import functools
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
from graphfile import value
from manifests import rendering
from onnx import TensorProto, helper

from tritonkit import cli, gpus
from tritonkit.advisor import fleet, fleet_bundles, fleet_demand, fleet_nodes, serving
from tritonkit.advisor.fleet_demand import Graph, Model
from tritonkit.advisor.fleet_solve import Mix
from tritonkit.advisor.queueing import Service
from tritonkit.advisor.references import reference
from tritonkit.kubetools import validation

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096,
    "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "max_position_embeddings": 8192,
}  # fmt: skip


def graph(name: str, model: str, rps: float, p99_ms: float, **sizes: int) -> Graph:
    batches = {size: reference(model, sizes, size) for size in serving.batch_sizes(16)}
    return Graph(name, rps, batches, p99_ms, ("fp32", "fp16"), instances=2)


FIVE = [
    graph("photos", "efficientnet_lite0", 1500, 30), graph("resnet", "resnet50", 300, 50),
    graph("texts", "bert_base", 800, 30, sequence=128), graph("short", "bert_base", 400, 15, sequence=32),
    graph("large", "bert_large", 40, 100, sequence=175),
]  # fmt: skip


@functools.cache
def five(*keys: str, spare: int = 0, first: int = 0) -> fleet.Plan:
    return plan(FIVE[first:], *keys, spare=spare)


def plan(models: Sequence[Model], *keys: str, spare: int = 0, most: int | None = None) -> fleet.Plan:
    nodes = [fleet_nodes.node(gpus.get(key), most=most) for key in keys]
    return fleet.plan(models, nodes, utilization=0.8, spare=spare)


def mix_of(result: fleet.Plan) -> Mix:
    assert result.mix is not None, result.impossible
    return result.mix


def check(mix: Mix, models: Sequence[Model]) -> None:
    """All requests are carried, nothing is fuller than planned, and the GPUs are there."""
    for model in models:
        assert sum(pods.rps.get(model.name, 0) for pods in mix.pods) == pytest.approx(model.rps)
    for pods in mix.pods:
        assert pods.busy <= pods.bundle.share + 1e-6
        assert pods.bundle.memory_gib <= pods.bundle.device.usable_gib
    for node, count in mix.nodes:
        layout, cut = mix.cuts.get(node.name, ({}, 0))
        own = [pods for pods in mix.pods if pods.node == node]
        whole = sum(pods.count * pods.bundle.gpu_count for pods in own if not pods.bundle.device.profile)
        assert whole + cut <= count * node.gpu_count
        for profile in {pods.bundle.device.profile for pods in own} - {""}:
            assert sum(pods.count for pods in own if pods.bundle.device.profile == profile) <= layout[profile] * cut


def cheapest_by_hand(models: Sequence[Graph], key: str) -> float:
    """The price of the best of all partitions of the models into pods of whole GPUs of one kind."""
    device = fleet_nodes.devices(key)[0]
    alone = [fit for model in models for fit in fleet_demand.fits(model, [device], {key: 1}, 0.8)[0]]
    pods = {}
    for bundle in fleet_bundles.bundles(alone, 0.8):
        time = sum(
            fit_rps[fit.model] / fit.most_rps for fit_rps in [{m.name: m.rps for m in models}] for fit in bundle.fits
        )
        pods[bundle.models] = math.ceil(time / bundle.share - 1e-9)

    def least(left: frozenset[str]) -> float:
        if not left:
            return 0
        first = min(left)
        return min((count + least(left - own) for own, count in pods.items() if first in own <= left), default=math.inf)

    return least(frozenset(model.name for model in models)) * fleet_nodes.node(gpus.get(key)).usd_per_hour


def test_five_models_go_on_the_cheapest_nodes() -> None:
    result = five("l4", "t4", "l40s")
    mix = mix_of(result)
    check(mix, FIVE)
    assert mix.usd_per_hour <= min(cheapest_by_hand(FIVE, key) for key in ("l4", "t4", "l40s")) + 1e-6
    assert "HiGHS proved that no mix of these nodes is cheaper" in result.reasons


@pytest.mark.parametrize("key", ["t4", "l4"])
def test_on_one_kind_of_gpu_it_is_what_all_partitions_say(key: str) -> None:
    mix = mix_of(plan(FIVE[:4], key))
    check(mix, FIVE[:4])
    assert mix.usd_per_hour == pytest.approx(cheapest_by_hand(FIVE[:4], key))


def test_with_a_spare_node_any_one_may_go() -> None:
    mix = mix_of(five("l4", "t4", "l40s", spare=1))
    check(mix, FIVE)
    for pods in mix.pods:  # each node has one GPU, and so one pod
        assert pods.count >= 2
        assert pods.busy * pods.count <= pods.bundle.share_without * (pods.count - 1) + 1e-6
    assert mix.usd_per_hour > mix_of(five("l4", "t4", "l40s")).usd_per_hour


def test_mig_cuts_a_gpu_where_neighbours_would_break_a_promise() -> None:
    models = FIVE[2:]
    mix = mix_of(five("a100-pcie-80", first=2))
    check(mix, models)
    assert mix.nodes[0][1] == 1
    (layout, count) = mix.cuts["Standard_NC24ads_A100_v4"]
    assert count == 1
    assert sum(layout.values()) > 1
    assert any(pods.bundle.device.profile for pods in mix.pods)


def test_pods_are_spread_over_nodes_with_many_gpus() -> None:
    crowd = [graph("texts", "bert_base", 100_000, 30, sequence=128)]
    mix = mix_of(plan(crowd, "h100-sxm", spare=1))
    check(mix, crowd)
    (node, count), *_ = mix.nodes
    assert (node.gpu_count, count >= 2) == (8, True)
    for pods in mix.pods:
        left = pods.count - math.ceil(pods.count / count)
        assert pods.busy * pods.count <= pods.bundle.share_without * left + 1e-6


@pytest.mark.parametrize(("pair", "share"), [((0, 1), None), ((0, 3), None), ((1, 3), 0.8)])
def test_models_share_a_gpu_only_where_a_simulation_keeps_their_promises(
    pair: tuple[int, int], share: float | None
) -> None:
    """One device that takes the batch of whoever has waited longest: a bundle keeps its promises, others would not."""
    models = [FIVE[place] for place in pair]
    device = fleet_nodes.devices("l4")[0]
    alone = [fit for model in models for fit in fleet_demand.fits(model, [device], {"l4": 1}, 0.8)[0]]
    bundle = next((bundle for bundle in fleet_bundles.bundles(alone, 0.8) if len(bundle.fits) == 2), None)
    assert (bundle is None) == (share is not None)
    busy = bundle.share if bundle else share or 0
    services = [fit.service for fit in alone if fit.service]
    latencies = _simulated(services, [busy / 2 * fit.most_rps for fit in alone], 20_000)
    kept = [
        sorted(times)[int(0.99 * len(times))] <= (fit.p99_ms or 0) for fit, times in zip(alone, latencies, strict=True)
    ]
    assert all(kept) == (bundle is not None)


def _simulated(services: Sequence[Service], rates: Sequence[float], count: int) -> list[list[float]]:
    chance = random.Random(11)
    arrivals: list[list[float]] = []
    for rate in rates:
        now, times = 0.0, []
        for _ in range(int(count * rate / sum(rates))):
            now += chance.expovariate(rate / 1e3)
            times.append(now)
        arrivals.append(times)
    latencies: list[list[float]] = [[] for _ in services]
    begun, free = [0] * len(services), 0.0
    while any(place < len(times) for place, times in zip(begun, arrivals, strict=True)):
        waiting = [place for place, times in enumerate(arrivals) if begun[place] < len(times)]
        turn = min(waiting, key=lambda place: arrivals[place][begun[place]])
        first, times, service = begun[turn], arrivals[turn], services[turn]
        free = max(free, times[first])
        end = first
        while end < len(times) and end - first < service.largest and times[end] <= free:
            end += 1
        free += service.ms(end - first)
        latencies[turn] += [free - arrival + service.request_ms for arrival in times[first:end]]
        begun[turn] = end
    return latencies


def test_a_mig_instance_has_its_part_of_a_gpu() -> None:
    parts = {device.profile: device for device in fleet_nodes.devices("h200")}
    assert parts["1g.18gb"].gpu.sms == 16
    assert parts["1g.18gb"].gpu.bandwidth_gbs == 600
    assert parts["1g.18gb"].usable_gib == pytest.approx(15.9, abs=0.1)  # nvidia-smi lists 16.00 of it
    assert "7g.141gb" not in parts
    assert {"1g.18gb": 2, "2g.35gb": 1, "3g.71gb": 1} in fleet_nodes.layouts("h200")  # mig-parted's all-balanced
    assert {"3g.71gb": 1, "4g.71gb": 1} in fleet_nodes.layouts("h200")
    for layout in fleet_nodes.layouts("h200"):
        assert sum(int(profile[0]) * count for profile, count in layout.items()) <= 7


def test_too_few_nodes_say_which_model_and_how_much_is_missing() -> None:
    result = plan(FIVE[:1], "t4", most=1)
    assert result.mix is None
    assert "photos: 1 g4dn.xlarge carry" in result.impossible[0]
    assert "too few: the devices' time is the bound" in result.impossible[0]
    assert result.impossible[-1].startswith("without limits, ")


def test_a_spare_that_there_is_no_node_for_is_named() -> None:
    result = plan(FIVE[4:], "l4", spare=1, most=1)
    assert result.mix is None
    assert any("without a spare node they do" in sentence for sentence in result.impossible)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (graph("hurried", "resnet50", 10, 1.0), ["hurried goes on none of the devices within 1 ms", "more than the 1 that"]),
        (
            Graph("wide", 10, {1: reference("bert_large", {"sequence": 175}, 1)}, None, ("fp32",), instances=9),
            ["wide goes on none", "GiB", "more than t4 has for models"],
        ),
    ],
)  # fmt: skip
def test_a_model_that_goes_nowhere_says_which_bound_and_by_how_much(model: Graph, words: list[str]) -> None:
    result = plan([*FIVE[:1], model], "t4", "a10g") if model.name == "hurried" else plan([model], "t4")
    assert result.mix is None
    for word in words:
        assert word in result.impossible[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph with a batch, a graph with a moving length, and a language model."""
    path = tmp_path_factory.mktemp("fleet")
    weight = helper.make_tensor("w", TensorProto.FLOAT, (512, 512), bytes(4 * 512 * 512), raw=True)
    shapes: dict[str, list[str | int | None]] = {"dense": ["batch", 512], "moving": ["batch", "length", 512]}
    for name, dims in shapes.items():
        product = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [value("x", TensorProto.FLOAT, dims)],
            [value("y", TensorProto.FLOAT, dims)], [weight],
        )  # fmt: skip
        onnx.save(helper.make_model(product, opset_imports=[helper.make_opsetid("", 18)]), path / f"{name}.onnx")
    (path / "llama").mkdir()
    (path / "llama" / "config.json").write_text(json.dumps(LLAMA))
    return path


def run(
    capsys: pytest.CaptureFixture[str], folder: Path, text: str | dict[str, Any], *words: str | Path
) -> tuple[int, str, str]:
    file = folder / "models.yaml"
    file.write_text(text if isinstance(text, str) else yaml.safe_dump(text))
    code = cli.main(["advise", "fleet", str(file), *map(str, words)])
    printed = capsys.readouterr()
    return code, printed.out, " ".join(printed.err.split())


def test_the_command_prints_nodes_pods_and_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [
        {"model": "dense.onnx", "rps": 500, "p99_ms": 20},
        {"model": "moving.onnx", "rps": 50, "shape": {"length": 64}, "name": "words"},
        {"model": "llama", "rps": 1, "prompt": 1024, "answer": 128, "context": 4096, "ttft_ms": 1000},
    ]
    code, printed, _ = run(capsys, folder, {"models": models, "gpus": ["l4", "l40s"], "spare_nodes": 0})
    printed = " ".join(printed.split())
    assert code == 0
    for part in ("g6.xlarge", "dense", "words", "llama bf16", "HiGHS proved", "vLLM takes their memory", "list prices"):
        assert part in printed


def test_values_pass_the_charts_schema_and_strict_rendering(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [
        {"model": "dense.onnx", "rps": 20_000, "p99_ms": 5, "max_batch": 8, "instances": 2},
        {"model": "llama", "rps": 1, "prompt": 1024, "answer": 128, "context": 4096, "tensor_parallel_size": 2},
    ]
    nodes = [{"gpu": "h100-nvl", "gpus": 2, "name": "pair"}]
    values = tmp_path / "fleet.yaml"
    code, printed, _ = run(
        capsys, folder, {"models": models, "nodes": nodes, "spare_nodes": 0}, "--values", values, "--json"
    )
    pods = json.loads(printed)["pods"]
    assert code == 0
    written = yaml.safe_load(values.read_text())["variants"].values()
    assert sorted(variant["replicas"] for variant in written) == sorted(item["count"] for item in pods)
    assert any(variant["accelerator"].get("count") == 2 for variant in written)
    documents = rendering.documents(rendering.case(values, values={"models": {"uri": "s3://models/web/versions/1"}}))
    assert validation.errors(documents, "1.34") == []
    assert sum(item["kind"] == "Deployment" for item in documents) == len(pods)


def test_mig_instances_become_variants_of_their_own(tmp_path: Path) -> None:
    from tritonkit.advisor import fleet_values

    values = tmp_path / "fleet.yaml"
    values.write_text(fleet_values.text(mix_of(five("a100-pcie-80", first=2)), "models.yaml"))
    variants = yaml.safe_load(values.read_text())["variants"]
    cut = [variant for variant in variants.values() if variant["accelerator"].get("kind") == "mig"]
    assert cut
    documents = rendering.documents(rendering.case(values, values={"models": {"uri": "s3://models/web/versions/1"}}))
    assert validation.errors(documents, "1.34") == []
    limits = [
        container["resources"]["limits"]
        for document in documents if document["kind"] == "Deployment"
        for container in document["spec"]["template"]["spec"]["containers"]
    ]  # fmt: skip
    assert any(f"nvidia.com/mig-{cut[0]['accelerator']['mig']['profile']}" in limit for limit in limits)


ONE = {"model": "dense.onnx", "rps": 10}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["models.yaml is empty", "models: [{model:"]),
        ("- 1\n", ["a fleet is a mapping with models"]),
        ("models: [\n", ["is not valid YAML"]),
        ({"models": []}, ["models.yaml:1", "at least 1"]),
        ({"models": [ONE], "gpu": ["l4"]}, ["unknown key, did you mean 'gpus'?", "keys known here: models, gpus"]),
        ("models:\n- model: dense.onnx\n  rps: 1\n  p99: 5\n", ["models.yaml:4", "models.0.p99: unknown key, did you mean 'p99_ms'?"]),
        ({"models": [{"model": "dense.onnx", "rps": -5}]}, ["models.0.rps: must be above 0, got -5"]),
        ({"models": [{"model": "dense.onnx", "rps": True}]}, ["models.0.rps: a number belongs here, got true"]),
        ({"models": [{"model": "dense.onnx"}]}, ["models.0.rps: required, and not there"]),
        ({"models": [ONE], "gpus": ["h1000"]}, ["there is no GPU 'h1000' here", "did you mean h100"]),
        ({"models": [ONE], "nodes": [{"gpu": "l5"}]}, ["there is no GPU 'l5' here", "did you mean l4"]),
        ({"models": [ONE], "gpus": ["a40"]}, ["there is no price for a40", "--price a40=USD"]),
        ({"models": [ONE], "nodes": [{"gpu": "l4", "most": -1}]}, ["nodes.0.most: must be at least 0, got -1"]),
        ({"models": [ONE], "gpus": ["l4"], "nodes": [{"gpu": "l4"}]}, ["two kinds of node are called g6.xlarge"]),
        ({"models": [ONE], "utilization": 1.5}, ["utilization: must be at most 0.95, got 1.5"]),
        ({"models": [ONE], "spare_nodes": 2}, ["spare_nodes: 2 is none of 0 or 1"]),
        ({"models": [ONE, {**ONE}]}, ["models.yaml:4: two models are called dense"]),
        ({"models": [{**ONE, "itl_ms": 5}]}, ["itl_ms is not for a graph", "keys of a graph: shape"]),
        ({"models": [{**ONE, "engine": "vllm"}]}, ["vllm does not run a graph"]),
        ({"models": [{**ONE, "precision": "int8"}]}, ["onnxruntime runs int8 on no GPU here", "engine: tensorrt"]),
        ({"models": [{"model": "llama", "rps": 1, "shape": {"x": 2}}]}, ["shape is not for a language model"]),
        ({"models": [{"model": "llama", "rps": 1, "context": 9000}]}, ["--context 9000 is above 8192"]),
        ({"models": [{"model": "missing.onnx", "rps": 1}]}, ["there is no file", "missing.onnx"]),
        ({"models": [{"model": "model.pt", "rps": 1}]}, ["is no recipe, no .onnx file"]),
        ({"models": [{"model": "moving.onnx", "rps": 1}]}, ["dimensions without a size: length"]),
    ],
)  # fmt: skip
def test_bad_input_says_what_where_and_the_fix(
    folder: Path, text: str | dict[str, Any], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = run(capsys, folder, text)
    assert code == 2
    for word in words:
        assert word in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["advise", "fleet"], "advise fleet needs the file of a fleet"),
        (["advise", "model.onnx", "models.yaml"], "models.yaml is one operand too many"),
        (["advise", "fleet", "none.yaml"], "there is no file none.yaml"),
        (["advise", "fleet", "none.yaml", "--rps", "5"], "--rps is not for a fleet"),
        (["advise", "fleet", "none.yaml", "--all"], "--all is not for a fleet"),
        (["advise", "fleet", "none.yaml", "--ttft-ms", "5"], "--ttft-ms is not for a fleet"),
    ],
)
def test_the_words_of_the_command_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    assert message in capsys.readouterr().err


def test_a_price_below_0_is_refused_and_what_costs_nothing_is_not_hoarded(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet_of_one = {"models": [{**ONE, "p99_ms": 50}], "gpus": ["l4"]}
    code, _, error = run(capsys, folder, fleet_of_one, "--price", "l4=-1")
    assert (code, "the price of l4 is -1" in error) == (2, True)
    code, printed, _ = run(capsys, folder, fleet_of_one, "--price", "l4=0", "--json")
    assert (code, [node["count"] for node in json.loads(printed)["nodes"]]) == (0, [2])


def test_a_fleet_that_no_mix_carries_ends_with_1_and_writes_no_values(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = tmp_path / "fleet.yaml"
    models = [{"model": "dense.onnx", "rps": 500, "p99_ms": 1}]
    code, printed, _ = run(capsys, folder, {"models": models, "gpus": ["l4"]}, "--values", values)
    assert code == 1
    assert "dense goes on none of the devices within 1 ms" in " ".join(printed.split())
    assert not values.exists()
