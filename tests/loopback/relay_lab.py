"""Two real iroh endpoints that can reach a relay and not each other: three network namespaces, gone with the processes.

`unshare --net [--user --map-root-user] python relay_lab.py`: prints what it saw as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time

import iroh

from pares.circle.relay import Relay
from pares.circle.settings import RelaySettings

PORT = 3340
URL = f"http://192.0.2.1:{PORT}"
PEERS = {"listen": "192.0.2.0", "dial": "198.51.100.0"}
SEEDS = {"listen": bytes([1]) * 32, "dial": bytes([2]) * 32}
SIZE = 8 * 2**20
PIECE = 2**18
ALPN = b"relay-lab/1"


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def ip(*words: str) -> None:
    subprocess.run(["ip", *" ".join(words).split()], check=True, timeout=10)


def host(network: str, number: int) -> str:
    return network[:-1] + str(number)


async def endpoint(role: str) -> iroh.Endpoint:
    relays = iroh.RelayMap.empty()
    relays.insert(iroh.RelayConfig(url=URL, quic_port=None, auth_token=None))
    mode = iroh.RelayMode.custom(relays)
    options = iroh.EndpointOptions(preset=iroh.preset_minimal(), secret_key=SEEDS[role], alpns=[ALPN], relay_mode=mode)
    return await iroh.Endpoint.bind(options)


async def receive(stream: iroh.RecvStream, size: int) -> int:
    """How many of `size` bytes came as they should."""
    right = 0
    for _ in range(0, size, PIECE):
        right += (await stream.read_exact(PIECE)).count(b"x")
    return right


async def send(stream: iroh.SendStream, size: int) -> None:
    for _ in range(0, size, PIECE):
        await stream.write_all(b"x" * PIECE)


async def listen() -> None:
    """Answer small requests with themselves, and the large one with as much."""
    me = await endpoint("listen")
    await me.online()
    say("online")
    incoming = await me.accept_next()
    assert incoming is not None
    connection = await (await incoming.accept()).connect()
    stream = await connection.accept_bi()
    for _ in range(50):
        await stream.send().write_all(await stream.recv().read_exact(1000))
    await receive(stream.recv(), SIZE)
    await send(stream.send(), SIZE)
    await connection.closed()
    await me.close()


async def dial() -> None:
    me = await endpoint("dial")
    peer = iroh.SecretKey.from_bytes(SEEDS["listen"]).public()
    connection = await me.connect(iroh.EndpointAddr(peer, URL, []), ALPN)
    stream = await connection.open_bi()
    times = []
    for _ in range(50):
        start = time.perf_counter()
        await stream.send().write_all(bytes(1000))
        await stream.recv().read_exact(1000)
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    await send(stream.send(), SIZE)
    came = await receive(stream.recv(), SIZE)
    taken = time.perf_counter() - start
    paths = [path.remote_addr for path in connection.paths() if path.is_selected]
    rtt_ms = sorted(times)[25] * 1000
    say(json.dumps({"came": came, "mb_s": 2 * SIZE / taken / 1e6, "rtt_ms": rtt_ms, "paths": paths}))
    connection.close(0, b"done")
    await me.close()


async def start(role: str, network: str) -> asyncio.subprocess.Process:
    """A peer in its own namespace, with one link to here. Nobody forwards between the links."""
    process = await asyncio.create_subprocess_exec(
        "unshare", "--net", sys.executable, __file__, role,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert await process.stdout.readline() == b"unshared\n"
    ip(f"link add {role} type veth peer name uplink netns {process.pid}")
    ip(f"addr add {host(network, 1)}/30 dev {role}")
    ip(f"link set {role} up")
    assert process.stdin is not None
    process.stdin.write(b"linked\n")
    return process


def linked(network: str) -> None:
    """In the peer's process: wait for the link, and take the address."""
    say("unshared")
    sys.stdin.readline()
    ip("link set lo up")
    ip(f"addr add {host(network, 2)}/30 dev uplink")
    ip("link set uplink up")
    ip(f"route add default via {host(network, 1)}")


async def main() -> None:
    ip("link set lo up")
    async with asyncio.timeout(40), Relay(RelaySettings(port=PORT), allowed=lambda key: True) as relay:
        peers = []
        for role, network in PEERS.items():
            peers.append(await start(role, network))
            if role == "listen":
                assert peers[0].stdout is not None
                assert await peers[0].stdout.readline() == b"online\n"
        assert peers[1].stdout is not None
        seen = json.loads(await peers[1].stdout.readline())
        for peer in peers:
            await peer.wait()
        say(json.dumps(seen | {"forwarded": relay.metrics.forwarded_bytes, "ended": relay.metrics.ended}))


if __name__ == "__main__":
    match sys.argv[1:]:
        case [role]:
            linked(PEERS[role])
            asyncio.run(asyncio.wait_for(listen() if role == "listen" else dial(), 40))
        case _:
            asyncio.run(main())
