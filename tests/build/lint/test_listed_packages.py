"""Packages that a passport lists and nothing imports while a model loads: only the image's contents can tell (TK157)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tritonkit.repository.lint import Options

from .cases_releases import NVIDIA, OWN
from .lab import Files, python
from .test_rules import check_model

LISTED: Files = {"passport.json": '{"model": "m", "packages": ["Absent.from_images==1.0"]}'}
BESIDE: Files = {"1/absent_from_images-1.0.dist-info/METADATA": ""}


def test_a_listed_package_that_nvidias_image_lacks_is_an_error(tmp_path: Path) -> None:
    (finding,) = [
        finding for finding in check_model(tmp_path, "m", python() | LISTED, NVIDIA) if finding.rule == "TK157"
    ]
    assert finding.severity == "error"
    assert "Absent.from_images==1.0" in finding.message


@pytest.mark.parametrize(("files", "options"), [(LISTED | BESIDE, NVIDIA), (LISTED, OWN)], ids=["beside", "own image"])
def test_a_package_beside_the_model_or_for_an_own_image_is_no_finding(
    files: Files, options: Options, tmp_path: Path
) -> None:
    assert [
        finding for finding in check_model(tmp_path, "m", python() | files, options) if finding.rule == "TK157"
    ] == []
