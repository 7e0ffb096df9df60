"""The node's side of the BitTorrent process: start it while somebody uses it, start it again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Protocol

import msgspec

from pares.errors import NotSupported
from pares.transport import bittorrent_pipe as pipe
from pares.wire.framing import PREFIX, ProtocolError, size_of
from pares.wire.signing import KEY_BYTES, Identity

log = logging.getLogger(__name__)

START_S = 20.0
STOP_S = 2.0
STOP_WITH_TORRENTS_S = 10.0
"""What has been fetched is brought to the disk first."""
SILENCE_S = 30.0
"""A process that says nothing for so long hangs: it is killed. It gives a sign of life every 5 s."""
PAUSE_S = 0.5
LONGEST_PAUSE_S = 60.0
SOUND_S = 60.0
"""After a life of this length the pause before the next one is the shortest again."""
SALT_BYTES = 64
VALUE_BYTES = 996
"""BEP 44: 1000 with its length in front."""
NODES = 64
"""Nodes that were added and are told to the next process as well."""
LAST_WORDS = 4096


@dataclass(frozen=True, slots=True)
class Settings:
    """How the session is run. By itself it contacts nobody: no router, no tracker, no multicast.

    One process carries DHT and torrents: either can be without the other, and public torrents need both.
    """

    state: Path
    """Id and nodes of the DHT, kept over restarts. Its directory exists."""
    addresses: tuple[str, ...] = ("0.0.0.0", "::")
    """Of the interfaces to listen on."""
    port: int = 0
    """UDP port of the DHT and TCP port of torrents; 0: any."""
    bootstrap: tuple[str, ...] = ()
    """`host:port` of public DHT nodes to begin from when none are known."""
    dht: bool = True
    local_discovery: bool = False
    """BitTorrent's multicast (BEP 14)."""
    port_mapping: bool = False
    """Ask the router for a port (UPnP, NAT-PMP)."""
    private: bool = False
    """A DHT of few nodes that share a network or a machine: without the protections of the public one."""
    resume: Path | None = None
    """Folder for what is kept of torrents that are being fetched; it exists. None: no torrents."""


@dataclass(frozen=True, slots=True)
class Item:
    """A mutable item (BEP 44). libtorrent has verified that the key's owner signed it."""

    value: bytes
    sequence: int


class Follower(Protocol):
    """Who has torrents in the process."""

    def first_words(self) -> Iterable[pipe.ToSession]:
        """What a new process has to be told."""

    def heard(self, message: pipe.Told | pipe.Banned) -> None: ...

    def lost(self) -> None:
        """The process has ended."""


@dataclass(slots=True)
class _Waiting:
    """A request without its last answer. A new process is asked again."""

    request: pipe.Put | pipe.Get | pipe.Save
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False
    copies: int = 0
    best: Item | None = None


class BitTorrent:
    """The session as the rooms see it. `run` is its life; the process exists only inside of `used`.

    Requests made before the process is up, or while it dies, are not lost: they wait, up to their deadline.
    `on_change`: the number of nodes, `port` or `pid` moved.
    """

    def __init__(self, settings: Settings, *, on_change: Callable[[], None] = lambda: None) -> None:
        self.settings = settings
        self.status = pipe.Status()
        self.port = settings.port
        """Where the session listens, UDP; 0 before it first did. Kept when the process starts again, if it is free."""
        self.pid: int | None = None
        """Process id while there is one."""
        self.listening = False
        """There is a process, and `port` is open."""
        self._on_change = on_change
        self._users = 0
        self._wanted = asyncio.Event()
        self._ids = count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._nodes: dict[tuple[str, int], None] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._opened = False
        self._follower: Follower | None = None

    def follow(self, follower: Follower) -> None:
        """Tell `follower` of torrents from now on."""
        self._follower = follower

    def send(self, message: pipe.ToSession) -> None:
        """Tell the process, if there is one. The next one is told by `Follower.first_words`."""
        if self._writer is not None and self._opened:
            self._writer.write(pipe.framed(message))

    @contextmanager
    def used(self) -> Iterator[None]:
        """There is a process while anybody is inside."""
        self._users += 1
        self._wanted.set()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._wanted.clear()
                self._hang_up()

    async def run(self) -> None:
        """Keep a process alive while it is used. Ends when cancelled, and the process with it."""
        pause = 0.0
        clock = asyncio.get_running_loop().time
        while True:
            await self._wanted.wait()
            began = clock()
            if why := await self._live():
                lived = clock() - began
                pause = PAUSE_S if lived >= SOUND_S else min(max(PAUSE_S, 2 * pause), LONGEST_PAUSE_S)
                log.warning("The BitTorrent process is gone: %s. It starts again in %.1f s.", why, pause)
                await asyncio.sleep(pause)

    def reopen(self, settings: Settings) -> None:
        """Go on with other settings: a process that runs ends in good order, and the next one begins."""
        self.settings = settings
        self._hang_up()

    # The DHT

    async def put(self, identity: Identity, salt: bytes, value: bytes, *, timeout_s: float) -> int:
        """Store `value` under the node's key and `salt`, with a sequence above all that are found.

        Returns on how many nodes it is now, this one included; 0 also if the deadline passed. The key's owner alone
        can change it; everybody who knows the key, and the nodes that keep it, can read it.
        """
        _check_salt(salt)
        if not 0 < len(value) <= VALUE_BYTES:
            raise ValueError(f"a DHT item of {len(value)} bytes; 1 to {VALUE_BYTES} are possible")
        with self._asking(pipe.Put(next(self._ids), identity.seed, salt, value)) as waiting:
            await _within(timeout_s, waiting.heard)
        return waiting.copies

    async def get(self, key: bytes, salt: bytes, *, timeout_s: float, settle_s: float = 0.5) -> Item | None:
        """The item of the highest sequence that is found, or None.

        Waits at most `timeout_s` for the first, then `settle_s` more for a newer one: an old copy may be the nearest,
        and the whole search can take many seconds when nodes have died.
        """
        _check_salt(salt)
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key of {len(key)} bytes, not {KEY_BYTES}")
        with self._asking(pipe.Get(next(self._ids), key, salt)) as waiting:
            found = await _within(timeout_s, waiting.heard)
            deadline = asyncio.get_running_loop().time() + settle_s
            while found and not waiting.ended:
                waiting.heard.clear()
                found = await _within(deadline - asyncio.get_running_loop().time(), waiting.heard)
        return waiting.best

    def add_nodes(self, nodes: Iterable[tuple[str, int]]) -> None:
        """Numeric address and UDP port of DHT nodes that others know: hints, which are asked before they count."""
        fresh = list(nodes)[:NODES]
        for node in fresh:
            self._nodes.pop(node, None)
            self._nodes[node] = None
        for node in list(self._nodes)[:-NODES]:
            del self._nodes[node]
        self.send(pipe.AddNodes(fresh))

    async def save(self, *, timeout_s: float) -> bool:
        """Write id and nodes to the state file now; whether it happened. It happens by itself every few minutes."""
        with self._asking(pipe.Save(next(self._ids))) as waiting:
            await _within(timeout_s, waiting.heard)
        return waiting.ended

    # Inside

    @contextmanager
    def _asking(self, request: pipe.Put | pipe.Get | pipe.Save) -> Iterator[_Waiting]:
        if not self.settings.dht:
            raise NotSupported("The DHT is off by setting.")
        waiting = self._waiting[request.id] = _Waiting(request)
        self.send(request)
        try:
            yield waiting
        finally:
            del self._waiting[request.id]

    def _hang_up(self) -> None:
        """Close the connection: the process saves its state and ends."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def _live(self) -> str:
        """One life of the process; why it ended, unless it was told to."""
        ours, theirs = socket.socketpair()
        with theirs:
            reader, self._writer = await asyncio.open_connection(sock=ours)
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-m", "pares.transport.bittorrent", str(theirs.fileno())),
                    pass_fds=[theirs.fileno()],
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                )
            except BaseException as error:
                self._hang_up()
                if isinstance(error, OSError):
                    return f"it could not be started ({error.strerror})"
                raise
        last_words = asyncio.create_task(_last_words(process), name="last words of the BitTorrent process")
        self.pid = process.pid
        try:
            self._begin()
            why = await self._converse(reader)
            told = self._writer is None
        finally:
            self._hang_up()
            self._opened = self.listening = False
            await _end(process, STOP_S if self.settings.resume is None else STOP_WITH_TORRENTS_S)
            self.pid, self.status = None, pipe.Status()
            said = await last_words
            if self._follower is not None:
                self._follower.lost()
            self._on_change()
        return "" if told else why or _obituary(process.returncode, said)

    def _begin(self) -> None:
        settings = self.settings
        self._opened = True
        port = self.port or _free_port(settings.addresses[0])
        hosts = [f"[{address}]" if ":" in address else address for address in settings.addresses]
        self.send(
            pipe.Open(
                ",".join(f"{host}:{port}" for host in hosts),
                ",".join(settings.bootstrap),
                str(settings.state),
                settings.dht,
                settings.local_discovery,
                settings.port_mapping,
                settings.private,
                "" if settings.resume is None else str(settings.resume),
            )
        )
        self.send(pipe.AddNodes(list(self._nodes)))
        for waiting in self._waiting.values():
            self.send(waiting.request)
        if self._follower is not None:
            for message in self._follower.first_words():
                self.send(message)
        if not self._wanted.is_set():
            self._hang_up()

    async def _converse(self, reader: asyncio.StreamReader) -> str:
        """Take what the process says until it ends. A reason, if it has to be ended."""
        silence_s = START_S
        try:
            while True:
                async with asyncio.timeout(silence_s):
                    size = size_of(await reader.readexactly(PREFIX.size), most=pipe.FRAME_BYTES)
                    message = pipe.from_session.decode(await reader.readexactly(size))
                self._dispatch(message)
                silence_s = SILENCE_S
        except TimeoutError:
            return f"it said nothing for {silence_s:.0f} s"
        except (ProtocolError, msgspec.DecodeError) as error:
            return f"it said what cannot be understood ({error})"
        except (asyncio.IncompleteReadError, ConnectionError):
            return ""

    def _dispatch(self, message: pipe.FromSession) -> None:
        match message:
            case pipe.Opened(port):
                self.port = port
                self.listening = True
                self._on_change()
                return
            case pipe.Told() | pipe.Banned():
                if self._follower is not None:
                    self._follower.heard(message)
                return
            case pipe.Status():
                moved = message.nodes != self.status.nodes
                self.status = message
                if moved:
                    self._on_change()
                return
        waiting = self._waiting.get(message.id)
        if waiting is None:
            return
        match message:
            case pipe.Stored():
                waiting.copies = message.copies
                waiting.ended = True
            case pipe.Found():
                if message.value and (waiting.best is None or message.sequence > waiting.best.sequence):
                    waiting.best = Item(message.value, message.sequence)
                waiting.ended = message.last
            case pipe.Saved():
                waiting.ended = True
        if waiting.ended or waiting.best is not None:
            waiting.heard.set()


def _free_port(address: str) -> int:
    """A port that is free now. libtorrent by itself would take another one on each interface of the machine."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return 0
        return int(probe.getsockname()[1])


def _check_salt(salt: bytes) -> None:
    if len(salt) > SALT_BYTES:
        raise ValueError(f"a salt of {len(salt)} bytes; {SALT_BYTES} at most")


async def _within(seconds: float, event: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


async def _end(process: asyncio.subprocess.Process, patience_s: float) -> None:
    """Wait for the process, which has been told to end; kill it if it does not listen."""
    try:
        async with asyncio.timeout(patience_s):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _last_words(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    said = b""
    while part := await process.stderr.read(LAST_WORDS):
        said = (said + part)[-LAST_WORDS:]
    return "; ".join(said.decode(errors="replace").split("\n")[-4:]).strip("; ")


def _obituary(code: int | None, said: str) -> str:
    how = f"ended with code {code}" if code is None or code >= 0 else f"died of {signal.strsignal(-code)}"
    return f"it {how}" + (f"; its last words: {said}" if said else "")
