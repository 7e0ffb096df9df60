"""What a person should know about this machine and node before wondering why something does not work."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sqlite3
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pares.api.auth import is_loopback
from pares.api.schemas import Check
from pares.config import Config
from pares.inference import machine

LEAST_MEMORY = 1_000_000_000
LEAST_DISK = 5_000_000_000


def examine(config: Config, *, models_missing: tuple[str, ...] = ()) -> list[Check]:
    """All checks, the general ones first. Blocking: about a tenth of a second."""
    return [
        _engine(),
        _processor(),
        _memory(),
        _disk(config.home),
        _home(config.home),
        _database(config.database),
        _door(config),
        _network(config),
        _models(models_missing),
        *(Check("settings", "warning", warning, "Correct it, or take it out.") for warning in config.warnings),
    ]


def _engine() -> Check:
    try:
        built = version("llama-cpp-python")
    except PackageNotFoundError:
        return Check(
            "engine", "problem", "llama-cpp-python is not installed.", "Run `make run`, or `pip install pares`."
        )
    found = importlib.util.find_spec("llama_cpp")
    folder = Path(found.origin).parent / "lib" if found and found.origin else None
    if folder is None or not any(folder.glob("*llama.*")):
        return Check("engine", "problem", f"llama-cpp-python {built} has no llama.cpp in it.", "Install it again.")
    return Check("engine", "ok", f"llama.cpp from llama-cpp-python {built}.")


def _processor() -> Check:
    cores, busy, wide = machine.cores(), machine.busy_cores(0.1), machine.instruction_set()
    text = f"{machine.processor()}: {cores} cores, {busy:.1f} busy, {wide}."
    if platform.machine().lower() in ("x86_64", "amd64") and not wide.startswith(("AVX2", "AVX-512", "AMX")):
        return Check("processor", "warning", text, "Without AVX2 answers come slowly.")
    if busy > cores - 0.5:
        return Check("processor", "warning", text, "All cores are at work already: answers will be slow.")
    return Check("processor", "ok", text)


def _memory() -> Check:
    memory = machine.memory()
    text = f"{memory.free / 1e9:.1f} GB of {memory.total / 1e9:.1f} GB are free."
    if memory.free < LEAST_MEMORY:
        return Check("memory", "warning", text, "Close other programs, or unload a model with `pares stop`.")
    return Check("memory", "ok", text)


def _disk(home: Path) -> Check:
    free = shutil.disk_usage(home).free
    text = f"{free / 1e9:.1f} GB are free where {home} lies."
    if free < LEAST_DISK:
        return Check("disk", "warning", text, "Remove models with `pares rm`, or move the home to a larger disk.")
    return Check("disk", "ok", text)


def _home(home: Path) -> Check:
    if not os.access(home, os.W_OK):
        return Check("home", "problem", f"{home} cannot be written.", "Change its owner, or set PARES_HOME.")
    if os.name == "posix" and home.stat().st_mode & 0o077:
        text = f"Other users of this computer can look into {home}."
        return Check("home", "warning", text, f"Close it: chmod 700 {home}")
    return Check("home", "ok", f"{home} is yours alone.")


def _database(path: Path) -> Check:
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        connection.close()
    except sqlite3.Error as error:
        return Check("database", "problem", f"{path} cannot be read: {error}.", "Move it away and start again.")
    if answer != "ok":
        return Check("database", "problem", f"{path} is damaged: {answer}.", "Move it away and start again.")
    return Check("database", "ok", f"{path} is in order.")


def _door(config: Config) -> Check:
    server = config.server
    if is_loopback(server.host):
        return Check("door", "ok", "Only programs on this machine can reach the node.")
    return Check(
        "door",
        "warning",
        f"The node listens on {server.host}: whoever can reach it needs a key, but what is said is not encrypted.",
        "Use it in networks you trust, or behind a proxy that speaks HTTPS.",
    )


def _network(config: Config) -> Check:
    if config.node.offline:
        return Check("network", "ok", "Offline by your setting: nothing is sent beyond this machine.")
    return Check(
        "network",
        "ok",
        "Online: models are fetched when you ask for them, and members of your circles learn where this node is; "
        "nothing else is sent.",
    )


def _models(missing: tuple[str, ...]) -> Check:
    if missing:
        names = ", ".join(missing)
        return Check("models", "warning", f"Files are missing: {names}.", "Put them back, or `pares rm` the names.")
    return Check("models", "ok", "All model files are where they should be.")
