"""How the autoscaler's proof measures a pod on a CPU and on a GPU, and what its page says of it."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import results

from tritonkit.errors import InputError, MissingError
from tritonkit.recipe import Recipe
from tritonkit.server import runtime
from tritonkit_load.benchmarks import bench_autoscaler
from tritonkit_load.benchmarks.proofs import choice, measure, page, service, steady
from tritonkit_load.load.result import ModelResult, ServerSide
from tritonkit_load.reporting import page as pages

OBSERVED: dict[str, Any] = {
    "rate": 100.0,
    "in_flight": 0.6,
    "waiting": 0.1,
    "batch": 1.1,
    "p50_ms": 5.0,
    "p99_ms": 9.0,
    "valid": True,
}


def a_recipe(**batching: Any) -> Recipe:
    tensor = {"dtype": "fp32", "dims": [4]}
    return Recipe.model_validate(
        {"name": "net", "source": "net.py:load", "inputs": {"x": tensor}, "outputs": {"y": tensor},
         "max_batch_size": 64, "batching": batching}
    )  # fmt: skip


def saturated(throughput: float, batch: float) -> tuple[ModelResult, ServerSide]:
    model = replace(results.result().model, throughput=throughput)
    assert model.server is not None
    side = replace(model.server, average_batch=batch, executions=50)
    return replace(model, server=side), side


def test_a_gpu_batch_takes_wall_time_and_a_cpu_batch_cpu_time() -> None:
    model, side = saturated(throughput=4000.0, batch=32.0)
    assert measure.seconds_a_batch(model, side, 1.0, "cuda") == pytest.approx(0.008)
    assert measure.seconds_a_batch(model, side, 1.0, "cpu") == pytest.approx(0.02)


def test_a_measured_curve_rises() -> None:
    runs = {
        callers: (batch / throughput, *saturated(throughput, batch))
        for callers, throughput, batch in ((2, 600.0, 1.0), (4, 900.0, 2.0), (8, 890.0, 2.1), (64, 4000.0, 32.0))
    }
    rows = measure.curve(runs)
    assert [row["callers"] for row in rows] == [2, 4, 64]
    assert all(a["batch"] < b["batch"] and a["seconds"] < b["seconds"] for a, b in itertools.pairwise(rows))


def test_a_pod_has_one_instance_and_a_gpus_is_otherwise_as_the_recipe_says() -> None:
    recipe = a_recipe(instances=3, max_queue_delay_us=700, precision="fp32", batch_sizes=[1, 64])
    on_gpu = measure._pod(recipe, "cuda").serving("cuda")
    assert (on_gpu.instances, on_gpu.max_queue_delay_us, on_gpu.batch_sizes) == (1, 700, (1, 64))
    assert on_gpu.max_batch_size == 64
    on_cpu = measure._pod(recipe, "cpu").serving("cpu")
    assert (on_cpu.instances, on_cpu.threads, on_cpu.max_batch_size) == (1, 1, measure.MAX_BATCH)
    tuned_elsewhere = measure._pod(a_recipe(target="cpu", max_queue_delay_us=700), "cuda").serving("cuda")
    assert tuned_elsewhere.max_queue_delay_us == 0


def test_the_page_compares_every_measured_pod_with_its_simulation() -> None:
    pods = {kind: service.load(path) for kind, path in choice.MEASURED.items()}
    check = steady.checks(pods["gpu"], [steady.Observed(**OBSERVED)])
    kept = json.loads(choice.RESULT.read_text(encoding="utf-8"))
    rows = [choice.Row(**row) for row in kept["rows"] if row["kind"] == "gpu"]
    best = {"gpu": kept["best"]["gpu"]}
    text = pages.render(
        "autoscaler.html.j2", headline=page.headline(rows, best), criterion="", kinds=[],
        advice=page.next_steps(rows, best, {"gpu": check}),
        checks={page.TITLES["gpu"]: check}, command="make", created="2026-11-29T00:00:00+00:00", facts={},
    )  # fmt: skip
    assert "Against a real Triton: A pod with one GPU" in text
    assert "What to do next" in text


def test_a_pod_that_cannot_be_measured_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="there is no recipe"):
        measure.measure(str(tmp_path / "absent.yaml"), lambda _: None)
    monkeypatch.setattr(runtime, "detect_device", lambda: "cpu")
    assert bench_autoscaler.main(["--measure", "--target", "cuda"]) == MissingError.exit_code
    assert "no NVIDIA driver" in capsys.readouterr().err


@pytest.mark.parametrize("kind", list(choice.MEASURED))
def test_the_slowdown_is_of_one_rate_and_the_others_agree(kind: str) -> None:
    measured = json.loads(choice.MEASURED[kind].read_text(encoding="utf-8"))
    observed = measure.observed(measured)
    assert steady.slowdown(service.parse(measured | {"slowdown": 1.0}), observed) == measured["slowdown"]
    checks = steady.checks(service.parse(measured), observed)
    assert sum(check.fits for check in checks) == 1
    held = [check for check in checks if check.share <= steady.HELD_SHARE and not check.fits]
    assert len(held) >= 3
    assert all(check.agrees for check in held)


def test_without_a_usable_rate_there_is_no_slowdown() -> None:
    pod = service.load(choice.MEASURED["gpu"])
    late = steady.Observed(**OBSERVED | {"valid": False})
    full = steady.Observed(**OBSERVED | {"batch": 64.0})
    assert steady.slowdown(pod, [late, full]) == 1.0


def test_the_page_says_what_to_set_and_what_fewer_bad_minutes_cost() -> None:
    kept = json.loads(choice.RESULT.read_text(encoding="utf-8"))
    rows = [choice.Row(**row) for row in kept["rows"]]
    for kind, name in kept["best"].items():
        (best,) = [row for row in rows if row.kind == kind and row.name == name]
        *texts, own = page.next_steps([row for row in rows if row.kind == kind], {kind: name}, {})
        assert f"`autoscaling: {{enabled: true, signal: inFlightRequests, target: {best.target:g}}}`" in texts[0]
        assert f"{best.bad_minutes} bad minutes with that. `autoscaling.target: " in texts[1]
        assert own.startswith("`make bench-autoscaler MEASURE=1 MODEL=my_model.yaml`")
    quiet = [replace(row, bad_minutes=0, step_bad=0) for row in rows if row.kind == "gpu"]
    assert len(page.next_steps(quiet, {"gpu": kept["best"]["gpu"]}, {})) == 2
    checks = steady.checks(service.load(choice.MEASURED["gpu"]), [steady.Observed(**OBSERVED)])
    late = page.next_steps(
        quiet, {"gpu": kept["best"]["gpu"]}, {"gpu": [replace(point, valid=False) for point in checks]}
    )
    assert "the generator was late at some rates" in late[1]
