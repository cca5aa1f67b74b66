"""Forests of the FIL backend: its parameters, its files, and tensors that are not the forest's."""

from __future__ import annotations

import json

from tritonkit.repository.lint import Options

from .cases_layout import parameter
from .lab import Case, Content, Files

_PARAMETERS = {"model_type": "lightgbm", "is_classifier": "true", "predict_proba": "true", "threshold": "0.5"}


def lightgbm(objective: str = "binary sigmoid:1", classes: int = 1) -> str:
    """LightGBM's text: two features, one split a class."""
    head = (
        f"tree\nversion=v4\nnum_class={classes}\nnum_tree_per_iteration={classes}\nlabel_index=0\nmax_feature_idx=1\n"
        f"objective={objective}\nfeature_names=a b\nfeature_infos=[0:3] [0:1]\n"
    )
    trees = [
        f"Tree={index}\nnum_leaves=2\nnum_cat=0\nsplit_feature=0\nsplit_gain=1\nthreshold=1.5\ndecision_type=2\n"
        "left_child=-1\nright_child=-2\nleaf_value=-0.2 0.2\nleaf_weight=5 5\nleaf_count=20 20\ninternal_value=0\n"
        "internal_weight=10\ninternal_count=40\nis_linear=0\nshrinkage=1\n\n\n"
        for index in range(classes)
    ]
    return f"{head}tree_sizes={' '.join(str(len(tree)) for tree in trees)}\n\n{''.join(trees)}end of trees\n"


def xgboost(*version: int) -> str:
    """XGBoost's JSON: two features, one split; the fields are those of 3.2."""
    tree = {
        "base_weights": [0.0, -0.5, 0.5], "categories": [], "categories_nodes": [], "categories_segments": [],
        "categories_sizes": [], "default_left": [0, 0, 0], "id": 0, "left_children": [1, -1, -1],
        "loss_changes": [33.0, 0.0, 0.0], "parents": [2147483647, 0, 0], "right_children": [2, -1, -1],
        "split_conditions": [2.0, -0.5, 0.5], "split_indices": [0, 0, 0], "split_type": [0, 0, 0],
        "sum_hessian": [10.0, 5.0, 5.0],
        "tree_param": {"num_deleted": "0", "num_feature": "2", "num_nodes": "3", "size_leaf_vector": "1"},
    }  # fmt: skip
    forest = {
        "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": "1"}, "iteration_indptr": [0, 1],
        "tree_info": [0], "trees": [tree],
    }  # fmt: skip
    learner = {
        "attributes": {}, "feature_names": [], "feature_types": [],
        "gradient_booster": {"model": forest, "name": "gbtree"},
        "learner_model_param": {
            "base_score": "5E-1", "boost_from_average": "1", "num_class": "0", "num_feature": "2", "num_target": "1",
        },
        "objective": {"name": "binary:logistic", "reg_loss_param": {"scale_pos_weight": "1"}},
    }  # fmt: skip
    return json.dumps({"learner": learner, "version": version})


def tensors(
    features: int = 2, columns: int = 1, names: tuple[str, str] = ("input__0", "output__0"), dtype: str = "FP32"
) -> str:
    kinds = zip(("input", "output"), names, (features, columns), strict=True)
    return "".join(f'{kind} {{ name: "{name}" data_type: TYPE_{dtype} dims: {dim} }}\n' for kind, name, dim in kinds)


def fil(said: str = "", content: Content = "", name: str = "1/model.txt", **parameters: str | None) -> Files:
    """A model with some parameters changed; None leaves one out."""
    changed = {key: value for key, value in (_PARAMETERS | parameters).items() if value is not None}
    text = "".join(parameter(key, value) for key, value in changed.items())
    kind = "instance_group { count: 1 kind: KIND_CPU }\n"
    config = f'backend: "fil"\nmax_batch_size: 8\n{said or tensors()}{kind}{text}'
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
