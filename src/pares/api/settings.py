"""What can be set about the door of the node."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Settings:
    """The door of the node."""

    port: int = field(
        default=11435,
        metadata={"description": "Port of the API and the page; 0 chooses a free one", "least": 0, "most": 65535},
    )
    host: str = field(
        default="127.0.0.1",
        metadata={"description": "Address to listen on; anything but loopback demands a key of every request"},
    )
    ollama_port: int = field(
        default=0,
        metadata={
            "description": "Also serve on this port, for tools that look for Ollama (11434); 0 = no",
            "least": 0,
            "most": 65535,
        },
    )
    require_key: bool = field(default=False, metadata={"description": "Demand a key for /v1 and /api on loopback too"})
    origins: tuple[str, ...] = field(
        default=(), metadata={"description": "Web origins that may call /v1 and /api from a browser (CORS)"}
    )
    hosts: tuple[str, ...] = field(
        default=(), metadata={"description": "Further names this node is called by in the Host header"}
    )
    max_body_bytes: int = field(default=32 * 2**20, metadata={"description": "Largest request body that is accepted"})
