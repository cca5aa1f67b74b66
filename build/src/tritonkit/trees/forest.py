"""What treelite says of a forest: its shape and its cost, and rows that meet each of its splits."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tritonkit.errors import MissingError, SourceError
from tritonkit.server.backends.fil import forest_inference
from tritonkit.server.backends.fil.forest_inference import ForestError, Settings
from tritonkit.trees.files import ForestFile

Rows = NDArray[np.float32]
MISSING_SHARE = 0.1  # of the values in probe rows
_NO_CHILD = -1


@dataclass(frozen=True)
class Shape:
    """The size of a forest.

    Attributes:
        task: ``binary``, ``multiclass``, ``regression``, ``ranking`` or ``isolation``.
        features: Numbers in a row.
        classes: Columns of the scores; 1 for a binary classifier of one score.
        trees: How many there are.
        depth: The longest way from a root to a leaf, in splits.
        nodes: Splits and leaves of all trees.
        categorical: Features with splits by category.
        fp64: Whether the file's thresholds and leaves are fp64.
    """

    task: str
    features: int
    classes: int
    trees: int
    depth: int
    nodes: int
    categorical: tuple[int, ...]
    fp64: bool

    @property
    def classifies(self) -> bool:
        """Whether the scores are of classes."""
        return self.task in {"binary", "multiclass"}


@dataclass(frozen=True)
class Tree:
    """One tree: a node an entry, breadth first.

    Attributes:
        feature: The feature that a split looks at; -1 at a leaf.
        left: A split's left child; -1 at a leaf.
        right: Its right child.
        threshold: The value that a numerical split compares with.
        categorical: Whether a split is by category.
    """

    feature: NDArray[np.int32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    threshold: NDArray[Any]
    categorical: NDArray[np.bool_]


class Forest(forest_inference.Forest):
    """A forest as the backend runs it, of which the toolchain wants to know more."""

    def trees(self) -> list[Tree]:
        """Every tree's nodes."""
        return [self._tree(index) for index in range(self.num_trees)]

    @property
    def num_trees(self) -> int:
        """How many trees there are."""
        count = ctypes.c_size_t()
        forest_inference.check(forest_inference.library().TreeliteQueryNumTree(self._handle, ctypes.byref(count)))
        return int(count.value)

    def serialize(self, path: Path) -> None:
        """Write it as a treelite checkpoint."""
        forest_inference.check(
            forest_inference.library().TreeliteSerializeModelToFile(self._handle, str(path).encode())
        )

    def _tree(self, index: int) -> Tree:
        left = self.tree_field(index, "cleft")
        kinds = self.tree_field(index, "node_type")
        feature = np.where(left == _NO_CHILD, -1, self.tree_field(index, "split_index"))
        return Tree(
            feature, left, self.tree_field(index, "cright"), self.tree_field(index, "threshold"), kinds == _CATEGORICAL
        )

    def round_thresholds(self) -> None:
        """Round thresholds and leaves to fp32, as the backend does where a GPU runs it."""
        for index in range(self.num_trees):
            for name in ("threshold", "leaf_value", "leaf_vector"):
                values = self.tree_field(index, name)
                if values.size:
                    self.set_tree_field(index, name, values.astype(np.float32).astype(values.dtype))

    def fit_thresholds_to_fp32(self) -> None:
        """Move each fp64 threshold to the fp32 that splits fp32 values alike: down for ``<=``, up for ``<``.

        A GPU, which would round it to the nearest, then takes the same way as a CPU.
        """
        for index in range(self.num_trees):
            exact = self.tree_field(index, "threshold")
            if exact.dtype != np.float64:
                return
            operator = self.tree_field(index, "cmp")
            near = exact.astype(np.float32)
            near = np.where(
                (operator == _LESS_OR_EQUAL) & (near > exact), np.nextafter(near, np.float32(-np.inf)), near
            )
            near = np.where((operator == _LESS) & (near < exact), np.nextafter(near, np.float32(np.inf)), near)
            self.set_tree_field(index, "threshold", near.astype(np.float64))


_LESS, _LESS_OR_EQUAL = 2, 3  # treelite's Operator
_CATEGORICAL = 2  # treelite's TreeNodeType: leaf 0, numerical 1, categorical 2


def load(file: ForestFile, settings: Settings | None = None) -> Forest:
    """The forest in a file.

    Args:
        file: Its format and place.
        settings: How it is served; as treelite has it if not given.

    Raises:
        SourceError: treelite does not read it, or the backend does not serve such a forest.
        MissingError: treelite is not installed.
    """
    try:
        return Forest(file.path, settings or Settings(model_type=file.model_type))
    except ForestError as error:
        raise as_error(error, file) from error


def as_error(error: ForestError, file: ForestFile) -> SourceError | MissingError:
    """A backend's error as one of tritonkit's, with a fix."""
    text = str(error)
    if "not installed" in text:
        return MissingError(f"{file.path}: {text}, which reads forests", "pip install 'tritonkit[trees]'")
    written = f" ({file.library} {file.version})" if file.version else ""
    fix = "save it again with a version of its library that treelite 4 reads: docs/guides/trees.md"
    if "linear trees" in text:
        fix = "train it without linear_tree"
    if "targets" in text:
        fix = "train a forest for each target, or serve it as ONNX"
    if file.model_type == "treelite_checkpoint" and "major" in text:
        fix = "convert it again, from the library's own file, with treelite 4"
    return SourceError(f"{file.path}{written}: {text}", fix)


def shape_of(forest: Forest) -> Shape:
    """The size of a forest, from its nodes."""
    trees = forest.trees()
    categorical = {int(feature) for tree in trees for feature in np.unique(tree.feature[tree.categorical])}
    return Shape(
        task=forest.task,
        features=forest.num_feature,
        classes=forest.num_class,
        trees=len(trees),
        depth=max(map(_depth, trees), default=0),
        nodes=sum(len(tree.left) for tree in trees),
        categorical=tuple(sorted(categorical - {-1})),
        fp64=any(tree.threshold.dtype == np.float64 for tree in trees),
    )


def _depth(tree: Tree) -> int:
    depth, level = 0, np.array([0])
    while True:
        level = level[tree.left[level] != _NO_CHILD]
        if not level.size:
            return depth
        depth, level = depth + 1, np.concatenate([tree.left[level], tree.right[level]])


def probe_rows(forest: Forest, count: int, seed: int = 0) -> Rows:
    """Rows that fall on both sides of the forest's own thresholds, exactly on them, and lack values.

    Args:
        forest: Whose thresholds to take.
        count: How many rows.
        seed: Of the choice.
    """
    trees = forest.trees()
    feature = np.concatenate([tree.feature for tree in trees])
    threshold = np.concatenate([tree.threshold for tree in trees])
    categorical = np.concatenate([tree.categorical for tree in trees])
    random = np.random.default_rng(seed)
    rows = np.zeros((count, forest.num_feature), np.float32)
    for column in range(forest.num_feature):
        of_column = feature == column
        values = threshold[of_column & ~categorical].astype(np.float32)
        if (of_column & categorical).any():
            rows[:, column] = random.integers(0, 12, count)
        elif values.size:
            chosen = random.choice(values, count)
            away = random.choice(np.array([-np.inf, 0, np.inf], np.float32), count)
            rows[:, column] = np.where(away == 0, chosen, np.nextafter(chosen, away, dtype=np.float32))
    rows[random.random(rows.shape) < MISSING_SHARE] = np.nan
    return rows


def path_of(place: Path, model_type: str) -> Path:
    """The name that the backend looks for, in a folder."""
    return place / str(forest_inference.FILES[model_type])
