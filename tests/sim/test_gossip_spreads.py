"""Whole circles in virtual time: what is said reaches everybody, soon, at a bounded price."""

from __future__ import annotations

import numpy as np

from circles import largest_offer
from simulated_circle import OFFER_S, Circle, spread


def test_a_contact_change_reaches_all_of_a_hundred_nodes_within_a_minute() -> None:
    circle = Circle(100, seed=1)
    circle.run(60)
    times = circle.heard[circle.change(7)]
    begun = times[0]
    circle.run(120, until=lambda: len(times) == 100)
    assert len(times) == 100
    assert float(np.percentile(times, 50)) - begun < 3
    assert times[-1] - begun < 60


def test_half_of_the_nodes_leave_at_once_come_back_changed_and_all_agree() -> None:
    circle = Circle(60, seed=2)
    circle.run(60)
    gone = circle.chance.sample(range(60), 30)
    for number in gone:
        circle.leave(number)
    circle.run(60)
    stayed = [number for number in range(60) if number not in gone]
    assert all(any(other in stayed for other in circle.nodes[number].links) for number in stayed)
    for number in stayed[:10]:
        circle.change(number)
    circle.run(60)
    for number in gone:
        circle.come_back(number)
        circle.change(number)
    assert circle.until_agreed(180) < 180


def test_a_circle_of_fifty_at_rest_costs_less_than_a_kilobyte_per_second_and_node() -> None:
    circle = Circle(50, seed=3)
    circle.run(60)
    assert circle.rate(300) < 1_024


def test_the_same_seed_gives_the_same_run() -> None:
    def run() -> tuple[int, list[float]]:
        circle = Circle(30, seed=4)
        circle.run(30)
        name = circle.change(3)
        circle.run(30)
        return circle.bytes, circle.heard[name]

    assert run() == run()


def test_in_a_circle_kept_in_parts_those_who_keep_a_record_hear_of_it() -> None:
    heard, copies = spread(20_000, 2_048)
    assert np.isfinite(heard).mean() > 0.99
    assert float(np.percentile(heard, 50)) < 60
    assert copies < 5


def test_offers_that_are_as_large_as_may_be_are_kept_fresh_everywhere_and_hold_up_nothing() -> None:
    circle = Circle(50, seed=5, offer=largest_offer)
    circle.run(OFFER_S + 60)
    times = circle.heard[circle.change(7)]
    begun = times[0]
    assert circle.rate(600) < 8 * 1_024
    assert len(times) == 50
    assert times[-1] - begun < 60
    for node in circle.nodes:
        offers = node.store.offers(circle.now)
        assert len(offers) == 50
        assert all(circle.now - offer.sequence / 1000 < OFFER_S + 60 and offer.holds for offer in offers.values())
