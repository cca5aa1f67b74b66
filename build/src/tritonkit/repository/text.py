"""Text in, vectors out: the tokenizer in front of a model, and the ensemble of both that takes strings.

It makes the two model directories that a recipe's ``text`` section asks for, and refuses a section that cannot
work. What runs in Triton is :mod:`tritonkit.repository.tokenizer_model`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritonkit import sources
from tritonkit.errors import MissingError, RecipeError, TritonkitError
from tritonkit.passport import ModelPassport
from tritonkit.recipe import Recipe, Target, TensorSpec, Text
from tritonkit.repository import companions, config
from tritonkit.repository.layout import Model

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER = "tokenizer.json"
SETTINGS = "tokenizer_settings.json"
IDS, MASK, TYPES = FED = ("input_ids", "attention_mask", "token_type_ids")
# What vocabularies call the token that fills short rows: BERT's name and SentencePiece's.
_PAD_TOKENS = ("[PAD]", "<pad>")


@dataclass(frozen=True)
class _Lengths:
    """How many tokens a row of the model may have."""

    dimension: str
    min: int
    max: int


def tokenizer_name(recipe: Recipe) -> str:
    """What the tokenizer of a recipe is called in Triton."""
    return f"{recipe.name}_tokenizer"


def names(recipe: Recipe) -> set[str]:
    """Every model that a recipe puts into a repository."""
    return {recipe.name} | ({tokenizer_name(recipe), recipe.text.name} if recipe.text else set())


def models(recipe: Recipe, target: Target = "cpu") -> list[Model]:
    """The tokenizer's directory and the ensemble's; none for a recipe without a ``text`` section.

    Args:
        recipe: The recipe that they belong to.
        target: Where the model runs: a GPU that pads requests itself gets them as long as they are.

    Raises:
        RecipeError: The section does not fit the model, or its tokenizer cannot be read as one.
        SourceError: The function that names the tokenizer cannot be called.
        MissingError: The package ``tokenizers`` is not installed.
    """
    text = recipe.text
    if text is None:
        return []
    _check_names(recipe, text)
    _check_inputs(recipe)
    lengths = _lengths(recipe)
    path = _tokenizer_file(recipe, text)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecipeError(
            f"{recipe.path}: text.tokenizer: cannot read {path}: {error.strerror}",
            "name the tokenizer.json that the model was trained with; paths are relative to the recipe",
        ) from error
    settings = _settings(recipe, text, lengths, _parse(recipe, path, data))
    bounds = recipe.shapes.get(lengths.dimension)
    if bounds and bounds.pad and config.pads(recipe.serving(target)):
        settings["pad_to"] = 1
    largest = recipe.serving(target).max_batch_size
    return [_tokenizer(recipe, text, data, settings, largest), _ensemble(recipe, text, largest)]


def _check_names(recipe: Recipe, text: Text) -> None:
    if text.name in {recipe.name, tokenizer_name(recipe)}:
        raise RecipeError(
            f"{recipe.path}: text.name is {text.name!r}, the name of the model or of its tokenizer",
            "give the ensemble a name of its own",
        )
    if text.input in {*recipe.inputs, *recipe.outputs}:
        raise RecipeError(
            f"{recipe.path}: text.input is {text.input!r}, which is an input or output of the model",
            "give the text a name of its own, for example  input: text",
        )


def _check_inputs(recipe: Recipe) -> None:
    for name, spec in recipe.inputs.items():
        if name not in FED:
            raise RecipeError(
                f"{recipe.path}: text: a tokenizer cannot make the input {name!r}; it makes {', '.join(FED)}",
                "remove the section `text`, or name the model's inputs like these",
            )
        if spec.dtype not in {"int32", "int64"}:
            raise RecipeError(
                f"{recipe.path}: text: input {name!r} is {spec.dtype}; token ids, masks and types are whole numbers",
                f"{name}: {{dtype: int64, dims: [sequence]}}",
            )
    if IDS not in recipe.inputs:
        raise RecipeError(
            f"{recipe.path}: text: the model has no input {IDS!r}, which is what a text becomes",
            f"remove the section `text`, or name the model's input {IDS}",
        )


def _lengths(recipe: Recipe) -> _Lengths:
    """The bounds of the one dimension that all inputs share."""
    dims = {spec.dims for spec in recipe.inputs.values()}
    dim = next(iter(dims))
    if len(dims) > 1 or len(dim) != 1:
        inputs = ", ".join(f"{name}: {list(spec.dims)}" for name, spec in recipe.inputs.items())
        raise RecipeError(
            f"{recipe.path}: text: every input must have one dimension, and all the same, got {inputs}",
            "give each  dims: [sequence]",
        )
    if isinstance(dim[0], int):
        return _Lengths(str(dim[0]), dim[0], dim[0])
    bounds = recipe.shapes[dim[0]]
    return _Lengths(dim[0], bounds.min, bounds.max)


def _tokenizer_file(recipe: Recipe, text: Text) -> Path:
    if ":" not in text.tokenizer:
        return recipe.directory / text.tokenizer
    key = f"{recipe.path}: text.tokenizer"
    sources.forget()
    function: Callable[[], str | os.PathLike[str]] = sources.resolve(text.tokenizer, recipe.directory, key)
    try:
        return recipe.directory / os.fspath(function())
    except TritonkitError:
        raise
    except Exception as error:
        raise RecipeError(
            f"{key}: {text.tokenizer} gave no path: {type(error).__name__}: {error}",
            "return the path of a tokenizer.json, as a str or a Path",
        ) from error


def _parse(recipe: Recipe, path: Path, data: bytes) -> Tokenizer:
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise MissingError("tokenizers is not installed", "pip install tokenizers") from error
    try:
        return Tokenizer.from_str(data.decode("utf-8"))
    except Exception as error:  # the library raises nothing more specific
        raise RecipeError(
            f"{recipe.path}: text.tokenizer: {path} is not a tokenizer: {error}",
            "name a tokenizer.json; AutoTokenizer.from_pretrained(PLACE).save_pretrained(PLACE) writes one",
        ) from error


def _settings(recipe: Recipe, text: Text, lengths: _Lengths, tokenizer: Tokenizer) -> dict[str, Any]:
    """What the tokenizer's model.py pads and where it cuts; sides are those that the tokenizer itself asks for."""
    if text.max_tokens > lengths.max:
        raise RecipeError(
            f"{recipe.path}: text.max_tokens is {text.max_tokens}, the dimension {lengths.dimension} "
            f"takes {lengths.max} at most",
            f"max_tokens: {lengths.max}",
        )
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    if text.max_tokens <= special:
        raise RecipeError(
            f"{recipe.path}: text.max_tokens is {text.max_tokens}, and the tokenizer adds {special} special tokens",
            f"give at least {special + 1}",
        )
    padding = tokenizer.padding or {}
    truncation = tokenizer.truncation or {}
    return {
        "max_tokens": text.max_tokens,
        "truncation_side": truncation.get("direction", "right"),
        "min_length": lengths.min,
        "max_length": lengths.max,
        "pad_to": text.pad_to,
        "padding_side": padding.get("direction", "right"),
        "padding": {IDS: _pad_id(recipe, tokenizer), MASK: 0, TYPES: padding.get("pad_type_id", 0)},
    }


def _pad_id(recipe: Recipe, tokenizer: Tokenizer) -> int:
    """The id that fills short rows.

    A vocabulary without such a token (GPT-2's) gets id 0, which every embedding table has: the mask keeps the
    model from looking there. A model without a mask would, and cannot be served so.
    """
    if tokenizer.padding:
        return int(tokenizer.padding["pad_id"])
    ids = (tokenizer.token_to_id(token) for token in _PAD_TOKENS)
    pad_id = next((number for number in ids if number is not None), None)
    if pad_id is None and MASK not in recipe.inputs:
        raise RecipeError(
            f"{recipe.path}: text: the vocabulary has no padding token ({' or '.join(_PAD_TOKENS)}) and the model "
            f"has no input {MASK!r}, so it could not tell padding from text",
            f"give the model an input {MASK}, or set `padding` in the tokenizer",
        )
    return pad_id or 0


def _tokenizer(recipe: Recipe, text: Text, data: bytes, settings: dict[str, Any], largest: int) -> Model:
    configuration = companions.python_config(tokenizer_name(recipe), _text_specs(text), recipe.inputs, largest)
    files = {
        "model.py": Path(__file__).with_name("tokenizer_model.py").read_bytes(),
        TOKENIZER: data,
        SETTINGS: companions.as_json(settings).encode(),
    }
    digest = hashlib.sha256(data).hexdigest()
    passport = ModelPassport(kind="tokenizer", of=recipe.name, text=text.model_dump(), tokenizer_sha256=digest)
    return companions.python_model(configuration, recipe, passport, files)


def _ensemble(recipe: Recipe, text: Text, largest: int) -> Model:
    configuration = companions.ensemble_config(text.name, _text_specs(text), recipe.outputs, largest)
    first = configuration.ensemble_scheduling.step.add(model_name=tokenizer_name(recipe), model_version=-1)
    first.input_map[text.input] = text.input
    second = configuration.ensemble_scheduling.step.add(model_name=recipe.name, model_version=-1)
    for name in recipe.inputs:
        first.output_map[name] = name
        second.input_map[name] = name
    for name in recipe.outputs:
        second.output_map[name] = name
    return companions.ensemble(configuration, recipe)


def _text_specs(text: Text) -> companions.Specs:
    """What callers send: one text a row."""
    return {text.input: TensorSpec(dtype="string", dims=())}
