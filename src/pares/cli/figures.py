"""Numbers and tables, as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

GAP = "   "


def size(amount: float) -> str:
    """Bytes as `105 MB`: powers of 1000, as disks are sold."""
    return _scaled(amount, (" bytes", " kB", " MB", " GB", " TB", " PB"))


def quantity(amount: float) -> str:
    """A large number as `135M`, such as a model's parameters."""
    return _scaled(amount, ("", "k", "M", "B", "T"))


def rate(bytes_per_s: float) -> str:
    """`2.4 MB/s`; nothing for nothing."""
    return f"{size(bytes_per_s)}/s" if bytes_per_s else ""


def bar(share: float, width: int = 30) -> str:
    """A line for a share between 0 and 1; what is not nothing can be seen."""
    return "█" * (max(1, round(share * width)) if share > 0 else 0)


def _scaled(amount: float, units: Sequence[str]) -> str:
    step = 0
    while abs(amount) >= 999.5 and step < len(units) - 1:
        amount /= 1000
        step += 1
    return f"{amount:.{1 if step and abs(amount) < 99.95 else 0}f}{units[step]}"


def duration(seconds: float) -> str:
    """`4.2 s`, `42 s`, `5 min`, `3 h`, `2 days`."""
    for limit, length, unit in ((119.5, 1, "s"), (7170, 60, "min"), (171_000, 3600, "h")):
        if seconds < limit:
            return f"{seconds / length:.{1 if seconds < 9.95 else 0}f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def until(moment: datetime | str | None) -> str:
    """How long it is from now to a time, ISO 8601 where it is text; None is never."""
    if moment is None:
        return "never"
    at = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    left = (at - datetime.now(UTC)).total_seconds()
    return duration(left) if left > 0 else "now"


def since(moment: datetime | None) -> str:
    """How long it is from a time to now; nothing for None."""
    return "" if moment is None else duration(max((datetime.now(UTC) - moment).total_seconds(), 0))


def facts(rows: Iterable[tuple[str, object]]) -> str:
    """Names with their values; those without a value are left out."""
    told = [(name, str(value)) for name, value in rows if value not in ("", None, ())]
    width = max((len(name) for name, _ in told), default=0)
    return "\n".join(f"{name:{width}}{GAP}{value}" for name, value in told)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns under a header; no borders, so that other programs can cut them."""
    from rich.cells import cell_len

    lines = [header, *rows]
    widths = [max(cell_len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        GAP.join(cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
