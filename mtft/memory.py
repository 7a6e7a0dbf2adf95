"""How much memory a training process needs on its GPU: an estimate from the card's geometry and the settings.

Checked against what PyTorch keeps for the backward pass on a CPU (tests/trainer/test_memory.py), where only the masks
of dropout are larger; never yet against a GPU's own peak. Translating dev and test rows, which happens before and
after, is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from mtft.config import Config
from mtft.models import GIB, ModelCard

# NF4 with double quantisation: 4 bits, and 8 + 32/256 bits for each block of 64 weights (Dettmers et al. 2023).
_NF4_BYTES = 0.5 + (8 + 32 / 256) / 64 / 8
# Logits in half precision, in fp32, their exponentials, and the gradients of each: measured, bytes for each entry.
_LOGIT_BYTES = 22
_CONTEXT_GIB = 0.8  # CUDA context, libraries and their workspaces
_GROUP_GIB = 0.5  # NCCL's buffers, where there are several processes
# Blocks of the caching allocator that no tensor fills.
_UNUSED = 0.1


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Memory of one training process, in GiB.

    Attributes:
        weights: the base model, and the half-precision copies that the forward pass keeps for the backward pass.
        trained: adapter weights (none under full), gradients and the two moments of AdamW.
        activations: what the layers keep for the backward pass.
        logits: the scores over the vocabulary and their gradients.
        fixed: what CUDA and the allocator take besides.
    """

    weights: float
    trained: float
    activations: float
    logits: float
    fixed: float

    @property
    def total(self) -> float:
        """The sum."""
        return sum(self.as_dict().values())

    def as_dict(self) -> dict[str, float]:
        """Return every item by its name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def __str__(self) -> str:
        items = ", ".join(f"{name} {gib:.1f}" for name, gib in self.as_dict().items())
        return f"{self.total:.1f} GiB ({items})"


def training_memory(card: ModelCard, config: Config) -> Memory:
    """Estimate the memory of one training process at its peak, the backward pass of its largest micro-batch."""
    train = config.train
    size = 4 if train.precision == "fp32" else 2
    # A row that is longer than the budget is a micro-batch of its own.
    tokens = max(train.micro_batch_tokens, train.max_source_length + train.max_target_length)
    source = target = tokens / 2
    stages = {
        "weights": _weights(card, config.method, size),
        "trained": _trained(card, config),
        "activations": _activations(card, config, size, source, target),
        "logits": target * card.vocabulary_size * _LOGIT_BYTES,
    }
    gib = {name: amount / GIB for name, amount in stages.items()}
    processes = config.cluster.nodes * (config.cluster.processes_per_node or max(1, config.cluster.gpus_per_node))
    fixed = _CONTEXT_GIB + (_GROUP_GIB if processes > 1 else 0) + _UNUSED * (gib["activations"] + gib["logits"])
    return Memory(**gib, fixed=fixed)


def layer_bytes(card: ModelCard, method: str, size: int) -> tuple[float, float, float]:
    """Return the bytes kept for the backward pass by each token: encoder layer, decoder layer, and its cross-attention.

    The last counts source tokens, the others their own. ``size`` is that of a number in the forward pass: 2 or 4.
    Kept are the inputs of norms in fp32, of matrix products, of the fused attention and of the activation, and a byte
    for each number that dropout looked at; frozen matrices keep no input, adapters keep their own after dropout.
    """
    d, inner = card.d_model, card.d_ff
    if method == "full":
        layer = d * (8 + 8 * size + 2) + inner * 2 * size
        return layer, layer + d * (4 + 3 * size + 1), d * 4 * size
    adapter = size + 1
    layer = d * (8 + 4 * size + 5 * adapter + 2) + inner * (size + adapter)
    return layer, layer + d * (4 + 2 * size + 2 * adapter + 1), d * (2 * size + 2 * adapter)


def refusal(card: ModelCard, config: Config) -> str | None:
    """Say that the training cannot fit ``cluster.gpu_memory_gib``; None where it can, or where that is not known."""
    available = config.cluster.gpu_memory_gib
    if available is None or not config.cluster.gpus_per_node:
        return None
    return shortage(card, config, available, f"cluster.gpu_memory_gib is {available:g}")


def shortage(card: ModelCard, config: Config, available: float, found: str) -> str | None:
    """Say that the training cannot fit GPUs of ``available`` GiB, in the words of ``found``; None where it can."""
    memory = training_memory(card, config)
    if memory.total <= available:
        return None
    return (
        f"{card.key} with method {config.method} needs about {memory}, but {found}; "
        "lower train.micro_batch_tokens and the lengths, set train.gradient_checkpointing: true or method: qlora, "
        "or choose a larger GPU"
    )


def _weights(card: ModelCard, method: str, size: int) -> float:
    embeddings = card.vocabulary_size * card.d_model
    matrices = card.parameters - embeddings - 2 * card.learned_positions * card.d_model
    copied = 0 if size == 4 else size
    if method == "qlora":
        return 4 * (card.parameters - matrices) + _NF4_BYTES * matrices + copied * embeddings
    return 4 * card.parameters + copied * (matrices + embeddings)


def _trained(card: ModelCard, config: Config) -> float:
    """Return the bytes of gradients and moments, 12 for each weight, and of the adapters themselves, 4."""
    return 12 * card.parameters if config.method == "full" else 16 * card.lora_parameters(config.lora.r)


def _activations(card: ModelCard, config: Config, size: int, source: float, target: float) -> float:
    encoder, decoder, cross = layer_bytes(card, config.method, size)
    if config.train.gradient_checkpointing:
        # Each layer keeps its input in fp32; one layer at a time is computed anew.
        kept = 4 * card.d_model * (card.encoder_layers * source + card.decoder_layers * target)
        return kept + decoder * target + cross * source
    return card.encoder_layers * encoder * source + card.decoder_layers * (decoder * target + cross * source)
