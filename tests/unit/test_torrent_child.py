"""The torrents of the BitTorrent process without libtorrent: what is written down when, and what is told."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pares.transport import bittorrent_pipe as pipe
from pares.transport.bittorrent_resume import Kept, read
from pares.transport.bittorrent_torrents import SAVE_S, TELL_S, Torrents

ROOT = bytes(32)
SIZE = 4 << 20


class Engine:
    """A torrent that does what the test says, in place of libtorrent."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.loaded: list[Kept | None] = []
        self.told: list[pipe.FromSession] = []
        self.current = pipe.Facts(checking=False, wanted=SIZE, have=b"\x00")
        self.done: list[str] = []
        self._woken = threading.Event()
        self.path = folder / "file"
        self.folder = folder
        self.torrents = Torrents(self, folder, send=self.told.append, wake=self._woken.set, now=lambda: self.now)

    def load(self, wish: pipe.AddTorrent, kept: Kept | None) -> Engine:
        self.loaded.append(kept)
        return self

    def blocks(self) -> dict[int, bytes]:
        return {}

    def facts(self) -> pipe.Facts:
        return self.current

    def flush(self) -> None:
        self.done.append("flush")

    def adjust(self, wish: pipe.AddTorrent) -> None:
        self.done.append("adjust")

    def pause(self, paused: bool) -> None:
        self.done.append(f"pause {paused}")

    def dial(self, peer: tuple[str, int]) -> None:
        self.done.append(f"dial {peer[1]}")

    def drop(self) -> None:
        self.done.append("drop")

    def add(self, *, complete: bool = False, turn: int = 0) -> None:
        wish = pipe.AddTorrent(
            ROOT, SIZE, 4, str(self.path), b"", complete, b"\x00", b"\xf0", False, [], 1, 0, 0, False, [], turn
        )
        self.torrents.handle(wish)

    def written(self) -> None:
        assert self._woken.wait(5)
        self._woken.clear()
        self.torrents.collect()

    @property
    def kept(self) -> Kept | None:
        return read(self.folder / f"{ROOT.hex()}.resume", SIZE, 1)

    @property
    def last(self) -> pipe.Told:
        return [told for told in self.told if isinstance(told, pipe.Told)][-1]


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path)


def _facts(have: int, *, finished: bool = False) -> pipe.Facts:
    bits = (0xF0 << (4 - have) & 0xF0).to_bytes()
    return pipe.Facts(checking=False, finished=finished, have=bits, done=have << 20, wanted=SIZE, downloaded=have << 20)


def test_what_comes_after_the_flush_was_asked_for_is_not_in_what_is_kept(engine: Engine) -> None:
    engine.add()
    engine.path.write_bytes(bytes(SIZE))
    engine.torrents.moved(ROOT, engine.current)
    engine.current = _facts(2)
    engine.torrents.tick()
    assert not any(engine.folder.glob("*.resume"))  # not before the flush
    engine.current = _facts(3)
    engine.torrents.flushed(ROOT)
    engine.written()
    assert engine.kept is not None
    assert engine.kept.have == b"\xc0"


def test_it_is_settled_only_when_all_is_flushed_and_written(engine: Engine) -> None:
    engine.add()
    engine.path.write_bytes(bytes(SIZE))
    engine.current = _facts(4, finished=True)
    engine.torrents.moved(ROOT, engine.current)
    assert (engine.last.state, engine.last.settled) == ("seeding", False)
    engine.torrents.flushed(ROOT)
    engine.written()
    assert engine.last.settled


def test_a_save_that_was_under_way_at_the_end_is_followed_by_another(engine: Engine) -> None:
    engine.add()
    engine.path.write_bytes(bytes(SIZE))
    engine.torrents.moved(ROOT, _facts(3))
    engine.current = _facts(3)
    engine.torrents.tick()
    engine.current = _facts(4, finished=True)
    engine.torrents.moved(ROOT, engine.current)
    for settled in (False, True):
        engine.torrents.flushed(ROOT)
        engine.written()
        assert engine.last.settled is settled


def test_after_a_failed_write_nothing_is_believed_and_all_is_checked(engine: Engine) -> None:
    engine.add()
    engine.path.write_bytes(bytes(SIZE))
    engine.torrents.moved(ROOT, _facts(2))
    engine.current = _facts(2)
    engine.torrents.tick()
    engine.torrents.broke(ROOT, 28, "No space left on device")
    engine.torrents.flushed(ROOT)
    assert (engine.last.state, engine.last.code) == ("failed", "disk_full")
    engine.torrents.broke(ROOT, 28, "No space left on device")
    assert len([told for told in engine.told if isinstance(told, pipe.Told) and told.state == "failed"]) == 1
    engine.torrents.handle(pipe.Pause(ROOT, paused=False, turn=7))
    assert engine.loaded[-1] is None
    assert engine.last.turn == 7


def test_a_complete_file_that_lost_pieces_fails_and_stays_out(engine: Engine) -> None:
    engine.path.write_bytes(bytes(SIZE))
    engine.add(complete=True)
    engine.torrents.moved(ROOT, _facts(3))
    assert (engine.last.state, engine.last.code, engine.last.settled) == ("failed", "verification_failed", False)
    assert engine.done[-1] == "drop"


def test_it_is_told_once_in_a_while_and_at_once_when_the_state_changes(engine: Engine) -> None:
    engine.add()
    engine.torrents.moved(ROOT, _facts(1))
    told = len(engine.told)
    engine.torrents.moved(ROOT, _facts(2))
    assert len(engine.told) == told
    engine.now += TELL_S
    engine.torrents.tick()
    assert engine.last.facts.done == 2 << 20
    engine.torrents.moved(ROOT, _facts(4, finished=True))
    assert engine.last.state == "seeding"


def test_who_was_banned_is_told_with_the_piece_whichever_comes_first(engine: Engine) -> None:
    engine.add()
    engine.torrents.banned(ROOT, "a:1")
    engine.torrents.rejected(ROOT, 3)
    engine.torrents.banned(ROOT, "b:2")
    engine.torrents.tick()
    assert [told for told in engine.told if isinstance(told, pipe.Banned)] == [
        pipe.Banned(ROOT, "a:1", 3),
        pipe.Banned(ROOT, "b:2", 3),
    ]


def test_saving_takes_a_small_part_of_the_time(engine: Engine) -> None:
    engine.add()
    engine.path.write_bytes(bytes(SIZE))
    engine.torrents.moved(ROOT, _facts(1))
    engine.current = _facts(1)
    engine.torrents.tick()
    engine.now += 0.3
    engine.torrents.flushed(ROOT)
    engine.written()
    engine.current = _facts(2)
    flushes = engine.done.count("flush")
    engine.now += SAVE_S
    engine.torrents.tick()
    assert engine.done.count("flush") == flushes
    engine.now += 3
    engine.torrents.tick()
    assert engine.done.count("flush") == flushes + 1
