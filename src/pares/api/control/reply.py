"""POST /pares/v1/conversations/{id}/reply: an answer in a conversation that is kept, as it is written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence

import msgspec

from pares.api.calls import Call
from pares.api.control.conversations import node_of, settings_of, tell
from pares.api.failures import CONTROL, encode, error_body
from pares.api.openai.inputs import with_system
from pares.api.options import OLLAMA_DEFAULTS, Options, settle
from pares.api.schemas import ChatSettings, MessageNode, ReplyRequest
from pares.api.services import InUse
from pares.api.streams import SSE, Stream, closing
from pares.chat.completion import chat
from pares.chat.messages import ChatRequest, Finished, Message, Piece, Reasoning, Text
from pares.errors import BadRequest, ParesError
from pares.store.conversations import Conversation, StoredMessage

LOOK_S = 0.25
"""How often a waiting client is told how far loading, or the queue, is."""
TITLE_LENGTH = 60

_TEXT = b'event: text\ndata: {"text":'
_REASONING = b'event: reasoning\ndata: {"text":'
_END = b"}\n\n"


async def reply(call: Call[ReplyRequest]) -> Stream:
    """Refuses before anything is stored; then stores the question, and the answer however it ends."""
    conversation = await call.services.conversations.get(call.path("id"))
    model = call.body.model or conversation.model
    if not model:
        raise BadRequest("Neither the request nor the conversation names a model.", param="model")
    await call.services.library.resolve(model)
    branch = await _branch(call, conversation)
    if call.body.content is None and not branch:
        raise BadRequest("There is nothing to reply to.", param="content")
    if call.body.go_on and (call.body.content is not None or branch[-1].role != "assistant"):
        raise BadRequest("Only an assistant's message can go on, and without a new one.", param="go_on")
    if call.body.content is None and not call.body.go_on and branch[-1].role == "assistant":
        raise BadRequest("An answer cannot be answered without a new message.", param="parent_id")
    return Stream(_events(call, conversation, branch, model), SSE, CONTROL)


async def _branch(call: Call[ReplyRequest], conversation: Conversation) -> tuple[StoredMessage, ...]:
    """From the root to the message that the reply stands under."""
    parent = call.body.parent_id
    if parent is None:
        return ()
    return await call.services.conversations.branch(conversation.id, parent)


async def _events(
    call: Call[ReplyRequest], conversation: Conversation, branch: tuple[StoredMessage, ...], model: str
) -> AsyncGenerator[bytes, None]:
    store = call.services.conversations
    user: MessageNode | None = None
    if call.body.content is not None:
        question = StoredMessage(parent_id=branch[-1].id if branch else None, role="user", content=call.body.content)
        question = await store.add(conversation.id, question)
        branch = (*branch, question)
        user = node_of(question)
    if call.body.go_on:
        answer = branch[-1]
    else:
        # Stored before it is there: whatever happens from here on, the conversation says that there was an answer.
        empty = StoredMessage(parent_id=branch[-1].id, role="assistant", content="", model=model, state="stopped")
        answer = await store.add(conversation.id, empty)
    writing = Writing(answer)
    kept = False
    await store.update(conversation.id, title=conversation.title or _title(branch), model=model)
    tell(call, conversation.id)
    try:
        yield _event("begun", {"user": user, "assistant_id": answer.id, "model": model})
        async with closing(_answer(call, conversation, branch, model, writing)) as events:
            async for event in events:
                yield event
        await store.replace(writing.message())
        kept = True
        yield _event("finished", node_of(writing.message()))
    except ParesError as error:
        writing.fail(error)
        await store.replace(writing.message())
        kept = True
        yield _event("error", error_body(error))
    finally:
        if not kept:
            await asyncio.shield(store.replace(writing.message()))
        tell(call, conversation.id)


async def _answer(
    call: Call[ReplyRequest],
    conversation: Conversation,
    branch: Sequence[StoredMessage],
    model: str,
    writing: Writing,
) -> AsyncGenerator[bytes, None]:
    """The answer as events. It is computed in a task beside, so that waiting for it can be told meanwhile."""
    ready: asyncio.Queue[Piece | asyncio.Task[None]] = asyncio.Queue()

    async def compute() -> None:
        async with call.services.use(model) as used:
            request, options = request_of(conversation, branch, used, go_on=call.body.go_on)
            writing.begin(used.name, options)
            async with closing(call.metrics.watch(used.name, chat(used.model, request))) as pieces:
                async for piece in pieces:
                    ready.put_nowait(piece)

    task = asyncio.create_task(compute(), name=f"reply in {conversation.id}")
    task.add_done_callback(ready.put_nowait)
    told = b""
    try:
        while True:
            try:
                piece = await (ready.get() if writing.first_token_s else asyncio.wait_for(ready.get(), LOOK_S))
            except TimeoutError:
                if (waiting := _waiting(call, model)) and waiting != told:
                    yield waiting
                    told = waiting
                continue
            if isinstance(piece, asyncio.Task):
                piece.result()
                return
            if event := writing.take(piece):
                yield event
    finally:
        task.cancel()
        await asyncio.wait((task,))


def _waiting(call: Call[ReplyRequest], model: str) -> bytes:
    """What an answer is waiting for; empty while it is being computed."""
    here = call.services.loaded()
    named = [each for each in here if each.name.casefold() == model.casefold()]
    # It may be in memory under another of its names.
    for loaded in named or (here if len(here) == 1 else ()):
        if loaded.state == "loading":
            return _event("loading", {"progress": loaded.progress})
        if loaded.waiting:
            return _event("queued", {"place": loaded.waiting})
    return b""


class Writing:
    """An answer while it is written: what there is of it can be stored at any moment."""

    def __init__(self, message: StoredMessage) -> None:
        self.first_token_s = 0.0
        self._stored = message
        self._changes: dict[str, object] = {"state": "stopped", "error": ""}
        self._text = [message.content]
        self._reasoning = [message.reasoning]
        self._begun = time.perf_counter()

    def begin(self, model: str, options: Options) -> None:
        """Once the model is there."""
        self._changes |= {"model": model, "sampling": msgspec.to_builtins(options.sampling)}

    def take(self, piece: Piece) -> bytes:
        """One more piece, as an event; empty for those that a conversation does not show."""
        if not self.first_token_s:
            self.first_token_s = time.perf_counter() - self._begun
        match piece:
            case Text(text):
                self._text.append(text)
                return _TEXT + encode(text) + _END
            case Reasoning(text):
                self._reasoning.append(text)
                return _REASONING + encode(text) + _END
            case Finished(_, usage):
                speed = (usage.generated_tokens - 1) / usage.decode_s if usage.decode_s > 0 else 0.0
                told: Mapping[str, float] = {
                    "prompt_tokens": usage.prompt_tokens,
                    "cached_tokens": usage.cached_tokens,
                    "generated_tokens": usage.generated_tokens,
                    "tokens_per_s": round(max(0.0, speed), 2),
                    "first_token_s": round(self.first_token_s, 3),
                }
                self._changes |= {"state": "complete", "usage": told}
        return b""

    def fail(self, error: ParesError) -> None:
        self._changes |= {"state": "failed", "error": str(error)}

    def message(self) -> StoredMessage:
        """What there is of it."""
        changes = {**self._changes, "content": "".join(self._text), "reasoning": "".join(self._reasoning)}
        return msgspec.structs.replace(self._stored, **changes)


def request_of(
    conversation: Conversation, branch: Sequence[StoredMessage], used: InUse, *, go_on: bool
) -> tuple[ChatRequest, Options]:
    """A branch as a question, with the conversation's settings over the model's."""
    settings = settings_of(conversation)
    options = settle(OLLAMA_DEFAULTS, used.defaults, _given(settings))
    messages = [
        Message("assistant" if each.role == "tool" else each.role, each.content, each.reasoning)
        for each in branch
        if each.content or each.role == "user"
    ]
    request = ChatRequest(
        messages=with_system(messages, conversation.system or used.system),
        sampling=options.sampling,
        max_tokens=options.max_tokens,
        stop=options.stop,
        schema=settings.schema,
        thinking=settings.thinking,
        continue_last=go_on and bool(branch[-1].content),
    )
    return request, options


def _given(settings: ChatSettings) -> dict[str, object]:
    names = ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "seed", "max_tokens")
    return {name: getattr(settings, name) for name in names} | {"stop": settings.stop or None}


def _title(branch: Sequence[StoredMessage]) -> str:
    """The beginning of the first question."""
    first = next((message.content for message in branch if message.role == "user"), "")
    line = " ".join(first.split())
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rsplit(" ", 1)[0] + "…"


def _event(kind: str, data: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), encode(data))
