"""Forests of the FIL backend: its parameters, its files, and tensors that are not the forest's."""

from __future__ import annotations

from forestfile import lightgbm, xgboost

from tritonkit.repository.lint import Options

from .cases_layout import parameter
from .lab import Case, Content, Files

_PARAMETERS = {"model_type": "lightgbm", "is_classifier": "true", "predict_proba": "true", "threshold": "0.5"}


def tensors(
    features: int = 2, columns: int = 1, names: tuple[str, str] = ("input__0", "output__0"), dtype: str = "FP32"
) -> str:
    kinds = zip(("input", "output"), names, (features, columns), strict=True)
    return "".join(f'{kind} {{ name: "{name}" data_type: TYPE_{dtype} dims: {dim} }}\n' for kind, name, dim in kinds)


def fil(tensor_config: str = "", content: Content = "", name: str = "1/model.txt", **parameters: str | None) -> Files:
    """A model with some parameters changed; None leaves one out."""
    changed = {key: value for key, value in (_PARAMETERS | parameters).items() if value is not None}
    text = "".join(parameter(key, value) for key, value in changed.items())
    kind = "instance_group { count: 1 kind: KIND_CPU }\n"
    config = f'backend: "fil"\nmax_batch_size: 8\n{tensor_config or tensors()}{kind}{text}'
    return {"config.pbtxt": config, name: content or lightgbm()}


REGRESSION = lightgbm("regression")
MULTI = lightgbm("multiclass num_class:3", 3)
ONE_VS_ALL = lightgbm("multiclassova num_class:3 sigmoid:1", 3)
XGBOOST = fil("", xgboost(3, 2, 0), "1/xgboost.json", model_type="xgboost_json")
OLDER = fil("", xgboost(3, 0, 5), "1/xgboost.json", model_type="xgboost_json")
OF_25_10 = Options(image=(25, 10), origin="nvidia", variant="py3")
OF_25_08 = Options(image=(25, 8), origin="nvidia", variant="py3")
OLD_NAMES = fil(is_classifier=None, output_class="true")
CASES = [
    Case("TK180", fil(is_classifier=None), fil(), "is_classifier is missing", label="missing"),
    Case("TK180", fil(predict_proba="True"), fil(), "neither true nor false", label="boolean"),
    Case("TK180", fil(model_type="xgb"), fil(), "model_type is 'xgb'", label="type"),
    Case("TK180", fil(threshold="half"), fil(threshold="0.25"), "not a number", label="threshold"),
    Case("TK180", fil(layout="SPARSE"), fil(layout="layered"), "layout is 'SPARSE'", label="layout"),
    Case("TK181", fil(name="1/model.pkl"), fil(), "there is no file model.txt", label="missing"),
    Case("TK181", fil(content=xgboost(3, 2, 0)), fil(), "treelite", label="format"),
    Case("TK182", fil(tensors(3)), fil(), "dims [3], and the file has 2 features"),
    Case("TK183", fil(tensors(columns=3)), fil(tensors(columns=2)), "answers with 1 or 2 columns", label="binary"),
    Case("TK183", fil(content=MULTI), fil(tensors(columns=3), MULTI), "answers with 3 columns", label="classes"),
    Case("TK184", fil(tensors(names=("rows", "output__0"))), fil(), "the inputs are rows", label="name"),
    Case("TK184", fil(tensors(dtype="FP64")), fil(), "input__0 is TYPE_FP64", label="dtype"),
    Case("TK185", fil(threshold=None), fil(), label="missing"),
    Case("TK185", fil(threshold="0.3"), fil(threshold="0.3", predict_proba="false"), label="unread", severity="info"),
    Case("TK186", fil(content=REGRESSION, predict_proba="false"), fil(content=REGRESSION, is_classifier="false",
         predict_proba="false"), label="classes"),
    Case("TK186", fil(content=REGRESSION, is_classifier="false"), fil(content=REGRESSION, is_classifier="false",
         predict_proba="false"), label="probabilities", severity="info"),
    Case("TK187", XGBOOST, OLDER, options=OF_25_10),
    Case("TK188", fil(), OLD_NAMES, options=OF_25_08, label="renamed"),
    Case("TK188", fil(storage_type="AUTO"), fil(), options=OF_25_10, label="dropped", severity="info"),
    Case("TK189", fil(tensors(columns=3), ONE_VS_ALL), fil(tensors(columns=3), MULTI)),
]  # fmt: skip
