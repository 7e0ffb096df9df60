from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from pares import config
from pares.config import change, describe, find_home, find_setting, known_settings, load, parse
from pares.errors import Conflict, Misconfigured, NotFound

NAMES = st.sampled_from(sorted(known_settings()))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)


def write(home: Path, text: str) -> None:
    (home / "config.toml").write_text(text, "utf-8")


def test_every_setting_says_what_it_does_and_its_default_is_a_value_it_accepts() -> None:
    for known in known_settings().values():
        assert known.description
        assert parse(known, known.default) == known.default
    assert {f.name for f in fields(config.Config)} >= set(config.ROOMS)


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    write(tmp_path, "[server]\nport = 1\nollama_port = 1\nhost = '::1'\n")
    environment = {"PARES_SERVER_PORT": "2", "PARES_SERVER_OLLAMA_PORT": "2"}
    loaded = load(tmp_path, flags={"server.port": 3}, environment=environment)
    assert (loaded.server.port, loaded.server.ollama_port, loaded.server.host) == (3, 2, "::1")
    assert loaded.sources == {"server.port": "flag", "server.ollama_port": "environment", "server.host": "file"}
    assert load(tmp_path, flags=loaded.flags, environment=environment) == loaded
    assert {s.name: s.source for s in describe(loaded)}["node.offline"] == "default"


def test_the_number_of_threads_has_a_short_name(tmp_path: Path) -> None:
    assert load(tmp_path, environment={"PARES_THREADS": "3"}).inference.threads == 3
    both = {"PARES_THREADS": "3", "PARES_INFERENCE_THREADS": "5"}
    assert load(tmp_path, environment=both).inference.threads == 5


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    assert load(tmp_path, environment={"PARES_SERVER_PORT": ""}).sources == {}
    assert find_home(environment={"PARES_HOME": ""}) == find_home(environment={})


def test_the_home_is_the_flag_then_the_variable_then_the_usual_place(tmp_path: Path) -> None:
    environment = {"PARES_HOME": str(tmp_path / "b")}
    assert find_home(tmp_path / "a", environment=environment) == tmp_path / "a"
    assert find_home(environment=environment) == tmp_path / "b"
    assert find_home(environment={}).name == "pares"
    assert find_home("relative", environment={}).is_absolute()


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("-1", -1), ("8_192", 8192), ("64k", 65536), ("64KiB", 65536), ("2GB", 2 * 10**9), ("1.5 mib", 1572864)],
)
def test_whole_numbers_have_units(text: str, number: int) -> None:
    assert config.parse_count(text) == number


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("-1", -1), ("5m", 300), ("1.5h", 5400), ("250ms", 0.25), ("2 d", 172800)]
)
def test_durations_have_units(text: str, seconds: float) -> None:
    assert config.parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "k", "1.5", "0.3k", "12 parsecs", "1e999999999", "0x10", "٣", "9" * 40])
def test_what_is_not_a_whole_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        config.parse_count(text)


@given(st.text(max_size=30))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    for read in (config.parse_count, config.parse_seconds):
        with suppress(ValueError):
            assert abs(read(text)) <= 10**19 * 1024**4


@given(NAMES, SCALARS | st.lists(SCALARS, max_size=3))
def test_any_value_is_accepted_for_good_or_refused_with_the_name_of_the_setting(name: str, raw: object) -> None:
    known = find_setting(name)
    try:
        value = parse(known, raw)
    except Misconfigured as error:
        told = error
    else:
        assert parse(known, value) == value
        assert isinstance(value, type(known.default))
        return
    assert name in told.message
    assert told.hint.startswith("It must be")


@given(NAMES, st.sampled_from(["file", "environment", "flag"]))
def test_defaults_written_out_load_as_defaults(name: str, layer: str) -> None:
    known = find_setting(name)
    home = Path("/nowhere")
    text = ",".join(known.default) if isinstance(known.default, tuple) else str(known.default)
    loaded = load(
        home,
        flags={name: known.default} if layer == "flag" else {},
        environment={known.environment: text} if layer == "environment" else {},
    )
    assert [s.value for s in describe(loaded)] == [s.default for s in describe(loaded)]


def test_a_wrong_value_is_told_with_its_origin_and_what_would_be_right(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as in_environment:
        load(tmp_path, environment={"PARES_SERVER_PORT": "many"})
    assert "server.port is 'many' in the environment variable PARES_SERVER_PORT" in str(in_environment.value)
    assert "a whole number" in str(in_environment.value)
    write(tmp_path, "[inference]\nprofile = 'exactly'\n")
    with pytest.raises(Misconfigured, match=r"config\.toml.*one of fast, exact"):
        load(tmp_path, environment={})


@pytest.mark.parametrize("text", ["[server\n", "\x00", "[server]\nport = 1\nport = 2\n"])
def test_a_file_that_is_no_toml_is_told_as_such(tmp_path: Path, text: str) -> None:
    write(tmp_path, text)
    with pytest.raises(Misconfigured, match=r"config\.toml cannot be read"):
        load(tmp_path, environment={})
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(Misconfigured, match=r"config\.toml cannot be read"):
        load(tmp_path, environment={})


def test_names_that_mean_nothing_are_warned_about_and_not_fatal(tmp_path: Path) -> None:
    write(tmp_path, "typo = 1\n[server]\nprot = 3\nport = 4\n[kitchen]\nport = 5\n")
    loaded = load(tmp_path, environment={"PARES_SERVER_PROT": "1", "PARES_UNRELATED": "1"})
    assert loaded.server.port == 4
    assert len(loaded.warnings) == 4
    assert any("PARES_SERVER_PROT" in warning for warning in loaded.warnings)


def test_changing_one_setting_keeps_the_rest_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, "# mine\n[server]\nport = 1  # the first\nhost = '::1'\n\n[kitchen]\nsink = true\n")
    change(tmp_path, "server.port", "4k")
    change(tmp_path, "node.offline", True)
    change(tmp_path, "server.origins", "https://a.example, https://b.example")
    text = (tmp_path / "config.toml").read_text("utf-8")
    assert text.startswith("# mine\n[server]\nport = 4096  # the first\nhost = '::1'\n")
    assert "sink = true" in text
    loaded = load(tmp_path, environment={})
    assert (loaded.server.port, loaded.node.offline) == (4096, True)
    assert loaded.server.origins == ("https://a.example", "https://b.example")
    change(tmp_path, "server.port", None)
    assert load(tmp_path, environment={}).sources.get("server.port") is None
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == ["config.toml"]


def test_a_change_that_means_nothing_leaves_the_file_alone(tmp_path: Path) -> None:
    write(tmp_path, "[server]\nport = 1\n")
    with pytest.raises(Misconfigured):
        change(tmp_path, "server.port", "no")
    with pytest.raises(NotFound, match=r"server\.port"):
        change(tmp_path, "server.prot", 1)
    write(tmp_path, "server = 1\n")
    with pytest.raises(Misconfigured, match="not a table"):
        change(tmp_path, "server.port", 1)
    assert (tmp_path / "config.toml").read_text() == "server = 1\n"


def test_a_file_that_somebody_else_is_writing_is_a_conflict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "LOCK_DEADLINE_S", 0.01)
    with FileLock(tmp_path / "config.toml.lock"), pytest.raises(Conflict):
        change(tmp_path, "server.port", 1)


@given(NAMES, st.data())
def test_what_was_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    known = find_setting(name)
    raw = data.draw(SCALARS.filter(lambda raw: raw is not None) | st.lists(st.text(max_size=5), max_size=3))
    try:
        value = parse(known, raw)
    except Misconfigured:
        return
    home = tmp_path_factory.mktemp("home")
    change(home, name, raw)
    (shown,) = [s for s in describe(load(home, environment={})) if s.name == name]
    assert (shown.value, shown.source) == (str(value) if isinstance(value, os.PathLike) else value, "file")
