"""The page's files: vendored code is what it says, every word and type is where it belongs."""

from __future__ import annotations

import gzip
import hashlib
import inspect
import json
import re
from pathlib import Path

import msgspec
import pytest

from pares.api import commons, network, schemas
from pares.web import CONTENT_SECURITY_POLICY, ROOT

APP = sorted((ROOT / "app").glob("*.js"))
VENDOR = ROOT / "vendor"
SOURCE = "\n".join(path.read_text() for path in APP)
WORDS = [path for path in APP if path.name.startswith("strings")]
CODE = "\n".join(path.read_text() for path in APP if path not in WORDS)
STYLE = "\n".join(path.read_text() for path in (ROOT / "style.css", ROOT / "app" / "commons.css"))
MAX_LINES = 400
FIRST_PAINT_BYTES = 96_000


def test_vendored_files_are_those_that_were_summed() -> None:
    lines = (VENDOR / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert set(sums) == {path.name for path in VENDOR.glob("*.js")} | {"LEGAL.txt"}
    for name, expected in sums.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == expected, name


def test_every_vendored_package_has_its_licence_and_version() -> None:
    legal = (VENDOR / "LEGAL.txt").read_text()
    lock = json.loads((VENDOR / "package-lock.json").read_text())["packages"]
    bundled = ("preact", "@preact/signals", "@preact/signals-core", "htm", "marked", "highlight.js")
    for name in bundled:
        assert f"{name} {lock[f'node_modules/{name}']['version']}\n" in legal
    banners = "".join(path.read_text().split("\n", 1)[0] for path in VENDOR.glob("*.js"))
    assert all(name in banners for name in bundled)


def test_the_lock_names_no_registry() -> None:
    packages = json.loads((VENDOR / "package-lock.json").read_text())["packages"]
    assert not [name for name, package in packages.items() if "resolved" in package]


def test_nothing_vendored_evaluates_text() -> None:
    for path in VENDOR.glob("*.js"):
        assert not re.search(r"\beval\(|new Function\(", path.read_text()), path.name


def test_index_has_nothing_inline() -> None:
    page = (ROOT / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert "<style" not in page
    assert "unsafe" not in CONTENT_SECURITY_POLICY


def test_no_part_of_the_page_writes_markup_or_inline_styles() -> None:
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|dangerouslySet", SOURCE)
    assert not re.search(r"""\sstyle=["']""", SOURCE)


@pytest.mark.parametrize("path", APP, ids=lambda path: path.name)
def test_files_stay_readable(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= MAX_LINES
    if path not in WORDS:  # a sentence is not broken
        assert max(map(len, lines)) <= 120


def test_only_the_tokens_set_a_colour() -> None:
    rules = STYLE.partition(':root[data-theme="light"]')[2]
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b|\brgba?\(|\bhsla?\(|light-dark\(", rules)


def test_every_style_is_used() -> None:
    styled = set(re.findall(r"\.([a-z][\w-]*)", STYLE))
    words = set(re.findall(r"[a-z][\w-]*", SOURCE))
    numbered = ("c-", "hl-", "to-")
    assert {name for name in styled - words if not name.startswith(numbered)} == set()


def test_every_string_exists_and_is_used() -> None:
    groups: dict[str, str] = {}
    for path in WORDS:
        table = path.read_text().partition("const STRINGS = {")[2].partition("\n};")[0]
        table = re.sub(r': "(?:[^"\\]|\\.)*"', ': ""', table)
        found = dict(re.findall(r"^  (\w+): \{(.*?)\},$(?=\n  \w|\Z)", table, re.MULTILINE | re.DOTALL))
        assert not groups.keys() & found.keys()
        groups |= found
    known = {
        f"{group}.{key}"
        for group, body in groups.items()
        for key in re.findall(r'"?([\w ]+?)"?: (?:"|\{)', body.replace("\n", " "))
        if key.strip() not in ("one", "other")
    }
    known = {re.sub(r"\. +", ".", name) for name in known}
    used = {name for name in re.findall(r'"(\w+\.[\w ]+)"', CODE) if name.partition(".")[0] in groups}
    assert used - known == set()
    chosen_at_run_time = tuple(re.findall(r"`(\w+\.\w*)\$\{", CODE))
    assert {name for name in known - used if not name.startswith(chosen_at_run_time)} == set()


def test_the_types_say_nothing_that_the_api_does_not() -> None:
    types = (ROOT / "app" / "types.js").read_text()
    stated = {
        name: set(re.findall(r"(\w+)\??:", body))
        for body, name in re.findall(r"@typedef \{\{(.*?)\}\} (\w+)", types, re.DOTALL)
    }
    classes = [each for module in (schemas, network, commons) for each in inspect.getmembers(module, inspect.isclass)]
    structs = {name: each for name, each in classes if name in stated}
    assert set(structs) == set(stated)
    for name, struct in structs.items():
        assert issubclass(struct, msgspec.Struct)
        assert stated[name] <= set(struct.__struct_fields__), name


def test_the_first_paint_is_small() -> None:
    files = {ROOT / "index.html", ROOT / "style.css"}
    waiting = [ROOT / "app" / "main.js"]
    while waiting:
        path = waiting.pop().resolve()
        if path not in files:
            files.add(path)
            waiting += [
                path.parent / name for name in re.findall(r'^(?:import|\}) .*?"(\..+?)";$', path.read_text(), re.M)
            ]
    assert not {ROOT / "app" / name for name in ("inspect.js", "strings_commons.js", "commons_style.js")} & files
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) < FIRST_PAINT_BYTES
