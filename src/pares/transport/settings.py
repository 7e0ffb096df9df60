"""What can be set about reaching other nodes."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Settings:
    """The transport room."""

    port: int = field(
        default=0,
        metadata={"description": "UDP port where peers reach this node; 0 = any free one", "least": 0, "most": 65535},
    )
    loopback_only: bool = field(
        default=False,
        metadata={"description": "Listen and dial on this machine only (127.0.0.1 and ::1); no relays elsewhere"},
    )
    relays: tuple[str, ...] = field(
        default=(), metadata={"description": "URLs of relays to use besides those of the circles"}
    )
    connections: int = field(
        default=512, metadata={"description": "Connections that others may have opened to this node", "least": 1}
    )
    connections_per_address: int = field(
        default=64,
        metadata={"description": "The same, from one address (IPv6: one /64)", "least": 1},
    )
    half_done: int = field(
        default=64, metadata={"description": "Handshakes of incoming connections that may be under way", "least": 1}
    )
    half_done_per_address: int = field(
        default=16, metadata={"description": "The same, from one address (IPv6: one /64)", "least": 1}
    )
    handshakes_per_s: float = field(
        default=5.0,
        metadata={"description": "Handshakes per second that one address may begin, on average", "least": 0.1},
    )
    handshake_burst: int = field(
        default=20, metadata={"description": "Handshakes that one address may begin at once", "least": 1}
    )
    handshake_timeout_s: float = field(
        default=10.0, metadata={"description": "How long an incoming handshake may take", "least": 0.1}
    )
