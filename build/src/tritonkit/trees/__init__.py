"""Forests of decision trees: XGBoost's, LightGBM's and treelite's files become model directories for the FIL backend.

Each forest is compared with its own library on the way. What runs it is left to Triton's image, and to
``server/backends/fil`` on the embedded server.
"""

from tritonkit.trees.config import set_batching
from tritonkit.trees.files import is_forest
from tritonkit.trees.pipeline import built_model, check, model

__all__ = ["built_model", "check", "is_forest", "model", "set_batching"]
