"""The one interface between what speaks to people and what computes: tokens in, sampled tokens out.

`Generator` is implemented by the local engine now, and by remote peers and pipelines in the same words. Everything
above it (template, tools, stop strings, detokenizing) runs on the requester's machine and needs only `Model`.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Literal, NewType, Protocol

import msgspec

TokenId = NewType("TokenId", int)
Profile = Literal["fast", "exact"]
FinishReason = Literal["end", "length"]

MAX_SEED = 2**63 - 1
MAX_TOP_LOGPROBS = 20


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the next token is chosen. The defaults choose the most likely token: nothing is drawn at temperature 0.

    The filters are llama.cpp's own, in this order: logit bias, grammar, penalties, DRY, top-k, top-p, min-p,
    temperature. Then the draw is `argmax(logits + Gumbel(PRF(seed, position, token)))` over what is left: the same on
    every machine.
    """

    seed: int = 0
    temperature: float = 0.0
    top_k: int = 0
    """0 keeps all."""
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_last_n: int = 64
    """Tokens the penalties look back on; -1 = the whole context."""
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_last_n: int = -1
    logit_bias: Mapping[int, float] = {}
    """Token to what is added to its logit; -100 or less forbids it."""
    grammar: str = ""
    """GBNF; the root rule is `root`. Empty: no constraint."""
    grammar_trigger: str = ""
    """A string; the grammar holds only from where it is generated on, and sees it first. Empty: from the start."""
    logprobs: int = -1
    """-1: none. 0: of the chosen token. n: of the n most likely tokens too. Before all filters."""
    ignore_end: bool = False
    """Go on after an end-of-generation token (benchmarks)."""


class Usage(msgspec.Struct, frozen=True):
    """What one generation took. Durations in seconds."""

    prompt_tokens: int
    cached_tokens: int
    """How many of the prompt's tokens were not computed, because a sequence held them already."""
    generated_tokens: int
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """One token, or the end. The last step of a generation has `finish` and `usage` and no token.

    The first step has a `usage` too, of what there was until then: for those who stop before the end.

    An end-of-generation token is never a step: it shows as `finish="end"`.
    """

    token: TokenId | None = None
    logprob: float | None = None
    """Natural logarithm."""
    top: tuple[tuple[TokenId, float], ...] = ()
    finish: FinishReason | None = None
    usage: Usage | None = None


class Vocabulary(msgspec.Struct, frozen=True):
    """The bytes of every token, in two buffers instead of a Python object per token."""

    CONTROL = 1
    END = 2
    UNUSED = 4
    USER_DEFINED = 8

    pieces: bytes
    """All pieces, one after the other. Control tokens have their text, such as `<|im_end|>`."""
    offsets: bytes
    """uint32, native order, size + 1 of them: piece i is `pieces[offsets[i]:offsets[i + 1]]`."""
    attributes: bytes
    """One byte per token: CONTROL, END (of generation), UNUSED, USER_DEFINED."""
    bos: int = -1
    eos: int = -1
    add_bos: bool = False

    @property
    def size(self) -> int:
        """Number of tokens."""
        return len(self.attributes)

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; may begin or end inside a UTF-8 character. Raises IndexError."""
        offsets = memoryview(self.offsets).cast("I")
        return self.pieces[offsets[token] : offsets[token + 1]]

    def is_control(self, token: int) -> bool:
        """Whether a token is markup of the model's own (never text to be shown)."""
        return bool(self.attributes[token] & self.CONTROL)

    def is_end(self, token: int) -> bool:
        """Whether a token ends a generation."""
        return bool(self.attributes[token] & self.END)

    @classmethod
    def of(
        cls, pieces: Sequence[bytes], attributes: bytes, *, bos: int = -1, eos: int = -1, add_bos: bool = False
    ) -> Vocabulary:
        """Pack a list of pieces."""
        offsets = array("I", [0])
        total = 0
        for piece in pieces:
            total += len(piece)
            offsets.append(total)
        return cls(b"".join(pieces), offsets.tobytes(), attributes, bos, eos, add_bos)


class ModelFacts(msgspec.Struct, frozen=True):
    """What is known of a loaded model: read from its header or measured while loading."""

    name: str
    architecture: str
    context: int
    """Tokens that one request (prompt and answer) may have, here and now."""
    context_trained: int
    layers: int
    embedding_length: int
    parameters: int
    file_bytes: int
    templates: Mapping[str, str] = {}
    """Chat templates of the file: `default`, and named ones such as `tool_use`. Empty for base models."""
    profile: Profile = "fast"
    fingerprint: str = ""
    """Kernel fingerprint: equal on machines that compute equal bits (hex SHA-256)."""
    exact: str = ""
    """Empty where the probe found this model exact here, else the reason why not."""
    exact_block: int = 0
    exact_small: int = 0
    threads: int = 1
    sequences: int = 1
    """Requests that are computed at the same time; more wait in the queue."""
    adapter: str = ""


class Generator(Protocol):
    """Tokens in, sampled tokens out: the only thing the chat layer knows about where a model runs."""

    def generate(self, prompt: Sequence[TokenId], sampling: Sampling, *, max_tokens: int) -> AsyncGenerator[Step, None]:
        """Generate at most `max_tokens` tokens after `prompt`; closing the iterator frees the sequence at once.

        Raises ContextOverflow if prompt + 1 does not fit, QueueFull, WorkerDied, BadRequest for a grammar that does
        not parse. `max_tokens` above what is left of the context is lowered to it.
        """
        ...


class Model(Generator, Protocol):
    """A generator together with what is needed to speak to it in text."""

    @property
    def facts(self) -> ModelFacts: ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    async def tokenize(self, text: str, *, special: bool, bos: bool) -> list[TokenId]:
        """Text to tokens. `special`: parse control tokens. `bos`: begin token in front if the model wants it."""
        ...

    async def grammar_for(self, schema: Mapping[str, object]) -> str:
        """A JSON schema as GBNF. Raises BadRequest for a schema that cannot be enforced."""
        ...

    async def embed(self, inputs: Sequence[Sequence[TokenId]]) -> list[list[float]]:
        """One L2-normalized vector of `embedding_length` floats per input. Raises ContextOverflow."""
        ...
