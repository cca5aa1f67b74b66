"""The server: real, on loopback only, and gone without a trace when it stops, however it is stopped."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tritonkit import cli
from tritonkit.cli import serve as cli_serve
from tritonkit.errors import CheckFailed, MissingError
from tritonkit.server import TritonServer, neighbours, runtime
from tritonkit_client import Client


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One Python model that sleeps as long as its input says."""
    place = tmp_path_factory.mktemp("server")
    (place / "sleepy/1").mkdir(parents=True)
    (place / "sleepy/1/model.py").write_text(
        "import time\nimport triton_python_backend_utils as u\nclass TritonPythonModel:\n"
        "    def execute(self, requests):\n        out = []\n        for r in requests:\n"
        "            x = u.get_input_tensor_by_name(r, 'x').as_numpy()\n            time.sleep(float(x[0]))\n"
        "            out.append(u.InferenceResponse([u.Tensor('y', x)]))\n        return out\n"
    )
    (place / "sleepy/config.pbtxt").write_text(
        'backend: "python"\ninput { name: "x" data_type: TYPE_FP32 dims: 1 }\noutput { name: "y" data_type: TYPE_FP32 dims: 1 }\n'
    )
    return place


@pytest.fixture(scope="module")
def running(repository: Path) -> Iterator[TritonServer]:
    with TritonServer(repository) as server:
        yield server


def regions(owner: int) -> set[str]:
    """The shared memory of the servers that this process started."""
    return {path.name for path in Path("/dev/shm").glob(f"tritonkit-server-{owner}-*")}


def test_it_listens_on_loopback_only(running: TritonServer) -> None:
    listening = [c for c in psutil.Process(running.pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert {c.laddr.port for c in listening} >= set(running.ports.values())
    assert {c.laddr.ip.removeprefix("::ffff:") for c in listening} == {"127.0.0.1"}


def test_telemetry_is_off_in_the_server_and_its_stubs(running: TritonServer) -> None:
    server = psutil.Process(running.pid)
    assert server.children()
    for process in (server, *server.children()):
        assert process.environ()["ORT_DISABLE_TELEMETRY"] == "1"


def test_the_stubs_packages_are_the_servers_own(running: TritonServer) -> None:
    """Not those of the interpreter or of this environment: numpy 2 there would empty every output."""
    (stub,) = psutil.Process(running.pid).children()
    loaded = [file.path for file in stub.memory_maps() if "/numpy/" in file.path]
    assert loaded
    assert all(path.startswith(str(runtime.find().path)) for path in loaded)


def test_stopping_lets_a_request_in_flight_finish_and_leaves_nothing(repository: Path) -> None:
    import threading

    import numpy as np

    answers: list[object] = []
    before = regions(os.getpid())
    with TritonServer(repository) as server:
        processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
        assert regions(os.getpid()) - before
        client = Client(server.grpc_url)
        client.metadata("sleepy")
        thread = threading.Thread(
            target=lambda: answers.append(client.infer("sleepy", x=np.array([1.5], np.float32))["y"].item())
        )
        thread.start()
        time.sleep(0.5)
    thread.join()
    client.close()
    assert answers == [1.5]
    assert not any(process.is_running() for process in processes)
    assert not regions(os.getpid()) - before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_serve_ends_with_its_server_however_it_is_ended(repository: Path, number: signal.Signals) -> None:
    tritonkit = str(Path(sys.executable).with_name("tritonkit"))
    command = [tritonkit, "serve", str(repository)]
    command += [word for name in ("http", "grpc", "metrics") for word in (f"--{name}-port", "0")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    assert line.startswith("ready: grpc://127.0.0.1:")
    children = psutil.Process(process.pid).children(recursive=True)
    assert {"tritonserver", "triton_python_backend_stub"} <= {
        name for child in children for name in child.cmdline()[0].split("/")
    }
    process.send_signal(number)
    process.wait(30)
    process.stdout.close()
    process.stderr.close()
    assert process.returncode == (-9 if number == signal.SIGKILL else 0)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_the_next_server_removes_shared_memory_of_a_killed_one(repository: Path) -> None:
    code = f"from tritonkit.server import TritonServer; print(TritonServer({str(repository)!r}).start().pid); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert process.stdout is not None
    server = psutil.Process(int(process.stdout.readline()))
    everything = [process.pid, server.pid, *(stub.pid for stub in server.children())]
    assert regions(process.pid)
    for number in (signal.SIGSTOP, signal.SIGKILL):  # first the parent, which would tidy up
        for pid in everything:
            os.kill(pid, number)
    process.communicate()
    with TritonServer(repository):
        assert not regions(process.pid)


def test_serve_hands_polling_to_triton_as_its_help_shows_it(repository: Path, tmp_path: Path) -> None:
    """What follows `--` is no directory: a model that is added while the server runs is loaded."""
    tritonkit = str(Path(sys.executable).with_name("tritonkit"))
    help_ = subprocess.run([tritonkit, "serve", "--help"], capture_output=True, text=True, check=True).stdout
    shown = re.sub(r"-\s+", "-", help_.partition("tritonkit serve -- ")[2]).split()
    ports = [word for name in ("http", "grpc", "metrics") for word in (f"--{name}-port", "0")]
    shutil.copytree(repository / "sleepy", tmp_path / "model_repository/bounded")
    config = tmp_path / "model_repository/bounded/config.pbtxt"
    bound = "max_batch_size: 4\ndynamic_batching { default_queue_policy { max_queue_size: 64 } }\n"
    config.write_text(bound + config.read_text())
    process = subprocess.Popen(
        [tritonkit, "serve", *ports, "--", *shown], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = re.fullmatch(r"ready: (\S+)  .*\n", process.stdout.readline())
        assert url
        assert "with queue bounds: bounded; Triton 24.10 stalls" in process.stdout.readline()
        with Client(url[1], retry=None) as client:
            assert not client.model_ready("sleepy")
            shutil.copytree(repository / "sleepy", tmp_path / "new/sleepy")
            (tmp_path / "new/sleepy").rename(tmp_path / "model_repository/sleepy")
            end = time.monotonic() + 30
            while not client.model_ready("sleepy"):
                assert time.monotonic() < end
                time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.parametrize("watch", [False, True])
def test_serve_takes_a_recipe_and_serves_its_models_alone(
    repository: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], *, watch: bool
) -> None:
    """The repository has another model, which is broken and needs a package that nobody installed."""
    place = tmp_path / "model_repository"
    shutil.copytree(repository, place)
    shutil.copytree(place / "sleepy", place / "other")
    (place / "other/1/model.py").write_text("import no_such_package\n")
    (place / "other/passport.json").write_text('{"model": "other", "packages": ["no-such-package==1"]}')
    recipe = tmp_path / "sleepy.yaml"
    tensor = "{dtype: fp32, dims: [1]}"
    text = f"name: sleepy\nsource: m.onnx\ninputs: {{x: {tensor}}}\noutputs: {{y: {tensor}}}\n"
    recipe.write_text(text)
    with TritonServer(place, models=cli_serve.models_of([recipe], place), watch=watch) as server:
        with Client(server.grpc_url, retry=None) as client:
            assert {entry.name for entry in client.repository()} == {"sleepy"}
            if watch:
                later = place / "sleepy/1/model.py"
                later.write_text(later.read_text().replace("('y', x)", "('y', x + 1)"))
                changes = [server.take_up() for _ in range(2)]
                assert [change.loaded for change in changes if change] == [("sleepy",)]
                assert client.infer("sleepy", x=[0.0])["y"] == [1.0]
        (neighbour,) = neighbours.find(place)
        assert neighbour.url == server.http_url
        assert neighbour.serves({"sleepy", "other"})
        assert not neighbour.serves({"other"})
        assert f"without pillow==1: `tritonkit install-server {place}`" in neighbour.advice(["x"], place, ["pillow==1"])
    with pytest.raises(MissingError, match="no-such-package==1") as refused, TritonServer(place):
        pass
    assert refused.value.fix == f"run `tritonkit install-server {place}`"
    recipe.write_text(text.replace("name: sleepy", "name: absent"))
    assert cli.main(["serve", str(place), "--recipe", str(recipe)]) == 2
    err = capfd.readouterr().err
    assert f"{place} has no model absent" in err.replace("\n", " ")
    assert f"tritonkit build {recipe} --repository {place}" in err.replace("\n", " ")


def test_make_serve_serves_the_model_that_is_named_alone() -> None:
    root = Path(__file__).parents[2]
    for words, arguments in (
        (["MODEL=all_minilm_l6_v2"], " 'model_repository' --recipe 'build/recipes/all_minilm_l6_v2.yaml'"),
        (["MODEL=nets/a b.yaml"], " 'model_repository' --recipe 'nets/a b.yaml'"),
        ([], " 'model_repository'"),
    ):
        command = ["make", "-n", "serve", "TARGET=cpu", *words]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        (line,) = [line for line in done.stdout.splitlines() if "tritonkit serve" in line]
        assert line.partition("tritonkit serve")[2].rstrip() == arguments


def alive(process: psutil.Process) -> bool:
    """Whether a process runs; a zombie does not."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_a_killed_server_is_reported_and_its_memory_removed(repository: Path) -> None:
    before = regions(os.getpid())
    server = TritonServer(repository).start()
    assert regions(os.getpid()) - before
    stubs = psutil.Process(server.pid).children()
    os.kill(server.pid, signal.SIGKILL)
    assert server.wait() == -signal.SIGKILL
    server.stop()
    psutil.wait_procs(stubs, timeout=10)
    assert not [stub for stub in stubs if alive(stub)]


def test_a_model_that_does_not_load_is_reported_in_tritons_own_words(tmp_path: Path) -> None:
    (tmp_path / "broken/1").mkdir(parents=True)
    (tmp_path / "broken/1/model.py").write_text("raise RuntimeError('no such luck')\n")
    (tmp_path / "broken/config.pbtxt").write_text('backend: "python"\n')
    with pytest.raises(CheckFailed) as caught, TritonServer(tmp_path):
        pass
    assert "failed to load 'broken'" in str(caught.value)
    assert "no such luck" in str(caught.value)


@pytest.mark.skipif(runtime.detect_device() == "cuda", reason="this machine has a GPU")
def test_a_gpu_model_where_there_is_none_is_not_called_a_wrong_directory(tmp_path: Path) -> None:
    (tmp_path / "net/1").mkdir(parents=True)
    (tmp_path / "net/1/model.py").write_text("")
    (tmp_path / "net/config.pbtxt").write_text('backend: "python"\ninstance_group { kind: KIND_GPU }\n')
    with pytest.raises(CheckFailed, match="no GPUs are available") as caught, TritonServer(tmp_path):
        pass
    assert (
        caught.value.fix == "this machine has no GPU for it: serve it where there is one, or build it with --target cpu"
    )


def test_a_server_that_is_not_ready_in_time_is_ended(tmp_path: Path) -> None:
    (tmp_path / "slow/1").mkdir(parents=True)
    (tmp_path / "slow/1/model.py").write_text("import time\ntime.sleep(600)\n")
    (tmp_path / "slow/config.pbtxt").write_text('backend: "python"\n')
    ours = f"tritonkit-server-{os.getpid()}-"  # in the arguments of the server and its stubs: others may run beside it
    before = set(psutil.pids())
    with pytest.raises(CheckFailed, match="was not ready after 2 s"):
        TritonServer(tmp_path, timeout_s=2, exit_timeout_s=1).start()
    left = [process for process in psutil.process_iter(["cmdline"]) if ours in " ".join(process.info["cmdline"] or [])]
    assert not [process for process in left if process.pid not in before and alive(process)]


def test_a_python_without_a_shared_library_is_refused_with_a_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for a static build: an interpreter that describes itself as one."""
    fake = tmp_path / "python3.11"
    fake.write_text('#!/bin/sh\necho \'["3.11", "/usr/lib", "libpython3.11.a", "/usr", null]\'\n')
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError) as caught:
        runtime.find()
    assert "no shared library" in str(caught.value)
    assert "libpython3.11" in caught.value.fix
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--http-port", "99999"], "--http-port 99999 is no port\n  fix: 1 to 65535"),
        (["--metrics-port", "-1"], "--metrics-port -1 is no port"),
        (["--http-port", "18111", "--grpc-port", "18111"], "--http-port and --grpc-port are both 18111"),
    ],
)
def test_ports_that_cannot_be_are_bad_input_before_triton_starts(
    options: list[str], words: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", str(repository), *options]) == 2
    assert words in capsys.readouterr().err


def test_an_unknown_option_is_refused_in_tritons_words(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    assert cli.main(["serve", str(repository), *ports, "--", "--modl-control-mode=poll"]) == 2
    error = capsys.readouterr().err
    assert "unrecognized option '--modl-control-mode=poll'" in error
    assert "correct what stands after --" in error
    assert "triton.log" not in error
