"""The BitTorrent process: owns one libtorrent session, whose Mainline DHT node stores and finds small signed records.

`python -m pares.transport.bittorrent FD` speaks the messages of `bittorrent_pipe` over the inherited socket FD, and
ends when that closes. A process of its own: libtorrent reads what strangers send, and a crash must not take the node
along. libtorrent checks key, signature and sequence of every item itself, before it reports it.
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
from collections import defaultdict
from pathlib import Path
from typing import Any

import libtorrent as lt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pares.transport import bittorrent_pipe as pipe
from pares.wire.framing import PREFIX, size_of

TICK_S = 1.0
SIGN_OF_LIFE_S = 5.0
SAVE_S = 300.0
SAVE_CHANGED_S = 10.0
"""How long a change of the number of nodes may be unsaved."""
STATE_BYTES = 1 << 20
RECEIVE = 1 << 16

QUIET = {
    "webtorrent_stun_server": "",  # libtorrent's default asks somebody's server
    "alert_mask": lt.alert_category.dht | lt.alert_category.dht_operation,  # of a put it tells in the first alone
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


class Session:
    """The loop of the process: one thread, woken by the node, by libtorrent, or once a second."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()
        self._puts: defaultdict[tuple[bytes, bytes], list[int]] = defaultdict(list)
        self._gets: defaultdict[tuple[bytes, bytes], list[int]] = defaultdict(list)
        self._status = pipe.Status()
        self._told_at = self._saved_at = float("-inf")
        self._saved_nodes = 0

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
            selector.register(self._connection, selectors.EVENT_READ)
            selector.register(ours, selectors.EVENT_READ)
            tick = time.monotonic()
            while bodies is not None:
                for body in bodies:
                    self._handle(pipe.to_session.decode(body))
                self._take_alerts()
                if (now := time.monotonic()) >= tick:
                    tick = now + TICK_S
                    self._session.post_session_stats()
                bodies = []
                for key, _ in selector.select(tick - now):
                    if key.fileobj is ours:
                        with contextlib.suppress(BlockingIOError):
                            ours.recv(RECEIVE)
                    else:
                        bodies = self._receive()
            self._save()

    # The connection

    def _receive(self) -> list[bytes] | None:
        """Messages that are complete after one read; None when the node is gone."""
        data = self._connection.recv(RECEIVE)
        if not data:
            return None
        self._buffer += data
        bodies = []
        while len(self._buffer) >= PREFIX.size:
            end = PREFIX.size + size_of(bytes(self._buffer[: PREFIX.size]))
            if len(self._buffer) < end:
                break
            bodies.append(bytes(self._buffer[PREFIX.size : end]))
            del self._buffer[:end]
        return bodies

    def _send(self, message: pipe.FromSession) -> None:
        self._connection.sendall(pipe.framed(message))

    # The session

    def _open(self, wanted: pipe.Open) -> None:
        self._state = Path(wanted.state)
        parameters = _remembered(self._state)
        settings: Any = {
            **QUIET,
            **(PRIVATE if wanted.private else {}),
            "listen_interfaces": wanted.interfaces,
            "dht_bootstrap_nodes": wanted.bootstrap,
            "enable_lsd": wanted.local_discovery,
            "enable_upnp": wanted.port_mapping,
            "enable_natpmp": wanted.port_mapping,
            "enable_dht": False,  # a session that begins with it on forgets its state
        }
        parameters.settings = settings
        self._session = lt.session(parameters)
        self._session.apply_settings({"enable_dht": wanted.dht})
        self._send(pipe.Opened(self._session.listen_port()))

    def _save(self) -> None:
        state = self._session.session_state(lt.save_state_flags_t.save_dht_state)
        written = lt.write_session_params_buf(state, lt.save_state_flags_t.save_dht_state)
        partial = self._state.with_suffix(".partial")
        with partial.open("wb") as file:
            file.write(written)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._state)
        self._saved_at = time.monotonic()
        self._saved_nodes = self._status.nodes

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
                self._save()
                self._send(pipe.Saved(id_))
            case pipe.Open():
                raise ValueError("A session is opened once.")

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
