"""A model in a worker process of this machine, as everything that speaks to people uses it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence

from pares.errors import BadRequest, ContextOverflow, QueueFull
from pares.inference.generation import ModelFacts, Sampling, Step, TokenId, Vocabulary
from pares.inference.supervisor import WorkerProcess

MAX_BYTES_PER_TOKEN = 64
"""A text with more bytes than this per token of context is refused before it is tokenized."""


class LocalModel:
    """`Model` of `generation`. At most `queue` requests wait beside those that are computed."""

    def __init__(self, worker: WorkerProcess, facts: ModelFacts, adapter: str, queue: int) -> None:
        self._worker = worker
        self._adapter = adapter
        self._queue = queue
        self.facts = facts

    @property
    def vocabulary(self) -> Vocabulary:
        return self._worker.vocabulary

    async def tokenize(self, text: str, *, special: bool, bos: bool) -> list[TokenId]:
        """See `Model.tokenize`. Raises ContextOverflow for a text that could not fit by far."""
        if len(text) > self.facts.context * MAX_BYTES_PER_TOKEN:
            raise ContextOverflow(len(text) // 4, self.facts.context)
        return await self._worker.tokenize(text, special=special, bos=bos)

    async def grammar_for(self, schema: Mapping[str, object]) -> str:
        """See `Model.grammar_for`."""
        return await self._worker.grammar_for(schema)

    def generate(self, prompt: Sequence[TokenId], sampling: Sampling, *, max_tokens: int) -> AsyncGenerator[Step, None]:
        """See `Generator.generate`; what can be told at once is raised at once."""
        context = self.facts.context
        if not prompt:
            raise BadRequest("The prompt is empty.", param="prompt")
        if len(prompt) >= context:
            raise ContextOverflow(len(prompt) + 1, context)
        self._require_place()
        most = min(max_tokens, context - len(prompt))
        return self._worker.generate(prompt, sampling, max_tokens=most, adapter=self._adapter)

    async def embed(self, inputs: Sequence[Sequence[TokenId]]) -> list[list[float]]:
        """See `Model.embed`."""
        for tokens in inputs:
            if len(tokens) > self.facts.context:
                raise ContextOverflow(len(tokens), self.facts.context, param="input")
            if not tokens:
                raise BadRequest("There is nothing to embed in an empty input.", param="input")
        if not inputs:
            return []
        self._require_place()
        return await self._worker.embed(inputs, adapter=self._adapter)

    def _require_place(self) -> None:
        sequences = max(1, self.facts.sequences)
        waiting = self._worker.requests - sequences
        if waiting >= self._queue:
            raise QueueFull(waiting, self._queue, retry_after_s=max(1, waiting // sequences))
