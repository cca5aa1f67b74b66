"""A build proves that padding changes no answer before anything is padded, and refuses a model that looks at it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from textmodel import text_model

from tritonkit import padding, recipe, samples
from tritonkit.errors import CheckFailed, RecipeError
from tritonkit.graph import Session
from tritonkit.recipe import Recipe

RECIPE = """
name: texts
source: {onnx: model.onnx}
inputs:
  ids: {dtype: int64, dims: [sequence]}
  mask: {dtype: int64, dims: [sequence]}
outputs:
  mean: {dtype: fp32, dims: [8]}
  tokens: {dtype: fp32, dims: [sequence, 8]}
shapes:
  sequence: SHAPES
"""
PADDED = "{min: 1, opt: 8, max: 32, pad: {ids: 0, mask: 0}}"


def read(folder: Path, shapes: str = PADDED) -> Recipe:
    path = folder / "texts.yaml"
    path.write_text(RECIPE.replace("SHAPES", shapes), encoding="utf-8")
    return recipe.load(path)


def texts(count: int = 4) -> list[samples.Sample]:
    rng = np.random.default_rng(0)
    return [{"ids": rng.integers(1, 50, 32), "mask": np.ones(32, np.int64)} for _ in range(count)]


def test_a_model_with_a_mask_passes_at_the_closest_and_at_the_largest_size(tmp_path: Path) -> None:
    texts_recipe = read(tmp_path)
    measured = padding.check(texts_recipe, Session(text_model(tmp_path / "model.onnx")), texts())
    assert {measurement.check for measurement in measured} == {"padded"}
    assert {measurement.output for measurement in measured} == {"mean", "tokens"}
    assert max(measurement.relative for measurement in measured) < 1e-5
    assert any("[6, 32]" in measurement.inputs for measurement in measured)


def test_a_model_that_looks_at_what_fills_a_row_is_refused(tmp_path: Path) -> None:
    texts_recipe = read(tmp_path, PADDED.replace("mask: 0", "mask: 1"))  # the mask then says that padding is text
    with pytest.raises(CheckFailed, match="changes when a row is padded") as caught:
        padding.check(texts_recipe, Session(text_model(tmp_path / "model.onnx")), texts())
    assert "remove `pad`" in caught.value.fix


def test_a_recipe_that_pads_nothing_is_not_looked_at(tmp_path: Path) -> None:
    texts_recipe = read(tmp_path, "{min: 1, opt: 8, max: 32}")
    assert padding.check(texts_recipe, Session(text_model(tmp_path / "model.onnx")), texts()) == []


def test_rows_are_filled_up_with_what_the_recipe_says(tmp_path: Path) -> None:
    texts_recipe = read(tmp_path, "{min: 1, opt: 8, max: 32, pad: {ids: 7, mask: 0}}")
    rows = [{"ids": np.arange(2), "mask": np.ones(2, np.int64)}, {"ids": np.arange(4), "mask": np.ones(4, np.int64)}]
    batch = padding.padded_batch(texts_recipe, rows, {"sequence": 5})
    assert batch["ids"].tolist() == [[0, 1, 7, 7, 7], [0, 1, 2, 3, 7]]
    assert batch["mask"].tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ("{min: 1, opt: 8, max: 32, pad: {words: 0}}", "'words' is no input; inputs that have it: ids, mask"),
        ("{min: 1, opt: 8, max: 32, pad: {ids: 0}}", "the input 'mask' has this dimension too; say what fills it"),
        ("{min: 1, opt: 8, max: 32, pad: {ids: 0.5, mask: 0}}", "'ids' is int64, which cannot hold 0.5"),
        ("{min: 1, opt: 8, max: 32, pad: {ids: 0, mask: 0}, sizes: [8, 16]}", "sizes must rise and end at max, 32"),
        ("{min: 1, opt: 8, max: 32, pad: {ids: true, mask: 0}}", "'ids' is int64, which cannot hold True"),
        ("{min: 1, opt: 8, max: 32, sizes: [8, 32]}", "say with what:  pad: {INPUT: 0}"),
    ],
)
def test_a_pad_that_fits_no_input_is_refused_with_its_line(shapes: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, shapes)
    assert message in caught.value.message


def test_lengths_are_padded_up_to_doublings_and_the_sizes_between_them(tmp_path: Path) -> None:
    bounds = read(tmp_path, "{min: 2, opt: 64, max: 256, pad: {ids: 0, mask: 0}}").shapes["sequence"]
    assert bounds.padded_sizes == (16, 24, 32, 48, 64, 96, 128, 192, 256)


def test_one_input_has_one_fill(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(
        "name: grid\nsource: {onnx: model.onnx}\ninputs: {x: {dtype: fp32, dims: [rows, columns]}}\n"
        "outputs: {y: {dtype: fp32, dims: [1]}}\nshapes:\n"
        "  rows: {min: 1, opt: 8, max: 32, pad: {x: 0}}\n  columns: {min: 1, opt: 8, max: 32, pad: {x: 1}}\n",
        encoding="utf-8",
    )
    with pytest.raises(RecipeError, match="'x' is padded with 0 and 1; give one value"):
        recipe.load(path)


def test_an_output_with_a_padded_dimension_twice_is_refused(tmp_path: Path) -> None:
    twice = RECIPE.replace(
        "tokens: {dtype: fp32, dims: [sequence, 8]}", "tokens: {dtype: fp32, dims: [sequence, sequence]}"
    )
    (tmp_path / "texts.yaml").write_text(twice.replace("SHAPES", PADDED), encoding="utf-8")
    with pytest.raises(RecipeError, match="the output 'tokens' has the dimension sequence twice"):
        recipe.load(tmp_path / "texts.yaml")
