"""The items and events of /v1/responses, made from the pieces of an answer. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pares.api.failures import encode
from pares.api.openai.chunks import logprob_of
from pares.chat.messages import CallArguments, CallBegun, Finished, Piece, Reasoning, Text
from pares.errors import ParesError
from pares.inference.generation import Usage
from pares.store.database import new_id

Item = dict[str, Any]


class ResponseEvents:
    """Grows a response item by item; what every step means to a streaming client comes back as events.

    Order per item: `output_item.added`, its part, its deltas, then everything again as `done`. Events count up in
    `sequence_number`.
    """

    def __init__(self) -> None:
        self.response: dict[str, object] = {}
        self.output: list[Item] = []
        self.reasoning = ""
        self.usage: Usage | None = None
        self._sequence = 0
        self._status = "completed"
        self._open = ""
        """Type of the item that is being written; empty between items."""
        self._arguments: list[str] = []
        self._text: list[str] = []
        self._logprobs: list[dict[str, object]] = []
        self._delta = b""

    def begin(self) -> Iterator[bytes]:
        """Before the first piece."""
        for kind in ("created", "in_progress"):
            yield self._event(f"response.{kind}", response=self.response)

    def take(self, piece: Piece) -> Iterator[bytes]:
        """The events of one more piece."""
        match piece:
            case Text(text, logprobs):
                if self._open != "message":
                    yield from self._begin_message()
                told = [logprob_of(item) for item in logprobs]
                self._text.append(text)
                self._logprobs += told
                yield self._text_delta(text, told)
            case Reasoning(text):
                if self._open != "reasoning":
                    yield from self._begin_reasoning()
                self._text.append(text)
                yield self._in_part("response.reasoning_text.delta", delta=text)
            case CallBegun(_, id_, name):
                yield from self._begin_call(id_, name)
            case CallArguments(_, text):
                self._arguments.append(text)
                yield self._in_item("response.function_call_arguments.delta", delta=text)
            case Finished(reason, usage):
                if not self.output:
                    yield from self._begin_message()
                self._status = "incomplete" if reason == "length" else "completed"
                yield from self._end_item(self._status)
                self.usage = usage

    def end(self, usage: dict[str, object], completed_at: int) -> bytes:
        """After the last piece: the whole response."""
        incomplete = self._status == "incomplete"
        self.response |= {
            "status": self._status,
            "output": self.output,
            "usage": usage,
            "completed_at": None if incomplete else completed_at,
            "incomplete_details": {"reason": "max_output_tokens"} if incomplete else None,
        }
        return self._event(f"response.{self._status}", response=self.response)

    def failed(self, error: ParesError) -> bytes:
        """The end of a stream that cannot go on."""
        return self._event("error", code=error.code, message=str(error), param=getattr(error, "param", None))

    def _event(self, kind: str, **fields: object) -> bytes:
        data = encode({"type": kind, "sequence_number": self._sequence, **fields})
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    def _in_item(self, kind: str, **fields: object) -> bytes:
        return self._event(kind, item_id=self.output[-1]["id"], output_index=len(self.output) - 1, **fields)

    def _in_part(self, kind: str, **fields: object) -> bytes:
        return self._in_item(kind, content_index=0, **fields)

    def _text_delta(self, text: str, logprobs: list[dict[str, object]]) -> bytes:
        """The event there are most of: only its number and its text are encoded."""
        number, self._sequence = self._sequence, self._sequence + 1
        told = encode(logprobs) if logprobs else b"[]"
        return self._delta % (number, encode(text), told)

    def _begin_item(self, item: Item, kind: str) -> Iterator[bytes]:
        yield from self._end_item("completed")
        self._open = kind
        self._text, self._logprobs, self._arguments = [], [], []
        self.output.append(item)
        added = {"output_index": len(self.output) - 1, "item": item | {"status": "in_progress"}}
        yield self._event("response.output_item.added", **added)

    def _begin_message(self) -> Iterator[bytes]:
        item = {"id": f"msg_{new_id()}", "type": "message", "role": "assistant", "content": []}
        yield from self._begin_item(item, "message")
        place = encode({"item_id": item["id"], "output_index": len(self.output) - 1, "content_index": 0})
        kind = b"response.output_text.delta"
        self._delta = b'event: %b\ndata: {"type":"%b",%b,' % (kind, kind, place[1:-1])
        self._delta += b'"sequence_number":%d,"delta":%b,"logprobs":%b}\n\n'
        yield self._in_part("response.content_part.added", part=_output_text("", []))

    def _begin_reasoning(self) -> Iterator[bytes]:
        item = {"id": f"rs_{new_id()}", "type": "reasoning", "summary": [], "content": []}
        yield from self._begin_item(item, "reasoning")
        yield self._in_part("response.content_part.added", part={"type": "reasoning_text", "text": ""})

    def _begin_call(self, call_id: str, name: str) -> Iterator[bytes]:
        item = {"id": f"fc_{new_id()}", "type": "function_call", "call_id": call_id, "name": name, "arguments": ""}
        yield from self._begin_item(item, "function_call")

    def _end_item(self, status: str) -> Iterator[bytes]:
        if not self._open:
            return
        item, text = self.output[-1], "".join(self._text)
        match self._open:
            case "message":
                part = _output_text(text, self._logprobs)
                yield self._in_part("response.output_text.done", text=text, logprobs=self._logprobs)
                yield self._in_part("response.content_part.done", part=part)
                item["content"] = [part]
            case "reasoning":
                self.reasoning += text
                part = {"type": "reasoning_text", "text": text}
                yield self._in_part("response.reasoning_text.done", text=text)
                yield self._in_part("response.content_part.done", part=part)
                item["content"] = [part]
            case _:
                item["arguments"] = "".join(self._arguments)
                yield self._in_item(
                    "response.function_call_arguments.done", name=item["name"], arguments=item["arguments"]
                )
        item["status"] = status
        yield self._event("response.output_item.done", output_index=len(self.output) - 1, item=item)
        self._open = ""


def _output_text(text: str, logprobs: list[dict[str, object]]) -> Item:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}
