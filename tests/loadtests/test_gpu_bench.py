"""`make bench-gpu` without a GPU: it says so; what it measures with runs on the CPU, with a small graph in a model's place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from tritonkit import pipeline
from tritonkit.errors import CheckFailed, InputError
from tritonkit.recipe import load as load_recipe
from tritonkit.repository import config
from tritonkit.server import TritonServer
from tritonkit_load.benchmarks import bench_gpu
from tritonkit_load.benchmarks.gpu import callers, device, inprocess, models, rounds, served
from tritonkit_load.benchmarks.gpu.inprocess import Effort
from tritonkit_load.benchmarks.gpu.models import Model
from tritonkit_load.load import environment

QUICK = Effort(seconds=0.3, rounds=2, warm_up_s=0.1)


@pytest.fixture(autouse=True)
def little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (inprocess, "RUNS", 6), (inprocess, "MIXED_BATCHES", 1), (inprocess, "TEXTS_CHECKED", 8),
        (inprocess, "CHANGING", (1, 3)), (rounds, "LEAST_RUNS", 1), (models, "REQUESTS", 8),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Embeddings of tokens and their mean over the mask, in BERT's place; built for CUDA with few sizes."""
    folder = tmp_path_factory.mktemp("small")
    write_graph(folder / "small.onnx")
    text = yaml.safe_load((models.RECIPES / "bert_base.yaml").read_text(encoding="utf-8"))
    text |= {"source": {"onnx": "small.onnx"}, "batching": {"batch_sizes": [1, 4]}, "max_batch_size": 4}
    text["shapes"]["sequence"]["sizes"] = [32, 128, 256]
    text["outputs"]["embedding"]["dims"] = [32]
    path = folder / "bert_base.yaml"
    path.write_text(yaml.safe_dump(text), encoding="utf-8")
    recipe = load_recipe(path)
    pipeline.build([recipe], folder / "repository", "cuda", pipeline.Options(precisions=("fp32",)))
    return Model(recipe, "fp32", folder / "repository")


def write_graph(path: Path) -> None:
    shape = ["batch", "sequence"]
    table = np.random.default_rng(0).standard_normal((30_000, 32)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["vectors"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["weights"]),
        helper.make_node("Mul", ["vectors", "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "first"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["weights", "first"], ["count"], keepdims=0),
        helper.make_node("Div", ["sum", "count"], ["embedding"]),
    ]
    constants = {"table": table, "last": np.array([2]), "first": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 32])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", *arguments])
    return bench_gpu.main()


def test_without_a_gpu_it_ends_with_3_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(environment, "gpus", list)
    assert run("--reports", str(tmp_path), monkeypatch=monkeypatch) == 3
    printed = capsys.readouterr()
    assert printed.err == "error: make bench-gpu needs an NVIDIA GPU and its driver; this machine has none\n"
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("--only", "all"), ("--models", "vgg"), ("--only", "page", "--in-flight", "0")])
def test_what_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str]) -> None:
    assert run(*arguments, "--reports", str(tmp_path), monkeypatch=monkeypatch) == 2


def test_a_result_that_cannot_be_read_is_not_overwritten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"created": 3}', encoding="utf-8")
    assert run("--only", "page", "--reports", str(tmp_path), monkeypatch=monkeypatch) == 2
    assert (tmp_path / "result.json").read_text(encoding="utf-8") == '{"created": 3}'


def test_every_recipe_of_the_benchmark_is_one_and_names_its_variants() -> None:
    for recipe in models.recipes(list(models.VARIANTS)):
        assert set(models.VARIANTS[recipe.name]) <= {"fp32", *recipe.precisions}
        assert recipe.max_batch_size == 64
    assert models.recipes(["bert_base"])[0].shapes["sequence"].padded_sizes[-1] == 256
    assert models.TOKENS in models.recipes(["bert_base"])[0].shapes["sequence"].padded_sizes
    with pytest.raises(InputError, match="vgg"):
        models.recipes(["vgg"])


def test_a_spread_has_median_and_ends_and_ratios_are_within_a_round() -> None:
    spread = rounds.spread([3.0, 1.0, 2.0, 10.0])
    assert (spread.median, spread.low, spread.high, spread.rounds) == (2.5, 1.0, 10.0, 4)
    ratio = rounds.ratios([10.0, 20.0, 40.0], [10.0, 10.0, 10.0])
    assert (ratio.median, ratio.low, ratio.high) == (2.0, 1.0, 4.0)


def test_turns_are_interleaved_and_the_first_calls_of_a_turn_do_not_count() -> None:
    calls: list[str] = []
    took = rounds.take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, 0.0, warm_up=1)
    assert {key: len(ms) for key, ms in took.items()} == {"a": 2, "b": 2}
    turn = 1 + rounds.LEAST_RUNS
    assert calls == (["a"] * turn + ["b"] * turn) * 2


def test_images_and_texts_are_requests_of_one_sample(small: Model) -> None:
    (images,) = [Model(recipe, "fp32", Path()) for recipe in models.recipes(["efficientnet_lite0"])]
    assert images.tokens == 0
    assert [single["image"].shape for single in images.singles(10)] == [(1, 224, 224, 3)] * 10
    assert models.joined(images.singles(3))["image"].shape == (3, 224, 224, 3)
    assert [single["input_ids"].shape for single in small.singles(3, [8, 200])] == [(1, 8), (1, 200), (1, 8)]
    assert [single["input_ids"].shape for single in small.singles(2)] == [(1, 128)] * 2


def test_the_networks_take_bytes_and_ids_and_have_constant_weights() -> None:
    import torch

    from tritonkit.zoo import bert_base, resnet50

    image = torch.zeros((2, 32, 32, 3), dtype=torch.uint8)
    ids = torch.arange(1000, 1012).reshape(2, 6)
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    with torch.no_grad():
        logits = [resnet50.load((1, 1, 1, 1))(image) for _ in range(2)]
        short = bert_base.load(1)
        embedding, alone = short(ids, mask), short(ids[1:, :4], mask[1:, :4])
    assert logits[0].shape == (2, 1000)
    assert torch.equal(*logits)
    assert embedding.shape == (2, 768)
    assert torch.allclose(embedding[1], alone[0], atol=1e-5)


def test_requests_survive_their_file(tmp_path: Path) -> None:
    requests = [(b"", 0), (bytes(range(256)) * 300, 128), (b"x", 2**40)]
    callers.write_requests(tmp_path / "requests", requests)
    assert callers.read_requests(tmp_path / "requests") == requests


def test_the_driver_is_asked_of_the_first_gpu_that_may_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\nprintf "0, GPU-a, 100\\n1, GPU-b, 300\\n"\n', encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device.used_bytes() == 100 * 2**20
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert device.used_bytes() == 300 * 2**20


def test_memory_is_read_from_every_instances_line_and_none_is_an_error(tmp_path: Path) -> None:
    log = tmp_path / "log"
    line = (
        "I1129 model_0_{n}: 7 sizes prepared in 2.1 s: batches of 1, 2; one CUDA graph each; "
        "on NVIDIA H200 context {c}, weights 106, sizes 1432 MiB\n"
    )
    log.write_text(line.format(n=0, c=500) + line.format(n=1, c=520), encoding="utf-8")
    (model,) = [Model(recipe, "fp32", tmp_path) for recipe in models.recipes(["resnet50"])]
    assert served._reported(log, model) == (510 * 2**20, 106 * 2**20, 1432 * 2**20)
    log.write_text("nothing", encoding="utf-8")
    with pytest.raises(CheckFailed, match="no instance of resnet50 prepared sizes"):
        served._reported(log, model)


def test_a_server_sees_the_first_gpu_only_while_it_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with served._visible(first=True):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    with served._visible(first=True):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,4"


@pytest.mark.alone
def test_in_process_everything_is_measured_and_wrong_answers_are_not_timed(small: Model) -> None:
    with inprocess.opened(small, None) as prepared:
        figures = inprocess.measure(small, prepared, QUICK, lambda _: None, None)
        assert list(figures.plain_ms) == list(figures.prepared_ms) == [1, 4]
        assert len(figures.size_ms) == 6
        assert set(figures.size_ms) == set(figures.size_bytes) > {"1 x 32", "4 x 256"}
        assert figures.error < 1e-4
        assert figures.per_s.median == pytest.approx(4000 / figures.prepared_ms[4].median, rel=0.5)
        assert not figures.graphs
        wrong = replace(prepared, execution=Doubled(prepared.execution))
        with pytest.raises(CheckFailed, match="off onnxruntime's on the CPU"):
            inprocess.measure(small, wrong, QUICK, lambda _: None, None)


def test_mixed_lengths_are_compared_by_tokens_with_equal_ones(small: Model) -> None:
    with inprocess.opened(small, None) as prepared:
        figures = inprocess.mixed(small, prepared, QUICK, None)
    assert figures.error <= figures.tolerance == pytest.approx(0.01)
    assert figures.ratio.rounds == 2
    assert 0.05 < figures.ratio.median < 5
    drawn = models.lengths(1000)
    assert (min(drawn), max(drawn)) == (8, 256)
    assert abs(np.mean(drawn) - 132) < 6


def test_a_model_is_loaded_behind_the_real_server_beside_the_same_graph(
    small: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small
    on_cpu(monkeypatch)
    plan = served.Plan((1, 4), QUICK, 2)
    steps: list[str] = []
    with (
        inprocess.opened(model, None) as prepared,
        served.running(model, 2, tmp_path, plan.processes) as running,
    ):
        figures = served.measure(running, prepared, plan, 1, steps.append)
        mixed = served.mixed(running, plan, steps.append)
        wrong = replace(prepared, execution=Doubled(prepared.execution))
        with pytest.raises(CheckFailed, match="the server's answer is"):
            served.check(running, wrong)
        callers.write_requests(tmp_path / "bad.requests", [(models.message("nobody", {}), 1)])
        with pytest.raises(CheckFailed, match="no request of bad was answered: NOT_FOUND"):
            running.callers.run(tmp_path / "bad.requests", 2, 0.3, 0.0)
    assert [load.in_flight for load in figures.loads] == [1, 4]
    assert all(load.rate.median > 0 and load.failed == 0 for load in figures.loads)
    assert all(load.p50_ms.median <= load.p99_ms.median for load in figures.loads)
    assert 1 <= figures.loads[0].batch < 1.05
    assert figures.loads[1].instance_cores > 0
    assert figures.above_ms is not None
    assert mixed.where == "served"
    assert mixed.error <= mixed.tolerance
    assert mixed.mixed_per_s.median > 0
    assert "round 2" in " ".join(steps)


class Doubled:
    """An execution whose answers are wrong."""

    def __init__(self, execution: Any) -> None:
        self._execution = execution

    def __getattr__(self, name: str) -> Any:
        return getattr(self._execution, name)

    def run(self, requests: Any) -> Any:
        return [[2 * output for output in answer] for answer in self._execution.run(requests)]


def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay repositories out for the CPU, where there is no memory of a GPU to report."""
    lay_out = models.laid_out

    def laid_out(*arguments: Any) -> Path:
        repository = lay_out(*arguments)
        for path in repository.glob("*/config.pbtxt"):
            text = path.read_text(encoding="utf-8")
            described = config.parse(text)
            assert all(group.count == arguments[1] for group in described.instance_group)
            path.write_text(text.replace("KIND_GPU", "KIND_CPU"), encoding="utf-8")
        return repository

    @contextmanager
    def visible(*, first: bool) -> Iterator[None]:
        yield

    monkeypatch.setattr(models, "laid_out", laid_out)
    monkeypatch.setattr(device, "used_bytes", lambda: 0)
    monkeypatch.setattr(served, "_reported", lambda *_: (0, 0, 0))
    monkeypatch.setattr(inprocess, "plain_session", on_the_cpu(inprocess.plain_session))
    monkeypatch.setattr(served, "_visible", visible)


def on_the_cpu(open_session: Any) -> Any:
    return lambda model, _number: open_session(model, None)


def test_a_queue_is_widened_only_where_that_is_named(small: Model, tmp_path: Path) -> None:
    built = small.recipe.serving("cuda").max_queue_size
    for queue, expected in ((0, built), (built + 1, built + 1)):
        repository = models.laid_out(small, 3, tmp_path, queue)
        described = config.parse((repository / "bert_base/config.pbtxt").read_text(encoding="utf-8"))
        assert described.dynamic_batching.default_queue_policy.max_queue_size == expected
        assert [group.count for group in described.instance_group] == [3]
    assert TritonServer(repository).repository == repository
