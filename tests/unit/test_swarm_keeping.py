"""Who keeps rare versions: enough do, nobody drops the last copy, quotas hold otherwise."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pares.swarm.keeping import DROP_AFTER_S, PATIENCE_S, TURN_S, Kept, Standing, to_drop, to_fetch, turn
from pares.wire.signing import PeerId

peers = st.binary(min_size=32, max_size=32).map(PeerId)
circles = st.frozensets(peers, min_size=2, max_size=12)
versions = st.binary(min_size=32, max_size=32)


def standing(version: bytes, members: frozenset[PeerId], holders: int, copies: int, size: int = 10) -> Standing:
    return Standing(version, size, frozenset(sorted(members)[:holders]), members, copies)


@given(versions, circles)
def test_everybody_computes_the_same_order_and_everyone_has_a_turn_of_their_own(
    version: bytes, members: frozenset[PeerId]
) -> None:
    assert sorted(turn(version, peer, members) for peer in members) == list(range(len(members)))


@given(versions, circles, st.integers(1, 6))
def test_acting_in_turn_members_make_as_many_copies_as_there_should_be_and_no_more(
    version: bytes, members: frozenset[PeerId], copies: int
) -> None:
    holders = {min(members)}
    now = 0.0
    while now < PATIENCE_S + (len(members) + 1) * TURN_S:
        for peer in sorted(members):  # what one does is known to the next
            seen = Standing(version, 10, frozenset(holders), members, copies)
            if to_fetch([seen], peer, {version: 0.0}, room=10, now=now):
                holders.add(peer)
        now += TURN_S / 4
    assert len(holders) == min(max(copies, 1), len(members))


@given(versions, circles)
def test_what_nobody_holds_is_here_or_is_not_rare_long_enough_is_not_fetched(
    version: bytes, members: frozenset[PeerId]
) -> None:
    me, late = max(members), PATIENCE_S + 100 * TURN_S
    since = {version: 0.0}
    assert not to_fetch([standing(version, members, 0, 3)], me, since, room=99, now=late)
    assert not to_fetch([standing(version, members, len(members), 99)], me, since, room=99, now=late)
    assert not to_fetch([standing(version, members, 1, 3)], me, since, room=99, now=PATIENCE_S - 1)
    assert not to_fetch([standing(version, members, 1, 3)], me, {}, room=99, now=late)
    assert not to_fetch([standing(version, members, 1, 0)], me, since, room=99, now=late)


@given(st.dictionaries(versions, st.integers(1, 50), max_size=8), circles, st.integers(0, 100))
def test_no_more_is_fetched_than_there_is_room(sizes: dict[bytes, int], members: frozenset[PeerId], room: int) -> None:
    rare = [standing(version, members, 1, 9, size) for version, size in sizes.items()]
    chosen = to_fetch(rare, max(members), dict.fromkeys(sizes, 0.0), room=room, now=1e9)
    assert sum(sizes[version] for version in chosen) <= room


kept = st.lists(st.tuples(versions, st.integers(1, 50), st.integers(0, 11), st.integers(0, 4)), max_size=8)


@given(kept, circles, st.integers(0, 200), st.floats(0, 1e9))
def test_the_last_known_copy_is_never_dropped_and_the_quota_holds_for_the_rest(
    rows: list[tuple[bytes, int, int, int]], members: frozenset[PeerId], quota: int, now: float
) -> None:
    me = max(members)
    others = sorted(members - {me})
    rows = list({row[0]: row for row in rows}.values())
    standings = [
        Standing(version, size, frozenset(others[:holders]) | {me}, members, copies)
        for version, size, holders, copies in rows
    ]
    mine = [Kept(standing.version, standing.size) for standing in standings]
    gone = set(to_drop(mine, standings, me, {each.version: 0.0 for each in mine}, most_bytes=quota, now=now))
    last = {each.version for each in standings if each.holders == {me}}
    assert not gone & last
    staying = sum(each.size for each in mine if each.version not in gone and each.version not in last)
    assert staying <= quota or not any(each.version not in gone | last for each in mine)


@given(versions, circles)
def test_keepers_let_go_one_after_the_other_until_there_are_just_enough(
    version: bytes, members: frozenset[PeerId]
) -> None:
    holders = set(members)
    copies = min(2, len(members) - 1)
    now = DROP_AFTER_S
    while now < DROP_AFTER_S + (len(members) + 1) * TURN_S:
        for peer in sorted(members):
            seen = [Standing(version, 10, frozenset(holders), members, copies)]
            if peer in holders and to_drop([Kept(version, 10)], seen, peer, {version: 0.0}, most_bytes=99, now=now):
                holders.discard(peer)
        now += TURN_S / 4
    assert len(holders) == copies


def test_what_no_circle_tells_of_any_more_is_dropped() -> None:
    assert to_drop([Kept(b"v" * 32, 1)], [], PeerId(b"m" * 32), {}, most_bytes=99, now=0.0) == (b"v" * 32,)
