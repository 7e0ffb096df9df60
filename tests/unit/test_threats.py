"""docs/THREATS.md names the test of each threat: each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_that_the_threats_name_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "THREATS.md").read_text("utf-8")))
    sources = "\n".join(file.read_text("utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    made = set(re.findall(r"^(?:async )?def (test_\w+)\(", sources, re.MULTILINE))
    assert named
    assert named <= made, f"not there: {', '.join(sorted(named - made))}"
