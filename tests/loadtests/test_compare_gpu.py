"""The comparison on a GPU, as far as that needs none: what is tried, installed and held equal, and the peers' files."""

from __future__ import annotations

import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import results

from tritonkit.errors import CheckFailed, MissingError
from tritonkit.recipe import Recipe, Slo
from tritonkit.server import runtime
from tritonkit_load.benchmarks.peers import catalog, contest, environment, wire
from tritonkit_load.benchmarks.peers.catalog import PEERS, Peer
from tritonkit_load.benchmarks.peers.contest import Candidate, Effort, Entry, Stage
from tritonkit_load.benchmarks.peers.harness import Contender, Subject, Theirs
from tritonkit_load.load.result import ModelResult
from tritonkit_load.reporting import comparepage
from tritonkit_load.tuning.cores import Cores

FASTAPI = next(peer for peer in PEERS if peer.key == "fastapi")
CORES = [0, 1]
BY_PEER = pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.key)


@BY_PEER
def test_on_a_gpu_a_peer_is_tried_with_batches_as_they_come_and_fixed(peer: Peer) -> None:
    tried = [
        (int(variant.environment.get("MAX_BATCH_SIZE") or variant.environment["MLSERVER_MODEL_MAX_BATCH_SIZE"]),
         variant.environment["FIXED"]) for variant in peer.variants_for("cuda")
    ]  # fmt: skip
    assert {(64, "0"), (64, "1"), (16, "1")} <= {*tried}
    assert ((1, "0") in tried) == (peer.key != "bentoml")
    for variant in peer.gpu_variants:
        text = (peer.folder / variant.files[0]).read_text(encoding="utf-8")
        assert "get_providers()[0] == provider[0]" in text, "a server that fell back to the CPU must not be measured"


@BY_PEER
def test_onnxruntime_for_a_gpu_is_linked_and_all_else_is_the_same(peer: Peer) -> None:
    on_cpu, on_gpu = (set(environment.requirements(peer, target)) for target in ("cpu", "cuda"))
    assert on_cpu - on_gpu == {f"onnxruntime=={peer.pins['onnxruntime']}"}
    assert on_gpu < on_cpu


def test_onnxruntime_and_cuda_come_from_the_embedded_server(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    target.mkdir()
    for name in ("onnxruntime", "onnxruntime_gpu-1.31.1.dist-info", "nvidia/cublas", "numpy"):
        (source / name).mkdir(parents=True)
    (source / "linked").mkdir()
    (source / "onnxruntime_tools").symlink_to("linked")
    environment.link(source, target)
    names = {path.name for path in target.iterdir()}
    assert names == {"onnxruntime", "onnxruntime_gpu-1.31.1.dist-info", "onnxruntime_tools", "nvidia"}
    assert (target / "onnxruntime_tools").readlink() == source / "linked", "a link to a link may break"
    with pytest.raises(MissingError, match=r"has no onnxruntime\*"):
        environment.link(tmp_path / "nowhere", target)


def test_a_peer_is_installed_from_a_folder_of_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No index and an empty folder: pip must say so at once, and the message must name the way out."""
    monkeypatch.setattr(environment, "_home", lambda *_: tmp_path / "environment")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(MissingError, match="cannot be installed") as caught:
        environment.install(FASTAPI)
    assert "PIP_FIND_LINKS" in caught.value.fix
    wheel = tmp_path / "tiny_peer-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_peer.py", "")
        archive.writestr("tiny_peer-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-peer\nVersion: 1\n")
        archive.writestr(
            "tiny_peer-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_peer-1.dist-info/RECORD", "")
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path))
    monkeypatch.setattr(environment, "requirements", lambda *_: ["tiny-peer==1"])
    environment.install(FASTAPI)
    assert list(tmp_path.glob("environment/lib/python*/site-packages/tiny_peer.py"))


@BY_PEER
def test_a_peers_gpu_files_answer_right_in_batches_of_different_lengths(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU, by another provider's name: how batches are made and filled up is the same."""
    if not environment.installed(peer):
        pytest.skip(f"{peer.name} has no environment yet; `make compare PEERS={peer.key} QUICK=1` makes it")
    subject = means(tmp_path)
    shutil.copytree(catalog.HERE, tmp_path / "peers")
    for path in (tmp_path / "peers").rglob("gpu/*.py"):
        text = path.read_text(encoding="utf-8").replace("onnxruntime.preload_dlls()", "pass")
        path.write_text(text.replace("CUDAExecutionProvider", "CPUExecutionProvider"), encoding="utf-8")
    programs = environment.programs(peer, "cpu")
    monkeypatch.setattr(catalog, "HERE", tmp_path / "peers")
    monkeypatch.setattr(environment, "programs", lambda *_: programs)
    variant = peer.variants_for("cuda")[-2]  # batches of one size
    with Theirs(peer, variant, subject, CORES) as contender, contender.awake():

        def right(turn: int) -> bool:
            place = turn % len(subject.inputs)
            answer = wire.ask(contender.protocol, contender.url, subject.name, subject.inputs[place])
            return subject.agrees(answer, subject.expected[place])

        with ThreadPoolExecutor(8) as callers:
            assert all(callers.map(right, range(60)))


def means(folder: Path) -> Subject:
    """A graph of two inputs of any length, as texts have them: the mean of the first where the second is 1."""
    helper, types = onnx.helper, onnx.TensorProto
    nodes = [
        *(helper.make_node("Cast", [name], [f"{name}_f"], to=types.FLOAT) for name in ("ids", "mask")),
        helper.make_node("Mul", ["ids_f", "mask_f"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axis"], ["sum"], keepdims=1),
        helper.make_node("ReduceSum", ["mask_f", "axis"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
    ]
    inputs = [helper.make_tensor_value_info(name, types.INT64, ["batch", "length"]) for name in ("ids", "mask")]
    output = helper.make_tensor_value_info("mean", types.FLOAT, ["batch", 1])
    axis = helper.make_tensor("axis", types.INT64, [1], [1])
    graph = helper.make_graph(nodes, "means", inputs, [output], [axis])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    samples = tuple(
        {"ids": np.arange(first, first + length)[None], "mask": np.ones((1, length), np.int64)}
        for first, length in ((3, 4), (100, 7), (7, 12))
    )
    expected = tuple(sample["ids"].mean(axis=1).astype(np.float32) for sample in samples)
    return Subject("means", folder / "model.onnx", samples, expected, "cuda")


@pytest.mark.skipif(runtime.detect_device() != "cuda", reason="needs an NVIDIA GPU")
def test_a_peer_serves_on_the_gpu(tmp_path: Path) -> None:
    environment.install(FASTAPI, "cuda")
    with Theirs(FASTAPI, FASTAPI.gpu_variants[-1], means(tmp_path), CORES) as contender:
        assert contender.ready_s > 0


def test_answers_of_a_gpu_may_be_rounded_and_may_not_be_wrong(tmp_path: Path) -> None:
    expected = np.array([0.0, 10.0], np.float32)
    on_gpu = Subject("net", tmp_path, (), (), "cuda")
    rounded, wrong = expected + np.float32(0.02), expected + np.float32(0.5)
    assert on_gpu.agrees(rounded, expected)
    assert not on_gpu.agrees(wrong, expected)
    assert not on_gpu.agrees(expected * np.nan, expected)
    assert not replace(on_gpu, target="cpu").agrees(rounded, expected)


def trial(throughput: float, p99_ms: float) -> ModelResult:
    model = results.result().model
    assert model.latency is not None
    return replace(model, throughput=throughput, latency=replace(model.latency, p99=p99_ms))


def test_the_fastest_candidate_that_keeps_the_slo_is_measured() -> None:
    slo = Slo(p99_ms=20)
    assert contest.best([[trial(100, 5)], [trial(900, 50)], [trial(300, 19)]], slo) == 2
    assert contest.best([[trial(100, 25)], [trial(900, 50)], [trial(300, 21)]], slo) == 1, "none keeps it"
    assert contest.best([[trial(500, 5), trial(500, 30)], [trial(300, 5), trial(300, 5)]], slo) == 1, "once is luck"


def test_what_the_graph_alone_does_is_said_for_what_it_ran_on() -> None:
    assert "one sample at a time" in comparepage.ceiling(100)
    assert "on the GPU, largest batches" in comparepage.ceiling(9130, on_gpu=True)


def refuses(starts: list[str]) -> Contender:
    starts.append("")
    raise CheckFailed("out of memory")


def test_a_candidate_that_does_not_start_is_tried_twice_and_left_out() -> None:
    starts: list[str] = []
    candidates = [Candidate(words, 1, lambda: refuses(starts)) for words in ("large", "small")]
    entry = Entry("server", "1", candidates)
    stage = Stage("cuda", Cores((0,), (1,)))
    recipe = Recipe.model_validate(
        {"name": "net", "source": "net.py:load", "slo": {"p99_ms": 20}, "inputs": {"x": {"dtype": "fp32", "dims": [4]}},
         "outputs": {"y": {"dtype": "fp32", "dims": [3]}}}
    )  # fmt: skip
    contest.hold([entry], recipe, Effort(rounds=1), stage, lambda _: None)
    row = entry.row()
    assert len(starts) == 4
    assert row.problem == "out of memory"
    assert "not started (large): out of memory" in row.settings
