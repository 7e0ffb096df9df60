"""The real network: QUIC connections by key, over iroh. The only file that speaks to iroh.

No server of iroh's makers is ever asked for anything: the minimal preset, and relays only as they are named.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import importlib.metadata
import ipaddress
import logging
import socket
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import iroh
from iroh import iroh_ffi

from pares.errors import AlreadyRunning, Misconfigured
from pares.transport.admission import Admission, Meter, source_of
from pares.transport.endings import connection_end, plain, refusal, stream_end
from pares.transport.link import Disconnected, Path, PathKind, Unreachable, Where, ip_of, is_lan
from pares.transport.muzzle import muzzle
from pares.transport.settings import Settings
from pares.wire.signing import PeerId

log = logging.getLogger(__name__)
Result = TypeVar("Result")

STREAMS = 1024
"""Streams that a peer may have open on one connection."""
CHUNK = 256 * 1024
"""Bytes that cross into iroh in one call: more would hold the event loop for too long."""
READ_AHEAD = 16 * 1024
"""Bytes asked for when fewer are needed: a frame's size and its body come in one call."""
UNREAD = 64 * 2**20
"""Bytes of one connection that may lie here unread, about; see `Meter`."""
CLOSE_S = 0.4
"""For telling the peers, and again for ending what is under way."""
RELAY_QUIC_PORT = 7842
"""Where relays with a certificate tell us our public address (iroh's own default)."""


def _mend_writes() -> None:
    """Copy bytes into iroh with memmove; the binding of 1.2.0 copies them one by one in Python (0.2 s per MB).

    Fixed in uniffi 0.32, which later versions of iroh are built with; no other version is touched.
    """
    if importlib.metadata.version("iroh") == "1.2.0":
        builder = iroh_ffi._UniffiRustBufferBuilder
        builder.write = functools.update_wrapper(_write, builder.write)  # type: ignore[method-assign]


def _write(builder: iroh_ffi._UniffiRustBufferBuilder, value: bytes | memoryview) -> None:
    if value:
        content = bytes(value)
        with builder._reserve(len(content)):
            start = ctypes.cast(builder.rbuf.data, ctypes.c_void_p).value
            ctypes.memmove((start or 0) + builder.rbuf.len, content, len(content))


_mend_writes()


class QuicStream:
    """See `link.Stream`."""

    def __init__(self, pair: iroh.BiStream, connection: QuicConnection) -> None:
        self._send, self._recv = pair.send(), pair.recv()
        self._connection = connection
        self._ahead = bytearray()
        self._calls: set[asyncio.Task[Any]] = set()
        self._aborted = False

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), CHUNK):
            piece = bytes(view[start : start + CHUNK])
            await self._call(self._send.write_all(piece))
            self._connection.meter.sent(len(piece))

    async def receive(self, size: int) -> bytes:
        while (missing := size - len(self._ahead)) > 0:
            piece = await self._call(self._recv.read(min(CHUNK, max(missing, READ_AHEAD))))
            if not piece:
                raise Disconnected(f"The stream ended {missing} bytes before the {size} that were to come.")
            self._connection.meter.read(len(piece))
            self._ahead += piece
        content = bytes(memoryview(self._ahead)[:size])
        del self._ahead[:size]
        return content

    async def read(self, most: int) -> bytes:
        if self._ahead:
            return await self.receive(min(most, len(self._ahead)))
        piece = await self._call(self._recv.read(min(CHUNK, most)))
        self._connection.meter.read(len(piece))
        return piece

    async def finish(self) -> None:
        await self._call(self._send.finish())

    async def sent(self) -> None:
        if await self._call(self._send.stopped()) is not None:
            raise Disconnected("The peer gave the stream up.")

    def abort(self) -> None:
        if not self._aborted:
            self._aborted = True
            for call in self._calls:
                call.cancel()
            self._connection.transport.run(self._give_up())

    async def _give_up(self) -> None:
        # One may have ended already; the other has to be told still.
        for tell in (self._send.reset, self._recv.stop):
            try:
                await tell(1)
            except iroh.IrohError as error:
                log.debug("stream: %s", stream_end(error.message()))

    async def _call(self, call: Coroutine[Any, Any, Result]) -> Result:
        """One call of iroh. It is a task because `abort` can free the stream only after it has cancelled its calls."""
        if self._aborted:
            call.close()
            raise Disconnected("The stream was given up here.")
        task = asyncio.ensure_future(call)
        self._calls.add(task)
        try:
            return await task
        except iroh.IrohError as error:
            raise Disconnected(stream_end(error.message())) from None
        except asyncio.CancelledError:
            if (me := asyncio.current_task()) and me.cancelling():
                raise
            raise Disconnected("The stream was given up here.") from None
        finally:
            self._calls.discard(task)


class QuicConnection:
    """See `link.Connection`. The transport holds it until it ends."""

    def __init__(
        self, transport: QuicTransport, connection: iroh.Connection, *, outgoing: bool, observed: str | None = None
    ) -> None:
        self.transport = transport
        self.meter = Meter()
        self.peer = PeerId(connection.remote_id().to_bytes())
        self.protocol = connection.alpn().decode()
        self.outgoing = outgoing
        self._connection = connection
        self._reason = ""
        self._end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._path = Path("direct", observed or "", 0.0)
        self.observed = observed if observed is not None else self._first_address()
        connection.set_max_concurrent_bi_streams(STREAMS)
        connection.set_max_concurrent_uni_streams(0)

    @property
    def path(self) -> Path:
        """As iroh chose it last; the path before if there is none at the moment."""
        paths = self._connection.paths()
        if paths:
            path = next((path for path in paths if path.is_selected), paths[0])
            address = path.remote_addr
            kind: PathKind = "relayed" if path.is_relay else "lan" if is_lan(address) else "direct"
            self._path = Path(kind, address, float(path.rtt_ms))
        return self._path

    @property
    def arrived_bytes(self) -> int:
        return self._connection.stats().udp_rx_bytes

    async def open(self) -> QuicStream:
        try:
            return QuicStream(await self._connection.open_bi(), self)
        except iroh.IrohError as error:
            raise Disconnected(stream_end(error.message())) from None

    async def accept(self) -> QuicStream:
        try:
            return QuicStream(await self._connection.accept_bi(), self)
        except iroh.IrohError as error:
            raise Disconnected(stream_end(error.message())) from None

    async def closed(self) -> str:
        return await asyncio.shield(self._end)

    def close(self, reason: str) -> None:
        self._reason = self._reason or reason
        self._connection.close(0, plain(reason).encode())

    async def until_closed(self) -> None:
        """The transport's watch over this connection."""
        try:
            told = await self._connection.closed()
            self._settle(self._reason or connection_end(told))
        finally:
            self._settle(self._reason or "closed here")

    def _settle(self, reason: str) -> None:
        if not self._end.done():
            self._end.set_result(reason)

    def _first_address(self) -> str:
        path = self.path
        return "" if path.kind == "relayed" else path.address


class _Preset(iroh.Preset):
    """Nothing of iroh's makers, and the sockets that we say."""

    def __init__(self, *sockets: str) -> None:
        super().__init__()
        self._sockets = sockets

    def apply(self, builder: iroh.EndpointBuilder) -> None:
        builder.apply_minimal()
        for address in self._sockets:
            builder.bind_addr(address)


async def _bind_muzzled(options: iroh.EndpointOptions) -> iroh.Endpoint:
    """The first endpoint of a process starts iroh's threads: started from here, they cannot ask for a router."""
    with ThreadPoolExecutor(1, "muzzled", initializer=muzzle) as thread:
        return await asyncio.get_running_loop().run_in_executor(
            thread, lambda: asyncio.run(iroh.Endpoint.bind(options))
        )


class QuicTransport:
    """See `link.Transport`. Raises AlreadyRunning on entering if the port is taken.

    After leaving, the port is free once nobody refers to a connection or a stream of it any more.
    Peers are strangers until the layer above knows better: every key may connect, within the limits of `Admission`.
    """

    def __init__(self, seed: bytes, protocols: Sequence[str], settings: Settings) -> None:
        self.admission = Admission(settings)
        self._seed, self._protocols, self._settings = seed, tuple(protocols), settings
        self._arrived: asyncio.Queue[QuicConnection | None] = asyncio.Queue()
        self._live: set[QuicConnection] = set()
        self._external: set[str] = set()
        self._relays: set[str] = set()
        self._told: tuple[set[str], set[str]] = (set(), set())
        self._telling = asyncio.Lock()
        self._closed = False

    async def __aenter__(self) -> Self:
        relays = iroh.RelayMap.empty()
        self._relays = {url for url in self._settings.relays if self._may_relay(url)}
        try:
            for url in self._relays:
                relays.insert(_relay(url))
            options = iroh.EndpointOptions(
                preset=_Preset(*self._sockets()),
                secret_key=self._seed,
                alpns=[protocol.encode() for protocol in self._protocols],
                # Also with none yet: a map can grow, `disabled` cannot.
                relay_mode=iroh.RelayMode.custom(relays),
            )
            if self._settings.loopback_only:
                self._endpoint = await _bind_muzzled(options)
            else:
                self._endpoint = await iroh.Endpoint.bind(options)
        except iroh.IrohError as error:
            if error.kind() == iroh.IrohErrorKind.BIND:
                raise AlreadyRunning(
                    f"UDP port {self._settings.port} cannot be opened: something else listens there.",
                    hint="Set another `transport.port`, or 0 for any free one.",
                ) from None
            raise Misconfigured(
                f"The network cannot be opened with relays {', '.join(sorted(self._relays)) or 'none'}.",
                hint="Each of `transport.relays` has to be a URL such as https://relay.example.org.",
            ) from None
        self._told = (set(), set(self._relays))
        self.id = PeerId(self._endpoint.id().to_bytes())
        running = asyncio.get_running_loop().create_future()
        self._keeper = asyncio.create_task(self._keep(running))
        await running
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        for connection in tuple(self._live):
            connection.close("the node is stopping")
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._endpoint.close()
        except TimeoutError:
            log.debug("the endpoint did not close within %s s", CLOSE_S)
        self._arrived.put_nowait(None)
        keeper = self._keeper
        if not (await asyncio.wait([keeper], timeout=CLOSE_S))[0]:
            keeper.cancel()
            await asyncio.wait([keeper])
        # The port is free when the last reference is gone, not before.
        del self._endpoint, self._keeper, self._tasks
        if not keeper.cancelled() and (failure := keeper.exception()):
            raise failure

    def addresses(self) -> Sequence[str]:
        if self._closed:
            return ()
        if self._settings.loopback_only:
            return self._endpoint.bound_sockets()
        return [a for a in self._endpoint.addr().direct_addresses() if a not in self._external]

    async def connect(self, where: Where, protocol: str, *, timeout_s: float) -> QuicConnection:
        if self._closed:
            raise Disconnected("This node is stopping.")
        name = where.peer.hex()[:8]
        addresses = [address for address in where.addresses if self._may_dial(address)]
        relay = where.relay if where.relay and self._may_relay(where.relay) else None
        try:
            async with asyncio.timeout(timeout_s):
                peer = iroh.EndpointId.from_bytes(where.peer)
                address = iroh.EndpointAddr(peer, relay, addresses)
                connection = await self._endpoint.connect(address, protocol.encode())
            made = QuicConnection(self, connection, outgoing=True)
        except TimeoutError:
            raise Unreachable(f"{name} did not answer within {timeout_s:g} s.") from None
        except iroh.IrohError as error:
            raise Unreachable(f"{name} cannot be reached: {refusal(error.message())}.") from None
        if self._closed:
            raise Disconnected("This node is stopping.")
        self.run(self._watch(made))
        return made

    async def accept(self) -> QuicConnection:
        connection = await self._arrived.get()
        if connection is None:
            self._arrived.put_nowait(None)
            raise Disconnected("This node is stopping.")
        return connection

    def advertise(self, external: Sequence[str]) -> None:
        self._external = set(external)
        self.run(self._tell())

    def use_relays(self, urls: Sequence[str]) -> None:
        self._relays = {url for url in (*self._settings.relays, *urls) if self._may_relay(url)}
        self.run(self._tell())

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Own a task until the transport is closed; after that there is nothing left to do."""
        if self._closed:
            work.close()
        else:
            self._tasks.create_task(work)

    async def _keep(self, running: asyncio.Future[None]) -> None:
        try:
            async with asyncio.TaskGroup() as self._tasks:
                running.set_result(None)
                bounding = self._tasks.create_task(self._bound_memory())
                await self._take_all()
                bounding.cancel()
        finally:
            self._closed = True
            self._arrived.put_nowait(None)

    async def _take_all(self) -> None:
        while (incoming := await self._endpoint.accept_next()) is not None:
            try:
                await self._consider(incoming)
            except iroh.IrohError as error:
                log.debug("incoming connection: %s", plain(error.message()))

    async def _consider(self, incoming: iroh.Incoming) -> None:
        """Decide about one connection before anything is done for it."""
        came = await incoming.remote_addr()
        observed = came.addr if isinstance(came, iroh.IncomingAddr.IP) else ""
        if isinstance(came, iroh.IncomingAddr.RELAY):
            # The relay has let this key prove itself.
            source, proven = came.endpoint_id.to_bytes().hex(), True
        else:
            source, proven = source_of(observed), await incoming.remote_addr_validated()
        match self.admission.ask(source, proven=proven, now=asyncio.get_running_loop().time()):
            case "refuse":
                log.debug("refused a connection from %s: over its limit", source)
                await incoming.refuse()
            case "prove":
                await incoming.retry()
            case "admit":
                self.run(self._welcome(incoming, source, observed))

    async def _welcome(self, incoming: iroh.Incoming, source: str, observed: str) -> None:
        try:
            try:
                async with asyncio.timeout(self._settings.handshake_timeout_s):
                    connection = await (await incoming.accept()).connect()
            finally:
                self.admission.done(source)
            made = QuicConnection(self, connection, outgoing=False, observed=observed)
            self._arrived.put_nowait(made)
            await self._watch(made)
        except (TimeoutError, iroh.IrohError):
            log.debug("a handshake from %s failed", source)
        finally:
            self.admission.ended(source)

    async def _watch(self, connection: QuicConnection) -> None:
        self._live.add(connection)
        try:
            await connection.until_closed()
        finally:
            self._live.discard(connection)

    async def _bound_memory(self) -> None:
        while True:
            await asyncio.sleep(1)
            for connection in tuple(self._live):
                if connection.meter.unread(connection.arrived_bytes) > UNREAD:
                    log.warning("dropped %s: it sends more than is read", connection.peer.hex()[:8])
                    connection.close("more sent than can be held")

    async def _tell(self) -> None:
        """Bring iroh's addresses and relays to what they should be."""
        async with self._telling:
            addresses, relays = self._told
            self._told = set(self._external), set(self._relays)
            for address in addresses - self._told[0]:
                await _quietly(self._endpoint.remove_external_addr(address))
            for url in relays - self._told[1]:
                await _quietly(self._endpoint.remove_relay(url))
            for address in self._told[0] - addresses:
                await _quietly(self._endpoint.add_external_addr(address))
            for url in self._told[1] - relays:
                await _quietly(self._endpoint.insert_relay(_relay(url)))

    def _sockets(self) -> list[str]:
        port, hosts = self._settings.port, ("0.0.0.0", "[::]")
        if self._settings.loopback_only:
            hosts = ("127.0.0.1", "[::1]")
        elif not port:
            return []
        return [f"{host}:{port}" for host in hosts if host[0] != "[" or _has_ipv6(host[1:-1])]

    def _may_dial(self, address: str) -> bool:
        try:
            ip = ip_of(address)
        except ValueError:
            return False
        if ip.is_unspecified or ip.is_multicast:
            return False
        return ip.is_loopback or not self._settings.loopback_only

    def _may_relay(self, url: str) -> bool:
        """A URL may come from a peer: never to services of this machine; in loopback mode nowhere else."""
        host = urlsplit(url).hostname or ""
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            return bool(host) and host != "localhost" and not self._settings.loopback_only
        return ip.is_loopback == self._settings.loopback_only and not (ip.is_unspecified or ip.is_multicast)


async def _quietly(call: Coroutine[Any, Any, object]) -> None:
    """An address or a URL that came from a peer may make no sense to iroh."""
    try:
        await call
    except iroh.IrohError as error:
        log.debug("not used: %s", plain(error.message()))


def _relay(url: str) -> iroh.RelayConfig:
    port = RELAY_QUIC_PORT if url.startswith("https:") else None
    return iroh.RelayConfig(url=url, quic_port=port)


def _has_ipv6(host: str) -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True
