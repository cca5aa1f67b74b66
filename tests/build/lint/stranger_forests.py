"""Forests as NVIDIA's documentation, tests and notebooks of the FIL backend configure them, in words of our own.

Kinds of model, parameters and dimensions are those of qa/generate_example_models.sh, docs/model_config.md and the two
notebooks of triton-inference-server/fil_backend (26.06); files are small ones of the same kinds.
"""

from __future__ import annotations

from forestfile import lightgbm, xgboost

from .cases_layout import parameter
from .lab import Content, Files

BINARY = lightgbm()
REGRESSION = lightgbm("regression")
MULTI = lightgbm("multiclass num_class:10", 10)


def example(
    name: str, content: Content, *, kind: str = "KIND_CPU", features: int = 2, columns: int = 1, batch: int = 8192,
    batching: str = "dynamic_batching { }", more: str = "", base: dict[str, str] | None = None, **parameters: str,
) -> Files:  # fmt: skip
    """A model of the backend; ``name`` is its file's."""
    text = "".join(parameter(key, value) for key, value in (parameters | (base or {})).items())
    config = (
        f'backend: "fil",\nmax_batch_size: {batch}\n'
        f'input [ {{ name: "input__0" data_type: TYPE_FP32 dims: [ {features} ] }} ]\n'
        f'output [ {{ name: "output__0" data_type: TYPE_FP32 dims: [ {columns} ] }}{more} ]\n'
        f"instance_group [{{ kind: {kind} }}]\n{text}{batching}\n"
    )
    return {"config.pbtxt": config, f"1/{name}": content}


_TESTED = {"layout": "depth_first", "xgboost_allow_unknown_field": "true", "threshold": "0.5"}
_CLASSES = _TESTED | {"is_classifier": "true", "predict_proba": "false"}
_PROBABILITIES = _TESTED | {"is_classifier": "true", "predict_proba": "true"}
_VALUES = _TESTED | {"is_classifier": "false", "predict_proba": "false"}
FORESTS: dict[str, Files] = {
    "xgboost_json": example("xgboost.json", xgboost(3, 2, 0), columns=2, model_type="xgboost_json", base=_PROBABILITIES),
    "xgboost_shap": example(
        "xgboost.json", xgboost(2, 1, 0), batch=4096, model_type="xgboost_json", base=_CLASSES,
        more=', { name: "treeshap_output" data_type: TYPE_FP32 dims: [ 3 ] }',
    ),
    "lightgbm": example("model.txt", BINARY, columns=2, model_type="lightgbm", base=_PROBABILITIES),
    "lightgbm_rf": example("model.txt", MULTI, columns=10, model_type="lightgbm", base=_PROBABILITIES),
    "regression": example("model.txt", REGRESSION, model_type="lightgbm", base=_VALUES),
    "classes_of_ten": example("model.txt", MULTI, model_type="lightgbm", base=_CLASSES),
    "documented": example(
        "model.txt", BINARY, kind="KIND_AUTO", batch=32768, model_type="lightgbm", is_classifier="true"
    ),
    "benchmark": example(
        "xgboost.json", xgboost(1, 7, 0), kind="KIND_CPU", batch=6329, columns=2, model_type="xgboost_json",
        predict_proba="true", is_classifier="true", threshold="0.5", layout="breadth_first",
    ),
    "fraud": example(
        "xgboost.json", xgboost(3, 0, 0), columns=2, model_type="xgboost_json", base=_PROBABILITIES,
        batching="dynamic_batching { max_queue_delay_microseconds: 100 }",
    ),
    "of_before_25_09": example(
        "model.txt", BINARY, model_type="lightgbm", output_class="true", predict_proba="false", threshold="0.5",
        algo="ALGO_AUTO", storage_type="AUTO", blocks_per_sm="0", threads_per_tree="1",
        use_experimental_optimizations="true",
    ),
}  # fmt: skip
ON_GPU: dict[str, Files] = {
    name: {path: str(content).replace("KIND_CPU", "KIND_GPU") for path, content in files.items()}
    for name, files in FORESTS.items()
}
