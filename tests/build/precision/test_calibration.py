"""Ranges of activations, and samples that cannot give any."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tritonkit.errors import SourceError
from tritonkit.precision import calibration
from tritonkit.precision.calibration import Observed


def identity() -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Log", ["x"], ["y"])], "g", [value("x", TensorProto.FLOAT, ["batch", "n", "c"])],
        [value("y", TensorProto.FLOAT, ["batch", "n", "c"])],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def samples(*arrays: Any) -> list[dict[str, Any]]:
    return [{"x": np.asarray(array, np.float32)} for array in arrays]


def observed(values: Any) -> Observed:
    parts = np.array_split(np.asarray(values, np.float64), 7)
    dataset = samples(*(np.exp(part)[:, None] for part in parts))
    return calibration.collect(identity(), {"y": -1}, [*dataset])["y"]


def test_samples_of_different_shapes_and_uneven_batches_are_observed() -> None:
    seen = observed(np.linspace(-2, 3, 999))
    assert (seen.low, seen.high) == pytest.approx((-2, 3), abs=1e-5)
    assert seen.histogram.sum() == 999


def test_per_channel_figures_are_of_the_channel_axis() -> None:
    dataset = samples([[1.0, 2.0, 4.0]], [[1.0, 8.0, 4.0]])
    seen = calibration.collect(identity(), {"y": -1}, dataset)["y"]
    np.testing.assert_allclose(seen.absmax, np.log([1, 8, 4]), atol=1e-6)
    np.testing.assert_allclose(seen.mean, [0, np.log(4), np.log(4)], atol=1e-6)


def test_minmax_keeps_an_outlier_and_the_others_cut_it_off() -> None:
    values = np.abs(np.random.default_rng(0).standard_normal(60_000))
    values[0] = 50.0
    seen = observed(values)
    assert calibration.limits(seen, "minmax") == pytest.approx((0, 50), rel=1e-4)
    for method in calibration.METHODS[1:]:
        low, high = calibration.limits(seen, method)
        assert low == 0
        assert 1 < high < 20, method


def test_a_range_always_holds_zero() -> None:
    assert calibration.limits(observed(np.linspace(2, 3, 99)), "minmax") == pytest.approx((0, 3), rel=1e-4)
    assert calibration.limits(observed(np.linspace(-3, -2, 99)), "minmax") == pytest.approx((-3, 0), rel=1e-4)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ([], "no sample to calibrate on"),
        (samples([[1.0, 2.0]]) * 3, "all 3 calibration samples are the same"),
        (samples([[1.0, 2.0]], [[1.0, -1.0]]), "'y' has NaN or infinite values"),
        (samples([[1.0, 2.0]], [[1.0, 0.0]]), "'y' has NaN or infinite values"),
    ],
    ids=["none", "the same", "NaN", "infinity"],
)
def test_samples_that_cannot_calibrate_are_refused(dataset: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        calibration.collect(identity(), {"y": -1}, dataset)
