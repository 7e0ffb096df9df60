"""What can be set about circles."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Settings:
    """The circle room."""

    name: str = field(
        default="", metadata={"description": "What other members see this node as; empty = the machine's name"}
    )
    lan: bool = field(default=True, metadata={"description": "Find members on the local network (multicast DNS)"})
    lan_interfaces: tuple[str, ...] = field(
        default=(), metadata={"description": "Addresses of the interfaces to do that on; empty = all but loopback"}
    )
    dht: bool = field(
        default=True,
        metadata={"description": "Find members through the Mainline DHT, where a circle allows the internet"},
    )
    dht_bootstrap: tuple[str, ...] = field(
        default=("router.bittorrent.com:6881", "dht.transmissionbt.com:6881", "dht.libtorrent.org:25401"),
        metadata={"description": "Where to begin in the DHT when no node of it is remembered"},
    )
    dht_private: bool = field(
        default=False,
        metadata={"description": "The DHT is one of your own: also addresses inside of a home go into it"},
    )


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """The relay that this node runs for its circles."""

    enabled: bool = field(default=False, metadata={"description": "Relay for the members of this node's circles"})
    host: str = field(default="", metadata={"description": "Address to listen on; empty = all of this machine"})
    port: int = field(default=3340, metadata={"description": "TCP port to listen on", "least": 0, "most": 65535})
    url: str = field(
        default="",
        metadata={"description": "Where members reach it, like http://192.0.2.1:3340; empty = as peers see this node"},
    )
    clients: int = field(
        default=256, metadata={"description": "Members connected at the same time", "least": 2, "most": 4096}
    )
    connections_per_address: int = field(
        default=32, metadata={"description": "Connections from one address, or from one /64 of IPv6", "least": 1}
    )
    handshakes_per_second: int = field(
        default=10, metadata={"description": "New connections from one address; four times that at once", "least": 1}
    )
    handshake_s: float = field(
        default=5.0, metadata={"description": "How long a new connection may take to prove its key", "least": 0.1}
    )
    idle_s: float = field(
        default=30.0, metadata={"description": "Drop a member that neither sends nor answers for so long", "least": 0.2}
    )
    stalled_s: float = field(
        default=10.0, metadata={"description": "Drop a member that reads nothing for so long", "least": 0.1}
    )
    bytes_per_second: int = field(
        default=16 * 2**20,
        metadata={"description": "Of one member, in each direction; what is faster waits", "least": 2**16},
    )
    frames_per_second: int = field(
        default=20_000, metadata={"description": "Like bytes_per_second, in frames", "least": 100}
    )
    queue_bytes: int = field(
        default=2**20,
        metadata={"description": "What may wait for a member that reads slowly; more is lost", "least": 2**17},
    )
