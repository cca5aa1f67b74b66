"""Modules of many kinds, with random weights, built for every target in every precision: none ends in a traceback.

The suite builds two of them that once broke something; `make modules` builds all of them.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import modules  # noqa: F401
import pytest
import transformersmodules  # noqa: F401
from modulekinds import KINDS

from tritonkit import cli, initialise, recipe

# A constant whose noted type is wrong; a size that the exporter fixes. Others that broke are in test_hard_graphs.py.
ONCE_BROKEN = ("lstm_clamped_lengths", "rnn_tanh")
SIZES = "{min: 1, opt: 8, max: 16}"
# Why a variant may be absent; anything else is a failure.
ABSENT = ("onnxruntime's CPU kernels have no", "it is made for onnxruntime on a GPU", "it is made on the GPU",
          "onnxruntime's CUDA provider has no", "no convolution or matrix product with constant weights")  # fmt: skip


def write_recipe(name: str, folder: Path) -> Path:
    """What `tritonkit init` writes for a module, with small sizes and its samples."""
    entry = KINDS[name]
    shapes = dict(initialise.parse_input(f"{key}:{text}") for key, text in entry.inputs.items())
    sketch = initialise.sketch(f"{entry.file}:{name}", folder, shapes, 4 if entry.batched else 0)
    sketch = dataclasses.replace(sketch, ranges=dict.fromkeys(["length"], SIZES))
    path = folder / f"{name}.yaml"
    more = f"samples: {entry.file}:{name}_samples\ncalibration: {{samples: 8, method: minmax}}\ntolerance: 0.001\ngpus: [l4]\n"
    path.write_text(initialise.as_yaml(sketch) + more, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", KINDS if os.environ.get("ALL_MODULES") else ONCE_BROKEN)
def test_a_module_is_built_for_every_target_in_every_precision(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_recipe(name, tmp_path)
    for target in ("cpu", "cuda", "tensorrt"):
        command = ["build", str(path), "--target", target, "--all-variants", "--json", "--repository"]
        code = cli.main([*command, str(tmp_path / target)])
        printed = capsys.readouterr()
        if refused := KINDS[name].refused:
            assert (code, refused in printed.err) == (2, True), printed.err
            continue
        assert code == 0, printed.err
        rows = json.loads(printed.out)["models"][name]["gate"]
        assert {row["precision"] for row in rows} == set(recipe.PRECISIONS)
        for row in rows:
            absent = row["verdict"] == "not built"
            assert not absent or any(reason in row["why"] for reason in ABSENT), f"{target}: {row}"
            if row["precision"] == "fp16":
                assert row["accuracy"]["cosine"] > 0.99, f"{target}: fp16 is not far from fp32"
