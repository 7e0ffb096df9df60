"""The node's log: events with a fixed name and fields, as lines of JSON in a file, the newest also in memory."""

from __future__ import annotations

import itertools
import logging
import logging.handlers
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

FILE_BYTES = 5_000_000
FILES = 5
KEPT = 2000
_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class Line(msgspec.Struct, frozen=True):
    """One event."""

    id: int
    time: str
    level: str
    event: str
    fields: Mapping[str, object]


class Logbook(logging.Handler):
    """Takes the log records of this process into `folder/node.log`, rotated at 5 x 5 MB.

    Prompts, answers and keys are never logged, by whoever logs: there is nothing here to filter them.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        folder.mkdir(parents=True, exist_ok=True)
        self._file = logging.handlers.RotatingFileHandler(
            folder / "node.log", maxBytes=FILE_BYTES, backupCount=FILES - 1, encoding="utf-8", delay=True
        )
        self._file.setFormatter(logging.Formatter("%(message)s"))
        self._ids = itertools.count(1)
        self._kept: deque[Line] = deque(maxlen=KEPT)

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        fields: dict[str, object] = {
            name: value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
            for name, value in vars(record).items()
            if name not in _OWN_FIELDS
        }
        if record.exc_info:
            fields["traceback"] = logging.Formatter().formatException(record.exc_info)
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = Line(next(self._ids), when, record.levelname.lower(), record.getMessage(), fields)
        self._kept.append(line)
        self._file.handle(logging.makeLogRecord({"msg": msgspec.json.encode(line).decode()}))

    def lines(self, *, after: int = 0, limit: int = KEPT) -> list[Line]:
        """The newest `limit` lines with an id above `after`, oldest first."""
        newer = [line for line in self._kept if line.id > after]
        return newer[-limit:] if limit else []

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
