"""What a text recipe's tokenizer and ensemble are on each target."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, models

from tritonkit import recipe
from tritonkit.recipe import Recipe, Target
from tritonkit.repository import config, text

RECIPE = """
name: net
source: {onnx: net.onnx}
inputs: {input_ids: {dtype: int64, dims: [sequence]}}
outputs: {mean: {dtype: fp32, dims: [8]}}
shapes: {sequence: {min: 3, opt: 6, max: 10, pad: {input_ids: 0}}}
max_batch_size: 4
text: {name: net_text, tokenizer: tokenizer.json, max_tokens: 10, pad_to: 4}
batching: BATCHING
"""


def read(folder: Path, batching: str = "{}") -> Recipe:
    Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))
    path = folder / "net.yaml"
    path.write_text(RECIPE.replace("BATCHING", batching), encoding="utf-8")
    return recipe.load(path)


def pad_to(text_recipe: Recipe, target: Target) -> int:
    tokenizer = text.models(text_recipe, target)[0]
    return int(json.loads(tokenizer.files[f"1/{text.SETTINGS}"])["pad_to"])


def test_texts_stay_as_long_as_they_are_only_where_the_model_pads_them(tmp_path: Path) -> None:
    padded = read(tmp_path)
    assert (pad_to(padded, "cuda"), pad_to(padded, "cpu")) == (1, 4)
    assert pad_to(read(tmp_path, "{batch_sizes: []}"), "cuda") == 4
    assert pad_to(read(tmp_path, "{max_batch_size: 1}"), "cuda") == 4


def test_an_ensemble_takes_the_batches_that_its_model_takes_on_that_target(tmp_path: Path) -> None:
    tuned = read(tmp_path, "{target: cuda, max_batch_size: 2}")
    targets: tuple[Target, ...] = ("cpu", "cuda")
    for target, largest in zip(targets, (4, 2), strict=True):
        assert {config.parse(model.config).max_batch_size for model in text.models(tuned, target)} == {largest}
