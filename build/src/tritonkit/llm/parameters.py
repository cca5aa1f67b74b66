"""How many numbers a language model has, by part, from its ``config.json`` alone.

What a step reads and multiplies follows from it; what lies in files is for :mod:`tritonkit.llm.weights`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tritonkit.errors import SourceError
from tritonkit.llm.directory import CONFIG, Directory

_PLAIN_MLP = frozenset(
    {"gpt2", "gpt_neox", "gptj", "opt", "bloom", "falcon", "phi", "gpt_bigcode", "mpt", "starcoder2"}
)
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_ROUTED = ("num_experts_per_tok", "experts_per_token", "num_experts_per_token", "moe_topk")


@dataclass(frozen=True)
class Parameters:
    """Numbers of a model's matrices; biases and norms, which are below a thousandth, are left out.

    Attributes:
        embedding: Of the table of the vocabulary.
        head: Of the matrix that makes logits; it is ``embedding`` again where ``tied``.
        tied: Whether both are one.
        attention: Of all layers' attention.
        dense: Of what each token goes through beside it: MLPs, shared experts, routers.
        experts: Of all routed experts.
        routed: Of the routed experts that one token goes through.
        expert_count: Routed experts of a layer; 0 where there are none.
        mlp_width: Numbers of the widest layer between two matrices, for one token: gate and up of an MLP, or those of
            all experts that a token goes through.
    """

    embedding: int
    head: int
    tied: bool
    attention: int
    dense: int
    experts: int
    routed: int
    expert_count: int
    mlp_width: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.embedding + (0 if self.tied else self.head) + self.attention + self.dense + self.experts

    @property
    def active(self) -> int:
        """Those that one token is multiplied with, logits among them."""
        return self.head + self.layers_active

    @property
    def layers_active(self) -> int:
        """Those of the layers that one token is multiplied with."""
        return self.attention + self.dense + self.routed

    def layers_read(self, tokens: float) -> float:
        """Those of the layers that a step over so many tokens reads: experts that no token chose are left alone."""
        if not self.experts:
            return self.layers_active
        missed: float = (1 - self.routed / self.experts) ** tokens
        return self.attention + self.dense + self.experts * (1 - missed)


def of(directory: Directory) -> Parameters:
    """The parts of a directory's model.

    Raises:
        SourceError: A field is missing or no positive number, or two of them contradict each other.
    """
    check(directory)
    hidden, layers = directory.hidden, directory.layers
    vocabulary = directory.needed("vocab_size", "n_vocab")
    gates = 2 if directory.model_type in _PLAIN_MLP else 3
    width = directory.number("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size") or 4 * hidden
    experts = directory.number(*_EXPERTS) or 0
    dense = gates * hidden * width
    if not experts:
        return Parameters(
            vocabulary * hidden, vocabulary * hidden, _tied(directory), layers * _attention(directory), layers * dense,
            0, 0, 0, (gates - 1) * width,
        )  # fmt: skip
    own = directory.number("moe_intermediate_size") or width
    chosen = directory.needed(*_ROUTED)
    if chosen > experts:
        raise _contradiction(directory, f"{chosen} experts a token, and there are {experts}")
    shared = directory.number("shared_expert_intermediate_size") or own * (directory.number("n_shared_experts") or 0)
    plain = _dense_layers(directory, layers)
    sparse = layers - plain
    wide = directory.number("intermediate_size_mlp") or width
    expert = gates * hidden * own
    return Parameters(
        embedding=vocabulary * hidden,
        head=vocabulary * hidden,
        tied=_tied(directory),
        attention=layers * _attention(directory),
        dense=plain * gates * hidden * wide + sparse * (gates * hidden * shared + hidden * experts),
        experts=sparse * experts * expert,
        routed=sparse * chosen * expert,
        expert_count=experts,
        mlp_width=(gates - 1) * max(chosen * own + shared, wide if plain else 0),
    )


def check(directory: Directory) -> None:
    """Hold the fields that everything else is computed from against each other.

    Raises:
        SourceError: A field is missing, is no positive number, or contradicts another.
    """
    sizes = {
        "num_hidden_layers": directory.layers, "hidden_size": directory.hidden,
        "num_attention_heads": directory.heads, "num_key_value_heads": directory.kv_heads,
    }  # fmt: skip
    for name, value in sizes.items():
        if value <= 0:
            raise SourceError(f"{directory.path / CONFIG} has {name} {value}", "a model has one at least; correct it")
    if directory.number("head_dim", "hidden_size_per_head") is None and directory.hidden % directory.heads:
        raise _contradiction(
            directory, f"hidden_size {directory.hidden} over {directory.heads} heads is no whole number"
        )
    if not directory.number("kv_lora_rank") and directory.heads % directory.kv_heads:
        raise _contradiction(
            directory, f"{directory.kv_heads} KV heads do not divide {directory.heads} attention heads"
        )
    kinds: Any = directory.text.get("layer_types")
    if isinstance(kinds, list) and len(kinds) != directory.layers:
        raise _contradiction(directory, f"num_hidden_layers {directory.layers}, and layer_types names {len(kinds)}")


def _attention(directory: Directory) -> int:
    """Numbers of one layer's projections."""
    hidden, heads = directory.hidden, directory.heads
    rank = directory.number("kv_lora_rank")
    if not rank:
        size = directory.head_dim
        return 2 * hidden * size * (heads + directory.kv_heads)
    rope = directory.number("qk_rope_head_dim") or 0
    plain = directory.needed("qk_nope_head_dim")
    value = directory.number("v_head_dim") or plain
    query = directory.number("q_lora_rank")
    queries = query * (hidden + heads * (plain + rope)) if query else hidden * heads * (plain + rope)
    return queries + hidden * (rank + rope) + rank * heads * (plain + value) + heads * value * hidden


def _dense_layers(directory: Directory, layers: int) -> int:
    """Layers of a mixture of experts that have an MLP instead."""
    first = directory.number("first_k_dense_replace") or 0
    named = directory.text.get("mlp_only_layers")
    step = directory.number("interleave_moe_layer_step", "decoder_sparse_step") or 1
    return min(layers, first + (len(named) if isinstance(named, list) else 0) + (layers - layers // step))


def _tied(directory: Directory) -> bool:
    tied = directory.text.get("tie_word_embeddings", directory.config.get("tie_word_embeddings"))
    # Types whose embeddings are tied where the file does not say (transformers' defaults).
    return bool(tied) if tied is not None else directory.model_type in {"gemma", "gemma2", "gemma3_text", "gpt2"}


def _contradiction(directory: Directory, what: str) -> SourceError:
    return SourceError(
        f"{directory.path / CONFIG} contradicts itself: {what}", "take the file from the model's own page"
    )
