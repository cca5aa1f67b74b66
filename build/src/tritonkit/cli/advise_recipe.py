"""``tritonkit advise RECIPE --recipe``: the advised batching goes into the recipe, as ``make tune`` writes its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tritonkit.errors import InputError, MissingError

if TYPE_CHECKING:
    from tritonkit.advisor.advise import Advice, Options
    from tritonkit.advisor.graph_cost import Cost
    from tritonkit.recipe import Target

SUFFIXES = frozenset({".yaml", ".yml"})


def check(path: Path) -> None:
    """Refuse what is no recipe, and one that cannot be replaced.

    Raises:
        InputError: The model is no recipe.
        OutputError: It, or its folder, is read-only.
        MissingError: The package that keeps a recipe's comments is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"--recipe writes into a recipe, and {path} is none", "name a recipe (.yaml); tritonkit init writes one"
        )
    try:
        from tritonkit.recipe import writeback
    except ModuleNotFoundError as error:
        raise MissingError(
            f"{error.name} is not installed, which keeps a recipe's comments", "pip install 'tritonkit[advisor]'"
        ) from error
    writeback.check_writable(path)


def write(path: Path, batches: Mapping[int, Cost], options: Options, advice: Advice) -> str:
    """Put the batching of the best candidate into a recipe; a sentence that says what is there now.

    Raises:
        InputError: No candidate keeps the promise.
        RecipeError: The file's form does not allow it; the message has what to write by hand.
    """
    from tritonkit import recipe as recipes
    from tritonkit.advisor import advise, cpu
    from tritonkit.recipe import Batching, writeback

    best = next((candidate for candidate in advice.candidates if candidate.verdict == "best"), None)
    if best is None:
        raise InputError("no candidate keeps the promise: there is nothing to write to the recipe", "see the reasons")
    recipe = recipes.load_graph(path)
    largest = advise.largest_batch(batches, best, options)
    target: Target = "cpu" if best.gpu == cpu.KEY else "tensorrt" if best.engine == "tensorrt" else "cuda"
    instances = 1 if target == "cpu" else options.instances
    batching = Batching(
        target=target, instances=instances, max_queue_delay_us=0,
        max_batch_size=largest if largest < recipe.max_batch_size else None,
    )  # fmt: skip
    before = recipe.batching
    writeback.write(recipe, batching, by=f"{writeback.ADVISED} for {best.gpu}")
    replaced = "" if before == Batching() else f", in place of what it had for {before.target or 'every target'}"
    plural = "s" if instances > 1 else ""
    return (
        f"{path} has batching for {target} now: {instances} instance{plural}, batches up to {largest}, no delay"
        f"{replaced}; `make tune` measures it"
    )
