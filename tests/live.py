"""A real node in a process of its own, as `pares up` starts it, for tests that talk to it over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

START_S = 60
STOP_S = 30


@dataclass(frozen=True)
class Live:
    """A node that answers."""

    url: str
    page: str
    """Opens the page, once."""
    token: str
    pid: int
    home: Path

    def client(self) -> httpx2.AsyncClient:
        """An HTTP client that may do everything."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=60, limits=httpx2.Limits())


@contextmanager
def live(home: Path, *models: tuple[str, Path], **settings: object) -> Iterator[Live]:
    """Start a node at `home` on a free port, import models (name, path), stop it at the end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PARES_")}
    environment |= {"PARES_HOME": str(home), "PARES_THREADS": "1"}
    environment |= {f"PARES_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-m", "pares", "--json"]

    def pares(*words: str, timeout: float) -> dict[str, object]:
        done = subprocess.run([*command, *words], env=environment, capture_output=True, timeout=timeout, check=True)
        told: dict[str, object] = json.loads(done.stdout or b"{}")
        return told

    up = pares("up", "-d", "--no-open", "--port", "0", timeout=START_S)
    try:
        token = json.loads((home / "node.json").read_text())["token"]
        node = Live(str(up["url"]), str(up["page"]), token, int(str(up["pid"])), home)
        headers = {"Authorization": f"Bearer {token}"}
        for name, path in models:
            body = {"path": str(path), "name": name}
            httpx2.post(f"{node.url}/pares/v1/models/import", json=body, headers=headers).raise_for_status()
        yield node
    finally:
        pares("down", timeout=STOP_S)
