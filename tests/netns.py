"""Networks of their own for tests: namespaces, a LAN, two homes behind routers. Linux, and root.

    with lan(2) as (one, other):
        process = one.python("print('hello')")

Whatever is made here is removed again, also when the test fails; nothing in it can reach the machine's own network.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, Literal, TypeVar

NatKind = Literal["independent", "symmetric"]
"""`independent`: one outside port per inside port, whoever is spoken to, filtered by the far address and port.
`symmetric`: another random outside port for every far address."""

COMMAND_S = 20
CLONE_NEWNET = 0x40000000
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace: as a machine of its own as far as the network goes."""

    name: str
    address: str = ""
    """Its IPv4 address, if it has one."""

    def command(self, *arguments: str) -> None:
        """Run something inside and wait for it."""
        _run("ip", "netns", "exec", self.name, *arguments)

    def ip(self, *arguments: str) -> None:
        """`ip` with these arguments, inside."""
        _run("ip", "-n", self.name, *arguments)

    def popen(self, *command: str, stdin: int | IO[str] | None = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Start something inside; its output is piped. The process is `command` itself: signals reach it."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, *command], stdin=stdin, stdout=subprocess.PIPE, text=True
        )

    def python(self, *arguments: str, stdin: int | IO[str] | None = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Start this Python inside: `python("file.py", ...)`, `python("-m", "pares", ...)`."""
        return self.popen(sys.executable, *arguments, stdin=stdin)

    def inside(self, make: Callable[[], Made]) -> Made:
        """Call `make` in a thread that is inside: the sockets that it opens belong here for good."""
        with ThreadPoolExecutor(1, initializer=self._enter) as thread:
            return thread.submit(make).result(COMMAND_S)

    def _enter(self) -> None:
        with open(f"/run/netns/{self.name}") as door:
            if ctypes.CDLL(None, use_errno=True).setns(door.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter {self.name}")

    def cable_cut(self, device: str = "eth0") -> None:
        """Pull the plug."""
        self.ip("link", "set", device, "down")

    def readdress(self, address: str, gateway: str = "", device: str = "eth0") -> Namespace:
        """The same machine with another address (`a.b.c.d`, in a /24) in place of all that the device had."""
        self.ip("addr", "flush", "dev", device)
        self.ip("addr", "add", f"{address}/24", "dev", device)
        if gateway:
            self.ip("route", "replace", "default", "via", gateway)
        return Namespace(self.name, address)


@dataclass(frozen=True, slots=True)
class Homes:
    """Two machines behind routers of their own, and one in public. All meet on 203.0.113.0/24."""

    public: Namespace
    """203.0.113.10"""
    first: Namespace
    """192.168.1.2, seen as 203.0.113.1"""
    second: Namespace
    """192.168.2.2, seen as 203.0.113.2"""
    routers: tuple[Namespace, Namespace]


@contextmanager
def namespace() -> Iterator[Namespace]:
    """An empty namespace with its loopback up. Raises RuntimeError when not root."""
    _require_root()
    made = Namespace(f"pares-{secrets.token_hex(4)}")
    _run("ip", "netns", "add", made.name)
    try:
        made.ip("link", "set", "lo", "up")
        yield made
    finally:
        _run("ip", "netns", "del", made.name)


@contextmanager
def lan(size: int) -> Iterator[tuple[Namespace, ...]]:
    """So many machines on one switch: 10.77.0.1, 10.77.0.2, ... on `eth0`, with a route for multicast."""
    with ExitStack() as stack:
        switch = stack.enter_context(namespace())
        _bridge(switch)
        members = []
        for number in range(1, size + 1):
            member = Namespace(stack.enter_context(namespace()).name, f"10.77.0.{number}")
            _plug(switch, member, device="eth0")
            member.ip("route", "add", "default", "dev", "eth0")
            members.append(member)
        yield tuple(members)


@contextmanager
def two_homes(first: NatKind = "independent", second: NatKind = "independent") -> Iterator[Homes]:
    """Two machines behind NATs of these kinds and a public machine. The routers let nothing in unasked."""
    _require_root()
    if shutil.which("iptables") is None:
        raise RuntimeError("The NAT lab needs iptables: `apt-get install iptables`.")
    with ExitStack() as stack:
        internet = stack.enter_context(namespace())
        _bridge(internet)
        public = Namespace(stack.enter_context(namespace()).name, "203.0.113.10")
        _plug(internet, public, device="wan")
        routers, machines = [], []
        for number, kind in ((1, first), (2, second)):
            router = Namespace(stack.enter_context(namespace()).name, f"203.0.113.{number}")
            _plug(internet, router, device="wan")
            inside = Namespace(stack.enter_context(namespace()).name, f"192.168.{number}.2")
            _route(router, inside, kind)
            routers.append(router)
            machines.append(inside)
        yield Homes(public, machines[0], machines[1], (routers[0], routers[1]))


def _bridge(switch: Namespace) -> None:
    switch.ip("link", "add", "br0", "type", "bridge", "mcast_snooping", "0")  # else it speaks itself
    switch.ip("link", "set", "br0", "up")


def _plug(switch: Namespace, member: Namespace, *, device: str) -> None:
    """A cable from the switch to the member's `device`, which gets the member's address."""
    port = f"p{member.name[-8:]}"
    switch.ip("link", "add", port, "type", "veth", "peer", "name", device, "netns", member.name)
    switch.ip("link", "set", port, "master", "br0", "up")
    member.ip("addr", "add", f"{member.address}/24", "dev", device)
    member.ip("link", "set", device, "up")


def _route(router: Namespace, inside: Namespace, kind: NatKind) -> None:
    gateway = inside.address.rsplit(".", 1)[0] + ".1"
    router.ip("link", "add", "lan", "type", "veth", "peer", "name", "eth0", "netns", inside.name)
    router.ip("addr", "add", f"{gateway}/24", "dev", "lan")
    router.ip("link", "set", "lan", "up")
    inside.ip("addr", "add", f"{inside.address}/24", "dev", "eth0")
    inside.ip("link", "set", "eth0", "up")
    inside.ip("route", "add", "default", "via", gateway)
    router.command("sysctl", "-qw", "net.ipv4.ip_forward=1")
    random_port = ("--random-fully",) if kind == "symmetric" else ()
    for rule in (
        ("-t", "nat", "-A", "POSTROUTING", "-o", "wan", "-j", "MASQUERADE", *random_port),
        ("-P", "FORWARD", "DROP"),
        ("-A", "FORWARD", "-i", "lan", "-o", "wan", "-j", "ACCEPT"),
        ("-A", "FORWARD", "-i", "wan", "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"),
        ("-A", "INPUT", "-i", "wan", "-j", "DROP"),
    ):
        router.command("iptables", *rule)


def _require_root() -> None:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        raise RuntimeError("Network namespaces need root on Linux: run these tests as root (`sudo make check`).")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    if done.returncode:
        raise RuntimeError(f"`{' '.join(command)}` failed: {done.stderr.strip() or done.stdout.strip()}")
