"""Breast Cancer Wisconsin (Diagnostic), which scikit-learn carries: an XGBoost classifier, trained where it is built.

569 samples of 30 measurements of cell nuclei (Street, Wolberg and Mangasarian 1993). A fifth of them is kept from
training; the build compares XGBoost and the FIL backend on those, and load tests send them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
TRAINING_SHARE = 0.8


def train() -> Any:
    """A classifier of 200 trees: the probability that a tumour is benign. The same at every call."""
    import xgboost

    rows, labels = _split()[0]
    parameters = {"objective": "binary:logistic", "max_depth": 4, "eta": 0.1, "tree_method": "hist", "nthread": 1}
    return xgboost.train(parameters, xgboost.DMatrix(rows, labels), 200)


def samples() -> Iterator[dict[str, Rows]]:
    """The samples that it was not trained on: 114 rows of 30."""
    for row in _split()[1][0]:
        yield {"input__0": row}


def _split() -> tuple[tuple[Rows, Rows], tuple[Rows, Rows]]:
    from sklearn.datasets import load_breast_cancer

    rows, labels = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(rows))
    rows, labels = rows[order].astype(np.float32), labels[order].astype(np.float32)
    count = int(len(rows) * TRAINING_SHARE)
    return (rows[:count], labels[:count]), (rows[count:], labels[count:])
