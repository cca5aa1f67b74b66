"""Prepared sizes in the real server, on a CPU: padded batches, requests of different lengths together, errors."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from textmodel import PADDING, TABLE, text_model

from tritonkit.errors import CheckFailed
from tritonkit.server import TritonServer
from tritonkit_client import Client, TritonkitClientError

DELAY = "dynamic_batching { max_queue_delay_microseconds: 400000 preferred_batch_size: 4 }\n"


def add(repository: Path, name: str, backend: str = "tritonkit_onnxruntime", **given: str) -> None:
    parameters = {"batch_sizes": "1,2,4,8", "padding": json.dumps(PADDING)} | given
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    text_model(folder / "1/model.onnx")
    inputs = "".join(
        f'input {{ name: "{tensor}" data_type: TYPE_INT64 dims: -1 allow_ragged_batch: true }}\n'
        for tensor in ("ids", "mask")
    )
    (folder / "config.pbtxt").write_text(
        f'backend: "{backend}"\ndefault_model_filename: "model.onnx"\nmax_batch_size: 8\n{inputs}'
        'output { name: "mean" data_type: TYPE_FP32 dims: 8 }\n'
        'output { name: "tokens" data_type: TYPE_FP32 dims: [-1, 8] }\n'
        "instance_group { count: 1 kind: KIND_CPU }\n" + DELAY
        + "".join(
            f'parameters {{ key: "{key}" value {{ string_value: {json.dumps(value)} }} }}\n'
            for key, value in parameters.items()
        ),
        encoding="utf-8",
    )  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("sized") / "repository"
    add(repository, "padded")
    add(repository, "plain_name", "onnxruntime")
    add(repository, "as_they_come", batch_sizes="off")
    with TritonServer(repository) as running:
        yield running


def expected(ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    mean: np.ndarray[Any, Any] = TABLE[ids].mean(axis=1)
    return mean


def together(server: TritonServer, model: str, requests: list[np.ndarray[Any, Any]]) -> tuple[list[Any], int]:
    """All requests at the same time: their answers or errors, and the executions they took."""
    answers: list[Any] = [None] * len(requests)
    with Client(server.grpc_url) as client:
        client.metadata(model)
        before = client.statistics(model)[0].execution_count

        def call(index: int) -> None:
            try:
                answers[index] = client.infer(model, ids=requests[index], mask=np.ones_like(requests[index]))
            except TritonkitClientError as error:
                answers[index] = error

        threads = [threading.Thread(target=call, args=(index,)) for index in range(len(requests))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers, client.statistics(model)[0].execution_count - before


@pytest.mark.parametrize("model", ["padded", "plain_name"])
def test_requests_of_different_lengths_share_a_batch(server: TritonServer, model: str) -> None:
    rng = np.random.default_rng(0)
    requests = [rng.integers(0, 50, (1, length)) for length in (3, 30, 9, 16)]
    answers, executions = together(server, model, requests)
    assert executions == 1
    for ids, answer in zip(requests, answers, strict=True):
        np.testing.assert_allclose(answer["mean"], expected(ids), atol=1e-6)
        assert answer["tokens"].shape == (1, ids.shape[1], 8)
        np.testing.assert_allclose(answer["tokens"], TABLE[ids], atol=1e-6)


def test_a_bad_request_fails_alone_among_padded_ones(server: TritonServer) -> None:
    requests = [np.full((1, 3), 1), np.full((1, 9), 99), np.full((1, 30), 2), np.full((1, 5), 3)]
    answers, executions = together(server, "padded", requests)
    assert executions == 1, "they were not one batch"
    assert isinstance(answers[1], TritonkitClientError)
    for index in (0, 2, 3):
        np.testing.assert_allclose(answers[index]["mean"], expected(requests[index]), atol=1e-6)


def test_a_request_above_the_largest_prepared_length_is_refused(server: TritonServer) -> None:
    answers, _ = together(server, "padded", [np.ones((1, 33), np.int64)])
    assert "a length of 33 is above the largest prepared one, 32" in str(answers[0])


def test_without_sizes_requests_of_one_length_still_run(server: TritonServer) -> None:
    answers, _ = together(server, "as_they_come", [np.full((1, 40), 1), np.full((1, 40), 2)])
    np.testing.assert_allclose(answers[1]["mean"], TABLE[[2]], atol=1e-6)


def test_the_log_says_what_was_prepared_and_what_runs_as_it_comes(server: TritonServer) -> None:
    assert server.log is not None
    log = server.log.read_text(encoding="utf-8")
    assert re.search(r"padded_0_0: 12 sizes prepared in \d+\.\d s: batches of 1, 2, 4, 8; sequence 8, 16, 32", log)
    assert "as_they_come_0_0: batches run as they come: batch_sizes is off" in log


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_sizes": "8,4"}, "batch_sizes is '8,4'; say rising numbers"),
        ({"padding": json.dumps(PADDING).replace("ids", "words")}, "names the input 'words'; the model has: ids, mask"),
    ],
)
def test_a_parameter_that_cannot_be_followed_refuses_to_load(
    given: dict[str, str], message: str, tmp_path: Path
) -> None:
    add(tmp_path / "repository", "wrong", **given)
    with pytest.raises(CheckFailed) as caught, TritonServer(tmp_path / "repository"):
        pass
    assert message in str(caught.value)
