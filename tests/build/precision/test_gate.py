"""Which variant ships, and what the command, the passport and the repository say of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tritonkit import cli
from tritonkit.graph import Session
from tritonkit.precision import gate, speed, variants
from tritonkit.precision.gate import Row
from tritonkit.recipe import Precision
from tritonkit.repository import config

from .conftest import Exported


def timing(milliseconds: float, single: float | None = None, noise: float = 0.0) -> speed.Timing:
    wave = [1 + noise * (-1) ** turn for turn in range(7)]
    return speed.Timing(8, tuple((single or milliseconds) * w for w in wave), tuple(milliseconds * w for w in wave))


def row(precision: Precision, **accuracy: float) -> Row:
    return Row(precision, "unproven", "", {"cosine": 1.0, **accuracy})


def verdicts(exported: Exported, rows: list[Row], times: dict[str, speed.Timing]) -> dict[str, str]:
    return {judged.precision: judged.verdict for judged in gate.judge(exported.recipe, rows, times, "not measured")}


THREE = [row("fp32"), row("fp16"), row("int8")]


def test_the_next_simpler_variant_that_was_accepted_is_the_one_to_beat(pictures: Exported) -> None:
    times = {"fp32": timing(10), "fp16": timing(12), "int8": timing(9)}
    assert verdicts(pictures, THREE, times) == {"fp32": "base", "fp16": "refused", "int8": "accepted"}
    times = {"fp32": timing(10), "fp16": timing(5), "int8": timing(6)}
    assert verdicts(pictures, THREE, times) == {"fp32": "base", "fp16": "accepted", "int8": "refused"}


def test_a_variant_below_a_bound_is_refused_however_fast(pictures: Exported) -> None:
    times = {"fp32": timing(10), "int8": timing(1)}
    judged = gate.judge(pictures.recipe, [row("fp32"), row("int8", cosine=0.98)], times)
    assert (judged[1].verdict, judged[1].why) == ("refused", "cosine 0.98 is below 0.99")


def test_noise_promotes_nothing(pictures: Exported) -> None:
    """Faster in the median, but in a quarter of the rounds not."""
    fast = speed.Timing(8, (10.0,) * 7, (9.5, 9.5, 9.5, 9.5, 10.5, 10.5, 10.5))
    assert verdicts(pictures, [row("fp32"), row("int8")], {"fp32": timing(10), "int8": fast})["int8"] == "refused"


def test_a_variant_that_is_faster_in_batches_and_slower_alone_is_refused(pictures: Exported) -> None:
    times = {"fp32": timing(10, single=2), "int8": timing(8, single=3)}
    assert verdicts(pictures, [row("fp32"), row("int8")], times)["int8"] == "refused"


def test_accurate_and_not_measured_is_unproven_and_does_not_ship(pictures: Exported) -> None:
    judged = gate.judge(pictures.recipe, [row("fp32"), row("int8")], {}, "no GPU here")
    assert (judged[1].verdict, judged[1].why) == ("unproven", "accurate; no GPU here")


def test_variants_take_turns_and_ratios_are_of_one_round() -> None:
    slow, fast = timing(10, noise=0.3), timing(5, noise=0.3)
    assert fast.over(slow).median == pytest.approx(2)
    assert (fast.over(slow).low, fast.over(slow).high) == pytest.approx((2, 2)), "a disturbance that both had cancels"
    assert fast.throughput == pytest.approx(1600, rel=0.31)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def build(
    capsys: pytest.CaptureFixture[str], recipe: Path, repository: Path, *arguments: object
) -> tuple[dict[str, Any], str]:
    code, out, err = run(capsys, "build", recipe, "--repository", repository, "--json", *arguments)
    assert code == 0, err
    return json.loads(out), err


def recipe_with(models_folder: Path, name: str, **changes: object) -> Path:
    data = yaml.safe_load((models_folder / "pictures.yaml").read_text(encoding="utf-8")) | changes
    path = models_folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in data.items() if value is not None}), encoding="utf-8")
    return path


ALL: dict[str, Any] = {"precisions": ["fp32", "fp16", "int8"]}


def test_the_gates_numbers_are_printed_kept_and_measured_once(
    models_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe_with(models_folder, "gated", **ALL)
    repository = tmp_path / "repository"
    built, err = build(capsys, path, repository)
    facts = built["models"]["pictures"]
    rows = {row["precision"]: row for row in facts["gate"]}
    assert list(rows) == ["fp32", "fp16", "int8"]
    assert "gate: time" in err
    assert rows["fp32"]["accuracy"]["cosine"] == 1
    assert rows["int8"]["accuracy"]["cosine"] > 0.99
    assert all(row["single_ms"] > 0 and row["throughput"] > 0 and row["graph_bytes"] > 0 for row in rows.values())
    assert facts["precision"] in {name for name, row in rows.items() if row["verdict"] in {"base", "accepted"}}
    assert facts["judged_on"] == 80 - 24 - 10, "neither calibrated nor chosen by"
    passport = json.loads((repository / "pictures/passport.json").read_text(encoding="utf-8"))
    assert passport["precision"] == facts["precision"]
    assert passport["gate"]["variants"] == facts["gate"]
    again, err = build(capsys, path, repository)
    assert not again["changed"]
    assert again["models"] == built["models"]
    assert not err, "nothing was exported, made or measured"
    code, out, err = run(capsys, "build", path, "--repository", repository)
    assert code == 0, err
    assert "accuracy on 46 samples that made no variant" in out
    for word in ("cosine", "size, MB", "1 sample, ms", "samples/s", "verdict", "base"):
        assert word in out


def test_what_the_recipe_forbids_ships_only_if_forced_and_recorded(
    models_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe_with(models_folder, "strict", **ALL, accuracy={"sqnr_db": 200})
    built, _ = build(capsys, path, tmp_path / "repository")
    facts = built["models"]["pictures"]
    assert facts["precision"] == "fp32"
    assert [row["verdict"] for row in facts["gate"]] == ["base", "refused", "refused"]
    assert all("sqnr_db" in row["why"] and "is below 200" in row["why"] for row in facts["gate"][1:])
    built, _ = build(capsys, path, tmp_path / "repository", "--force", "int8")
    passport = json.loads((tmp_path / "repository/pictures/passport.json").read_text(encoding="utf-8"))
    assert (passport["precision"], passport["forced"]) == ("int8", True)
    assert "avx512_vnni" in passport["cpu_features"]
    assert built["models"]["pictures"]["forced"]


def test_all_variants_says_why_one_is_not_built(
    models_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built, _ = build(capsys, recipe_with(models_folder, "plain"), tmp_path / "repository", "--all-variants")
    rows = {row["precision"]: row for row in built["models"]["pictures"]["gate"]}
    assert rows["fp8"]["verdict"] == "not built"
    assert "no fp8" in rows["fp8"]["why"]
    plain, _ = build(capsys, recipe_with(models_folder, "plain"), tmp_path / "other")
    assert plain["models"]["pictures"]["gate"] == [], "one variant is no choice"


def test_for_tensorrt_the_named_variant_ships_with_an_engine_per_gpu(
    models_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, repository = recipe_with(models_folder, "engines"), tmp_path / "repository"
    unasked, _ = build(capsys, path, repository, "--target", "tensorrt", "--precision", "fp16,int8")
    assert unasked["models"]["pictures"]["precision"] == "fp32", "what was not measured is not promoted"
    options = ("--target", "tensorrt", "--precision", "int8", "--fallback")
    built, _ = build(capsys, path, repository, *options)
    assert built["models"]["pictures"]["precision"] == "int8"
    model = repository / "pictures"
    configuration = config.parse((model / "config.pbtxt").read_text(encoding="utf-8"))
    assert configuration.backend == "tensorrt"
    assert dict(configuration.cc_model_filenames) == {"7.5": "model_sm75.plan", "8.9": "model_sm89.plan"}
    other = config.parse((model / "configs/onnxruntime.pbtxt").read_text(encoding="utf-8"))
    assert other.backend == "onnxruntime"
    assert (model / "1/model.onnx").stat().st_size != (model / "1/engine.onnx").stat().st_size
    passport = json.loads((model / "passport.json").read_text(encoding="utf-8"))
    assert passport["fallback"] == "onnxruntime"
    _put_plan(model, "sm75", passport["graph_sha256"])
    _put_plan(model, "sm89", "of another graph")
    again, _ = build(capsys, path, repository, *options, "--overwrite")
    assert again["changed"], "an engine of another graph must go"
    assert (model / "1/model_sm75.plan").exists()
    assert not (model / "1/model_sm89.plan").exists()
    assert not build(capsys, path, repository, *options)[0]["changed"]


def _put_plan(model: Path, sm: str, graph: str) -> None:
    (model / f"1/model_{sm}.plan").write_bytes(b"plan")
    (model / f"1/model_{sm}.plan.json").write_text(
        json.dumps({"kind": "engine", "graph_sha256": graph}), encoding="utf-8"
    )


@pytest.mark.parametrize(
    ("changes", "arguments", "code", "message"),
    [
        ({**ALL, "samples": None}, (), 2, "names no `samples`"),
        ({**ALL, "samples": "models.py:one_image"}, (), 2, "are the same"),
        ({**ALL, "samples": "models.py:three_images"}, (), 2, "yields 3 inputs"),
        ({**ALL, "accuracy": {"cosin": 0.9}}, (), 2, "no metric 'cosin'"),
        ({}, ("--force", "fp8"), 2, "no fp8"),
        ({}, ("--fallback",), 2, "--fallback is for --target tensorrt"),
        ({"gpus": None}, ("--target", "tensorrt"), 2, "names no `gpus`"),
        ({"gpus": ["a10q"]}, ("--target", "tensorrt"), 2, "did you mean a10"),
        ({"precisions": ["int4"]}, (), 2, "precisions"),
    ],
    ids=[
        "no samples",
        "equal samples",
        "few samples",
        "metric",
        "fp8 on cpu",
        "fallback",
        "no gpus",
        "gpu",
        "precision",
    ],
)
def test_bad_input_gets_one_clear_message_and_writes_nothing(
    models_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any], arguments: tuple[str, ...], code: int, message: str,
) -> None:  # fmt: skip
    path = recipe_with(models_folder, "bad", **changes)
    got, out, err = run(capsys, "build", path, "--repository", tmp_path / "repository", *arguments)
    assert (got, out) == (code, "")
    assert message in err
    assert "fix:" in err
    assert "Traceback" not in err
    assert not (tmp_path / "repository").exists()


def test_activations_that_are_not_numbers_are_named(
    models_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (models_folder / "broken.py").write_text(
        "import torch, numpy as np\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.a = torch.nn.Linear(4, 4)\n"
        "        self.b = torch.nn.Linear(4, 4)\n"
        "    def forward(self, x):\n        return self.b(torch.log(self.a(x))).nan_to_num()\n"
        "def load():\n    torch.manual_seed(0)\n    return Net()\n"
        "def samples():\n    random = np.random.default_rng(0)\n"
        "    for _ in range(40):\n        yield {'x': random.standard_normal(4).astype(np.float32)}\n",
        encoding="utf-8",
    )
    path = models_folder / "broken.yaml"
    data = {
        "name": "broken", "source": "broken.py:load", "inputs": {"x": {"dtype": "fp32", "dims": [4]}},
        "outputs": {"y": {"dtype": "fp32", "dims": [4]}}, "samples": "broken.py:samples", "precisions": ["fp32", "int8"],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    code, _, err = run(capsys, "build", path, "--repository", tmp_path / "repository")
    assert code == 2
    assert "has NaN or infinite values" in err
    assert not (tmp_path / "repository").exists()


def test_sensitivity_ranks_every_node_and_plots_the_recipes_metrics(
    models_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe_with(models_folder, "ranked", accuracy={"cosine": 0.9})
    code, out, err = run(capsys, "sensitivity", path, "--target", "cpu", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert len(report["nodes"]) == 5
    assert [node["sqnr_db"] for node in report["nodes"]] == sorted(
        (n["sqnr_db"] for n in report["nodes"]), reverse=True
    )
    assert np.isclose(report["curve"][-1]["share"], 1)
    code, out, err = run(capsys, "sensitivity", path, "--target", "cpu", "--top", "2")
    assert code == 0, err
    assert "The most sensitive of 5 nodes" in out
    assert "cosine, bound 0.9" in out
    assert "█" in out
    code, _, err = run(capsys, "sensitivity", path, "--target", "cpu", "--precision", "fp8")
    assert code == 2
    assert "no fp8" in err


def test_no_sample_serves_two_purposes(pictures: Exported) -> None:
    """What calibrates does not choose, and what judges does neither."""
    parts = variants.split(pictures.recipe)
    groups = [parts.calibration, parts.selection, parts.evaluation]
    assert [len(group) for group in groups] == [24, 10, 46]
    seen = [sample["image"].tobytes() for group in groups for sample in group]
    assert len(set(seen)) == len(seen) == 80
    assert [sample["image"].tobytes() for sample in variants.judged(pictures.recipe)] == seen[-46:]


def test_an_unusable_gpu_leaves_variants_unproven_with_the_reason(
    models_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr(Session, "has_cuda", staticmethod(lambda: True))  # and there is no driver
    path = recipe_with(models_folder, "no_driver", precisions=["fp32", "fp16"])
    built, _ = build(capsys, path, tmp_path / "repository", "--target", "cuda")
    (model,) = built["models"].values()
    rows = {row["precision"]: row for row in model["gate"]}
    assert model["precision"] == "fp32"
    assert rows["fp16"]["verdict"] == "unproven"
    assert "its speed was not measured: " in rows["fp16"]["why"]
