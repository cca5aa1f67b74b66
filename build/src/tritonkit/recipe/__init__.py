"""What a recipe may say: one YAML file, parsed once, here, into plain frozen data.

It knows the words and their bounds. Whether the source loads, or a graph agrees with the recipe, is for
:mod:`tritonkit.sources` and :mod:`tritonkit.graph`.
"""

from tritonkit.recipe.forest import FOREST_INPUT, FOREST_OUTPUT, ForestRecipe, ForestSource, Prediction
from tritonkit.recipe.language import ENGINES, LORA_RANKS, Dtype, GenerationDefaults, LanguageRecipe, TokenSlo
from tritonkit.recipe.model import Recipe, as_json, holds
from tritonkit.recipe.reading import IMAGES, image_of, line_in, load, load_any, load_graph
from tritonkit.recipe.sections import (
    MOST_BATCH,
    PRECISIONS,
    Batching,
    Calibration,
    HfSource,
    OnnxSource,
    OutputSpec,
    Precision,
    Python,
    Range,
    Slo,
    Target,
    TensorSpec,
    Text,
)
from tritonkit.recipe.serving import MAX_QUEUE_SIZE, QUEUE_TIMEOUT_MS, Serving

__all__ = [
    "ENGINES",
    "FOREST_INPUT",
    "FOREST_OUTPUT",
    "IMAGES",
    "LORA_RANKS",
    "MAX_QUEUE_SIZE",
    "MOST_BATCH",
    "PRECISIONS",
    "QUEUE_TIMEOUT_MS",
    "Batching",
    "Calibration",
    "Dtype",
    "ForestRecipe",
    "ForestSource",
    "GenerationDefaults",
    "HfSource",
    "LanguageRecipe",
    "OnnxSource",
    "OutputSpec",
    "Precision",
    "Prediction",
    "Python",
    "Range",
    "Recipe",
    "Serving",
    "Slo",
    "Target",
    "TensorSpec",
    "Text",
    "TokenSlo",
    "as_json",
    "holds",
    "image_of",
    "line_in",
    "load",
    "load_any",
    "load_graph",
]
