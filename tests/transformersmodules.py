"""Small nets of transformers' architectures with random weights, to be built as those of :mod:`modules`."""

from __future__ import annotations

from typing import Any

from modulekinds import TOKENS, kind

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
WORDS = SMALL | {"vocab_size": 50, "max_position_embeddings": 64}


@kind(TOKENS)
def transformers_bert() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(**WORDS))


@kind(TOKENS)
def transformers_distilbert() -> Any:
    from transformers import DistilBertConfig, DistilBertForTokenClassification

    config = DistilBertConfig(vocab_size=50, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=64)
    return DistilBertForTokenClassification(config)


@kind(TOKENS)
def transformers_gpt2() -> Any:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    config = GPT2Config(
        vocab_size=50,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        use_cache=False,
    )
    return GPT2ForSequenceClassification(config)


@kind(TOKENS)
def transformers_t5_encoder() -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(vocab_size=50, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2))


@kind(TOKENS)
def transformers_llama() -> Any:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    return LlamaForSequenceClassification(LlamaConfig(**WORDS, pad_token_id=0, use_cache=False))


@kind({"pixel_values": "fp32:3,32,32"})
def transformers_yolos() -> Any:
    from transformers import YolosConfig, YolosForObjectDetection

    return YolosForObjectDetection(YolosConfig(**SMALL, image_size=[32, 32], patch_size=8, num_detection_tokens=4))


@kind({"pixel_values": "fp32:3,32,32"})
def transformers_convnext() -> Any:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(hidden_sizes=[16, 16, 32, 32], depths=[1, 1, 1, 1], num_labels=4)
    return ConvNextForImageClassification(config)


@kind({"input_values": "fp32:800"})
def transformers_wav2vec2() -> Any:
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    config = Wav2Vec2Config(
        **SMALL, vocab_size=12, conv_dim=(16, 16), conv_stride=(5, 2), conv_kernel=(10, 3),
        num_conv_pos_embedding_groups=2, num_conv_pos_embeddings=4,
    )  # fmt: skip
    return Wav2Vec2ForCTC(config)


@kind({"pixel_values": "fp32:3,32,32"})
def transformers_resnet() -> Any:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=4)
    return ResNetForImageClassification(config)


@kind({"pixel_values": "fp32:3,32,32"})
def transformers_vit() -> Any:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(**SMALL, image_size=32, patch_size=8, num_labels=4))


@kind({"pixel_values": "fp32:3,32,32"})
def transformers_segmentation() -> Any:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[16, 32], patch_sizes=[7, 3],
        strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16, num_labels=3,
    )  # fmt: skip
    return SegformerForSemanticSegmentation(config)
