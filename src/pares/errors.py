"""The whole error tree. Every error says what happened, why, and what to do now.

    ParesError
    ├── LocalError                 ours to tell our user
    │   ├── BadRequest             400  exit 2  the request itself is wrong
    │   │   ├── ContextOverflow    400  exit 2  prompt and answer are longer than the context
    │   │   ├── TooLarge           413  exit 2  the request's body is over a limit
    │   │   ├── MethodNotAllowed   405  exit 2  the address exists, but not with this HTTP method
    │   │   └── NotSupported       400  exit 2  this model or build cannot do what was asked
    │   ├── Unauthorized           401  exit 8  no key, or a wrong one
    │   ├── Forbidden              403  exit 8  the key may not do this, or the door is closed (Host, Origin)
    │   ├── NotFound               404  exit 3
    │   │   └── ModelNotFound      404  exit 3  with the nearest names
    │   ├── Conflict               409  exit 1  the thing exists, is busy, or is in another state
    │   │   └── LicenceNotAccepted 409  exit 1  its licence has to be agreed to first
    │   ├── QueueFull              429  exit 1  with the seconds after which to try again
    │   ├── DoesNotFit             507  exit 4
    │   │   ├── NotEnoughMemory    507  exit 4  with the sum, and the context that would fit
    │   │   └── DiskFull           507  exit 4  with the bytes missing
    │   ├── BrokenModelFile        422  exit 7  a file that is not a model we can safely load
    │   ├── VerificationFailed     422  exit 7  bytes that are not what was promised
    │   ├── OriginUnreachable      502  exit 5  the place to fetch from does not answer, or we are offline
    │   ├── PeersUnreachable       504  exit 5  nobody of those who could answer did, and why
    │   ├── WorkerDied             500  exit 1  the process that held the model ended
    │   ├── DatabaseUnusable       500  exit 1  the node's memory is damaged, or a newer Pares wrote it
    │   ├── NodeUnreachable        503  exit 1  the node of this home does not answer the command line
    │   ├── AlreadyRunning         409  exit 6  another node has this home, or the port is taken
    │   └── Misconfigured          500  exit 2  a setting has no meaning
    └── RemoteError                a peer's fault: drop that peer, carry on

`code` is the machine-readable name that the API, the command line (`--json`) and the page share.
"""

from __future__ import annotations

from types import TracebackType
from typing import ClassVar, Self


class ParesError(Exception):
    """Root of all errors that Pares raises on purpose.

    `hint` says what to do now; `fields` carries the numbers of the message for machines.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.fields = fields

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class Fence:
    """`with Fence() as fence:` - a bug in one request, of our user's or of a peer's, must not end the node.

    Whatever is raised inside, but for cancellation and the like, is `fence.problem` afterwards. Used where requests
    come in, and nowhere else: the only place that catches what it does not know.
    """

    problem: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.problem = error if isinstance(error, Exception) else None
        return self.problem is not None


class LocalError(ParesError):
    """Something our own user can understand and act on."""


class RemoteError(ParesError):
    """A peer broke the rules or went away: that peer is dropped, the node goes on."""

    code = "peer_fault"
    status = 502


class BadRequest(LocalError):
    """The request cannot be served as it is. `param` names the offending field where there is one."""

    code = "invalid_request"
    status = 400
    exit_code = 2

    def __init__(self, message: str, *, param: str | None = None, hint: str = "", **fields: object) -> None:
        super().__init__(message, hint=hint, **fields)
        self.param = param


class ContextOverflow(BadRequest):
    """The prompt (and the answer asked for) does not fit the context; never truncated silently."""

    code = "context_length_exceeded"

    def __init__(self, needed: int, context: int, *, param: str | None = "messages") -> None:
        super().__init__(
            f"This request needs {needed} tokens; the context of this model holds {context} here.",
            param=param,
            hint="Shorten it, or load the model with a larger context.",
            needed=needed,
            context=context,
        )


class TooLarge(BadRequest):
    """The body of a request is over its limit."""

    code = "request_too_large"
    status = 413


class MethodNotAllowed(BadRequest):
    """The address exists, but not with this HTTP method."""

    code = "method_not_allowed"
    status = 405


class NotSupported(BadRequest):
    """This model, this build or this machine cannot do what was asked."""

    code = "not_supported"


class Unauthorized(LocalError):
    """No key, or one that is not known here."""

    code = "invalid_api_key"
    status = 401
    exit_code = 8


class Forbidden(LocalError):
    """Known, but not allowed: the key's scope, the Host or Origin header."""

    code = "forbidden"
    status = 403
    exit_code = 8


class NotFound(LocalError):
    """There is no such thing here."""

    code = "not_found"
    status = 404
    exit_code = 3


class ModelNotFound(NotFound):
    """No model of that name here; `nearest` are the names that look like it. Never another model instead."""

    code = "model_not_found"

    def __init__(self, name: str, nearest: tuple[str, ...] = (), *, pullable: bool = False) -> None:
        near = f" Close to it: {', '.join(nearest)}." if nearest else ""
        hint = f"Get it with `pares pull {name}`." if pullable else "`pares list` shows what is here."
        super().__init__(f"There is no model named {name!r} here.{near}", hint=hint, name=name, nearest=nearest)
        self.nearest = nearest


class Conflict(LocalError):
    """The thing exists already, is in use, or is in a state that does not allow this."""

    code = "conflict"
    status = 409


class LicenceNotAccepted(Conflict):
    """The owner of this node has not agreed yet to the licence of what was asked for."""

    code = "licence_not_accepted"


class QueueFull(LocalError):
    """More requests are waiting than the queue holds; try again after `retry_after_s`."""

    code = "queue_full"
    status = 429

    def __init__(self, waiting: int, limit: int, *, retry_after_s: int) -> None:
        super().__init__(
            f"{waiting} requests are waiting already; the queue holds {limit}.",
            hint=f"Try again in about {retry_after_s} s.",
            waiting=waiting,
            limit=limit,
        )
        self.retry_after_s = retry_after_s


class DoesNotFit(LocalError):
    """Not enough of something that this machine has only so much of."""

    code = "does_not_fit"
    status = 507
    exit_code = 4


class NotEnoughMemory(DoesNotFit):
    """Weights, KV cache and buffers together are more than what is free."""

    code = "not_enough_memory"


class DiskFull(DoesNotFit):
    """Not enough free disk for what was asked; what was fetched so far is kept."""

    code = "disk_full"


class BrokenModelFile(LocalError):
    """A file that is not a well-formed model, or one that no honest model looks like."""

    code = "broken_model_file"
    status = 422
    exit_code = 7


class VerificationFailed(LocalError):
    """Bytes that do not have the hash they should have."""

    code = "verification_failed"
    status = 422
    exit_code = 7


class OriginUnreachable(LocalError):
    """The place to fetch from does not answer, refuses, or the node is offline by setting."""

    code = "origin_unreachable"
    status = 502
    exit_code = 5


class PeersUnreachable(LocalError):
    """Nobody of those who could have answered did; the message says who was tried, how, and what is in the way."""

    code = "peers_unreachable"
    status = 504
    exit_code = 5


class WorkerDied(LocalError):
    """The process that held the model ended; other models and the node go on."""

    code = "worker_died"


class DatabaseUnusable(LocalError):
    """The node's database is damaged, unreadable, or of a newer version; the message says what to do with it."""

    code = "database_unusable"


class NodeUnreachable(LocalError):
    """The node of this home runs, or should, and does not answer."""

    code = "node_unreachable"
    status = 503


class AlreadyRunning(LocalError):
    """Another node owns this home, or something else listens on the port."""

    code = "already_running"
    status = 409
    exit_code = 6


class Misconfigured(LocalError):
    """A setting has a value that means nothing; the message names the setting and where it came from."""

    code = "misconfigured"
    exit_code = 2
