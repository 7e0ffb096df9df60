"""The BitTorrent process: owns one libtorrent session, which exchanges files and has a node in the Mainline DHT.

`python -m pares.transport.bittorrent FD` speaks the messages of `bittorrent_pipe` over the inherited socket FD, and
ends when that closes. A process of its own: libtorrent reads what strangers send, and a crash must not take the node
along. libtorrent checks key, signature and sequence of every DHT item itself, before it reports it, and the hash of
every piece. What this says of torrents is said by `bittorrent_torrents`; here is what libtorrent is told and tells.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import selectors
import signal
import socket
import sys
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import libtorrent as lt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pares.errors import VerificationFailed
from pares.transport import bittorrent_pipe as pipe
from pares.transport.bitfield import packed, unpacked
from pares.transport.bittorrent_resume import Kept, write_whole
from pares.transport.bittorrent_torrents import Torrents
from pares.wire.framing import PREFIX, size_of

TICK_S = 0.5
SIGN_OF_LIFE_S = 5.0
SAVE_S = 300.0
SAVE_CHANGED_S = 10.0
"""How long a change of the number of nodes may be unsaved."""
CLOSE_S = 8.0
"""What has been fetched is brought to the disk at the end, for so long at most."""
STATE_BYTES = 1 << 20
RECEIVE = 1 << 16
SOURCES = 200
WRITING = 2
"""State of a block that has come; 3: is in the file. Below, it has not come."""
UNFINISHED = lt.peer_info.connecting | lt.peer_info.handshake

ALERTS = lt.alert_category.dht | lt.alert_category.dht_operation  # of a put it tells in the first alone
QUIET = {
    "webtorrent_stun_server": "",  # libtorrent's default asks somebody's server
    "alert_mask": ALERTS,
    "aio_threads": 1,
    "hashing_threads": 1,
    # The listening TCP socket cannot be turned off; nothing is accepted on it.
    "enable_incoming_tcp": False,
    "enable_outgoing_tcp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
}
PRIVATE = {
    # Against Sybils in the public DHT: few nodes per network, ids bound to public addresses, a few packets a second
    # from one address. A small DHT whose nodes share a network or a machine is nothing but such nodes.
    "dht_restrict_routing_ips": False,
    "dht_restrict_search_ips": False,
    "dht_prefer_verified_node_ids": False,
    "dht_ignore_dark_internet": False,
    "dht_block_ratelimit": 10_000,
    "dht_upload_rate_limit": 1 << 20,
    "enable_ip_notifier": False,
}


SWARM = {
    "alert_mask": ALERTS
    | lt.alert_category.error
    | lt.alert_category.status
    | lt.alert_category.storage
    | lt.alert_category.peer,
    "alert_queue_size": 10_000,
    "enable_incoming_tcp": True,
    "enable_outgoing_tcp": True,  # uTP is taken from others, not offered: many times slower on local links
    "mixed_mode_algorithm": 0,
    "allow_multiple_connections_per_ip": True,
    "listen_system_port_fallback": True,
    "request_queue_time": 1,
    "send_buffer_low_watermark": 256 << 10,  # from the first second on, when no rate is known yet
    "unchoke_slots_limit": -1,
    "strict_end_game_mode": True,
    "seeding_outgoing_connections": False,  # who wants something dials
    "connections_limit": 500,
    "min_reconnect_time": 2,
    "close_redundant_connections": False,
    "max_failcount": 1000,
    "max_queued_disk_bytes": 16 << 20,
    "checking_mem_usage": 64,
    "no_atime_storage": True,
}
EVERYBODY = (("0.0.0.0", "255.255.255.255"), ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))
THIS_MACHINE = (("127.0.0.0", "127.255.255.255"), ("::1", "::1"))


class Session:
    """The loop of the process: one thread, woken by the node, by libtorrent, or twice a second."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()
        self._puts: defaultdict[tuple[bytes, bytes], list[int]] = defaultdict(list)
        self._gets: defaultdict[tuple[bytes, bytes], list[int]] = defaultdict(list)
        self._status = pipe.Status()
        self._told_at = self._saved_at = float("-inf")
        self._saved_nodes = 0
        self._roots: dict[lt.torrent_handle, bytes] = {}
        self._torrents: Torrents | None = None

    def run(self) -> None:
        """Open what the first message says, then serve until the node closes the connection."""
        while not (bodies := self._receive()):
            if bodies is None:
                return
        first = pipe.to_session.decode(bodies.pop(0))
        assert isinstance(first, pipe.Open)
        self._open(first)
        ours, theirs = socket.socketpair()
        with ours, theirs, selectors.DefaultSelector() as selector:
            for end in (ours, theirs):
                end.setblocking(False)
            self._session.set_alert_fd(theirs.fileno())
            if first.resume:
                self._open_swarm(Path(first.resume), theirs)
            selector.register(self._connection, selectors.EVENT_READ)
            selector.register(ours, selectors.EVENT_READ)
            tick = time.monotonic()
            while bodies is not None:
                for body in bodies:
                    self._handle(pipe.to_session.decode(body))
                self._take_alerts()
                if (now := time.monotonic()) >= tick:
                    tick = now + TICK_S
                    self._tick()
                bodies = []
                for key, _ in selector.select(tick - now):
                    if key.fileobj is ours:
                        _drain(ours)
                    else:
                        bodies = self._receive()
            self._save()
            if self._torrents is not None:
                self._torrents.stop()
                end_at = time.monotonic() + CLOSE_S
                selector.unregister(self._connection)
                self._take_alerts()  # first: there is no sign of more while there are some
                while self._torrents.busy and (left := end_at - time.monotonic()) > 0:
                    selector.select(left)
                    _drain(ours)
                    self._take_alerts()

    # The connection

    def _receive(self) -> list[bytes] | None:
        """Messages that are complete after one read; None when the node is gone."""
        try:
            data = self._connection.recv(RECEIVE)
        except ConnectionError:
            return None
        if not data:
            return None
        self._buffer += data
        bodies = []
        while len(self._buffer) >= PREFIX.size:
            end = PREFIX.size + size_of(bytes(self._buffer[: PREFIX.size]), most=pipe.FRAME_BYTES)
            if len(self._buffer) < end:
                break
            bodies.append(bytes(self._buffer[PREFIX.size : end]))
            del self._buffer[:end]
        return bodies

    def _send(self, message: pipe.FromSession) -> None:
        with contextlib.suppress(ConnectionError):  # the node is gone: the next read tells
            self._connection.sendall(pipe.framed(message))

    # The session

    def _open(self, wanted: pipe.Open) -> None:
        self._state = Path(wanted.state)
        parameters = _remembered(self._state)
        settings: Any = {
            **QUIET,
            **(SWARM if wanted.resume else {}),
            **(PRIVATE if wanted.private else {}),
            "listen_interfaces": wanted.interfaces,
            "dht_bootstrap_nodes": wanted.bootstrap,
            "enable_lsd": wanted.local_discovery,
            "enable_upnp": wanted.port_mapping,
            "enable_natpmp": wanted.port_mapping,
            "enable_incoming_utp": bool(wanted.resume) and not wanted.private,
            "enable_dht": False,  # a session that begins with it on forgets its state
        }
        parameters.settings = settings
        self._session = lt.session(parameters)
        self._session.apply_settings({"enable_dht": wanted.dht})
        self._send(pipe.Opened(self._session.listen_port()))

    def _open_swarm(self, folder: Path, waker: socket.socket) -> None:
        # By default limits do not hold for local addresses; the tunnels of a circle are local, too.
        classes = lt.ip_filter()
        for first, last in EVERYBODY:
            classes.add_rule(first, last, 1 << self._session.global_peer_class_id)
        self._session.set_peer_class_filter(classes)

        def wake() -> None:
            with contextlib.suppress(OSError):  # full: it wakes anyway
                waker.send(b"w")

        self._torrents = Torrents(self, folder, send=self._send, wake=wake, now=time.monotonic)

    def _tick(self) -> None:
        self._session.post_session_stats()
        if self._torrents is not None:
            self._session.post_torrent_updates(lt.torrent_handle.query_pieces)
            self._torrents.tick()

    def _save(self) -> bool:
        """Whether it could be written; where not, what is remembered is older, and it is tried again later."""
        self._saved_at = time.monotonic()
        self._saved_nodes = self._status.nodes
        state = self._session.session_state(lt.save_state_flags_t.save_dht_state)
        written = lt.write_session_params_buf(state, lt.save_state_flags_t.save_dht_state)
        try:
            write_whole(self._state, written)
        except OSError:
            return False
        return True

    # Requests

    def _handle(self, message: pipe.ToSession) -> None:
        match message:
            case pipe.Put(id_, seed, salt, value):
                key = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
                self._puts[key, salt].append(id_)
                self._session.dht_put_mutable_item(_expanded(seed), key, value, salt)
            case pipe.Get(id_, key, salt):
                self._gets[key, salt].append(id_)
                self._session.dht_get_mutable_item(key, salt)
            case pipe.AddNodes(nodes):
                for node in nodes:
                    self._session.add_dht_node(node)
            case pipe.Save(id_):
                if self._save():
                    self._send(pipe.Saved(id_))
            case pipe.Limit(upload, download):
                self._session.apply_settings(
                    {"upload_rate_limit": _rate(upload), "download_rate_limit": _rate(download)}
                )
            case pipe.Admit(hosts):
                self._session.set_ip_filter(_only(hosts))
            case pipe.AddTorrent() | pipe.RemoveTorrent() | pipe.Pause() | pipe.Connect():
                assert self._torrents is not None
                self._torrents.handle(message)
            case pipe.Open():
                raise ValueError("A session is opened once.")

    def load(self, wish: pipe.AddTorrent, kept: Kept | None) -> Handle:
        """`bittorrent_torrents.Engine.load`"""
        try:
            parameters = lt.load_torrent_buffer(wish.metainfo)
        except RuntimeError as error:
            raise VerificationFailed(f"The hashes of the pieces of {wish.path} are wrong ({error}).") from error
        flags = lt.torrent_flags
        unwanted = flags.auto_managed | flags.paused
        parameters.flags = (parameters.flags & ~unwanted) | flags.update_subscribe
        if not wish.public:
            parameters.flags |= flags.disable_dht | flags.disable_lsd | flags.disable_pex
        if wish.complete:
            parameters.flags |= flags.seed_mode | flags.upload_mode  # upload mode: never fetch, never write
        else:
            parameters.piece_priorities = _priorities(wish)
            if kept is not None:
                parameters.have_pieces = unpacked(kept.have, wish.pieces)
                parameters.unfinished_pieces = {
                    piece: unpacked(blocks, 8 * len(blocks)) for piece, blocks in kept.unfinished.items()
                }
        if wish.paused:
            parameters.flags |= flags.paused
        path = Path(wish.path)
        parameters.save_path = str(path.parent)
        parameters.renamed_files = {0: path.name}
        parameters.url_seeds = wish.web_seeds
        handle = Handle(self._session.add_torrent(parameters), self._session, self._roots)
        self._roots[handle.torrent] = wish.root
        handle.adjust(wish)
        return handle

    # Alerts: what they hold is gone with the next pop_alerts, so everything is copied at once

    def _take_alerts(self) -> None:
        for alert in self._session.pop_alerts():
            if isinstance(alert, lt.dht_mutable_item_alert):
                self._found(alert)
            elif isinstance(alert, lt.dht_put_alert):
                if waiting := self._puts.get((alert.public_key, alert.salt)):
                    self._send(pipe.Stored(waiting.pop(0), alert.num_success))
            elif isinstance(alert, lt.session_stats_alert):
                self._tell(alert.values)
            elif self._torrents is not None:
                self._pass_on(alert, self._torrents)
        if self._torrents is not None:
            self._torrents.collect()

    def _pass_on(self, alert: lt.alert, torrents: Torrents) -> None:
        if isinstance(alert, lt.state_update_alert):
            for status in alert.status:
                if root := self._roots.get(status.handle):
                    torrents.moved(root, _facts(status))
        elif isinstance(alert, lt.torrent_alert) and (root := self._roots.get(alert.handle)):
            if isinstance(alert, lt.cache_flushed_alert):
                torrents.flushed(root)
            elif isinstance(alert, lt.torrent_checked_alert):
                _hurry(alert.handle)
            elif isinstance(alert, lt.file_error_alert):
                torrents.broke(root, *_said(alert.error), alert.filename())
            elif isinstance(alert, lt.torrent_error_alert):
                torrents.broke(root, *_said(alert.error))
            elif isinstance(alert, lt.hash_failed_alert):
                torrents.rejected(root, alert.piece_index)
            elif isinstance(alert, lt.peer_ban_alert):
                torrents.banned(root, _written(alert.endpoint))

    def _found(self, alert: lt.dht_mutable_item_alert) -> None:
        last = bool(alert.authoritative)
        where = (alert.key, alert.salt)
        value = alert.item if isinstance(alert.item, bytes) else b""
        for id_ in self._gets.pop(where, []) if last else self._gets.get(where, []):
            self._send(pipe.Found(id_, value, alert.seq, last))

    def _tell(self, counters: dict[str, int]) -> None:
        status = pipe.Status(counters["dht.dht_nodes"], counters["dht.dht_messages_in"])
        now = time.monotonic()
        if status.nodes != self._status.nodes or now - self._told_at >= SIGN_OF_LIFE_S:
            self._told_at = now
            self._status = status
            self._send(status)
        age = now - self._saved_at
        if age >= SAVE_S or (age >= SAVE_CHANGED_S and status.nodes != self._saved_nodes):
            self._save()


class Handle:
    """`bittorrent_torrents.Handle`"""

    def __init__(self, torrent: lt.torrent_handle, session: lt.session, roots: dict[lt.torrent_handle, bytes]) -> None:
        self.torrent = torrent
        self._session = session
        self._roots = roots

    def facts(self) -> pipe.Facts:
        return _facts(self.torrent.status(lt.torrent_handle.query_pieces))

    def blocks(self) -> dict[int, bytes]:
        queue = self.torrent.get_download_queue()
        come = {
            piece["piece_index"]: packed([block["state"] >= WRITING for block in piece["blocks"]]) for piece in queue
        }
        return {piece: blocks for piece, blocks in come.items() if any(blocks)}

    def flush(self) -> None:
        self.torrent.flush_cache()

    def adjust(self, wish: pipe.AddTorrent) -> None:
        if not wish.complete:
            self.torrent.prioritize_pieces(_priorities(wish))
        for url in set(wish.web_seeds) - set(self.torrent.url_seeds()):
            self.torrent.add_url_seed(url)
        self.torrent.set_download_limit(_rate(wish.download_limit))
        self.torrent.set_upload_limit(_rate(wish.upload_limit))
        with warnings.catch_warnings(action="ignore"):  # deprecated, without another way to a torrent's peer class
            self.torrent.set_priority(wish.priority)

    def pause(self, paused: bool) -> None:
        if paused:
            self.torrent.pause()
        else:
            self.torrent.resume()

    def dial(self, peer: tuple[str, int]) -> None:
        self.torrent.connect_peer(peer)
        _hurry(self.torrent)

    def drop(self) -> None:
        del self._roots[self.torrent]
        self._session.remove_torrent(self.torrent)


def _hurry(torrent: lt.torrent_handle) -> None:
    """Connect now; libtorrent does so once a second, but at once when a torrent is resumed."""
    status = torrent.status(0)
    downloading = status.state == lt.torrent_status.states.downloading
    if downloading and not status.num_connections and not status.flags & lt.torrent_flags.paused:
        torrent.pause()
        torrent.resume()


def _rate(limit: int) -> int:
    """What libtorrent takes: 31 bits; more is none."""
    return limit if limit < 1 << 31 else 0


def _priorities(wish: pipe.AddTorrent) -> list[int]:
    return [4 * wanted for wanted in unpacked(wish.wanted, wish.pieces)]


def _facts(status: lt.torrent_status) -> pipe.Facts:
    states = lt.torrent_status.states
    return pipe.Facts(
        checking=status.state in (states.checking_files, states.checking_resume_data),
        finished=bool(status.is_finished),
        have=packed(status.pieces),
        done=status.total_wanted_done,
        wanted=status.total_wanted,
        down_rate=status.download_payload_rate,
        up_rate=status.upload_payload_rate,
        downloaded=status.total_payload_download,
        uploaded=status.total_payload_upload,
        wasted=status.total_failed_bytes + status.total_redundant_bytes,
        sources=[_source(peer) for peer in status.handle.get_peer_info()[:SOURCES] if not peer.flags & UNFINISHED],
    )


def _source(peer: lt.peer_info) -> pipe.Source:
    return pipe.Source(
        _written(peer.ip),
        peer.connection_type in (lt.peer_info.web_seed, lt.peer_info.http_seed),
        peer.progress,
        peer.payload_down_speed,
        peer.payload_up_speed,
        peer.total_download,
        peer.total_upload,
    )


def _said(error: lt.error_code) -> tuple[int, str]:
    """The system's number of an error, 0 if it is not the system's, and its text."""
    return error.value() if error.category().name() in ("system", "generic") else 0, error.message()


def _written(endpoint: tuple[str, int]) -> str:
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _drain(end: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        end.recv(RECEIVE)


def _only(hosts: list[str] | None) -> lt.ip_filter:
    """All addresses but those of `hosts` and of this machine are blocked; None: none is."""
    admitted = lt.ip_filter()
    if hosts is not None:
        blocked, open_ = 1, 0
        for first, last in EVERYBODY:
            admitted.add_rule(first, last, blocked)
        for first, last in (*THIS_MACHINE, *((host, host) for host in hosts)):
            admitted.add_rule(first, last, open_)
    return admitted


def _remembered(path: Path) -> lt.session_params:
    """The node's id and nodes as they were saved; fresh ones if there is nothing readable."""
    try:
        with path.open("rb") as file:
            saved = file.read(STATE_BYTES)
        return lt.read_session_params(saved, lt.save_state_flags_t.save_dht_state)
    except (OSError, RuntimeError):
        return lt.session_params()


def _expanded(seed: bytes) -> bytes:
    """An Ed25519 seed as the 64-byte private key that libtorrent takes (RFC 8032, 5.1.5)."""
    digest = bytearray(hashlib.sha512(seed).digest())
    digest[0] &= 248
    digest[31] &= 63
    digest[31] |= 64
    return bytes(digest)


def main() -> None:
    """Entry point of the child process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node decides when this ends
    with socket.socket(fileno=int(sys.argv[1])) as connection, contextlib.suppress(BrokenPipeError, ConnectionError):
        Session(connection).run()
    os._exit(0)  # the state is saved; taking the session down in good order would wait for the network


if __name__ == "__main__":
    main()
