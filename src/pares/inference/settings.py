"""What can be set about computing models on this machine."""

from __future__ import annotations

from dataclasses import dataclass, field

from pares.inference.generation import Profile


@dataclass(frozen=True, slots=True)
class Settings:
    """The inference room."""

    threads: int = field(
        default=0,
        metadata={
            "description": "Threads per model; 0 = the physical cores that are not busy when it loads",
            "least": 0,
        },
    )
    context: int = field(
        default=0,
        metadata={
            "description": "Tokens one request may have; 0 = as many as the model was trained for and fit",
            "least": 0,
        },
    )
    largest_default_context: int = field(
        default=32768, metadata={"description": "What `context = 0` goes up to at most", "least": 256}
    )
    profile: Profile = field(
        default="fast",
        metadata={"description": "fast, or exact: the same text bit for bit whatever else is computed beside it"},
    )
    keep_alive_s: float = field(
        default=300.0,
        metadata={"description": "Unload a model that nobody has used for so long; negative = never"},
    )
    running: int = field(
        default=8, metadata={"description": "Requests a model computes at the same time", "least": 1, "most": 32}
    )
    queue: int = field(
        default=64, metadata={"description": "Requests that may wait per model; more get 429", "least": 0}
    )
    batch: int = field(
        default=512, metadata={"description": "Rows llama.cpp computes in one call at most", "least": 64, "most": 4096}
    )
    step_target_s: float = field(
        default=0.15,
        metadata={
            "description": "How long a running answer may pause for a piece of somebody's long prompt",
            "least": 0.01,
        },
    )
    gpu_layers: int = field(
        default=-1, metadata={"description": "Layers on the GPU, if llama.cpp was built for one; -1 = all"}
    )
    memory_reserve_bytes: int = field(
        default=256 * 2**20, metadata={"description": "Memory to leave free for everything else", "least": 0}
    )
    load_timeout_s: float = field(
        default=600.0, metadata={"description": "How long loading a model may take", "least": 1}
    )
