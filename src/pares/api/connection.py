"""One HTTP connection: uvicorn's, with a bound on what it keeps of a request before anybody has looked at it."""

from __future__ import annotations

from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MAX_MARKUP_BYTES = 128 * 1024
"""The most that a client may send in a row that is no body: request line, headers, trailers."""


class Connection(HttpToolsProtocol):
    """The parser keeps headers and trailers of any length, from clients without a key too: here they have an end."""

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - passed on as they are
        super().__init__(*arguments, **named)
        self._markup = 0

    def data_received(self, data: bytes) -> None:
        self._markup += len(data)
        super().data_received(data)
        if self._markup > MAX_MARKUP_BYTES and not self.transport.is_closing():
            answering = cast("RequestResponseCycle | None", self.cycle)  # None until there is a whole head
            if answering is None or answering.response_complete:
                self.send_400_response(f"A request's headers may have {MAX_MARKUP_BYTES} bytes.")
            else:
                self.transport.close()

    def on_body(self, body: bytes) -> None:
        self._markup = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._markup = 0
        super().on_message_complete()
