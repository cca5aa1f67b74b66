"""The models that measurements are of, as costs: what validation predicts, on machines without PyTorch or weights too.

``reference_models.json`` holds them for one sample; ``python -m tritonkit.advisor.references`` writes it anew from the
zoo's modules.
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import astuple, replace
from importlib import resources
from pathlib import Path
from typing import Any

from tritonkit import atomic
from tritonkit.advisor.graph_cost import Cost, Layer, load, measure

_FILE = "reference_models.json"
_LENGTHS = (32, 64, 128, 256)
_MINILM_LENGTH = 64  # its recipe's usual one, at which it was measured on a CPU
# SQuAD 1.1 with at most 384 tokens packs 2.2 questions into one sequence on average (Krell et al. 2021, "Efficient
# Sequence Packing without Cross-contamination"); NVIDIA's MLPerf code runs texts unpadded.
SQUAD_LENGTH = 175
_BERT_LARGE = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}  # Devlin et al. 2018
_BERT_LARGE_LAYERS = 24


def names() -> tuple[str, ...]:
    """``resnet50``, or ``bert_base@128`` at a length of 128."""
    return tuple(_stored())


def reference(model: str, sizes: Mapping[str, int], batch: int) -> Cost:
    """The cost of a batch: of one sample, with all that grows with the batch times its size.

    Raises:
        KeyError: The model has no such reference.
    """
    return _batch(model + "".join(f"@{size}" for size in sizes.values()), batch)


@functools.cache
def _batch(name: str, batch: int) -> Cost:
    sample = _stored()[name]
    layers = tuple(
        replace(
            layer, operations=layer.operations * batch, pointwise=layer.pointwise * batch, floats=layer.floats * batch,
            other_bytes=layer.other_bytes * batch, rows=layer.rows * batch,
        )
        for layer in sample.layers
    )  # fmt: skip
    return replace(
        sample, sizes={**sample.sizes, "batch": batch}, layers=layers, input_bytes=sample.input_bytes * batch,
        output_bytes=sample.output_bytes * batch, peak_floats=sample.peak_floats * batch,
    )  # fmt: skip


@functools.cache
def _stored() -> Mapping[str, Cost]:
    data = json.loads(resources.files("tritonkit.advisor").joinpath(_FILE).read_text(encoding="utf-8"))
    return {name: _cost(entry) for name, entry in data.items()}


def _cost(entry: Mapping[str, Any]) -> Cost:
    layers = tuple(Layer(*fields) for count, fields in entry["layers"] for _ in range(count))
    return Cost(
        entry["sizes"], layers, entry["weight_bytes"], entry["input_bytes"], entry["output_bytes"],
        entry["peak_floats"], {}, (), (),
    )  # fmt: skip


def as_json(cost: Cost) -> dict[str, Any]:
    """A cost with equal layers counted."""
    layers = Counter(astuple(replace(layer, name="")) for layer in cost.layers)
    return {
        "sizes": dict(cost.sizes), "weight_bytes": cost.weight_bytes, "input_bytes": cost.input_bytes,
        "output_bytes": cost.output_bytes, "peak_floats": cost.peak_floats,
        "layers": [[count, list(fields)] for fields, count in layers.items()],
    }  # fmt: skip


def collect() -> dict[str, Cost]:
    """Every reference, from the modules of the zoo: needs the extras torch, hf and zoo."""
    from tritonkit.zoo import efficientnet_lite0, resnet50

    costs = {}
    for name, module in (("efficientnet_lite0", efficientnet_lite0.load()), ("resnet50", resnet50.load())):
        costs[name] = of_module(module, image=True)[0]
    from tritonkit.zoo import all_minilm_l6_v2, bert_base

    (costs[f"all_minilm_l6_v2@{_MINILM_LENGTH}"],) = of_module(
        all_minilm_l6_v2.load(), image=False, lengths=(_MINILM_LENGTH,)
    )
    for length, cost in zip(_LENGTHS, of_module(bert_base.load(), image=False, lengths=_LENGTHS), strict=True):
        costs[f"bert_base@{length}"] = cost
    costs[f"bert_large@{SQUAD_LENGTH}"] = _bert_large(SQUAD_LENGTH)
    return costs


def of_module(module: Any, *, image: bool, lengths: tuple[int, ...] = (0,)) -> list[Cost]:
    """The costs of one sample: of an image of 224 × 224, or of texts of some lengths."""
    import torch

    batch = torch.export.Dim("batch", min=1, max=256)
    with tempfile.TemporaryDirectory(prefix="tritonkit-") as directory:
        path = Path(directory) / "model.onnx"
        if image:
            example: tuple[Any, ...] = (torch.zeros(2, 224, 224, 3, dtype=torch.uint8),)
            dims: tuple[Any, ...] = ({0: batch},)
        else:
            sequence = torch.export.Dim("sequence", min=2, max=512)
            example = (torch.ones(2, 16, dtype=torch.int64), torch.ones(2, 16, dtype=torch.int64))
            dims = ({0: batch, 1: sequence}, {0: batch, 1: sequence})
        torch.onnx.export(module.eval(), example, path, dynamo=True, dynamic_shapes=dims, external_data=True)
        graph = load(path)
        return [measure(graph, {"batch": 1, **({"sequence": length} if length else {})}) for length in lengths]


def _bert_large(length: int) -> Cost:
    """From one and from two layers of it: the others are like the second."""
    from transformers import BertConfig, BertModel

    from tritonkit.zoo.bert_base import Embedder

    one_layer, two_layers = (
        of_module(
            Embedder(BertModel(BertConfig(
                **_BERT_LARGE, num_hidden_layers=layers, attn_implementation="eager"), add_pooling_layer=False)),
            image=False, lengths=(length,),
        )[0]
        for layers in (1, 2)
    )  # fmt: skip
    further = list((_keys(two_layers) - _keys(one_layer)).elements())
    layers = (*one_layer.layers, *(Layer("", *fields) for fields in further for _ in range(_BERT_LARGE_LAYERS - 1)))
    more = (two_layers.weight_bytes - one_layer.weight_bytes) * (_BERT_LARGE_LAYERS - 1)
    return replace(one_layer, layers=layers, weight_bytes=one_layer.weight_bytes + more)


def _keys(cost: Cost) -> Counter[tuple[Any, ...]]:
    return Counter(astuple(layer)[1:] for layer in cost.layers)


def write() -> Path:
    """Write ``reference_models.json`` beside this module."""
    path = Path(__file__).with_name(_FILE)
    entries = {name: as_json(cost) for name, cost in collect().items()}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items())
    atomic.write(path, f"{{\n{lines}\n}}\n".encode())
    return path


if __name__ == "__main__":
    write()
