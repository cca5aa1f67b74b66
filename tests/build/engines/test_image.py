"""build/Dockerfile: a real linter reads it; its tag is one that the passport check knows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tritonkit.engines import check

HADOLINT = Path(sys.executable).with_name("hadolint")


def test_the_dockerfile_passes_hadolint(root: Path) -> None:
    done = subprocess.run([HADOLINT, "--no-color", root / "build/Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("old", "new", "rule"), [("USER 1000", "USER root", "DL3002"), (":${TRITON_TAG}", "", "DL3006")]
)
def test_the_linter_would_say_so(root: Path, tmp_path: Path, old: str, new: str, rule: str) -> None:
    text = (root / "build/Dockerfile").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "Dockerfile").write_text(text.replace(old, new), encoding="utf-8")
    done = subprocess.run([HADOLINT, "--no-color", tmp_path / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 1
    assert rule in done.stdout


def test_the_image_is_a_known_release_and_pins_what_was_tested(root: Path) -> None:
    text = (root / "build/Dockerfile").read_text(encoding="utf-8")
    tag = re.search(r"^ARG TRITON_TAG=(\S+)$", text, re.MULTILINE)
    assert tag is not None
    assert check.known_tensorrt(tag[1])
    pinned = dict(re.findall(r"(\S+)==([\d.]+)", text))
    for name in ("server/requirements-cuda.txt", "constraints.txt"):
        path = root / (f"build/src/tritonkit/{name}" if "/" in name else name)
        known = dict(re.findall(r"^(\S+)==([\d.]+)", path.read_text(encoding="utf-8"), re.MULTILINE))
        assert {package: known.get(package, version) for package, version in pinned.items()} == pinned, name
    assert set(pinned) >= {"onnxruntime-gpu", "cuda-bindings"}
    copied = re.findall(r"^COPY (\S+) ", text, re.MULTILINE)
    assert copied
    assert all((root / name).exists() for name in copied)
