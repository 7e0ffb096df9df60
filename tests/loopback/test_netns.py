"""The NAT lab itself: its routers do what their kind says."""

from __future__ import annotations

import pytest

from netns import Namespace, NatKind, two_homes

ECHO = """
import socket, sys
s = socket.socket(type=socket.SOCK_DGRAM); s.bind(("0.0.0.0", int(sys.argv[1]))); s.settimeout(20)
print("up", flush=True)
data, (host, port) = s.recvfrom(99); print(host, port, flush=True)
"""
SAY = """
import socket, sys
s = socket.socket(type=socket.SOCK_DGRAM); s.bind(("0.0.0.0", 4000))
for port in sys.argv[2:]: s.sendto(b"x", (sys.argv[1], int(port)))
"""


@pytest.mark.parametrize(("kind", "ports"), [("independent", 1), ("symmetric", 2)])
def test_outside_ports_of_one_socket_by_kind_of_nat(kind: NatKind, ports: int) -> None:
    with two_homes(kind, "independent") as homes:
        listeners = [homes.public.python("-c", ECHO, str(port)) for port in (5001, 5002)]
        for listener in listeners:
            assert listener.stdout is not None
            assert listener.stdout.readline() == "up\n"
        assert say(homes.first, homes.public.address, "5001", "5002") == 0
        heard = [listener.communicate(timeout=20)[0].split() for listener in listeners]
    assert {host for host, _ in heard} == {"203.0.113.1"}
    assert len({port for _, port in heard}) == ports


def test_nothing_comes_in_unasked() -> None:
    with two_homes() as homes:
        listener = homes.first.python("-c", ECHO.replace("settimeout(20)", "settimeout(0.5)"), "4000")
        assert listener.stdout is not None
        assert listener.stdout.readline() == "up\n"
        assert say(homes.public, homes.routers[0].address, "4000") == 0
        assert listener.communicate(timeout=20)[0] == ""


def say(where: Namespace, address: str, *ports: str) -> int:
    with where.python("-c", SAY, address, *ports) as process:
        return process.wait(timeout=20)
