"""The bytes of OpenAI's streamed answers. Of each chunk only the text is encoded: the rest is made once."""

from __future__ import annotations

from collections.abc import Sequence

from pares.api.failures import encode
from pares.chat.messages import (
    CallArguments,
    CallBegun,
    Finished,
    Piece,
    Reasoning,
    Text,
    TokenLogprob,
    ToolCall,
)
from pares.inference.generation import Usage

DONE = b"data: [DONE]\n\n"


class ChatChunks:
    """Chunks of one choice of one chat completion."""

    def __init__(self, head: dict[str, object], index: int, *, usage: bool) -> None:
        self._start = b"data: " + encode(head)[:-1] + b',"choices":[{"index":%d,"delta":' % index
        self._end = b'}],"usage":null}\n\n' if usage else b"}]}\n\n"
        self._text = self._start + b'{"content":'
        self._reasoning = self._start + b'{"reasoning_content":'
        self._after = b'},"logprobs":null,"finish_reason":null' + self._end

    def first(self) -> bytes:
        """The chunk with the role, which comes before all others."""
        return self._start + b'{"role":"assistant","content":""},"logprobs":null,"finish_reason":null' + self._end

    def chunk(self, piece: Piece) -> bytes:
        """A piece of the answer as an event."""
        match piece:
            case Text(text, ()):
                return self._text + encode(text) + self._after
            case Text(text, logprobs):
                told = encode({"content": [logprob_of(item) for item in logprobs], "refusal": None})
                return b'%b%b},"logprobs":%b,"finish_reason":null%b' % (self._text, encode(text), told, self._end)
            case Reasoning(text):
                return self._reasoning + encode(text) + self._after
            case CallBegun(index, id_, name):
                function = {"name": name, "arguments": ""}
                return self._call({"index": index, "id": id_, "type": "function", "function": function})
            case CallArguments(index, text):
                return self._call({"index": index, "function": {"arguments": text}})
            case Finished(reason):
                return self._start + b'{},"logprobs":null,"finish_reason":"%b"%b' % (reason.encode(), self._end)

    def _call(self, call: dict[str, object]) -> bytes:
        return self._start + b'{"tool_calls":[' + encode(call) + b"]" + self._after


class CompletionChunks:
    """Chunks of one completion. The first one carries the note."""

    def __init__(self, head: dict[str, object], note: dict[str, object], *, usage: bool) -> None:
        self._starts = [b"data: " + encode(each)[:-1] + b',"choices":[{"text":' for each in (head, head | note)]
        self._end = b'}],"usage":null}\n\n' if usage else b"}]}\n\n"

    def chunk(self, index: int, text: str, *, reason: str | None = None, logprobs: object = None) -> bytes:
        """A piece of answer number `index` as an event."""
        start = self._starts.pop() if len(self._starts) > 1 else self._starts[0]
        tail = encode({"index": index, "logprobs": logprobs, "finish_reason": reason})
        return start + encode(text) + b"," + tail[1:-1] + self._end


def usage_chunk(head: dict[str, object], usage: dict[str, object]) -> bytes:
    """The last chunk of a stream that was asked to tell its usage."""
    return b"data: " + encode({**head, "choices": [], "usage": usage}) + b"\n\n"


def usage_of(usages: Sequence[Usage]) -> dict[str, object]:
    """All choices together; their common prompt counts once."""
    prompt = max((usage.prompt_tokens for usage in usages), default=0)
    generated = sum(usage.generated_tokens for usage in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": min((usage.cached_tokens for usage in usages), default=0)},
    }


def logprob_of(item: TokenLogprob) -> dict[str, object]:
    """In the shape of chat completions."""
    return {
        **_logprob(item.piece, item.logprob),
        "top_logprobs": [_logprob(piece, logprob) for _, piece, logprob in item.top],
    }


def _logprob(piece: bytes, logprob: float) -> dict[str, object]:
    return {"token": piece.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(piece)}


def call_of(call: ToolCall) -> dict[str, object]:
    """A whole tool call."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
