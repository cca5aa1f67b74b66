"""The manifest of every example as it was last looked at; ``UPDATE_GOLDENS=1`` writes them anew, to be read in the diff."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import pytest
from manifests import cases, rendering

GOLDENS = Path(__file__).parent / "goldens"
UPDATE = bool(os.environ.get("UPDATE_GOLDENS"))


def golden(example: Path) -> Path:
    return GOLDENS / f"{example.stem.removeprefix('values-')}.yaml"


@pytest.mark.parametrize("example", cases.EXAMPLES, ids=lambda path: path.stem)
def test_an_example_renders_as_before(example: Path) -> None:
    now = rendering.text(rendering.case(example, kubernetes=cases.NEWEST))
    path = golden(example)
    if UPDATE:
        path.parent.mkdir(exist_ok=True)
        path.write_text(now, encoding="utf-8")
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    if now != before:
        lines = difflib.unified_diff(before.splitlines(), now.splitlines(), str(path), "now", lineterm="", n=2)
        pytest.fail(
            f"{path.name} drifts; if this is meant: UPDATE_GOLDENS=1\n" + "\n".join(list(lines)[:80]), pytrace=False
        )


def test_no_golden_is_left_over() -> None:
    assert {path.name for path in GOLDENS.glob("*")} == {golden(example).name for example in cases.EXAMPLES}
