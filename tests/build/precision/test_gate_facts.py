"""What a GPU's measurements are kept for: all that one session shows, and nothing else."""

from __future__ import annotations

from pathlib import Path

from tritonkit import recipe
from tritonkit.precision import gate

RECIPE = """
name: net
source: {onnx: net.onnx}
inputs: {x: {dtype: fp32, dims: [3]}}
outputs: {y: {dtype: fp32, dims: [3]}}
tf32: TF32
batching: BATCHING
"""


def served(folder: Path, batching: str, tf32: str = "true") -> str:
    path = folder / "net.yaml"
    path.write_text(RECIPE.replace("BATCHING", batching).replace("TF32", tf32), encoding="utf-8")
    return gate._served(recipe.load(path))


def test_sizes_and_tf32_measure_again_and_instances_and_the_queue_do_not(tmp_path: Path) -> None:
    plain = served(tmp_path, "{}")
    assert served(tmp_path, "{instances: 2, max_queue_delay_us: 500, max_queue_size: 0}") == plain
    changed = [served(tmp_path, "{batch_sizes: [1, 16]}"), served(tmp_path, "{cuda_graphs: false}")]
    changed.append(served(tmp_path, "{}", tf32="false"))
    assert len({plain, *changed}) == 4
