"""The name of a cached plan: equal for equal plans, another for whatever changes one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tritonkit.engines import builder, jobs
from tritonkit.engines.cache import Key


def test_whatever_changes_a_plan_changes_its_key(graphs: Any, tmp_path: Path) -> None:
    library = tmp_path / "plugin.so"
    library.write_bytes(b"1")
    job = jobs.from_onnx(graphs.mlp("fp16"), None, {}, 8)
    options = builder.Options()
    keys = [
        Key.of(job, "11.4.0.106", (8, 6), options),
        Key.of(job, "11.4.0.107", (8, 6), options),
        Key.of(job, "11.4.0.106", (8, 9), options),
        Key.of(replace(job, precision="int8"), "11.4.0.106", (8, 6), options),
        Key.of(jobs.from_onnx(job.graph, None, {}, 4), "11.4.0.106", (8, 6), options),
        Key.of(replace(job, graph=graphs.mlp("fp32")), "11.4.0.106", (8, 6), options),
        *(
            Key.of(job, "11.4.0.106", (8, 6), replace(options, **change))
            for change in (
                {"workspace_bytes": 2**30}, {"version_compatible": True}, {"weight_stripped": True},
                {"hardware_compatibility": "ampere_plus"}, {"plugins": (library,)},
            )
        ),
    ]  # fmt: skip
    assert len({key.name for key in keys}) == len(keys)
    assert Key.of(job, "11.4.0.106", (8, 6), options) == keys[0]
    before = Key.of(job, "11.4.0.106", (8, 6), replace(options, plugins=(library,))).name
    library.write_bytes(b"2")
    assert Key.of(job, "11.4.0.106", (8, 6), replace(options, plugins=(library,))).name != before


def test_weights_beside_the_graph_are_part_of_the_key(graphs: Any, tmp_path: Path) -> None:
    import onnx

    path = tmp_path / "apart/net.onnx"
    path.parent.mkdir()
    onnx.save(onnx.load(graphs.mlp("fp16")), path, save_as_external_data=True, location="w.data", size_threshold=0)
    job = jobs.from_onnx(path, None, {}, 8)
    before = Key.of(job, "11.4.0.106", (8, 6), builder.Options()).name
    (path.parent / "w.data").write_bytes((path.parent / "w.data").read_bytes()[:-1] + b"\x7f")
    assert Key.of(job, "11.4.0.106", (8, 6), builder.Options()).name != before
