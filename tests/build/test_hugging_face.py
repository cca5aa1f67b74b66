"""Hugging Face directories: half-precision checkpoints, lengths, pictures, decoders."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from support import Project

from tritonkit import graph

transformers = pytest.importorskip("transformers")
TINY = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
T5 = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(project.directory)
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    return project


def described(project: Project, *arguments: str) -> tuple[dict[str, Any], str]:
    status, _, err = project.run("init", *arguments, "--output", "net.yaml")
    assert status == 0, err
    text = Path("net.yaml").read_text()
    return yaml.safe_load(text), text


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_checkpoint_is_loaded_as_fp32_with_a_note(here: Project, dtype: torch.dtype) -> None:
    word = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**TINY, max_position_embeddings=24))
    model.to(dtype).save_pretrained("half")
    recipe, text = described(here, "half")
    assert recipe["outputs"] == {"logits": {"dtype": "fp32", "dims": [2]}}
    assert recipe["shapes"]["sequence"] == {"min": 1, "opt": 24, "max": 24}
    assert f"The checkpoint is {word}" in text
    assert f"precisions: [fp32, {word}]" in text
    if dtype == torch.float16:
        return  # one export is enough: from here on, both are fp32
    status, _, err = here.build()
    assert status == 0, err
    assert "as fp32; its checkpoint is bf16" in err
    ids = np.arange(8, dtype=np.int64)[None]
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    served = graph.Session(here.repository / "half/1/model.onnx").run(inputs)["logits"]
    with torch.no_grad():
        expected = model.float().eval()(**{name: torch.from_numpy(array) for name, array in inputs.items()}).logits
    np.testing.assert_allclose(served, expected.numpy(), atol=1e-5)


def test_positions_that_begin_after_the_padding_leave_fewer_tokens(here: Project) -> None:
    config = transformers.RobertaConfig(**TINY, max_position_embeddings=22, pad_token_id=1)
    transformers.RobertaModel(config).save_pretrained("roberta")
    recipe, _ = described(here, "roberta")
    assert recipe["shapes"]["sequence"]["max"] == 20
    Path("roberta/modules.json").write_text(
        json.dumps([{"path": "", "type": "sentence_transformers.models.Transformer"},
                    {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}])
    )  # fmt: skip
    Path("roberta/1_Pooling").mkdir()
    Path("roberta/1_Pooling/config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    Path("roberta/sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 12}))
    Path("net.yaml").unlink()
    assert described(here, "roberta")[0]["shapes"]["sequence"]["max"] == 12


def test_long_models_get_512_tokens_and_a_word_on_what_they_take(here: Project) -> None:
    transformers.BertModel(transformers.BertConfig(**TINY, max_position_embeddings=600)).save_pretrained("long")
    recipe, text = described(here, "long")
    assert recipe["shapes"]["sequence"]["max"] == 512
    assert "up to 600 tokens" in text


def test_pictures_have_the_size_that_the_directory_says(here: Project) -> None:
    vit = transformers.ViTConfig(**{**TINY, "num_labels": 5}, image_size=32, patch_size=8)
    transformers.ViTForImageClassification(vit).save_pretrained("vit")
    recipe, _ = described(here, "vit")
    assert recipe["inputs"] == {"pixel_values": {"dtype": "fp32", "dims": [3, 32, 32]}}
    assert recipe["outputs"] == {"logits": {"dtype": "fp32", "dims": [5]}}


def test_clip_keeps_its_embeddings_and_says_why_its_logits_are_left_out(here: Project) -> None:
    text = {**TINY, "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = {**TINY, "image_size": 32, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    transformers.CLIPModel(config).save_pretrained("clip")
    recipe, comments = described(here, "clip")
    assert recipe["inputs"]["pixel_values"]["dims"] == [3, 32, 32]
    assert recipe["shapes"]["sequence"]["max"] == 16
    assert set(recipe["outputs"]) == {"text_embeds", "image_embeds"}
    assert "'logits_per_image' has shape [2, 2]" in comments


def test_a_decoder_is_refused_with_a_function_whose_encoder_builds(here: Project) -> None:
    """T5's fused attention cannot be exported; its steps can."""
    transformers.T5ForConditionalGeneration(transformers.T5Config(**T5)).save_pretrained("t5")
    status, _, err = here.run("init", "t5")
    assert status == 2
    assert "step by step" in err
    code, _, command = err.partition("\n\n")[2].rpartition("\n\n")[0], "", err.rpartition("`tritonkit ")[2]
    Path("FILE.py").write_text(code)
    recipe, _ = described(here, *shlex.split(command.partition("`")[0])[1:])
    assert set(recipe["inputs"]) == {"input_ids", "attention_mask"}
    status, _, err = here.build()
    assert status == 0, err


def test_what_init_does_not_know_is_named_with_the_command_that_says_it(here: Project) -> None:
    config = transformers.Wav2Vec2Config(**TINY, conv_dim=(8,), conv_stride=(4,), conv_kernel=(8,),
                                         num_conv_pos_embedding_groups=2, num_conv_pos_embeddings=4)  # fmt: skip
    transformers.Wav2Vec2Model(config).save_pretrained("audio")
    status, _, err = here.run("init", "audio")
    assert status == 2
    assert "input_values" in err
    Path("FILE.py").write_text(err.partition("\n\n")[2].rpartition("\n\n")[0])
    command = err.rpartition("`tritonkit ")[2].partition("`")[0].replace("DIMS", "400")
    assert described(here, *shlex.split(command)[1:])[0]["outputs"]


def test_a_module_in_half_precision_is_told_to_become_fp32(here: Project) -> None:
    code = "import torch\ndef half(): return torch.nn.Linear(4, 3).to(torch.bfloat16)\n"
    code += (
        "class Inside(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.f = half()\n"
    )
    code += "    def forward(self, x): return self.f(x.to(torch.bfloat16)).float()\ndef load(): return Inside()\n"
    here.write(code)
    status, _, err = here.build()
    assert status == 2
    assert "weights of bf16" in err
    assert "module.float()" in err
