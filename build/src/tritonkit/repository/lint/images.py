"""What NVIDIA's Triton images carry, and what that can read.

Every release from 22.12 to 26.09 is known, of the last only that it has at least 26.08's onnxruntime. So has a newer
one; of an older one nothing is known. Either is a finding (TK150).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

Image = tuple[int, int]

# From this image on → onnxruntime's least and greatest minor release (build.py of triton-inference-server/server at
# each release's branch, and the table in its docs/introduction/compatibility.md, which differ for 24.08; 26.06 has
# 1.24 in one variant and 1.26 in another).
_ONNXRUNTIME: dict[Image, tuple[str, str]] = {
    (22, 12): ("1.13", "1.13"), (23, 3): ("1.14", "1.14"), (23, 5): ("1.15", "1.15"), (23, 9): ("1.16", "1.16"),
    (24, 3): ("1.17", "1.17"), (24, 5): ("1.18", "1.18"), (24, 8): ("1.18", "1.19"), (24, 9): ("1.19", "1.19"),
    (24, 12): ("1.20", "1.20"), (25, 3): ("1.21", "1.21"), (25, 5): ("1.22", "1.22"), (25, 8): ("1.23", "1.23"),
    (26, 2): ("1.24", "1.24"), (26, 6): ("1.24", "1.26"), (26, 7): ("1.27", "1.27"), (26, 8): ("1.28", "1.28"),
    (26, 9): ("1.28", "1.31"),
}  # fmt: skip
OLDEST: Image = min(_ONNXRUNTIME)
NEWEST: Image = max(_ONNXRUNTIME)
# onnxruntime → newest file format (IR) and newest opset that it loads: a Relu stamped with each was given to each
# release from PyPI (the last patch of every minor).
_LIMITS: dict[str, tuple[int, int]] = {
    "1.13": (8, 17), "1.14": (8, 18), "1.15": (9, 19),
    "1.16": (9, 19), "1.17": (9, 20), "1.18": (10, 21), "1.19": (10, 21), "1.20": (10, 21), "1.21": (10, 22),
    "1.22": (10, 22), "1.23": (11, 23), "1.24": (13, 25), "1.25": (13, 26), "1.26": (13, 26), "1.27": (13, 26),
    "1.28": (13, 26), "1.29": (13, 26), "1.30": (13, 26), "1.31": (13, 26),
}  # fmt: skip
# The batcher's lost wake-up is fixed from here on (docs/decisions/0003).
BATCHER_FIXED: Image = (26, 8)
# The first image whose TensorRT has no precision flags.
TENSORRT_11: Image = (26, 6)
# Triton's gRPC front end sees that a caller cancelled, or that its deadline passed, from 23.10 on; up to 24.11 one that
# meets the answer can end the server (server#7368, fixed by #7840 in 24.12), and up to 25.03 one that meets the start
# of a request (server#8034, fixed by #8078 in 25.04). Releases from the branches that contain each change.
CANCELLATION: Image = (23, 10)
CANCELLATION_ANSWER_FIXED: Image = (24, 12)
CANCELLATION_FIXED: Image = (25, 4)
# Fields of the configuration, as message.field, and the first image whose schema has them (model_config.proto of
# triton-inference-server/common at each release's branch). Fields without an entry are in every known image.
FIELDS: dict[str, Image] = {
    "ModelEnsembling.Step.model_namespace": (23, 3),
    "ModelSequenceBatching.StrategyOldest.preserve_ordering": (23, 8),
    "ModelSequenceBatching.iterative_sequence": (23, 11),
    "ModelSequenceBatching.State.use_same_buffer_for_input_output": (23, 11),
    "ModelSequenceBatching.State.use_growable_memory": (23, 11),
    "ModelConfig.runtime": (24, 1),
    "ModelInput.is_non_linear_format_io": (24, 8),
    "ModelOutput.is_non_linear_format_io": (24, 8),
    "ModelConfig.model_metrics": (24, 11),
    "ModelEnsembling.max_inflight_requests": (25, 11),
}

# The FIL backend's treelite from each image on (cmake/thirdparty/get_treelite.cmake at each release's branch; 26.06 is
# the last that is known).
_TREELITE: dict[Image, str] = {
    (22, 12): "3.0.0", (23, 1): "3.0.1", (23, 6): "3.2.0", (23, 11): "3.9.1", (24, 3): "4.0.0", (24, 5): "4.1.2",
    (24, 9): "4.3.0", (24, 11): "4.4.0", (25, 1): "4.4.1", (26, 1): "4.6.1", (26, 6): "4.7.0",
}  # fmt: skip
FIL_RENAMED: Image = (25, 9)  # from here on it reads is_classifier, layout and chunk_size
_FOREST_UBJSON: Image = (24, 10)
_FOREST_TREELITE_4: Image = (24, 3)
# XGBoost from 3.1 on writes `cats` and a base score for each class: treelite 4.3.0 and 4.4.1 refuse the files of 3.1.2
# and 3.2.0, JSON and UBJSON, and 4.6.1 reads them; all three read those of 2.1.4 and 3.0.5 (tried with each).
_FOREST_XGBOOST_31: Image = (26, 1)

PLAIN = "py3"  # the variant that has every backend but those of language models
# What it has for Python models beside the standard library: build.py of triton-inference-server/server installs numpy,
# setuptools and wheel by pip where the Python backend is built in.
PYTHON_MODULES = frozenset({"numpy", "pip", "pkg_resources", "setuptools", "wheel"})
# What the image of build/Dockerfile adds to it for Python models.
TOOLS_MODULES = frozenset({"tokenizers"})


@dataclass(frozen=True)
class Limits:
    """What an image's onnxruntime loads for sure, and what it may load at most; None where nothing is known.

    Attributes:
        release: onnxruntime's release, or the two it lies between.
        sure: Newest IR and opset that it certainly loads.
        most: Newest that it can load.
    """

    release: str
    sure: tuple[int, int] | None
    most: tuple[int, int] | None


# Of the backend tritonkit_onnxruntime, whatever the image (build/src/tritonkit/server/requirements-cuda.txt).
OWN = Limits("1.31", _LIMITS["1.31"], _LIMITS["1.31"])


def limits(image: Image) -> Limits:
    """The bounds for one image."""
    known = sorted(_ONNXRUNTIME)
    if image < OLDEST:
        return Limits("", None, None)
    low, high = _ONNXRUNTIME[known[bisect_right(known, image) - 1]]
    if image > NEWEST:
        return Limits(f"{low} or newer", _LIMITS[low], None)
    return Limits(low if low == high else f"{low} to {high}", _LIMITS[low], _LIMITS[high])


def treelite(image: Image) -> str:
    """The FIL backend's treelite in an image; empty where nothing is known."""
    known = [since for since in sorted(_TREELITE) if since <= image]
    return _TREELITE[known[-1]] if known else ""


def forest_since(model_type: str, version: str) -> Image | None:
    """The first image whose FIL backend reads a file.

    Args:
        model_type: Its format.
        version: The version of the library that wrote it; empty where it says none.
    """
    release = tuple(int(part) for part in version.split(".") if part.isdigit())
    if model_type in {"xgboost_json", "xgboost_ubj"} and release >= (3, 1):
        return _FOREST_XGBOOST_31
    if model_type == "xgboost_ubj":
        return _FOREST_UBJSON
    return _FOREST_TREELITE_4 if model_type == "treelite_checkpoint" and release >= (4,) else None


def name(image: Image) -> str:
    """``26.08`` of an image."""
    return f"{image[0]}.{image[1]:02}"


def where(module: str) -> str:
    """How a Python model gets a module that NVIDIA's image lacks: what to do, as a sentence."""
    if module in TOOLS_MODULES:
        return f"serve it with the image of build/Dockerfile, which has {module}"
    return (
        f"add {module} to an image of your own (FROM that of build/Dockerfile, RUN python3 -m pip install) and serve it"
        " with that, or give the model an EXECUTION_ENV_PATH"
    )
