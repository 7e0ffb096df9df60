"""Real nodes with circles, each a process of its own: on this machine's loopback, or in a network namespace.

with node(path, "Anna") as anna:
    anna.call("POST", "/circles", {"name": "Friends"})
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, TypeVar

from netns import Namespace

START_S = 30.0
STOP_S = 20.0
POLL_S = 0.05
Found = TypeVar("Found")
_never = threading.Event()


class Refused(Exception):
    """The node answered with an error."""

    def __init__(self, status: int, error: dict[str, Any]) -> None:
        super().__init__(f"{status}: {error}")
        self.status, self.code, self.message = status, str(error.get("code")), str(error.get("message"))


class Node:
    """A node that can be started, killed and asked. `settings`: `circle_lan=False` is PARES_CIRCLE_LAN=false."""

    def __init__(self, home: Path, name: str, where: Namespace | None = None, **settings: object) -> None:
        self.home, self.name, self.where = home, name, where
        self.settings: dict[str, object] = {"circle_name": name, "circle_dht": False, "circle_lan": False} | settings
        self.process: subprocess.Popen[bytes] | None = None
        self._port, self._token = 0, ""

    # Its life

    def start(self, *flags: str) -> None:
        """Start it; `ready` waits until it answers."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PARES_")}
        environment |= {"PARES_HOME": str(self.home), "PARES_THREADS": "1"}
        environment |= {f"PARES_{name.upper()}": _text(value) for name, value in self.settings.items()}
        command = [sys.executable, "-m", "pares", "up", "--port", "0", "--no-open", *flags]
        if self.where is not None:
            command = ["ip", "netns", "exec", self.where.name, *command]
        self.home.parent.mkdir(parents=True, exist_ok=True)
        with self.home.with_suffix(".output").open("ab") as output:
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def ready(self) -> None:
        until(self.is_ready, START_S)

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.home.with_suffix(".output").read_text()
        try:
            told = json.loads((self.home / "node.json").read_text())
        except FileNotFoundError:
            return False
        self._port, self._token = told["port"], told["token"]
        return bool(told["pid"] == self.process.pid)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """As if the power failed."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As a person stops it. Nothing happens if it does not run."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    # What it is asked

    def call(self, method: str, path: str, body: object = None, *, timeout_s: float = 30) -> Any:  # noqa: ANN401 - JSON
        """One request of the control API. Raises Refused."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=timeout_s)
        if self.where is not None:
            connection.sock = self.where.inside(lambda: socket.create_connection(("127.0.0.1", self._port), timeout_s))
        try:
            headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
            content = None if body is None else json.dumps(body)
            connection.request(method, f"/pares/v1{path}", content, headers)
            answer = connection.getresponse()
            told = json.loads(answer.read() or b"null")
        finally:
            connection.close()
        if answer.status >= 400:
            raise Refused(answer.status, told["error"])
        return told

    @property
    def id(self) -> str:
        return str(self.call("GET", "/network")["id"])

    def create(self, name: str, **how: object) -> str:
        """A new circle; its id."""
        return str(self.call("POST", "/circles", {"name": name, **how})["id"])

    def invite(self, circle: str, **how: object) -> str:
        """A link."""
        return str(self.call("POST", f"/circles/{circle}/invites", how)["link"])

    def join(self, link: str) -> float:
        """Seconds that the node says it took."""
        return float(self.call("POST", "/circles/join", {"link": link})["seconds"])

    def circles(self) -> dict[str, str]:
        """Names by id."""
        return {circle["id"]: circle["name"] for circle in self.call("GET", "/circles")["circles"]}

    def members(self, circle: str) -> set[str]:
        """Names, its own too."""
        return {member["name"] for member in self.call("GET", f"/circles/{circle}")["members"]}

    def peers(self) -> dict[str, dict[str, Any]]:
        """Its peers by name, asked just now whether they are there."""
        return {peer["name"]: peer for peer in self.call("GET", "/peers")["peers"]}

    def online(self) -> set[str]:
        """Names of peers."""
        return {name for name, peer in self.peers().items() if peer["online"]}

    def path(self, peer: str) -> str:
        """How packets go to a peer: direct, lan, relayed; empty if they do not."""
        return str(self.peers().get(peer, {}).get("path", ""))


@contextmanager
def node(directory: Path, name: str, where: Namespace | None = None, **settings: object) -> Iterator[Node]:
    """A node that answers, stopped at the end."""
    made = Node(directory / name, name, where, **settings)
    with running(made):
        yield made


@contextmanager
def running(*nodes: Node, flags: Iterable[str] = ()) -> Iterator[None]:
    """Start all at once, wait for all, stop those that still run."""
    try:
        for each in nodes:
            each.start(*flags)
        for each in nodes:
            each.ready()
        yield
    finally:
        for each in nodes:
            if each.process is not None:
                each.process.terminate()
        for each in nodes:
            each.stop()


def until(found: Callable[[], Found], within_s: float) -> float:
    """Seconds until `found()` is true. AssertionError with what it was last if that takes too long."""
    began = time.monotonic()
    while not (last := found()):
        assert time.monotonic() - began < within_s, f"not within {within_s:g} s: {last!r}"
        _never.wait(POLL_S)
    return time.monotonic() - began


def all_online(*nodes: Node) -> Callable[[], bool]:
    """Whether each of them sees all others."""
    names = {each.name for each in nodes}
    return lambda: all(each.online() >= names - {each.name} for each in nodes)


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
