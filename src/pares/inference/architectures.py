"""Architectures whose layers may be computed apart, and what a slice of each has to keep as it is. Pure.

What llama.cpp makes of a header differs by architecture. One is here if a test proves that stages and head, cut
anywhere, give the bits of the whole model; any other is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pares.errors import NotSupported
from pares.inference.header import GGUFArray, Header, defect


@dataclass(frozen=True, slots=True)
class Kinds:
    """Layers of two kinds, in an order that llama.cpp derives from their numbers unless the metadata lists it.

    Keys are without the architecture's prefix.
    """

    key: str
    """Where the metadata lists the kind of each layer: True or False."""
    period: int
    """Without a list the last of every so many layers is False, all others are True; 0: all are True."""
    period_key: str
    """Where the metadata says another period."""
    needed: tuple[bool, ...]
    """Kinds of which llama.cpp wants at least one layer in every file."""
    only_with: str = ""
    """A count without which there are no kinds."""

    def of(self, header: Header) -> tuple[bool, ...]:
        """The kind of each layer; empty where the model makes no difference. Raises BrokenModelFile."""
        if self.only_with and not header.fact(self.only_with):
            return ()
        key = f"{header.architecture}.{self.key}"
        listed = header.metadata.get(key)
        if isinstance(listed, GGUFArray):
            kinds = tuple(bool(each) for each in listed)
        else:
            period = header.fact(self.period_key, self.period)
            kinds = tuple(period == 0 or layer % period < period - 1 for layer in range(header.block_count))
        if len(kinds) != header.block_count or not set(self.needed) <= set(kinds):
            raise defect(f"its pattern `{key}` does not fit its layers", header.spans.get(key, (0, 0))[0])
        return kinds


@dataclass(frozen=True, slots=True)
class Architecture:
    """What llama.cpp makes of an architecture's header, as far as a slice must not change it."""

    kinds: Kinds | None = None
    free_heads: bool = True
    """Attention heads may have any number and size, not only those that make up the hidden state's width."""
    counts: frozenset[int] = frozenset()
    """Numbers of layers from which llama.cpp concludes how to compute."""
    required: str = ""
    """A key (without prefix) without which llama.cpp does not take hidden states."""


def _sliding(period: int) -> Kinds:
    key = "attention.sliding_window_pattern"
    return Kinds(key, period, period_key=key, needed=(True,), only_with="attention.sliding_window")


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "llama": Architecture(),
        "mistral3": Architecture(),
        "qwen2": Architecture(free_heads=False),
        "qwen3": Architecture(),
        "qwen3moe": Architecture(),
        "qwen35": Architecture(
            kinds=Kinds("attention.recurrent_layers", 4, period_key="full_attention_interval", needed=(True, False)),
            free_heads=False,
        ),
        # 62 layers are the 27B, whose attention is scaled otherwise.
        "gemma3": Architecture(kinds=_sliding(6), counts=frozenset({62})),
        "gpt-oss": Architecture(kinds=_sliding(2)),
        "phi3": Architecture(free_heads=False),
        "granite": Architecture(),
        # The lite variants are known by their layers; some of them gate their experts otherwise.
        "deepseek2": Architecture(counts=frozenset({26, 27, 47, 48})),
        "glm4": Architecture(required="rope.dimension_sections"),
    }
)


def architecture_of(header: Header) -> Architecture:
    """What is known of a model's architecture. Raises NotSupported for one that is not proven, by its name."""
    name = header.architecture
    known = ARCHITECTURES.get(name)
    if not known:
        raise NotSupported(
            f"Models of the architecture {name!r:.80} are not pooled: nothing proves yet that their layers, computed "
            "apart, give what the whole model gives.",
            hint=f"Run it whole. Proven are: {', '.join(ARCHITECTURES)}.",
        )
    if known.required and f"{name}.{known.required}" not in header.metadata:
        raise NotSupported(
            f"This {name} cannot be pooled: llama.cpp takes no hidden states without `{name}.{known.required}`.",
            hint="Run it whole, or convert it anew with a recent llama.cpp.",
        )
    if header.fact("nextn_predict_layers"):
        raise NotSupported(
            f"This {name} has layers that predict several tokens at once; such models are not pooled.",
            hint="Run it whole, or use a file without these layers.",
        )
    return known
