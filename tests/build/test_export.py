"""Export: names, shapes and values of the graph are the recipe's and the module's, whatever the module looks like."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support import NET, Project

from tritonkit import export_operators, external_data, graph, hf

X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)


def built(project: Project) -> Path:
    status, _, err = project.build()
    assert status == 0, err
    return project.repository / "net/1/model.onnx"


def test_a_graph_has_the_recipes_names_and_the_modules_values(project: Project) -> None:
    import torch

    project.write(
        NET.replace("def forward(self, x)", "def forward(self, whatever_it_is_called)").replace(
            "linear(x)", "linear(whatever_it_is_called)"
        )
    )
    path = built(project)
    signature = graph.read_signature(path)
    assert {name: (t.dtype, t.dims) for name, t in signature.inputs.items()} == {"x": ("fp32", ("batch", 4))}
    assert {name: (t.dtype, t.dims) for name, t in signature.outputs.items()} == {"y": ("fp32", ("batch", 3))}
    torch.manual_seed(0)
    expected = torch.nn.Linear(4, 3)(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(graph.Session(path).run({"x": X})["y"], expected, rtol=1e-5)


TWO = """
import torch
class Net(torch.nn.Module):
    def forward(self, a, b):
        total, difference = a + b, a - b
        return RETURN
def load():
    return Net()
"""


@pytest.mark.parametrize(
    ("returned", "outputs"),
    [
        ("total, difference", ["anything", "else"]),  # a tuple: by position
        ("{'difference': difference, 'unused': a, 'total': total}", ["total", "difference"]),  # a mapping: by name
        ("__import__('collections').OrderedDict(total=total, difference=difference)", ["total", "difference"]),
        ("total, difference", ["add", "sub"]),  # names that nodes inside the graph have too
    ],
)
@pytest.mark.parametrize("inputs", [["a", "b"], ["b", "a"], ["left", "right"]])
def test_inputs_go_by_name_or_position_and_outputs_by_key_or_position(
    project: Project, returned: str, outputs: list[str], inputs: list[str]
) -> None:
    project.write(
        TWO.replace("RETURN", returned),
        inputs={name: {"dtype": "fp32", "dims": [4]} for name in inputs},
        outputs={name: {"dtype": "fp32", "dims": [4]} for name in outputs},
    )
    given = {name: X * (i + 1) for i, name in enumerate(inputs)}
    a, b = (given["a"], given["b"]) if "a" in given else given.values()
    served = graph.Session(built(project)).run(given)
    np.testing.assert_array_equal(served[outputs[0]], a + b)
    np.testing.assert_array_equal(served[outputs[1]], a - b)


def test_dynamic_dimensions_become_symbols_and_work_over_their_range(project: Project) -> None:
    code = TWO.replace("RETURN", "total.cumsum(1)")
    dynamic: dict[str, Any] = {"dtype": "fp32", "dims": ["length", 2]}
    project.write(
        code,
        inputs={"a": dynamic, "b": dynamic},
        outputs={"y": dynamic},
        shapes={"length": {"min": 1, "opt": 5, "max": 9}},
    )
    path = built(project)
    assert graph.read_signature(path).outputs["y"].dims == ("batch", "length", 2)
    for length in (1, 9):
        ones = np.ones((2, length, 2), np.float32)
        np.testing.assert_array_equal(graph.Session(path).run({"a": ones, "b": ones})["y"], (2 * ones).cumsum(1))


def test_a_model_without_batching_keeps_its_whole_shape(project: Project) -> None:
    project.write(
        max_batch_size=0,
        inputs={"x": {"dtype": "fp32", "dims": [2, 4]}},
        outputs={"y": {"dtype": "fp32", "dims": [2, 3]}},
    )
    assert graph.read_signature(built(project)).inputs["x"].dims == (2, 4)


def test_one_number_a_request_is_an_output_without_dims(project: Project) -> None:
    project.write(NET.replace("self.linear(x)", "x.sum(1)"), outputs={"y": {"dtype": "fp32", "dims": []}})
    np.testing.assert_allclose(graph.Session(built(project)).run({"x": X})["y"], X.sum(1), rtol=1e-5)
    text = (project.repository / "net/config.pbtxt").read_text()
    assert "reshape" in text


def test_weights_past_the_limit_go_beside_the_graph_and_are_served(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external_data, "LARGEST_BYTES", 32)
    project.write(NET.replace("Linear(4, 3)", "Linear(4, 300)"), outputs={"y": {"dtype": "fp32", "dims": [300]}})
    path = built(project)
    assert {file.name for file in path.parent.iterdir()} == {"model.onnx", "model.onnx.data"}
    model = onnx.load(path, load_external_data=False)
    assert any(weight.data_location == onnx.TensorProto.EXTERNAL for weight in model.graph.initializer)
    assert graph.Session(path).run({"x": X})["y"].shape == (3, 300)


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A Hugging Face directory of a tiny classifier with random weights: only the road matters here."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                        max_position_embeddings=32, num_labels=5)  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(tmp_path / "tiny bert")
    return tmp_path / "tiny bert"


def test_a_hugging_face_directory_becomes_a_graph_that_equals_the_module(project: Project, bert: Path) -> None:
    import torch

    recipe = project.directory / "net.yaml"
    assert project.run("init", bert, "--output", recipe)[0] == 0
    status, _, err = project.build()
    assert status == 0, err
    ids = np.arange(12, dtype=np.int64).reshape(2, 6)
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    logits = graph.Session(project.repository / "tiny_bert/1/model.onnx").run(given)["logits"]
    with torch.no_grad():
        expected = hf.load(bert).eval()(**{name: torch.from_numpy(array) for name, array in given.items()}).logits
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)


def test_a_recurrent_layer_over_long_sequences_is_traced_for_few_steps(project: Project) -> None:
    code = (
        "import torch\nclass Net(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.layer = torch.nn.GRU(4, 3, batch_first=True, bidirectional=True)\n"
        "    def forward(self, x):\n        return self.layer(x)[0]\ndef load():\n    return Net()\n"
    )
    project.write(
        code,
        inputs={"x": {"dtype": "fp32", "dims": ["n", 4]}},
        outputs={"y": {"dtype": "fp32", "dims": ["n", 6]}},
        shapes={"n": {"min": 3, "opt": 256, "max": 512}},
    )
    before = time.process_time()
    status, _, err = project.build()
    assert status == 0, err
    assert time.process_time() - before < 60  # with 256 steps it takes minutes
    graph = onnx.load(project.repository / "net/1/model.onnx").graph
    assert [node.op_type for node in graph.node].count("GRU") == 1


def test_exports_share_the_translated_operators_and_each_has_a_table_of_its_own() -> None:
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    export_operators.share()
    first, second = (ONNXRegistry.from_torchlib(opset_version=20) for _ in range(2))
    name = "aten::relu"
    assert first.functions[name][0] is second.functions[name][0]
    first.functions[name].clear()
    assert second.functions[name]
