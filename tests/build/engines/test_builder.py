"""The builder's options and failures, with the real TensorRT-RTX; and the road of a GPU machine up to its missing GPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from support import Project

from tritonkit.engines import builder, jobs, node, passport, plans, timing, watch
from tritonkit.engines.gpus import find_all
from tritonkit.engines.profiles import Shapes
from tritonkit.errors import CheckFailed, GraphError, InputError, MissingError

Preflight = Callable[..., tuple[int, dict[str, Any]]]
SHAPES = [{"x": Shapes((1, 32), (8, 32), (8, 32))}]


@pytest.fixture(scope="module")
def toolkit() -> builder.Toolkit:
    return builder.load("tensorrt_rtx")


def test_targets_come_from_the_builder_itself(toolkit: builder.Toolkit) -> None:
    assert {(7, 5), (8, 0), (8, 6), (8, 9), (12, 0)} <= toolkit.targets
    assert (9, 0) not in toolkit.targets
    assert toolkit.version.count(".") == 3


# --- options ---


@pytest.mark.parametrize("level", ["ampere_plus", "same_compute_capability"])
def test_a_hardware_compatibility_that_tensorrt_rtx_ignores_is_said_to_be_unchecked(
    graphs: Any, project: Project, level: str
) -> None:
    code, said, _ = project.run(
        "engine", graphs.mlp("fp16"), "--preflight", "--gpu", "a100,l4", "--max-batch-size", "2",
        "--hardware-compatibility", level,
    )  # fmt: skip
    assert code == 0
    assert "fp16 on a100, l4: TensorRT-RTX ignores hardware compatibility level: that was not checked" in said


def test_ampere_plus_cannot_include_a_t4(graphs: Any, project: Project) -> None:
    code, _, error = project.run(
        "engine", graphs.mlp("fp16"), "--preflight", "--gpu", "a100,t4", "--max-batch-size", "2",
        "--hardware-compatibility", "ampere_plus",
    )  # fmt: skip
    assert code == 2
    assert "cannot be built for compute capability 7.5: it starts at 8.0" in error


@pytest.mark.parametrize(
    ("option", "words"), [("--version-compatible", "lean runtime"), ("--weight-stripped", "needs a GPU")]
)
def test_what_tensorrt_rtx_cannot_do_without_a_gpu_is_a_limit_and_not_the_graphs_fault(
    graphs: Any, preflight: Preflight, option: str, words: str
) -> None:
    code, said = preflight(graphs.mlp("fp16"), "l4", option)
    (verdict,) = said["verdicts"]
    assert (code, verdict["status"]) == (0, "limit")
    assert words in verdict["reasons"][0]["text"]


def test_options_reach_tensorrt_and_no_precision_flag_does(
    graphs: Any, toolkit: builder.Toolkit, monkeypatch: Any
) -> None:
    network = builder.Network(toolkit, graphs.mlp("fp16"))
    configs: list[Any] = []
    configure = network._configure

    def kept(shapes: Any) -> Any:
        configs.append(configure(shapes))
        return configs[-1]

    monkeypatch.setattr(network, "_configure", kept)
    options = builder.Options(workspace_bytes=2**28, hardware_compatibility="ampere_plus")
    plan = network.build(SHAPES, options, (8, 9), watch.Watch())
    assert plan.notes == ("TensorRT-RTX ignores hardware compatibility level: that was not checked",)
    pool = toolkit.module.MemoryPoolType.WORKSPACE
    assert configs[0].get_memory_pool_limit(pool) == 2**28
    assert not configs[0].flags & ~(1 << int(toolkit.module.BuilderFlag.TF32))  # TF32 is TensorRT's default


@pytest.mark.parametrize(("content", "words"), [(None, "there is no plugin library"), (b"no", "no TensorRT plugin")])
def test_a_plugin_library_that_does_not_load_is_bad_input(
    graphs: Any, project: Project, tmp_path: Path, content: bytes | None, words: str
) -> None:
    library = tmp_path / "libswirl.so"
    if content is not None:
        library.write_bytes(content)
    code, _, error = project.run(
        "engine", graphs.unknown_operators(), "--preflight", "--gpu", "l4", "--max-batch-size", "2",
        "--plugin", library,
    )  # fmt: skip
    assert code == 2
    assert words in error
    assert "fix:" in error


def test_an_input_whose_values_are_a_shape_is_refused(graphs: Any, toolkit: builder.Toolkit) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 32]),
        helper.make_tensor_value_info("shape", TensorProto.INT64, [2]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b"])]
    network = builder.Network(toolkit, graphs.save("shaped", nodes, inputs, outputs))
    with pytest.raises(GraphError, match="the values of input 'shape' decide"):
        network.check_profiles([*SHAPES])


# --- timing cache: TensorRT-RTX keeps its functions and times nothing ---


@pytest.fixture
def config(toolkit: builder.Toolkit) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        logger = toolkit.module.Logger(toolkit.module.Logger.ERROR)
        maker = toolkit.module.Builder(logger)
        yield maker.create_builder_config()


def test_timing_cache_is_kept_by_version_and_capability_and_read_again(config: Any, project: Project) -> None:
    place = timing.path("tensorrt", "11.4.0.106", (8, 6))
    assert place == project.home / "timing/tensorrt-11.4.0.106-sm86.cache"
    first = timing.attach(config, place)
    timing.keep(config, first)
    assert place.stat().st_size > 32
    assert (first.notes, timing.attach(config, place).notes) == ([], [])


def test_a_damaged_timing_cache_is_begun_anew_with_a_word(config: Any, project: Project) -> None:
    place = timing.path("tensorrt", "11.4.0.106", (8, 6))
    timing.keep(config, timing.attach(config, place))
    place.write_bytes(place.read_bytes()[:-3])
    cache = timing.attach(config, place)
    assert cache.notes == [f"the timing cache {place} is damaged and is begun anew"]
    timing.keep(config, cache)
    assert timing.attach(config, place).notes == []


# --- progress and Ctrl-C ---


def test_tensorrts_progress_reaches_whoever_watches(graphs: Any, toolkit: builder.Toolkit) -> None:
    class Seen(watch.Watch):
        def __init__(self) -> None:
            self.phases: list[tuple[str, float]] = []

        def phase(self, text: str, share: float) -> None:
            self.phases.append((text, share))

    seen = Seen()
    builder.Network(toolkit, graphs.mlp("fp16")).build(SHAPES, builder.Options(), (8, 9), seen)
    shares = [share for _, share in seen.phases]
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert shares[-1] > 0.8
    assert len({text for text, _ in seen.phases}) > 3


def test_a_long_build_elsewhere_than_on_a_terminal_says_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_EVERY_S", 0.05)
    with watch.watch("engine", 2) as shown:
        shown.next("net fp16")
        for _ in range(3):
            shown.phase("Timing tactics", 0.5)
        time.sleep(0.06)
        shown.phase("Timing tactics", 0.5)
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(" (")[0] for line in lines] == [
        "[1/2] engine: net fp16",
        "[1/2] engine: 50%, Timing tactics",
    ]


def test_ctrl_c_ends_a_build_and_leaves_no_plan(minilm: Path, tmp_path: Path) -> None:
    output = tmp_path / "plans"
    process = subprocess.Popen(
        [Path(sys.executable).with_name("tritonkit"), "engine", minilm,
         "--preflight", "--gpu", "l4,a100,a10g", "--max-batch-size", "64", "--shapes", "sequence=2:64:256",
         "--output", output],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        env={**os.environ, "TRITONKIT_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    assert process.stderr is not None
    assert "[1/3] preflight" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    assert process.wait(timeout=30) == 130
    rest = process.stderr.read()
    process.stderr.close()
    assert time.monotonic() - start < 10
    assert "Traceback" not in rest
    assert "[2/3]" not in rest
    assert not output.exists()


def test_a_build_whose_progress_nobody_reads_is_ended_by_tensorrt(graphs: Any, toolkit: builder.Toolkit) -> None:
    class Gone(watch.Watch):
        def phase(self, *_: Any) -> None:
            raise BrokenPipeError

    with pytest.raises(CheckFailed, match="nobody reads its progress"):
        builder.Network(toolkit, graphs.mlp("fp16")).build(SHAPES, builder.Options(), (8, 9), Gone())


def test_an_interrupt_reaches_the_thread_that_builds_and_waits_for_its_end() -> None:
    cancelled = threading.Event()
    ended = threading.Event()

    def work() -> None:
        assert cancelled.wait(10)
        time.sleep(0.1)  # TensorRT's next step
        ended.set()

    main = threading.main_thread().ident
    assert main is not None
    threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        builder._in_thread(work, cancelled)
    assert ended.is_set()


# --- on a GPU machine ---


def test_without_tensorrt_the_package_is_named(graphs: Any, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    code, _, error = project.run("engine", graphs.mlp("fp16"), "--gpu", "a10g", "--max-batch-size", "8")
    assert code == 3
    assert "TensorRT is not installed (the Python package tensorrt)" in error
    assert "--preflight" in error


def test_without_tensorrt_rtx_the_package_is_named(
    graphs: Any, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    code, _, error = project.run("engine", graphs.mlp("fp16"), "--preflight", "--gpu", "l4", "--max-batch-size", "8")
    assert code == 3
    assert "the Python package tensorrt-rtx" in error
    assert 'pip install "tritonkit[tensorrt-rtx]"' in error


@pytest.mark.usefixtures("project")
def test_bindings_without_their_libraries_are_said_not_to_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "raise ImportError('libnvinfer.so.11: cannot open shared object file')"
    (tmp_path / "tensorrt_bindings.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingError, match=r"tensorrt_bindings is installed and does not load: libnvinfer\.so\.11"):
        builder.load("tensorrt")


def test_a_graph_in_a_repository_has_its_models_name(graphs: Any, tmp_path: Path) -> None:
    place = tmp_path / "repository/net/1/model.onnx"
    place.parent.mkdir(parents=True)
    graphs.mlp("fp16").rename(place)
    assert jobs.from_onnx(place, None, {}, 2).model == "net"
    assert jobs.from_onnx(graphs.mlp("fp16"), None, {}, 2).model == "fp16"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gpu", "t4,l4", "--precision", "fp8"], "--gpu t4 (compute capability 7.5): fp8 needs"),
        (["--gpu", "a10x"], "did you mean a10"),
        (["--gpu", "l4", "--precision", "fp12"], "there is no precision 'fp12'"),
        (["--gpu", "l4", "--precision", "fp16,int8"], "has one graph, which has one precision"),
        (["--gpu", "l4", "--workspace", "0"], "--workspace 0.0 is not above 0"),
        ([], "no GPU is named"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_looked_for(
    graphs: Any, project: Project, arguments: list[str], words: str
) -> None:
    code, _, error = project.run("engine", graphs.fp8(), "--max-batch-size", "8", *arguments)
    assert code == 2
    assert words in error


@pytest.fixture
def full(toolkit: builder.Toolkit, monkeypatch: pytest.MonkeyPatch) -> builder.Toolkit:
    """TensorRT-RTX in TensorRT's place: the road is the same but for the module that is imported."""
    stand_in = builder.Toolkit("tensorrt", toolkit.module)
    monkeypatch.setattr(builder, "load", lambda name: {"tensorrt": stand_in}[name])
    return stand_in


@pytest.mark.usefixtures("full")
def test_without_a_gpu_the_message_says_where_to_go(graphs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "gpus", lambda: ())
    job = jobs.from_onnx(graphs.mlp("fp16"), None, {}, 8)
    with pytest.raises(MissingError, match="no GPU here that nvidia-smi shows"):
        plans.build([job], find_all(["l4"]), Path("nowhere"), builder.Options())


@pytest.mark.usefixtures("full")
def test_a_plan_for_another_gpu_cannot_be_built_here(graphs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "gpus", lambda: (node.NodeGpu("Tesla T4", (7, 5), 16 * 2**30),))
    job = jobs.from_onnx(graphs.mlp("fp16"), None, {}, 8)
    with pytest.raises(MissingError) as caught:
        plans.build([job], find_all(["a10g"]), Path("nowhere"), builder.Options())
    assert "the GPU here is Tesla T4 (compute capability 7.5); a plan for a10g (8.6) cannot be built" in str(
        caught.value
    )


@pytest.mark.usefixtures("full")
def test_a_gpu_machine_writes_its_plan_and_says_which_others_are_left(
    graphs: Any, project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(node, "gpus", lambda: (node.NodeGpu("NVIDIA A10G", (8, 6), 24 * 2**30),))
    output = tmp_path / "engines"
    command = ("engine", graphs.mlp("fp16"), "--gpu", "t4,a10g,h100", "--max-batch-size", "8", "--output", output)
    code, said, error = project.run(*command, "--json")
    assert code == 0, error
    printed = json.loads(said)
    assert printed["elsewhere"] == ["t4", "h100"]
    assert sorted(path.name for path in output.iterdir()) == ["model_sm86.plan", "model_sm86.plan.json"]
    written = passport.read(output / "model_sm86.plan")
    assert (written.builder, written.gpu, written.precision) == ("tensorrt", "a10g", "fp16")
    assert written.layers["fp16"] == 2
    assert written.graph_sha256 == passport.sha256_of(graphs.directory / "fp16.onnx")
    code, said, _ = project.run(*command)
    assert "to be built on their own nodes: t4, h100" in said


@pytest.fixture
def model(graphs: Any, tmp_path: Path) -> Path:
    """What `tritonkit build --target tensorrt` leaves in a repository for this command."""
    directory = tmp_path / "repository/net"
    (directory / "1").mkdir(parents=True)
    graphs.mlp("fp16").rename(directory / "1/engine.onnx")
    tensor = {"dtype": "fp32", "dims": [32]}
    recipe = {"name": "net", "source": "net.py:load", "inputs": {"x": tensor}, "outputs": {"y": tensor},
              "max_batch_size": 8, "gpus": ["a10g", "l4"]}  # fmt: skip
    said = {"model": "net", "target": "tensorrt", "precision": "fp16", "recipe": recipe}
    (directory / "passport.json").write_text(json.dumps(said), encoding="utf-8")
    return directory


@pytest.mark.usefixtures("full")
def test_a_model_in_a_repository_gets_its_plan_where_triton_looks(
    model: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No recipe file and no exporter is needed on the GPU node: the passport has shapes, precision and GPUs."""
    monkeypatch.setattr(node, "gpus", lambda: (node.NodeGpu("NVIDIA A10G", (8, 6), 24 * 2**30),))
    code, said, error = project.run("engine", model)
    assert code == 0, error
    assert "to be built on their own nodes: l4" in said
    written = passport.read(model / "1/model_sm86.plan")
    assert (written.model, written.precision, len(written.profiles)) == ("net", "fp16", 2)
    assert written.profiles[0]["x"].max == (8, 32)


def test_a_model_in_a_repository_is_preflighted_for_its_gpus(model: Path, project: Project) -> None:
    code, said, _ = project.run("engine", model, "--preflight", "--json")
    verdicts = [(verdict["gpu"], verdict["status"]) for verdict in json.loads(said)["verdicts"]]
    assert (code, verdicts) == (0, [("a10g", "ok"), ("l4", "ok")])
    assert not list(model.rglob("*.plan"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda model: (model / "1/engine.onnx").unlink(), "has no engine.onnx with a passport"),
        (lambda model: (model / "passport.json").unlink(), "has no engine.onnx with a passport"),
        (lambda model: (model / "passport.json").write_text('{"recipe": {"name": "net"}}'), "passport.json"),
    ],
)
def test_a_directory_without_graph_or_recipe_is_bad_input(
    model: Path, project: Project, change: Callable[[Path], None], words: str
) -> None:
    change(model)
    code, _, error = project.run("engine", model, "--preflight", "--gpu", "l4")
    assert (code, words in error) == (2, True)


@pytest.mark.usefixtures("full")
def test_of_several_kinds_of_gpu_cuda_is_shown_the_one_that_is_built_for(
    graphs: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    both = (node.NodeGpu("Tesla T4", (7, 5), 2**34, "GPU-t"), node.NodeGpu("NVIDIA A10G", (8, 6), 2**34, "GPU-a"))
    monkeypatch.setattr(node, "gpus", lambda: both)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    job = jobs.from_onnx(graphs.mlp("fp16"), None, {}, 2)
    (built,), _ = plans.build([job], find_all(["a10g"]), tmp_path, builder.Options())
    assert built.passport.gpu == "a10g"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-a"


@pytest.mark.usefixtures("full")
def test_a_graph_that_is_not_what_was_asked_for_leaves_no_file(
    graphs: Any, project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(node, "gpus", lambda: (node.NodeGpu("NVIDIA A10G", (8, 6), 24 * 2**30),))
    output = tmp_path / "engines"
    code, _, error = project.run(
        "engine", graphs.mlp("fp32"), "--gpu", "a10g", "--precision", "int8", "--max-batch-size", "8", "-o", output
    )
    assert (code, output.exists()) == (1, False)
    assert "no layer computes in int8: 2 fp32" in error


def test_broken_graphs_are_bad_input(graphs: Any, project: Project) -> None:
    path = graphs.mlp("fp16")
    path.write_bytes(path.read_bytes()[:-40])
    code, _, error = project.run("engine", path, "--preflight", "--gpu", "l4", "--max-batch-size", "8")
    assert (code, "is not a valid ONNX model" in error) == (2, True)
    missing = path.with_name("missing.onnx")
    assert project.run("engine", missing, "--preflight", "--gpu", "l4")[0] == 2


def test_a_build_that_is_killed_leaves_no_plan_under_the_passport_of_another(
    graphs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toolkit = builder.load("tensorrt_rtx")
    job = jobs.from_onnx(graphs.mlp("fp16"), None, {}, 2)
    network = builder.Network(toolkit, job.graph)
    plan = network.build(job.profiles, builder.Options(), (8, 9), watch.Watch())
    said = plans.describe(job, network, plan, builder.Options(), (8, 9), None)
    path = plans.write(tmp_path, plan, said)

    def killed(*_: Any) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(passport, "write", killed)
    with pytest.raises(RuntimeError):
        plans.write(tmp_path, builder.Plan(b"other", 0.0, 5), said)
    with pytest.raises(InputError, match="has no passport"):
        passport.read(path)


def test_weights_beside_the_graph_are_found(graphs: Any, tmp_path: Path, preflight: Preflight) -> None:
    import onnx

    model = onnx.load(graphs.mlp("fp16"))
    other = tmp_path / "apart/net.onnx"
    other.parent.mkdir()
    onnx.save(model, other, save_as_external_data=True, location="net.data", size_threshold=0)
    code, said = preflight(other, "l4")
    assert (code, said["verdicts"][0]["status"]) == (0, "ok")
    assert np.asarray(said["verdicts"][0]["plan_bytes"]) > 1000
