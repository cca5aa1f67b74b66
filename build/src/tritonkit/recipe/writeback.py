"""Writes a ``batching`` section into a recipe, and leaves every other line of it as it is, byte for byte.

Within the section, comments, order and style of what stays are kept.
"""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from tritonkit import atomic
from tritonkit import recipe as recipes
from tritonkit.errors import OutputError, RecipeError
from tritonkit.recipe import Batching, Recipe, Slo

KEY = "batching"
# Where a section comes from, in the comment beside it.
TUNED = "measured by `make tune`"
ADVISED = "predicted by `tritonkit advise`, not measured:"
# Always written, so that what was measured does not change with the defaults.
MEASURED = ("max_queue_delay_us", "instances", "threads")


def check_writable(path: Path) -> None:
    """Refuse a recipe that cannot be replaced, before any work.

    Raises:
        OutputError: It, or its folder, is read-only.
    """
    for place in (path, path.absolute().parent):
        if not os.access(place, os.W_OK):
            raise OutputError(f"{place} is read-only", "make it writable, or only look: `make tune` has --dry-run")


def write(recipe: Recipe, batching: Batching, slo: Slo | None = None, *, by: str = TUNED) -> Recipe:
    """Put ``batching`` into the recipe's file, and an SLO if it has none, whole or not at all; the recipe as it is.

    Args:
        recipe: As it was loaded.
        batching: What is to be there.
        slo: What it was measured by.
        by: Where it comes from, for the comment beside it: :data:`TUNED`, or beginning with :data:`ADVISED`.

    Raises:
        RecipeError: As :func:`checked`.
        OutputError: The file cannot be written.
    """
    checked(recipe, batching, slo)
    text = replaced(_text(recipe.path), batching, None if recipe.slo else slo, by=by)
    atomic.write(recipe.path.resolve(), text.encode())  # a link stays one
    return recipes.load(recipe.path)


def checked(recipe: Recipe, batching: Batching, slo: Slo | None = None) -> Recipe:
    """The recipe as it will be; nothing is written.

    Raises:
        RecipeError: The file's form does not allow it; the message has what to write by hand.
    """
    slo = None if recipe.slo else slo
    expected = recipe.model_copy(update={KEY: batching, "slo": slo or recipe.slo})
    try:
        if recipes.load(recipe.path).model_copy(update={KEY: recipe.batching}) != recipe:
            raise RecipeError(
                f"{recipe.path} was changed while it was tuned", f"tune it again, or write  {_line(batching).strip()}"
            )
        new = replaced(_text(recipe.path), batching, slo)
        parsed = type(recipe).model_validate({**yaml.safe_load(new), "path": recipe.path})
    except (YAMLError, yaml.YAMLError, ValueError, AttributeError) as error:
        raise _by_hand(recipe.path, batching) from error
    if parsed != expected:
        raise _by_hand(recipe.path, batching)
    return expected


def replaced(text: str, batching: Batching, slo: Slo | None = None, *, by: str = TUNED) -> str:
    """The text of a recipe with another ``batching`` section, or with one at its end; and with an SLO after that.

    Raises:
        ValueError: The recipe is no mapping in block style.
        YAMLError: The section cannot be read by itself.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        raise ValueError("no mapping in block style")
    end = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    if slo is not None:
        text += ("" if text.endswith("\n") else end) + _slo_line(slo).replace("\n", end)
        return replaced(text, batching, by=by)
    keys = [key.value for key, _ in root.value]
    if KEY not in keys:
        return text + ("" if text.endswith("\n") else end) + _line(batching, by).replace("\n", end)
    place = keys.index(KEY)
    first = root.value[place][0].start_mark.line
    last = root.value[place + 1][0].start_mark.line if place + 1 < len(keys) else len(lines)
    while lines[last - 1].lstrip()[:1] in {"", "#"}:  # what stands before the next key is about that
        last -= 1
    old = "".join(lines[first:last]).replace("\r\n", "\n")
    new = _section(old, root.value[place][1], batching, by).replace("\n", end)
    return "".join(lines[:first]) + new + "".join(lines[last:])


def _text(path: Path) -> str:
    """With its ends of lines as they are."""
    return path.read_bytes().decode("utf-8")


def _section(text: str, value: yaml.Node, batching: Batching, by: str) -> str:
    """The section alone, changed."""
    if not isinstance(value, yaml.MappingNode) or not value.value:
        return _line(batching, by)
    dialect = YAML()
    dialect.preserve_quotes = True
    dialect.width = 4096
    dialect.indent(mapping=value.value[0][0].start_mark.column)
    section = dialect.load(text)
    inner: CommentedMap = section[KEY]
    values = _plain(batching, inner)
    for key in [key for key in inner if key not in values]:
        del inner[key]
    inner.update(values)
    written = io.StringIO()
    dialect.dump(section, written)
    return re.sub(f"# (?:{TUNED}|{ADVISED}).*", f"# {by}", written.getvalue())  # what it says no longer holds


def _plain(batching: Batching, kept: CommentedMap | None = None) -> dict[str, Any]:
    """What is written: what was measured, and whatever differs from the defaults or was written before."""
    values = batching.model_dump(mode="json")
    changed = batching.model_dump(mode="json", exclude_defaults=True)
    written = {*changed, *MEASURED, *(kept or ())}
    return {key: value for key, value in values.items() if value is not None and key in written}


def _by_hand(path: Path, batching: Batching) -> RecipeError:
    return RecipeError(f"{path} has a form that cannot be changed without harm", f"write  {_line(batching).strip()}")


def _slo_line(slo: Slo) -> str:
    bounds = ", ".join(f"{name}: {value:g}" for name, value in slo.model_dump(exclude_none=True).items())
    return f"slo: {{{bounds}}}   # what `make tune` measured by\n"


def _line(batching: Batching, by: str = TUNED) -> str:
    # As YAML has them: true and false, not True and False.
    values = {key: json.dumps(value) if isinstance(value, bool) else value for key, value in _plain(batching).items()}
    pairs = ", ".join(f"{key}: {value}" for key, value in values.items())
    return f"{KEY}: {{{pairs}}}   # {by}\n"
