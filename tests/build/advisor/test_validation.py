"""The latency model, held against measured rows: those that it was fitted on, and those that it never saw."""

from __future__ import annotations

import statistics

import pytest

from tritonkit import gpus
from tritonkit.advisor import latency, validation
from tritonkit.advisor.references import names, reference


def test_every_row_is_of_a_known_gpu_and_a_kept_reference() -> None:
    rows = validation.rows()
    assert len(rows) > 50
    for row in rows:
        assert row.precision in gpus.get(row.gpu).peaks
        assert row.model + "".join(f"@{size}" for size in row.sizes.values()) in names()


def test_shipped_coefficients_are_within_the_bounds_on_mlperf_rows() -> None:
    median, worst = validation.summary(validation.fitted("tensorrt"))
    assert median <= validation.MEDIAN
    assert worst <= validation.WORST


def test_shipped_coefficients_are_within_20_percent_of_an_h200() -> None:
    graphs = [check for check in validation.fitted("onnxruntime") if check.row.graphs]
    errors = [abs(check.error) for check in graphs]
    assert statistics.median(errors) <= 0.10
    # One row of 0.48 ms is predicted as 0.64 ms: another run of the same batch measured 0.54 ms.
    assert sum(error > 0.23 for error in errors) <= 1


def test_what_is_served_is_within_20_percent_of_measured() -> None:
    for model, instances, measured, predicted in validation.served():
        assert predicted == pytest.approx(measured, rel=0.2), (model, instances)


def test_a_gpu_that_the_fit_never_saw_is_predicted() -> None:
    own = [row for row in validation.rows() if row.engine == "tensorrt"]
    known = validation.fit("tensorrt", [row for row in own if row.gpu != "a100-sxm-80"])
    for row in own:
        if row.gpu == "a100-sxm-80":
            assert row.predict(known) == pytest.approx(row.measured, rel=0.2)


def test_more_of_anything_never_takes_less_time() -> None:
    known = latency.coefficients("onnxruntime")
    cost_of_8, cost_of_16 = (reference("resnet50", {}, batch) for batch in (8, 16))
    for gpu in gpus.all():
        for precision in ("fp32", "fp16", "int8"):
            if precision in gpu.peaks:
                small, large = (latency.predict(cost, gpu, precision, known) for cost in (cost_of_8, cost_of_16))
                assert small.ms < large.ms
                assert sum(small.shares.values()) == pytest.approx(small.ms)
                assert latency.predict(cost_of_8, gpu, precision, known, graphs=False).ms >= small.ms


def test_half_a_gpu_takes_longer() -> None:
    known, cost, gpu = latency.coefficients("onnxruntime"), reference("resnet50", {}, 64), gpus.get("a100-sxm-80")
    whole, part = (latency.predict(cost, gpu, "fp16", known, share=share).gpu_ms for share in (1.0, 3 / 7))
    assert 1.7 * whole < part < 3.5 * whole
