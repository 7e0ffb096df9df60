"""Figures for Prometheus. Models are named, prompts never."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pares.api.services import Services
from pares.api.streams import closing
from pares.chat.messages import Finished, Piece
from pares.inference.generation import Usage

_FIRST_TOKEN_S = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
_TOKENS_PER_S = (0.3, 1, 3, 5, 10, 20, 30, 50, 100, 200, 500)


class Metrics:
    """The counters of one application, in a registry of their own."""

    CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, services: Services) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "pares_requests", "Requests by address and status", ["route", "method", "status"], registry=registry
        )
        self._tokens = Counter(
            "pares_tokens",
            "Tokens by kind: prompt, cached (of the prompt), generated",
            ["model", "kind"],
            registry=registry,
        )
        self._first_token = Histogram(
            "pares_first_token_seconds", "Time to the first piece of an answer", ["model"],
            buckets=_FIRST_TOKEN_S, registry=registry,
        )  # fmt: skip
        self._speed = Histogram(
            "pares_tokens_per_second", "Tokens per second of one answer, after its first", ["model"],
            buckets=_TOKENS_PER_S, registry=registry,
        )  # fmt: skip
        registry.register(_Now(services))

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)

    def count(self, model: str, usage: Usage) -> None:
        """Note what one generation took."""
        self._tokens.labels(model, "prompt").inc(usage.prompt_tokens)
        self._tokens.labels(model, "cached").inc(usage.cached_tokens)
        self._tokens.labels(model, "generated").inc(usage.generated_tokens)
        if usage.decode_s > 0 and usage.generated_tokens > 1:
            self._speed.labels(model).observe((usage.generated_tokens - 1) / usage.decode_s)

    async def watch(self, model: str, pieces: AsyncIterator[Piece]) -> AsyncGenerator[Piece, None]:
        """Pass the pieces of an answer on and note how it went."""
        begun = time.perf_counter()
        first = True
        async with closing(pieces) as running:
            async for piece in running:
                if first:
                    self._first_token.labels(model).observe(time.perf_counter() - begun)
                    first = False
                if isinstance(piece, Finished):
                    self.count(model, piece.usage)
                yield piece


class _Now(Collector):
    """What is so at the moment of asking."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        running = GaugeMetricFamily("pares_running", "Requests that are being computed", labels=["model"])
        waiting = GaugeMetricFamily("pares_waiting", "Requests in the queue", labels=["model"])
        memory = GaugeMetricFamily("pares_model_memory_bytes", "Resident memory of a model's worker", labels=["model"])
        for model in self._services.loaded():
            running.add_metric([model.name], model.running)
            waiting.add_metric([model.name], model.waiting)
            memory.add_metric([model.name], model.memory_bytes)
        status = self._services.status()
        yield from (running, waiting, memory)
        yield GaugeMetricFamily("pares_models_loaded", "Models in memory", value=len(status.loaded))
        for name, (what, value) in {**self._services.network.figures(), **self._services.commons.figures()}.items():
            yield GaugeMetricFamily(f"pares_{name}", what, value=value)
        yield GaugeMetricFamily(
            "pares_memory_bytes", "Resident memory of the node, without workers", value=status.memory_bytes
        )
        yield GaugeMetricFamily("pares_pulls_active", "Downloads that are going on", value=status.pulls_active)
