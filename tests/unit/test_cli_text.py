"""What the command line prints, and what it costs to start."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pares.cli import figures
from pares.cli.answer import Answer, WordWrap
from pares.cli.terminal import Options, Terminal
from pares.store.database import connect

HEAVY = ("asyncio", "cryptography", "httpx2", "jinja2", "llama_cpp", "mnemonic", "numpy", "prompt_toolkit", "psutil",
         "pygments", "rich", "segno", "sqlite3", "starlette", "tomlkit", "uvicorn")  # fmt: skip
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.sampled_from(" \n日本"), max_size=200)


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    places = sorted({cut % (len(text) + 1) for cut in cuts} | {0, len(text)})
    return [text[a:b] for a, b in pairwise(places)]


@given(WORDS, st.lists(st.integers(0, 200), max_size=20), st.integers(5, 40))
def test_wrapping_only_turns_spaces_into_line_breaks_however_the_text_arrives(
    text: str, cuts: list[int], width: int
) -> None:
    def wrapped(pieces: list[str]) -> str:
        wrap = WordWrap(width)
        return "".join([*(wrap.feed(piece) for piece in pieces), wrap.flush()])

    whole = wrapped([text])
    assert wrapped(pieces_of(text, cuts)) == whole
    assert re.sub(r"\s+", "", whole) == re.sub(r"\s+", "", text)
    assert whole.count("\n") >= text.count("\n")


@given(st.lists(st.text("abc", min_size=1, max_size=10), max_size=60), st.integers(10, 40))
def test_no_line_is_longer_than_the_terminal_is_wide(words: list[str], width: int) -> None:
    wrap = WordWrap(width)
    text = wrap.feed(" ".join(words)) + wrap.flush()
    assert all(len(line) <= width for line in text.splitlines())
    assert text.split() == words


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_neither_a_model_nor_its_file_can_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", stdout := Screen())
    monkeypatch.setattr("sys.stderr", stderr := Screen())
    out = Terminal(Options(no_color=True))
    answer = Answer(out, wrap=False)
    for tell in (answer.think, answer.say, out.show, out.note, out.warn):
        tell("\x1b]52;c;ZXZpbA==\x07 \x9b2J\rnew\nline\ttab")
    answer.end()
    out.error("error", "\x1b[2J", "\x1b[2J")
    assert stdout.getvalue().count("new\nline\ttab") == 2
    assert not set(stdout.getvalue() + stderr.getvalue()) & set("\x1b\x07\x9b\r")


def test_text_without_spaces_does_not_wait_for_one() -> None:
    assert WordWrap(10).feed("日本語") == "日本語"
    assert WordWrap(10).feed("a" * 25).count("a") == 20


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (98_362_432, "98.4 MB"), (999_999_999, "1.0 GB")],
)
def test_sizes_have_units(amount: int, text: str) -> None:
    assert figures.size(amount) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.96, "10 s"), (119, "119 s"), (119.6, "2 min"), (7199, "2 h"), (172_000, "2 days")],
)
def test_durations_have_units(seconds: float, text: str) -> None:
    assert figures.duration(seconds) == text


@given(st.floats(0, 1e15))
def test_a_figure_never_has_more_than_four_digits(amount: float) -> None:
    assert len(re.findall(r"\d", figures.size(amount))) <= 4 or amount >= 9.9e17
    assert len(re.findall(r"\d", figures.quantity(amount))) <= 4


def test_a_table_lines_up_wide_letters_too() -> None:
    assert figures.table(("A", "B"), [("日本", "x"), ("abc", "y")]) == "A      B\n日本   x\nabc    y"


def test_facts_without_a_value_are_left_out() -> None:
    assert figures.facts([("a", 1), ("long", ""), ("b", None), ("c", "x")]) == "a   1\nc   x"


def test_the_command_line_starts_without_anything_heavy() -> None:
    script = (
        f"import pares.cli.app, sys; pares.cli.app.run(['--help']); print([m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_shell_completes_verbs_models_and_settings(tmp_path: Path) -> None:
    database = connect(tmp_path / "pares.sqlite")
    for name in ("smollm2", "smart", "gemma"):
        database.execute("INSERT INTO models (name, kind, added_at) VALUES (?, 'model', '')", (name,))
    payload = base64.b64encode(b'{"predicate": {"name": "smol-chat", "kind": "base"}}').decode()
    for number, envelope in enumerate((f'{{"payload": "{payload}"}}', "nonsense")):
        values = (bytes([number]), envelope.encode())
        database.execute("INSERT INTO version_statements VALUES (?, 'version', x'', x'', ?, '')", values)
    database.close()

    def complete(line: str) -> list[str]:
        environment = {"_PARES_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        environment |= {"PARES_HOME": str(tmp_path)}
        command = [sys.executable, "-c", "from pares.cli import main; main()"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.split()

    assert complete("pares sta") == ["status"]
    assert complete("pares run sm") == ["smart", "smollm2"]
    assert complete("pares show smo") == ["smol-chat", "smollm2"]
    assert complete("pares pull sm") == ["smol-chat"]
    assert complete("pares config get server.por") == ["server.port"]
    (tmp_path / "pares.sqlite").unlink()
    assert complete("pares run sm") == []


@pytest.mark.parametrize(("closing", "code"), [(">/dev/full", 1), (">&-", 0)])
def test_an_output_that_cannot_be_written_is_no_traceback(tmp_path: Path, closing: str, code: int) -> None:
    command = f"'{sys.executable}' -m pares --home '{tmp_path}' version {closing}"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, timeout=30)
    assert done.returncode == code
    assert done.stderr == ("Error: stdout: No space left on device.\n" if code else "")
