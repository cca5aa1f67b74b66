"""Files of the smallest forests, as XGBoost and LightGBM write them, without either."""

from __future__ import annotations

import json


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
