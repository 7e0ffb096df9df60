"""What the API asks of the node. The node implements it; the API never builds or starts anything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from pares.api.commons import (
    Bundle,
    Difference,
    Lineage,
    ShareRequest,
    Swarm,
    SwarmChange,
    TensorStatistics,
    UnshareRequest,
    VersionDetail,
    VersionRow,
    Voice,
)
from pares.api.network import (
    Circle,
    CircleDetail,
    CircleRequest,
    Invite,
    InviteRequest,
    Joined,
    JoinPreview,
    Network,
    Peer,
    PeerChange,
)
from pares.api.schemas import Check, Loaded, LoadRequest, LogLine, NodeStatus, Setting
from pares.api.settings import Settings as Settings
from pares.inference.generation import Model
from pares.inference.settings import Settings as InferenceSettings
from pares.store.conversations import Conversations
from pares.store.events import Events
from pares.store.keys import Keys
from pares.swarm.library import Library
from pares.swarm.pulls import Pulls


@dataclass(frozen=True, slots=True)
class InUse:
    """A loaded model, held for one request, with what its entry in the library says on top."""

    model: Model
    name: str
    """The canonical name of what was asked for."""
    system: str = ""
    """System prompt of a `create`d model, used where the request has none."""
    defaults: Mapping[str, object] = field(default_factory=dict)
    """Sampling defaults of a `create`d model in Ollama's words: temperature, top_k, num_predict, stop, ..."""
    load_s: float = 0.0
    """Seconds that this request waited for the model to load."""


class NetworkServices(Protocol):
    """Circles and peers. Circles, members and peers are named by their id, its beginning, or their name."""

    async def circles(self) -> Sequence[Circle]: ...

    async def circle(self, circle: str) -> CircleDetail:
        """Raises NotFound with the nearest names."""
        ...

    async def create(self, request: CircleRequest) -> Circle: ...

    async def rename(self, circle: str, name: str) -> Circle: ...

    async def leave(self, circle: str) -> None: ...

    async def invite(self, circle: str, request: InviteRequest) -> Invite:
        """Raises Forbidden for guests."""
        ...

    async def withdraw(self, circle: str, invite: str) -> None: ...

    async def remove(self, circle: str, member: str) -> None:
        """Raises Forbidden unless this node invited them, directly or not, or founded the circle."""
        ...

    async def preview(self, link: str) -> JoinPreview:
        """Raises BadRequest for what is not a link, is cut off, or has expired."""
        ...

    async def join(self, link: str) -> Joined:
        """Returns after the first real exchange with a member. Raises PeersUnreachable, Forbidden, with what to do."""
        ...

    async def peers(self) -> Sequence[Peer]:
        """Asks those of whom nothing was heard lately whether they are there; takes at most about two seconds."""
        ...

    async def change_peer(self, peer: str, change: PeerChange) -> Peer: ...

    async def network(self) -> Network: ...

    def figures(self) -> Mapping[str, tuple[str, float]]:
        """For `/metrics`: what each figure is, and its value now, by name."""
        ...


class CommonsServices(Protocol):
    """Versions, what circles offer, and the swarm. A version is named by its id, the beginning of it, or its name."""

    async def versions(self) -> Sequence[VersionRow]:
        """All that circles of this node offer, and its own; by name, then size."""
        ...

    async def version(self, version: str) -> VersionDetail:
        """Raises NotFound with the nearest names; Conflict with the publishers where a name means several."""
        ...

    async def envelope(self, version: str) -> bytes:
        """The signed statement as it is passed on: a DSSE envelope in JSON."""
        ...

    async def bundle(self, version: str) -> Bundle:
        """Raises Conflict for a version that is not here as a whole."""
        ...

    async def lineage(self, version: str) -> Lineage: ...

    async def share(self, request: ShareRequest) -> VersionDetail:
        """Raises Conflict without a circle or a licence; ModelNotFound."""
        ...

    async def unshare(self, request: UnshareRequest) -> None:
        """Raises Conflict where this is the last known copy in a circle, unless forced."""
        ...

    async def accept_licence(self, version: str) -> None: ...

    async def endorse(self, version: str, text: str) -> Voice: ...

    async def revoke(self, version: str, text: str) -> Voice:
        """Take back one's own version or endorsement; of somebody else's version: warn of it."""
        ...

    async def verify(self, model: str) -> VersionDetail:
        """Compute all roots and check all signatures. Raises VerificationFailed on the first mismatch."""
        ...

    async def before_removing(self, model: str, *, force: bool) -> Callable[[], Awaitable[None]]:
        """Raises Conflict where a model is the last known copy of what this node gives away, unless `force`.

        What is returned is to be called when the model is gone.
        """
        ...

    async def swarm(self) -> Swarm: ...

    async def change_swarm(self, change: SwarmChange) -> Swarm:
        """In force at once, and kept."""
        ...

    async def statistics(self, model: str, tensor: str) -> TensorStatistics:
        """Raises NotFound, BrokenModelFile, WorkerDied; NotSupported for a type that cannot be read."""
        ...

    async def difference(self, left: str, right: str) -> Difference:
        """Between models here, or versions here. Raises NotFound, Conflict, BrokenModelFile, WorkerDied."""
        ...

    def figures(self) -> Mapping[str, tuple[str, float]]:
        """For `/metrics`."""
        ...


class Services(Protocol):
    """The node, as the API sees it."""

    @property
    def settings(self) -> Settings: ...

    @property
    def inference(self) -> InferenceSettings:
        """How models are loaded, for telling whether they would fit."""
        ...

    @property
    def library(self) -> Library: ...

    @property
    def pulls(self) -> Pulls: ...

    @property
    def conversations(self) -> Conversations: ...

    @property
    def keys(self) -> Keys: ...

    @property
    def network(self) -> NetworkServices: ...

    @property
    def commons(self) -> CommonsServices: ...

    @property
    def events(self) -> Events:
        """Closed by the node when it begins to stop, so that event streams end."""
        ...

    @property
    def admin_token(self) -> str:
        """The secret in `node.json`: whoever can read the home may do everything."""
        ...

    def use(
        self, name: str, *, context: int | None = None, keep_alive_s: float | None = None
    ) -> AbstractAsyncContextManager[InUse]:
        """Find, load if needed, and hold a model. Raises ModelNotFound, NotEnoughMemory, BrokenModelFile, QueueFull.

        A loaded model with a smaller context than asked for is loaded again once it is idle.
        """
        ...

    async def load(self, name: str, request: LoadRequest) -> Loaded:
        """Load and wait until ready; a loaded model with other options is loaded again."""
        ...

    async def unload(self, name: str) -> None:
        """Give its memory back; running requests end with WorkerDied. Raises NotFound if it is not loaded."""
        ...

    def loaded(self) -> tuple[Loaded, ...]: ...

    def status(self) -> NodeStatus: ...

    async def doctor(self) -> Sequence[Check]: ...

    def list_settings(self) -> Sequence[Setting]: ...

    async def change_setting(self, name: str, value: object) -> Setting:
        """Write one setting into the home's file; None: back to the default. Raises Misconfigured, NotFound."""
        ...

    def logs(self, *, after: int, limit: int) -> Sequence[LogLine]:
        """The newest `limit` lines of the log with an id above `after`, oldest first."""
        ...

    def shutdown(self) -> None:
        """Begin to stop; returns at once."""
        ...
