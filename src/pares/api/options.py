"""Sampling options in the words people use, from several layers, as one `Sampling`.

The words are Ollama's, which a `create`d model's defaults use too, with OpenAI's beside them.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from pares.errors import BadRequest
from pares.inference.generation import MAX_SEED, Sampling

MAX_STOPS = 64
MAX_STOP_LENGTH = 1000
MAX_BIASES = 4096
INT_MAX = 2**31 - 1

OLLAMA_DEFAULTS: Final[Mapping[str, object]] = {
    "temperature": 0.8, "top_k": 40, "top_p": 0.9, "repeat_penalty": 1.1, "repeat_last_n": 64,
}  # fmt: skip
OPENAI_DEFAULTS: Final[Mapping[str, object]] = {"temperature": 1.0}


@dataclass(frozen=True, slots=True)
class _Number:
    """Where a number goes and which values mean something."""

    field: str
    kind: type[int] | type[float]
    low: float
    high: float


_NUMBERS: Final = {
    "temperature": _Number("temperature", float, 0, 100),
    "top_k": _Number("top_k", int, -1, INT_MAX),
    "top_p": _Number("top_p", float, 0, 1),
    "min_p": _Number("min_p", float, 0, 1),
    "repeat_penalty": _Number("repeat_penalty", float, 0.01, 100),
    "repetition_penalty": _Number("repeat_penalty", float, 0.01, 100),
    "frequency_penalty": _Number("frequency_penalty", float, -100, 100),
    "presence_penalty": _Number("presence_penalty", float, -100, 100),
    "repeat_last_n": _Number("penalty_last_n", int, -1, INT_MAX),
    "dry_multiplier": _Number("dry_multiplier", float, 0, 100),
    "dry_base": _Number("dry_base", float, 0, 100),
    "dry_allowed_length": _Number("dry_allowed_length", int, 0, INT_MAX),
    "dry_penalty_last_n": _Number("dry_last_n", int, -1, INT_MAX),
    "seed": _Number("seed", int, -(2**63), 2**64),
    "num_predict": _Number("max_tokens", int, -2, INT_MAX),
    "max_tokens": _Number("max_tokens", int, 1, INT_MAX),
    "max_completion_tokens": _Number("max_tokens", int, 1, INT_MAX),
    "num_ctx": _Number("context", int, 0, INT_MAX),
}

_OF_THE_MACHINE: Final = frozenset({
    "embedding_only", "f16_kv", "logits_all", "low_vram", "main_gpu", "num_batch", "num_gpu", "num_keep", "num_thread",
    "numa", "use_mlock", "use_mmap", "vocab_only",
})  # fmt: skip
"""What Pares decides by itself: taken without a word."""


@dataclass(frozen=True, slots=True)
class Options:
    """All layers together."""

    sampling: Sampling
    max_tokens: int | None
    """None: as long as the context lasts."""
    context: int | None
    """Tokens the model should be loaded with at least; None: does not matter."""
    stop: tuple[str, ...]
    warnings: tuple[str, ...]


def settle(*layers: Mapping[str, object], sampling: Sampling | None = None) -> Options:
    """Later layers win; None is "not given". What has no number form (bias, logprobs) is given by `sampling`.

    Without a seed a random one is chosen, so that it can be told. Raises BadRequest for values that mean nothing.
    """
    given = {name: value for layer in layers for name, value in layer.items() if value is not None}
    fields: dict[str, float] = {}
    warnings = []
    for name, value in given.items():
        if number := _NUMBERS.get(name):
            fields[number.field] = _read(name, value, number)
        elif name != "stop" and name not in _OF_THE_MACHINE:
            warnings.append(f"option {name[:100]!r} is not known here and was ignored")
    max_tokens, context = int(fields.pop("max_tokens", -1)), int(fields.pop("context", 0))
    seed = int(fields.pop("seed", -1))
    fields["top_k"] = max(0, fields.get("top_k", 0))
    return Options(
        sampling=msgspec.structs.replace(
            sampling or Sampling(), **fields, seed=seed % (MAX_SEED + 1) if seed >= 0 else random_seed()
        ),
        max_tokens=max_tokens if max_tokens > 0 else None,
        context=context or None,
        stop=_stops(given.get("stop")),
        warnings=tuple(warnings[:20]),
    )


def random_seed() -> int:
    """53 bits: a seed that every JSON reader can tell back exactly."""
    return secrets.randbits(53)


def with_seed_of(sampling: Sampling, index: int) -> Sampling:
    """The sampling of answer number `index` of several to one request."""
    return msgspec.structs.replace(sampling, seed=(sampling.seed + index) % (MAX_SEED + 1)) if index else sampling


def biases(given: Mapping[int, float] | None, vocabulary: int) -> dict[int, float]:
    """OpenAI's `logit_bias`, checked against the vocabulary. Raises BadRequest."""
    if not given:
        return {}
    if len(given) > MAX_BIASES:
        raise BadRequest(f"logit_bias has {len(given)} entries; {MAX_BIASES} are possible.", param="logit_bias")
    for token, bias in given.items():
        if not 0 <= token < vocabulary:
            raise BadRequest(f"{token} is no token of this model: it has {vocabulary}.", param="logit_bias")
        if not -100 <= bias <= 100:
            raise BadRequest(f"A bias must be from -100 to 100; that of {token} is {bias}.", param="logit_bias")
    return dict(given)


def _read(name: str, value: object, number: _Number) -> float:
    if isinstance(value, str) and len(value) < 40:  # a Modelfile has only text
        try:
            value = float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest(f"{name} must be a number.", param=name)
    if not number.low <= value <= number.high:  # false for NaN too
        raise BadRequest(f"{name} must be from {number.low:g} to {number.high:g}.", param=name)
    if number.kind is int and value != int(value):
        raise BadRequest(f"{name} must be a whole number.", param=name)
    return number.kind(value)


def _stops(value: object) -> tuple[str, ...]:
    given = [value] if isinstance(value, str) else value or []
    if not isinstance(given, list | tuple) or not all(isinstance(item, str) for item in given):
        raise BadRequest("stop must be a string or a list of strings.", param="stop")
    if len(given) > MAX_STOPS or any(len(item) > MAX_STOP_LENGTH for item in given):
        raise BadRequest(f"stop may have {MAX_STOPS} strings of {MAX_STOP_LENGTH} characters.", param="stop")
    return tuple(item for item in given if item)
