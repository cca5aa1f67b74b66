"""The comparison: every peer's files can be used, its processes end whatever happens, and one peer is really compared."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest

from tritonkit import recipe
from tritonkit.errors import CheckFailed, InputError
from tritonkit.recipe import Batching, Slo
from tritonkit.server.runtime import BACKENDS
from tritonkit_load import compare
from tritonkit_load.benchmarks.peers import contest, environment, harness, lines, supervisor
from tritonkit_load.benchmarks.peers.catalog import FOREST_PEERS, PEERS, Peer
from tritonkit_load.benchmarks.peers.contest import Candidate, Effort, Entry, Stage
from tritonkit_load.benchmarks.peers.harness import Subject, Theirs
from tritonkit_load.load import models
from tritonkit_load.tuning.cores import Cores

FASTAPI = next(peer for peer in PEERS if peer.key == "fastapi")
SERVER_CORE, LOAD_CORE = 0, 1
STAGE = Stage("cpu", Cores((SERVER_CORE,), (LOAD_CORE,)))
RECIPE = """
name: tiny
source: {onnx: model_repository/tiny/1/model.onnx}
inputs:
  x: {dtype: uint8, dims: [8]}
outputs:
  y: {dtype: fp32, dims: [8]}
slo: {p99_ms: 300, error_rate: 0.1}
max_batch_size: 1
batching: {instances: 1}
"""
BY_PEER = pytest.mark.parametrize("peer", [*PEERS, *FOREST_PEERS], ids=lambda peer: peer.place)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe and a repository with one small, slow graph: y = x + 1."""
    folder = tmp_path_factory.mktemp("compared")
    version = folder / "model_repository/tiny/1"
    version.mkdir(parents=True)
    helper, types = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["x"], ["cast"], to=types.FLOAT),
        helper.make_node("Add", ["cast", "one"], ["sum"]),
        helper.make_node("RandomNormal", [], ["noise"], shape=[500_000]),  # takes time: rates stay low
        helper.make_node("ReduceMax", ["noise"], ["largest"], keepdims=0),
        helper.make_node("Mul", ["largest", "zero"], ["nothing"]),
        helper.make_node("Add", ["sum", "nothing"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "tiny",
        [helper.make_tensor_value_info("x", types.UINT8, ["batch", 8])],
        [helper.make_tensor_value_info("y", types.FLOAT, ["batch", 8])],
        [helper.make_tensor("one", types.FLOAT, [], [1.0]), helper.make_tensor("zero", types.FLOAT, [], [0.0])],
    )  # fmt: skip
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), version / "model.onnx"
    )
    (version.parent / "config.pbtxt").write_text('backend: "onnxruntime"\nmax_batch_size: 8\n')
    (folder / "tiny.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def subject(project: Path) -> Subject:
    inputs = tuple({"x": np.arange(first, first + 8, dtype=np.uint8)[None]} for first in (0, 100))
    expected = tuple((sample["x"][0] + 1).astype(np.float32) for sample in inputs)
    return Subject("tiny", project / "model_repository/tiny/1/model.onnx", inputs, expected)


@pytest.fixture(scope="module")
def fastapi() -> Peer:
    """It is downloaded only in CI, and by `make compare`."""
    if not environment.installed(FASTAPI):
        if os.environ.get("CI") != "true":
            pytest.skip("FastAPI has no environment yet; `make compare PEERS=fastapi QUICK=1` makes it")
        environment.install(FASTAPI)
    return FASTAPI


@BY_PEER
def test_every_distribution_of_a_peer_is_pinned(peer: Peer) -> None:
    text = peer.requirements.read_text(encoding="utf-8")
    pins = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.+]*", line) for line in pins)
    names = [re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in pins]
    assert len(set(names)) == len(names)
    assert peer.version


def test_all_servers_run_the_same_onnxruntime() -> None:
    ours = BACKENDS.with_name("requirements-cpu.txt").read_text(encoding="utf-8")
    assert {f"onnxruntime=={peer.pins['onnxruntime']}" for peer in PEERS} <= set(ours.splitlines())


@BY_PEER
def test_a_peers_files_are_there_and_whole_and_bind_loopback(peer: Peer) -> None:
    variants = [*peer.variants, *peer.gpu_variants]
    for variant in variants:
        texts = {name: (peer.folder / name).read_text(encoding="utf-8") for name in variant.files}
        for name, text in texts.items():
            compile(text, name, "exec") if name.endswith(".py") else json.loads(text)
        assert "127.0.0.1" in " ".join([*texts.values(), *peer.command])
        assert re.search(r'intra_op_num_threads = 1|"nthread": 1', " ".join(texts.values()))
    named = {name for variant in variants for name in variant.files}
    files = {str(path.relative_to(peer.folder)) for path in peer.folder.rglob("*") if path.is_file()}
    assert {name for name in files if "__pycache__" not in name} == named | {"requirements.txt"}


def test_a_recipe_is_served_alone_built_for_it_or_from_a_repository(project: Path) -> None:
    tiny = recipe.load(project / "tiny.yaml")
    with models.repository_of([tiny], None, "cpu") as repository:
        assert [path.name for path in repository.iterdir()] == ["tiny"]
        assert compare._subject(tiny, repository, "cpu").graph.is_absolute()
    assert not repository.exists()
    other = project / "more"
    other.mkdir()
    for name in ("tiny", "broken"):
        (other / name).symlink_to(project / "model_repository/tiny")
    with models.repository_of([tiny], other, "cpu") as repository:
        assert [path.name for path in repository.iterdir()] == ["tiny"]
        assert (repository / "tiny").resolve() == (project / "model_repository/tiny").resolve()
    missing = tiny.model_copy(update={"name": "absent"})
    for given, words in ((other, "has no model absent"), (project / "nowhere", "is not a directory")):
        with pytest.raises(InputError, match=words), models.repository_of([missing], given, "cuda"):
            pass


def test_peers_have_our_options_of_the_cuda_provider(project: Path, tmp_path: Path) -> None:
    text = (project / "model_repository/tiny/config.pbtxt").read_text()
    accelerator = "".join(
        f'parameters {{ key: "{name}" value: "{value}" }} '
        for name, value in {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC", "gpu_mem_limit": "9"}.items()
    )
    (tmp_path / "tiny/1").mkdir(parents=True)
    (tmp_path / "tiny/config.pbtxt").write_text(
        text
        + 'optimization { execution_accelerators { gpu_execution_accelerator { name: "cuda" '
        + accelerator
        + "} } }"
    )
    shutil.copy(project / "model_repository/tiny/1/model.onnx", tmp_path / "tiny/1")
    subject = compare._subject(recipe.load(project / "tiny.yaml"), tmp_path, "cuda")
    assert subject.cuda_options == {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    assert subject.target == "cuda"


def test_the_slo_that_was_given_is_every_models(project: Path) -> None:
    path = project / "tiny.yaml"
    assert compare._recipe(path, "p99_ms=20").slo == Slo(p99_ms=20)
    assert compare._recipe(path, "").slo == recipe.load(path).slo


def test_the_page_says_how_every_peer_is_set_up(root: Path) -> None:
    page = (root / "docs/measurements/comparison.md").read_text(encoding="utf-8")
    for peer in PEERS:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {peer.name} |")]
        assert ("gRPC" in row) == (peer.protocol != "http")


def test_ours_is_tried_as_the_recipe_says_and_without_batches(project: Path) -> None:
    single = recipe.load(project / "tiny.yaml")
    repository = project / "model_repository"
    assert list(compare._ways(single, repository, "cpu").values()) == [None], "it has no batches already"
    batched = single.model_copy(update={"max_batch_size": 8, "batching": Batching(max_queue_delay_us=700, instances=2)})
    on_gpu = compare._ways(batched, repository, "cuda")
    assert on_gpu == {"2 instances, batches of up to 8 within 700 µs, run by size": None}
    ways = compare._ways(batched, repository, "cpu")
    assert list(ways) == ["2 instances, batches of up to 8 within 700 µs", "1 instance, one request at a time"]
    changed = ways["1 instance, one request at a time"]
    assert changed is not None
    assert changed["max_batch_size"] == 1
    assert [group["count"] for group in changed["instance_group"]] == [1]
    assert "dynamic_batching" not in changed


def test_lines_are_counted_without_blanks_comments_and_docstrings(tmp_path: Path) -> None:
    code, settings, data = tmp_path / "a.py", tmp_path / "b.yaml", tmp_path / "c.json"
    code.write_text(
        textwrap.dedent('''\
            """Of the module,

            two lines long."""

            import os  # counted
            # not counted

            def name():
                """Of the function."""
                text = """counted

                three times"""
                return call(
                    text,
                )
        ''')
    )
    settings.write_text("# a comment\n\nname: x  # counted\ninputs:\n")
    data.write_text('{\n  "host": "127.0.0.1"\n}\n')
    assert (lines.count([code]), lines.count([settings]), lines.count([data])) == (8, 2, 3)
    assert lines.count([code, settings, data]) == 13


# A server as unkind as they come: it ignores SIGTERM, and so does its worker, which has a session of its own and was
# left behind by the process that started it.
UNKIND = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
worker = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.setsid(); time.sleep(300)"
between = f"import subprocess as s, sys; print(s.Popen([sys.executable, '-c', {worker!r}], stdout=s.DEVNULL).pid)"
left = subprocess.run([sys.executable, "-c", between], stdout=subprocess.PIPE, text=True)
print(left.stdout.strip(), os.getpid(), flush=True)
time.sleep(300)
"""


@pytest.fixture
def kept_server() -> Iterator[tuple[subprocess.Popen[bytes], list[psutil.Process]]]:
    """A supervisor with an unkind server, and the server's processes."""
    quick = f"import sys; sys.argv[0] = ''; sys.path.insert(0, {str(Path(supervisor.__file__).parent)!r})\n"
    quick += "import supervisor; supervisor.ENDS_S = 0.5; sys.exit(supervisor.main())"
    command = [sys.executable, "-c", quick, sys.executable, "-c", UNKIND]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        server = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
        yield process, server
        process.kill()
        for member in server:
            if member.is_running():
                member.kill()


def test_a_server_that_ignores_signals_ends_with_its_workers(
    kept_server: tuple[subprocess.Popen[bytes], list[psutil.Process]],
) -> None:
    process, server = kept_server
    assert process.stdin is not None
    process.stdin.close()
    process.wait(20)
    assert not any(member.is_running() for member in server)


def test_one_peer_is_served_asked_and_ended(
    fastapi: Peer, subject: Subject, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contest, "PATIENCE", 1)
    candidates = [
        Candidate(variant.settings, 1, partial(Theirs, fastapi, variant, subject, [SERVER_CORE]))
        for variant in fastapi.variants[:1]
    ]
    fits = Entry("FastAPI", fastapi.version, candidates)
    broken = replace(fastapi, command=("{bin}/python", "-c", "raise SystemExit('no such model')"))
    fails = Entry(
        "broken", "1", [Candidate("", 1, partial(Theirs, broken, fastapi.variants[0], subject, [SERVER_CORE]))]
    )
    messages: list[str] = []
    effort = Effort(seconds=1.0, warm_up_s=0.2, rounds=1, resolution=2.0)
    absent = Entry("absent", "1", [Candidate("", 1, pytest.fail)], problem="cannot be installed")
    tiny = recipe.load(project / "tiny.yaml")
    contest.hold([fits, fails, absent], tiny, effort, STAGE, messages.append)
    row, other, third = (entry.row() for entry in (fits, fails, absent))
    assert third.problem == "cannot be installed"
    assert other.capacity is None
    assert "no such model" in (other.problem or "")
    assert other.fix
    assert any("round 1 of 1, FastAPI" in text for text in messages)
    commands = [child.as_dict(["cmdline"])["cmdline"] or [] for child in psutil.Process().children(recursive=True)]
    assert not [command for command in commands if "serve.py" in " ".join(command)]  # one that ended has none
    assert 0 < (row.ready_s or 0) < harness.STARTS_S
    if row.problem is not None:  # a busy machine
        assert "could not keep its schedule" in row.problem
        return
    assert row.capacity is not None
    assert row.low is not None
    assert row.high is not None
    assert row.low <= row.high
    assert row.p50_ms is not None
    assert row.p99_ms is not None
    assert 0 < row.p50_ms <= row.p99_ms
    assert 20 < (row.memory_mb or 0) < 1000


def stops(process: psutil.Process) -> bool:
    end = time.monotonic() + 5
    while process.status() != psutil.STATUS_STOPPED and time.monotonic() < end:
        time.sleep(0.01)  # a signal takes its time
    return bool(process.status() == psutil.STATUS_STOPPED)


def test_a_peer_stands_still_between_its_turns(fastapi: Peer, subject: Subject) -> None:
    with Theirs(fastapi, fastapi.variants[0], subject, [SERVER_CORE]) as contender:
        (server,) = contender.processes()
        assert stops(server)
        assert server.cpu_affinity() == [SERVER_CORE]
        with contender.awake():
            harness.check(subject, contender.protocol, contender.url)
        assert stops(server)
    assert not server.is_running()


def test_a_server_with_another_graph_is_not_measured(fastapi: Peer, subject: Subject) -> None:
    wrong = replace(subject, expected=tuple(numbers + 1 for numbers in subject.expected))
    contender = Theirs(fastapi, fastapi.variants[0], wrong, [SERVER_CORE])
    with pytest.raises(CheckFailed, match="other than onnxruntime"):
        contender.__enter__()
    assert contender.processes() == []


def test_ctrl_c_leaves_a_partial_report_and_no_process(
    fastapi: Peer, project: Path, tmp_path: Path, root: Path
) -> None:
    command = [sys.executable, "-m", "tritonkit_load", "compare", "--quick", "--peers", fastapi.key, "--models",
               str(project / "tiny.yaml"), "--repository", str(project / "model_repository"),
               "--reports", str(tmp_path / "compare")]  # fmt: skip
    path = os.pathsep.join(sys.path)
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          env=os.environ | {"PYTHONPATH": path}, start_new_session=True) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if f"FastAPI: start ({fastapi.variants[1].settings}" in line:
                break
        family = psutil.Process(process.pid).children(recursive=True)
        assert any("tritonserver" in member.name() for member in family)
        assert any("supervisor.py" in " ".join(member.cmdline()) for member in family)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == compare.INTERRUPTED, output
    _, left = psutil.wait_procs(family, timeout=10)
    assert not left
    result = json.loads((tmp_path / "compare/result.json").read_text())
    assert result["partial"] is True
    (rows,) = result["models"].values()
    ours, theirs = (row["problem"] for row in rows)
    assert ours.startswith("interrupted; 8 callers who wait got ")
    assert theirs == "interrupted; no rate was looked for yet"


def test_on_a_gpu_all_candidates_start_at_once_and_their_trials_are_kept(project: Path, subject: Subject) -> None:
    repository, protocols = project / "model_repository", ("grpc", "kserve")
    ours = [partial(harness.Ours, subject, protocol, repository, [SERVER_CORE]) for protocol in protocols]
    entry = Entry("tritonkit", "1", [Candidate(*each) for each in zip(protocols, (1, 1), ours, strict=True)], ours=True)

    def interrupt(text: str) -> None:
        if text.startswith("round"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        contest.hold(
            [entry], recipe.load_graph(project / "tiny.yaml"), compare.QUICK, replace(STAGE, target="cuda"), interrupt
        )
    assert [trial.settings for trial in entry.trials] == [*protocols]
    assert all(trial.throughput > 0 for trial in entry.trials)
    assert "interrupted; 64 callers who wait got" in (entry.row().problem or "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--peers", "flask"], "there is no peer 'flask'"),
        (["--models", "none"], "there is no recipe build/recipes/none.yaml"),
        (["--seconds", "0"], "--seconds is 0"),
        (["--rounds", "0"], "--rounds is 0"),
        (["--models", "{project}/no_slo.yaml"], "has no SLO"),
        (["--models", "efficientnet_lite0", "--repository", "{project}/nowhere"], "nowhere is not a directory"),
        (["--models", "{project}/tiny.yaml", "--slo", "p99=20"], "p99"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_compared_is_said_at_once(
    arguments: list[str], message: str, project: Path, root: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (project / "no_slo.yaml").write_text(RECIPE.partition("slo:")[0])
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "argv", ["compare.py", *(word.format(project=project) for word in arguments)])
    assert compare.main() == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
