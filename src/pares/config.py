"""Where settings come from: default < file < environment < flag. The only reader of the environment.

A setting is a field of a room's frozen `Settings`, called `room.name`. In `PARES_HOME/config.toml` it is `name` in the
table `[room]`, in the environment it is `PARES_<ROOM>_<NAME>`. Everything a node owns lies in its home.
"""

from __future__ import annotations

import math
import os
import re
import sys
import tomllib
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pares.api.schemas import Setting
from pares.api.settings import Settings as ServerSettings
from pares.circle.settings import RelaySettings
from pares.circle.settings import Settings as CircleSettings
from pares.errors import Conflict, Misconfigured, NotFound
from pares.inference.settings import Settings as InferenceSettings
from pares.store.files import write_whole as write_whole
from pares.swarm.settings import Settings as SwarmSettings
from pares.transport.settings import Settings as TransportSettings

Source = Literal["default", "file", "environment", "flag"]

FILE_NAME = "config.toml"
LOCK_DEADLINE_S = 5
SPECIAL_VARIABLES = {"PARES_THREADS": "inference.threads"}

TRUE, FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}
MULTIPLES = {"": 1} | {  # as in GNU's tools: k and KiB are 1024, kB is 1000
    letter + suffix: base**power
    for power, letter in enumerate("kmgt", start=1)
    for suffix, base in (("", 1024), ("ib", 1024), ("b", 1000))
}
SECONDS = {"": "1", "ms": "0.001", "s": "1", "m": "60", "h": "3600", "d": "86400"}
KINDS = {
    bool: "true or false",
    int: "a whole number (also 64k, 2GB)",
    float: "a number",
    str: "text",
}
QUANTITY = re.compile(r"([+-]?[0-9][0-9_]{0,17}(?:\.[0-9]{1,9})?)\s*([a-z]*)", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """The node as a whole."""

    log_level: Literal["debug", "info", "warning", "error"] = field(
        default="info", metadata={"description": "How much goes into the log; prompts and answers never do"}
    )
    open_browser: bool = field(default=True, metadata={"description": "Open the page when `pares up` starts"})
    offline: bool = field(default=False, metadata={"description": "Send nothing beyond this machine"})


@dataclass(frozen=True, slots=True)
class Config:
    """All rooms' settings, and where each value came from."""

    home: Path
    node: NodeSettings
    server: ServerSettings
    inference: InferenceSettings
    swarm: SwarmSettings
    circle: CircleSettings
    transport: TransportSettings
    relay: RelaySettings
    sources: Mapping[str, Source] = field(default_factory=dict)
    """By `room.name`; a setting that is not in it has its default."""
    flags: Mapping[str, object] = field(default_factory=dict)
    """What the command line set: give it to `load` again after the file changed."""
    warnings: tuple[str, ...] = ()
    """For people: names in the file or the environment that mean nothing here."""

    @property
    def node_file(self) -> Path:
        """Where the running node says how it can be reached."""
        return self.home / "node.json"

    @property
    def database(self) -> Path:
        """Everything the node remembers."""
        return database_of(self.home)

    @property
    def logs(self) -> Path:
        """Directory of the log files."""
        return self.home / "logs"


ROOMS: Mapping[str, type] = {
    "node": NodeSettings,
    "server": ServerSettings,
    "inference": InferenceSettings,
    "swarm": SwarmSettings,
    "circle": CircleSettings,
    "transport": TransportSettings,
    "relay": RelaySettings,
}


@dataclass(frozen=True, slots=True)
class Known:
    """A setting that exists. `live`: a running node takes a new value without being started again."""

    room: str
    field: str
    type: Any
    default: object
    description: str
    least: float | None = None
    most: float | None = None
    live: bool = False

    @property
    def name(self) -> str:
        return f"{self.room}.{self.field}"

    @property
    def environment(self) -> str:
        return f"PARES_{self.room}_{self.field}".upper()

    @property
    def is_duration(self) -> bool:
        return self.field.endswith("_s")


@cache
def known_settings() -> Mapping[str, Known]:
    """Every setting by name, in the order of the rooms and of their fields."""
    found = {}
    for room, settings in ROOMS.items():
        hints, defaults = get_type_hints(settings), settings()
        for f in fields(settings):
            known = Known(room, f.name, hints[f.name], getattr(defaults, f.name), **f.metadata)
            found[known.name] = known
    return found


def find_setting(name: str) -> Known:
    """The setting called `room.name`. Raises NotFound with the nearest names."""
    known = known_settings().get(name)
    if known is None:
        from difflib import get_close_matches

        near = ", ".join(get_close_matches(name, known_settings()))
        message = f"There is no setting named {name!r}." + (f" Close to it: {near}." if near else "")
        raise NotFound(message, hint="`pares config list` shows all of them.")
    return known


# Values: from text or TOML to what the field is.


def _quantity(text: str, units: Mapping[str, int] | Mapping[str, str]) -> Decimal:
    match = QUANTITY.fullmatch(text.strip())
    if match is None or match[2].lower() not in units:
        raise ValueError(text)
    return Decimal(match[1]) * Decimal(units[match[2].lower()])


def parse_count(text: str) -> int:
    """A whole number, with units: `8192`, `64k` and `64KiB` (65536), `2GB` (2,000,000,000). Raises ValueError."""
    value = _quantity(text, MULTIPLES)
    if value != int(value):
        raise ValueError(text)
    return int(value)


def parse_seconds(text: str) -> float:
    """A duration in seconds: `300`, `5m`, `1.5h`, `250ms`, `-1`. Raises ValueError."""
    return float(_quantity(text, SECONDS))


def _convert(known: Known, raw: object) -> object:
    """`raw`, from a file, a variable, the command line or a request, as the field wants it. Raises ValueError."""
    hint = known.type
    if get_origin(hint) is Literal and raw in get_args(hint):
        return raw
    if get_origin(hint) is tuple and isinstance(raw, str | list | tuple):
        parts = raw.split(",") if isinstance(raw, str) else raw
        if all(isinstance(part, str) for part in parts):
            return tuple(stripped for part in parts if (stripped := part.strip()))
    if hint is str and isinstance(raw, str):
        return raw
    if hint is bool and str(raw).lower() in TRUE | FALSE:
        return str(raw).lower() in TRUE
    if hint in (int, float) and isinstance(raw, str | int | float) and not isinstance(raw, bool):
        return _number(known, hint, raw)
    raise ValueError(raw)


def _number(known: Known, hint: type[int] | type[float], raw: str | int | float) -> int | float:
    value = raw
    if isinstance(value, str):
        value = parse_count(value) if hint is int else parse_seconds(value) if known.is_duration else float(value)
    least, most = (-math.inf if known.least is None else known.least), (math.inf if known.most is None else known.most)
    if not math.isfinite(value) or hint(value) != value or not least <= value <= most:
        raise ValueError(raw)
    return hint(value)


def _expected(known: Known) -> str:
    hint = known.type
    if get_origin(hint) is Literal:
        words = f"one of {', '.join(get_args(hint))}"
    elif get_origin(hint) is tuple:
        words = "a list, or words with commas between them"
    elif known.is_duration:
        words = "a time such as 30s, 5m or 1h"
    else:
        words = KINDS[hint]
    if known.least is not None:
        words += f" from {known.least:g}" + ("" if known.most is None else f" to {known.most:g}")
    return words


def parse(known: Known, raw: object, origin: str = "") -> object:
    """The value of a setting. Raises Misconfigured, which names the setting, `origin` and what would be right."""
    try:
        return _convert(known, raw)
    except (ValueError, OverflowError):
        said = repr(raw)
        said = said if len(said) <= 60 else f"{said[:57]}..."
        message = f"The setting {known.name} is {said}{origin and f' {origin}'}: that means nothing."
        raise Misconfigured(message, hint=f"It must be {_expected(known)}.", name=known.name) from None


# Layers: file, environment, flags.

Given = dict[str, tuple[object, str]]
"""By setting: what was given, and where, in words."""


def find_home(flag: str | Path | None = None, *, environment: Mapping[str, str] = os.environ) -> Path:
    """The directory that everything of this node lies in: `--home`, else PARES_HOME, else the system's usual place."""
    chosen = flag or environment.get("PARES_HOME")
    if not chosen:
        from platformdirs import user_data_dir

        chosen = user_data_dir("pares", appauthor=False)
    return Path(chosen).expanduser().absolute()


def database_of(home: Path) -> Path:
    """Where the node at `home` keeps what it remembers."""
    return home / "pares.sqlite"


def has_display(*, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a browser could open a window here."""
    return sys.platform in ("win32", "darwin") or bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def wants_color(*, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether colours are welcome on a terminal (https://no-color.org)."""
    return not environment.get("NO_COLOR")


def _read_file(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        message = f"The settings in {path} cannot be read: {error}."
        raise Misconfigured(message, hint="Correct the file, or move it away.") from error


def _from_file(path: Path, warnings: list[str]) -> Given:
    given: Given = {}
    for room, table in _read_file(path).items():
        entries = table if room in ROOMS and isinstance(table, dict) else None
        if entries is None:
            warnings.append(f"{path}: {room!r} is not the name of a group of settings; it is ignored.")
            continue
        for name, raw in entries.items():
            if f"{room}.{name}" in known_settings():
                given[f"{room}.{name}"] = raw, f"in {path}"
            else:
                warnings.append(f"{path}: there is no setting {room}.{name}; it is ignored.")
    return given


def _from_environment(environment: Mapping[str, str], warnings: list[str]) -> Given:
    variables = {v: name for v, name in SPECIAL_VARIABLES.items() if name in known_settings()}
    variables |= {known.environment: known.name for known in known_settings().values()}
    prefixes = tuple(f"PARES_{room.upper()}_" for room in ROOMS)
    warnings += [
        f"There is no setting behind the environment variable {variable}; it is ignored."
        for variable in environment
        if variable.startswith(prefixes) and variable not in variables
    ]
    return {
        name: (raw, f"in the environment variable {variable}")
        for variable, name in variables.items()
        if (raw := environment.get(variable))
    }


def load(
    home: Path, *, flags: Mapping[str, object] = MappingProxyType({}), environment: Mapping[str, str] = os.environ
) -> Config:
    """All settings of the node at `home`. Raises Misconfigured, and NotFound for a flag that is no setting.

    An empty variable counts as not set.
    """
    warnings: list[str] = []
    layers: list[tuple[Source, Given]] = [
        ("file", _from_file(home / FILE_NAME, warnings)),
        ("environment", _from_environment(environment, warnings)),
        ("flag", {name: (raw, "on the command line") for name, raw in flags.items()}),
    ]
    values: dict[str, dict[str, object]] = {room: {} for room in ROOMS}
    sources: dict[str, Source] = {}
    for source, given in layers:
        for name, (raw, origin) in given.items():
            known = find_setting(name)
            values[known.room][known.field] = parse(known, raw, origin)
            sources[name] = source
    rooms: dict[str, Any] = {room: settings(**values[room]) for room, settings in ROOMS.items()}
    return Config(home, **rooms, sources=sources, flags=dict(flags), warnings=tuple(warnings))


def describe(config: Config) -> tuple[Setting, ...]:
    """Every setting with its value and source, as `pares config list`, the API and the page show it."""
    return tuple(
        Setting(
            name=known.name,
            value=getattr(getattr(config, known.room), known.field),
            default=known.default,
            source=config.sources.get(known.name, "default"),
            description=known.description,
            restart_needed=not known.live,
            environment=known.environment,
        )
        for known in known_settings().values()
    )


def change(home: Path, name: str, value: object) -> None:
    """Write one setting into the home's file and keep the rest as it is; None takes it out.

    Raises NotFound, Misconfigured, and Conflict if the file stays locked.
    """
    import tomlkit
    from filelock import FileLock, Timeout

    known, path = find_setting(name), home / FILE_NAME
    parsed = None if value is None else parse(known, value)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with FileLock(f"{path}.lock", timeout=LOCK_DEADLINE_S):
            _read_file(path)  # its error is the one that people understand
            document = tomlkit.parse(path.read_text("utf-8") if path.exists() else "")
            table = document.setdefault(known.room, tomlkit.table())
            if not isinstance(table, MutableMapping):
                raise Misconfigured(
                    f"{path}: {known.room!r} is not a table.", hint="Correct the file, or move it away."
                )
            if value is None:
                table.pop(known.field, None)
            else:
                table[known.field] = parsed
            write_whole(path, tomlkit.dumps(document))
    except Timeout:
        message = f"Another program has been writing {path} for {LOCK_DEADLINE_S} s."
        raise Conflict(message, hint="Try again.") from None
