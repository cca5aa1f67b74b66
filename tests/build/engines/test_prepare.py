"""`tritonkit prepare` with TensorRT-RTX in TensorRT's place: real builds, and real processes that race and are killed."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import Project

from tritonkit.dependencies import sha256
from tritonkit.engines import builder, cache, node, passport, prepare
from tritonkit.engines.cache import Cache
from tritonkit.engines.node import Node, NodeGpu

A10G = NodeGpu("NVIDIA A10G", (8, 6), 24 * 2**30)
T4 = NodeGpu("Tesla T4", (7, 5), 16 * 2**30)
H100 = NodeGpu("NVIDIA H100 80GB HBM3", (9, 0), 80 * 2**30)
PLAN = "net/1/model_sm86.plan"
POD = Path(__file__).parents[2] / "otherpod.py"

Pod = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def here(toolkit: builder.Toolkit, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Which GPUs this process sees; TensorRT-RTX takes TensorRT's place, and it looks at the cache often."""
    stand_in = builder.Toolkit("tensorrt", toolkit.module)
    monkeypatch.setattr(builder, "load", lambda name: {"tensorrt": stand_in}[name])
    for waiting in (prepare, cache):
        monkeypatch.setattr(waiting, "_POLL_S", 0.1)

    def be(*gpus: NodeGpu) -> None:
        monkeypatch.setattr(node, "gpus", lambda: gpus)
        monkeypatch.setattr(node, "read", lambda _image=None: Node(gpus, stand_in.version))

    be(A10G)
    return be


@pytest.fixture
def repository(graphs: Any, tmp_path: Path) -> Path:
    """What `tritonkit build --target tensorrt --fallback` leaves for GPU nodes, beside a model without an engine."""
    for name in ("net", "tokens/1"):
        (tmp_path / "repository" / name).mkdir(parents=True)
    directory = tmp_path / "repository/net"
    (directory / "1").mkdir()
    (directory / "configs").mkdir()
    graphs.mlp("fp16").rename(directory / "1/engine.onnx")
    tensor = {"dtype": "fp32", "dims": [32]}
    recipe = {"name": "net", "source": "net.py:load", "inputs": {"x": tensor}, "outputs": {"y": tensor},
              "max_batch_size": 8, "gpus": ["a10g", "t4"]}  # fmt: skip
    about = {"model": "net", "target": "tensorrt", "precision": "fp16", "recipe": recipe, "fallback": "onnxruntime"}
    (directory / "passport.json").write_text(json.dumps(about), encoding="utf-8")
    names = "".join(
        f'cc_model_filenames {{ key: "{sm[0]}.{sm[1]}" value: "model_sm{sm}.plan" }} ' for sm in ("75", "86")
    )
    (directory / "config.pbtxt").write_text(f'name: "net" backend: "tensorrt" {names}', encoding="utf-8")
    config = 'name: "net" backend: "onnxruntime" instance_group { kind: KIND_CPU }'
    (directory / "configs/onnxruntime.pbtxt").write_text(config, encoding="utf-8")
    (tmp_path / "repository/tokens/config.pbtxt").write_text('name: "tokens" backend: "python"', encoding="utf-8")
    return tmp_path / "repository"


@pytest.fixture
def run(repository: Path, project: Project, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    def command(*arguments: str | Path) -> tuple[int, str, str]:
        places = ("--repository", repository, "--cache", tmp_path / "cache", "--server-args", tmp_path / "args/server")
        return project.run("prepare", *places, *arguments)

    return command


@pytest.fixture
def pod(repository: Path, tmp_path: Path) -> Iterator[Pod]:
    """Starts another pod on the same cache; its repository is a copy of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, read_only: str = "", **environment: str) -> subprocess.Popen[str]:
        own = tmp_path / f"pod{len(started)}"
        subprocess.run(["cp", "-r", repository, own], check=True)
        places = ["--repository", str(own), "--cache", str(tmp_path / "cache"), "--server-args", str(own) + ".args"]
        process = subprocess.Popen(
            [*mounted(tmp_path / read_only if read_only else None), sys.executable, POD, "prepare", *places,
             *arguments], text=True, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def mounted(read_only: Path | None) -> list[str]:
    """A command's beginning that shows it a directory as a read-only mount, as a pod has it."""
    if read_only is None:
        return []
    if subprocess.run(["unshare", "--map-root-user", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("this machine gives no mount namespaces")
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", script, str(read_only)]


def until(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    assert any(word in line for line in process.stdout), f"it ended without saying {word}"


def forget(repository: Path) -> None:
    """A new pod: its repository has no plans."""
    for path in repository.glob("*/1/*.plan*"):
        path.unlink()


def entry(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "cache").iterdir()
    return folder


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def is_whole(plan: Path) -> bool:
    engine_passport = passport.read(plan)
    return (plan.stat().st_size, sha256(plan)) == (engine_passport.plan_bytes, engine_passport.plan_sha256)


@pytest.mark.usefixtures("here")
def test_the_first_pod_builds_and_the_next_one_takes_it_from_the_cache(
    run: Any, repository: Path, tmp_path: Path
) -> None:
    code, stdout, error = run()
    assert code == 0, error
    assert "net: built in " in stdout
    assert "tokens: no engine.onnx: nothing to build (0.0 s)" in stdout
    assert (tmp_path / "args/server").read_text(encoding="utf-8") == "\n"
    assert is_whole(repository / PLAN)
    sha256 = passport.read(repository / PLAN).plan_sha256
    assert names(entry(tmp_path)) == sorted(["lock", "plan.json", f"{sha256}.plan"])
    assert names(repository / "net/1") == ["engine.onnx", "model_sm86.plan", "model_sm86.plan.json"]
    before = (repository / PLAN).read_bytes()
    forget(repository)
    code, stdout, _ = run()
    assert code == 0
    assert f"net: linked from {entry(tmp_path)} to 1/model_sm86.plan" in stdout
    assert (repository / PLAN).read_bytes() == before
    assert (repository / PLAN).samefile(entry(tmp_path) / f"{sha256}.plan")
    code, stdout, _ = run()
    assert (code, "net: 1/model_sm86.plan is in the repository and fits" in stdout) == (0, True)


def test_a_cache_on_another_filesystem_is_copied_from(
    run: Any, here: Any, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_filesystem(*_: Any, **__: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_filesystem)
    code, stdout, _ = run()
    assert (code, "copied from" in stdout, is_whole(repository / PLAN)) == (0, True, True)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "damage",
    [
        lambda plan: plan.write_bytes(plan.read_bytes()[:-1]),
        lambda plan: plan.write_bytes(b"\0" + plan.read_bytes()[1:]),
        lambda plan: plan.unlink(),
        lambda plan: (plan.parent / "plan.json").write_text('{"format": 1'),
    ],
    ids=["cut", "changed", "gone", "passport cut"],
)
def test_a_damaged_entry_is_built_again(
    run: Any, repository: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    run()
    (plan,) = entry(tmp_path).glob("*.plan")
    forget(repository)
    damage(plan)
    code, stdout, _ = run()
    assert (code, "net: built in " in stdout, "replaces a damaged entry: " in stdout) == (0, True, True)
    forget(repository)
    code, stdout, _ = run("--only-cached")
    assert (code, is_whole(repository / PLAN)) == (0, True)


# --- real processes on one cache ---


def test_of_two_pods_that_start_together_one_builds(pod: Pod, tmp_path: Path) -> None:
    pods = [pod(HOLD="0.5"), pod(HOLD="0.5")]
    outputs = [process.communicate(timeout=60)[0] for process in pods]
    assert [process.returncode for process in pods] == [0, 0], outputs
    assert sum("BUILDING" in text for text in outputs) == 1
    assert sum("another process built it meanwhile" in text for text in outputs) == 1
    assert all(is_whole(tmp_path / f"pod{number}" / PLAN) for number in range(2))


def test_where_there_are_no_locks_both_build_and_both_succeed(
    here: Any, run: Any, pod: Pod, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any) -> None:
        raise OSError(37, "No locks available")

    other = pod(HOLD="0.3")
    until(other, "BUILDING")
    other.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(fcntl, "lockf", none)
    code, stdout, _ = run()
    assert (code, "net: built in" in stdout, "has no locks (No locks available)" in stdout) == (0, True, True)
    other.send_signal(signal.SIGCONT)
    assert other.communicate(timeout=60)[0]
    assert other.returncode == 0
    assert is_whole(repository / PLAN)
    assert is_whole(tmp_path / "pod0" / PLAN)
    forget(repository)
    assert "linked from" in run()[1]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("when", ["building", "writing"])
def test_a_builder_that_is_killed_blocks_nobody_and_its_half_is_not_taken(
    run: Any, pod: Pod, repository: Path, tmp_path: Path, when: str
) -> None:
    dying = pod(HOLD="60") if when == "building" else pod(DIE="1")
    until(dying, "BUILDING")
    if when == "building":
        dying.kill()
    dying.wait(timeout=60)
    assert dying.returncode == -signal.SIGKILL
    halves = list(entry(tmp_path).glob(".new-*/*.plan"))
    assert len(halves) == (when == "writing")
    code, stdout, error = run("--only-cached")
    assert code == 1
    assert entry(tmp_path).name in error
    code, stdout, _ = run()
    assert (code, "net: built in" in stdout, is_whole(repository / PLAN)) == (0, True, True)


@pytest.mark.usefixtures("here")
def test_leftovers_of_killed_builders_are_removed_after_a_while(run: Any, repository: Path, tmp_path: Path) -> None:
    run()
    old, new = (entry(tmp_path) / f".new-{name}" for name in ("old", "new"))
    stale = entry(tmp_path) / f"{'0' * 64}.plan"
    for path in (old, new):
        path.mkdir()
    stale.touch()
    for path in (old, stale):
        os.utime(path, (time.time() - 7200,) * 2)
    next(path for path in entry(tmp_path).glob("*.plan") if path != stale).write_bytes(b"damaged")
    forget(repository)
    assert run()[0] == 0
    assert [path.exists() for path in (old, new, stale)] == [False, True, False]


@pytest.mark.usefixtures("here")
def test_a_silent_builder_is_not_waited_for(pod: Pod, repository: Path, tmp_path: Path) -> None:
    """As one on a node that lost its network: its lock is held, and nothing comes from it."""
    silent = pod(HOLD="60")
    until(silent, "BUILDING")
    silent.send_signal(signal.SIGSTOP)
    outcomes = prepare.run(repository, Cache(tmp_path / "cache", silence_s=1.0), builder.Options())
    (net,) = (outcome for outcome in outcomes if outcome.model == "net")
    assert net.state == "built"
    assert "its builder has been silent for 1 s: building it here" in net.text
    assert is_whole(repository / PLAN)


def test_sigterm_ends_a_build_and_leaves_nothing(pod: Pod, tmp_path: Path) -> None:
    Path(tmp_path / "pod0.args").write_text("--model-config-name=of-an-earlier-start\n", encoding="utf-8")
    ended = pod(HOLD="60")
    until(ended, "BUILDING")
    ended.terminate()
    ended.communicate(timeout=60)
    assert ended.returncode == 130
    assert names(entry(tmp_path)) == ["lock"]
    assert not list((tmp_path / "pod0").rglob("*.plan*"))
    assert not (tmp_path / "pod0.args").exists()


# --- filled by a Job ---


@pytest.mark.usefixtures("here")
def test_pods_wait_for_the_job_and_then_link(run: Any, pod: Pod, repository: Path) -> None:
    job = pod(HOLD="1")
    until(job, "BUILDING")
    code, stdout, error = run("--only-cached", "--wait", "60")
    assert code == 0, error
    assert "net: linked from" in stdout
    assert "engines: wait for the engine Job, at most 60 s: net" in error
    assert is_whole(repository / PLAN)
    job.communicate(timeout=60)


@pytest.mark.usefixtures("here")
def test_without_the_job_a_pod_says_which_plan_is_missing(run: Any, repository: Path, tmp_path: Path) -> None:
    code, _, error = run("--only-cached", "--wait", "0.2")
    assert code == 1
    assert f"not in {tmp_path / 'cache'} after 0 s:\n  net-fp16-sm86-" in error
    assert "engine Job" in error
    assert not list(repository.rglob("*.plan*"))
    assert not (tmp_path / "args/server").exists()


# --- what the node or the repository does not allow ---


def test_a_gpu_that_the_recipe_does_not_name_gets_the_fallback(run: Any, here: Any, tmp_path: Path) -> None:
    here(H100)
    code, stdout, error = run()
    assert code == 0, error
    words = "net: config.pbtxt names no plan for NVIDIA H100 80GB HBM3 (compute capability 9.0), only for a10g, t4"
    assert words in stdout
    assert (tmp_path / "args/server").read_text(encoding="utf-8") == "--model-config-name=onnxruntime\n"


def test_a_graph_that_tensorrt_refuses_gets_the_fallback_and_says_why(
    run: Any, here: Any, repository: Path, graphs: Any, tmp_path: Path
) -> None:
    graphs.mlp("fp32").rename(repository / "net/1/engine.onnx")
    code, stdout, _ = run()
    assert code == 0
    assert "net: no plan: " in stdout
    assert "no layer computes in fp16: 2 fp32" in stdout
    assert (tmp_path / "args/server").read_text(encoding="utf-8") == "--model-config-name=onnxruntime\n"


def test_without_a_fallback_the_pod_stays_in_its_init_container(
    run: Any, here: Any, repository: Path, tmp_path: Path
) -> None:
    here(H100)
    place = repository / "net/passport.json"
    place.write_text(place.read_text(encoding="utf-8").replace('"onnxruntime"', '""'), encoding="utf-8")
    (tmp_path / "args").mkdir()
    (tmp_path / "args/server").write_text("--of-an-earlier-start", encoding="utf-8")
    code, _, error = run()
    assert (code, "no fallback covers net" in error) == (1, True)
    assert not (tmp_path / "args/server").exists()


def test_without_a_gpu_nothing_is_built(run: Any, here: Any, tmp_path: Path) -> None:
    here()
    code, stdout, _ = run()
    assert (code, "net: no GPU is visible here" in stdout, (tmp_path / "cache").exists()) == (0, True, False)


def test_gpus_of_two_kinds_are_refused(run: Any, here: Any) -> None:
    here(A10G, T4)
    code, _, error = run()
    assert (code, "GPUs of several kinds: NVIDIA A10G (8.6), Tesla T4 (7.5)" in error) == (1, True)


def test_a_read_only_repository_is_said_before_anything_is_built(pod: Pod, tmp_path: Path) -> None:
    process = pod(read_only="pod0/net/1")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2, output
    assert f"{tmp_path / 'pod0/net/1'} cannot be written (Read-only file system)" in output
    assert "emptyDir" in output
    assert "BUILDING" not in output


def test_a_cache_that_cannot_be_written_is_said_and_the_pod_serves(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    process = pod(read_only="cache")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert f"for this pod alone: {tmp_path / 'cache'} cannot be written (Read-only file system)" in output
    assert is_whole(tmp_path / "pod0" / PLAN)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--wait", "5"], "--wait 5 needs --only-cached"),
        (["--only-cached", "--wait", "-1"], "--wait -1 needs"),
        (["--only-cached", "--wait", "nan"], "--wait nan needs"),
        (["--workspace", "0"], "--workspace 0 is no size in GiB"),
        (["--workspace", "nan"], "--workspace nan is no size in GiB"),
        (["--server-args", "/"], "--server-args / is a folder"),
        (["--repository", "nowhere"], "there is no repository nowhere"),
    ],
)
def test_bad_requests(run: Any, here: Any, arguments: list[str], words: str) -> None:
    code, _, error = run(*arguments)
    assert (code, words in error) == (2, True)
