"""The builder's options, its timing cache, its progress and Ctrl-C, with the real TensorRT-RTX."""

from __future__ import annotations

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

import pytest
from onnx import TensorProto, helper
from support import Project

from tritonkit.engines import build_progress, builder, timing
from tritonkit.engines.profiles import Shapes
from tritonkit.errors import CheckFailed, GraphError

Preflight = Callable[..., tuple[int, dict[str, Any]]]
SHAPES = [{"x": Shapes((1, 32), (8, 32), (8, 32))}]


def test_targets_come_from_the_builder_itself(toolkit: builder.Toolkit) -> None:
    assert {(7, 5), (8, 0), (8, 6), (8, 9), (12, 0)} <= toolkit.targets
    assert (9, 0) not in toolkit.targets
    assert toolkit.version.count(".") == 3


# --- options ---


@pytest.mark.parametrize("level", ["ampere_plus", "same_compute_capability"])
def test_a_hardware_compatibility_that_rtx_ignores_is_noted_as_unchecked(
    graphs: Any, project: Project, level: str
) -> None:
    code, stdout, _ = project.run(
        "engine", graphs.mlp("fp16"), "--preflight", "--gpu", "a100,l4", "--max-batch-size", "2",
        "--hardware-compatibility", level,
    )  # fmt: skip
    assert code == 0
    assert "fp16 on a100, l4: TensorRT-RTX ignores hardware compatibility level: that was not checked" in stdout


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
def test_what_rtx_cannot_do_without_a_gpu_is_a_limit_not_a_refusal(
    graphs: Any, preflight: Preflight, option: str, words: str
) -> None:
    code, report = preflight(graphs.mlp("fp16"), "l4", option)
    (verdict,) = report["verdicts"]
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
    plan = network.build(SHAPES, options, (8, 9), build_progress.Watch())
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
    class Seen(build_progress.Watch):
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


def test_a_long_build_without_a_terminal_prints_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_progress, "_EVERY_S", 0.05)
    with build_progress.watch("engine", 2) as shown:
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
    assert time.monotonic() - start < 60  # it would take minutes
    assert "Traceback" not in rest
    assert "[2/3]" not in rest
    assert not output.exists()


def test_a_build_whose_progress_nobody_reads_is_ended_by_tensorrt(graphs: Any, toolkit: builder.Toolkit) -> None:
    class Gone(build_progress.Watch):
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
