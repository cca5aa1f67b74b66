"""Remarks of the rules of prepared sizes that are milder than the rules: the backend takes these."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto

from tritonkit.repository import lint

from .cases_sizes import RAGGED, of, padding, sizes
from .lab import Files, relu, write

HALVES = RAGGED.replace("INT8", "FP16")
HALF = relu("N", "L", dtype=TensorProto.FLOAT16)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (sizes(" "), ["TK131 warning parameter batch_sizes is empty, which counts as not given"]),
        (padding(HALVES, HALF, inputs=of({"axis": 0, "value": 1e6})),
         ["TK133 warning parameter padding fills input 'x' with 1000000.0, which is infinity in TYPE_FP16"]),
        (padding(HALVES, HALF, inputs=of({"axis": 0, "value": -6e4})), []),
    ],
)  # fmt: skip
def test_what_the_backend_takes_is_no_error(files: Files, expected: list[str], tmp_path: Path) -> None:
    write(tmp_path / "m", files)
    findings = lint.check(tmp_path).findings
    assert [f"{finding.rule} {finding.severity} {finding.message}" for finding in findings] == expected
