"""A graph that onnxruntime does not load comes with advice that leads on, by what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, helper, save

from tritonkit.errors import GraphError
from tritonkit.graph import Session


def write_graph(path: Path, name: str, domain: str = "", location: str = "") -> None:
    """A graph of one node from x to y; with ``location`` of an Add whose four weights are there."""
    tensors = [helper.make_tensor_value_info(label, TensorProto.FLOAT, ["N", 4]) for label in "xy"]
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    node = helper.make_node(name, ["x", "w"] if location else ["x"], ["y"], domain=domain)
    graph = helper.make_graph([node], "graph", tensors[:1], tensors[1:], [weight] if location else [])
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    path.parent.mkdir(parents=True, exist_ok=True)
    save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


@pytest.mark.parametrize(
    ("name", "domain", "location", "advice"),
    [
        ("EfficientNMS_TRT", "TRT", "", "export it with operators that onnxruntime has"),
        ("Gelu", "", "", "a newer opset"),
        ("Add", "", "../w.bin", "copy the file of weights into the graph's folder"),
        ("Add", "", "absent.bin", "copy the whole file of weights beside the graph"),
    ],
)
def test_the_advice_is_by_the_cause(name: str, domain: str, location: str, advice: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(16))
    write_graph(tmp_path / "1/model.onnx", name, domain, location)
    with pytest.raises(GraphError) as caught:
        Session(tmp_path / "1/model.onnx")
    assert advice in caught.value.fix
