"""Circles, invites, joining and peers on the page, in a network that the test moves."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from pares.errors import PeersUnreachable
from scripted_network import key_of, who
from ui.conftest import DESK, OpenPage, Scheme, StartNode, Watch
from ui.fixture_server import PageNode
from ui.test_reaching_all import SMALLEST, tab_to, violations


@pytest.fixture
def network(page: Page, node: PageNode) -> Page:
    """The network screen of a node that belongs to no circle."""
    page.goto(f"{node.url}/#/network")
    page.get_by_role("heading", name="Network", level=1).wait_for()
    return page


def circle_of(node: PageNode, name: str = "home") -> str:
    """A circle that this node founded; its id."""
    return node.move(lambda world: world.founds(name))


def entered(node: PageNode, circle: str, *names: str) -> None:
    for name in names:
        node.move(lambda world, name=name: world.enters(circle, name))  # type: ignore[misc]


def seat(page: Page, name: str) -> Locator:
    """A peer on the map."""
    return page.get_by_role("group", name="This node in the middle").get_by_role("link", name=f"{name},")


def row(page: Page, name: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def test_a_circle_is_started_from_nothing(network: Page) -> None:
    expect(network.get_by_role("region", name="Can others reach this node?")).to_contain_text("In no circle")
    network.get_by_role("button", name="Start a circle").click()
    network.get_by_label("Name").fill("home")
    network.get_by_role("button", name="Make the circle").click()
    expect(network.get_by_role("heading", name="home", level=1)).to_be_visible()
    expect(network.get_by_text("You are the only one here so far.")).to_be_visible()
    network.get_by_role("link", name="Network").last.click()
    expect(network.get_by_role("region", name="Circles")).to_contain_text("you founded it")


def test_an_invite_is_copied_shown_as_a_code_and_seen_to_be_used(network: Page, node: PageNode) -> None:
    circle = circle_of(node)
    network.context.grant_permissions(["clipboard-read", "clipboard-write"])
    network.get_by_role("button", name="Invite somebody to home").click()
    network.get_by_label("Works for").select_option("1 week")
    network.get_by_label("For how many").fill("2")
    network.get_by_label("guest").check()
    network.get_by_role("button", name="Make the link").click()
    dialog = network.get_by_role("dialog", name="Invite to home")
    invite = node.move(lambda world: next(iter(world.all_circles[circle].invites.values())))
    assert (invite.uses_left, invite.role) == (2, "guest")
    expect(dialog.get_by_role("group", name="Link")).to_have_text(invite.link)
    dialog.get_by_role("button", name="Copy the link").click()
    assert network.evaluate("navigator.clipboard.readText()") == invite.link
    code = dialog.get_by_role("img", name="The link as a QR code")
    expect(code).to_have_js_property("complete", True)
    assert code.evaluate("image => image.naturalWidth") > 0
    expect(dialog.get_by_role("status")).to_contain_text("Waiting for somebody to use it.")
    node.move(lambda world: world.enters(circle, "Bo", invite=invite.id))
    expect(dialog.get_by_role("status")).to_contain_text(f"Bo joined: {who('Bo').words}")
    expect(dialog).to_contain_text("works 1 more time")
    node.move(lambda world: world.enters(circle, "Cy", invite=invite.id))
    expect(dialog).to_contain_text("Used up")
    expect(dialog.get_by_text("Waiting for")).to_have_count(0)


def test_an_invite_is_shown_again_and_withdrawn(network: Page, node: PageNode) -> None:
    circle = circle_of(node)
    network.get_by_role("button", name="Invite somebody to home").click()
    network.get_by_label("For how many").fill("2")
    network.get_by_role("button", name="Make the link").click()
    network.get_by_role("button", name="Done").click()
    node.move(lambda world: world.enters(circle, "Bo", invite=next(iter(world.all_circles[circle].invites))))
    expect(network.get_by_text("Bo joined a circle of yours.")).to_be_visible()
    node.move(lambda world: world.meets("Bo", ""))
    network.get_by_role("link", name="Show home").click()
    network.get_by_role("button", name="Show the link").click()
    dialog = network.get_by_role("dialog", name="Invite to home")
    expect(dialog.get_by_role("group", name="Link")).to_contain_text("pares://join/")
    dialog.get_by_role("button", name="Withdraw").click()
    expect(network.get_by_text("Nobody is invited now.")).to_be_visible()
    assert node.move(lambda world: not world.all_circles[circle].invites)


def test_joining_shows_where_a_link_leads_before_anything_is_sent(network: Page, node: PageNode) -> None:
    link = node.move(lambda world: world.offered("lab", role="guest"))
    node.move(lambda world: world.answering.clear())
    network.get_by_role("link", name="Join with a link").click()
    network.get_by_label("The link").fill(f"  {link}\n")
    network.get_by_role("button", name="See where it leads").click()
    dialog = network.get_by_role("dialog")
    expect(dialog).to_contain_text("Join lab?")
    for words in ("Ada", who("Ada").words, "guest: you may not invite others", "the addresses at which it can be"):
        expect(dialog).to_contain_text(words)
    assert node.move(lambda world: not world.all_circles)
    dialog.get_by_role("button", name="Join lab").click()
    expect(dialog.get_by_role("status")).to_contain_text("Asking Ada")
    expect(dialog.get_by_role("progressbar", name="Joining lab")).to_be_visible()
    node.move(lambda world: world.answering.set())
    expect(dialog.get_by_role("status")).to_contain_text("You are in lab.A member answered after 0.4 s.")
    dialog.get_by_role("link", name="Show it").click()
    expect(network.get_by_role("heading", name="lab", level=1)).to_be_visible()
    expect(network.get_by_role("button", name="Invite somebody")).to_have_count(0)


def test_joining_by_keyboard_alone(network: Page, node: PageNode) -> None:
    link = node.move(lambda world: world.offered("lab"))
    tab_to(network, "Join with a link")
    network.keyboard.press("Enter")
    expect(network.get_by_label("The link")).to_be_focused()
    network.keyboard.type(link)
    tab_to(network, "See where it leads")
    network.keyboard.press("Enter")
    expect(network.get_by_role("heading", name="Join lab?")).to_be_focused()
    tab_to(network, "Join lab")
    network.keyboard.press("Enter")
    expect(network.get_by_role("link", name="Show it")).to_be_focused()
    network.keyboard.press("Escape")
    expect(network.get_by_role("region", name="Circles")).to_contain_text("lab")


def test_joining_says_what_is_in_the_way_and_can_be_tried_again(network: Page, node: PageNode, watch: Watch) -> None:
    link = node.move(lambda world: world.offered("lab"))
    node.move(
        lambda world: world.refuses(PeersUnreachable("Ada's node does not answer.", hint="Ask whether it is on."))
    )
    network.get_by_role("link", name="Join with a link").click()
    dialog = network.get_by_role("dialog")
    for wrong, reason in (("https://example.org", "not a link of Pares"), (link[:-5], "cut off")):
        dialog.get_by_label("The link").fill(wrong)
        dialog.get_by_role("button", name="See where it leads").click()
        expect(dialog.get_by_role("alert")).to_contain_text(reason)
    dialog.get_by_label("The link").fill(link)
    dialog.get_by_role("button", name="See where it leads").click()
    dialog.get_by_role("button", name="Join lab").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Ada's node does not answer.Ask whether it is on.")
    node.move(lambda world: world.refuses(None))
    dialog.get_by_role("button", name="Try again").click()
    expect(dialog).to_contain_text("You are in lab.")
    watch.forgive("status of 400", "status of 504")


def test_the_map_follows_a_peer_that_goes_and_comes_back_relayed(network: Page, node: PageNode) -> None:
    circle = circle_of(node)
    entered(node, circle, "Bo", "Cy")
    expect(seat(network, "Bo")).to_have_attribute("aria-label", "Bo, direct · 12 ms")
    expect(network.get_by_text("2 of 2 online")).to_be_visible()
    node.move(lambda world: world.meets("Bo", ""))
    expect(seat(network, "Bo")).to_have_attribute("aria-label", "Bo, not reachable")
    expect(network.get_by_text("1 of 2 online")).to_be_visible()
    node.move(lambda world: world.meets("Bo", "relayed", rtt_ms=84.0))
    expect(seat(network, "Bo")).to_have_attribute("aria-label", "Bo, relayed · 84 ms")
    node.move(lambda world: world.meets("Bo", "lan", rtt_ms=0.82))
    expect(seat(network, "Bo")).to_have_attribute("aria-label", "Bo, on your network · 0.8 ms")


def test_everybody_sits_where_they_sat(network: Page, node: PageNode) -> None:
    circle = circle_of(node)
    entered(node, circle, *(f"peer {n}" for n in range(20)))
    expect(network.get_by_text("2 more are in the table.")).to_be_visible()
    places = "nodes => nodes.map(node => [node.getAttribute('href'), node.getAttribute('transform')]).sort().join()"
    before = network.locator(".seat").evaluate_all(places)
    network.reload()
    expect(network.locator(".seat")).to_have_count(18)
    assert network.locator(".seat").evaluate_all(places) == before


def test_the_table_says_the_same_and_is_remembered(network: Page, node: PageNode, open_page: OpenPage) -> None:
    circle = circle_of(node)
    entered(node, circle, "Bo")
    node.move(lambda world: world.meets("Bo", "lan", rtt_ms=0.8, offers=("relay", "64 GB memory")))
    network.get_by_role("radio", name="Table").check()
    for words in (who("Bo").words, "on your network", "0.8 ms", "just now", "relay, 64 GB memory", "home"):
        expect(row(network, "Bo")).to_contain_text(words)
    network.reload()
    expect(row(network, "Bo")).to_be_visible()
    phone = open_page(f"{node.page_url}#/network", size=SMALLEST, has_touch=True)
    expect(row(phone, "Bo")).to_contain_text("on your network")
    phone.get_by_role("radio", name="Map").check()
    expect(seat(phone, "Bo")).to_be_visible()


def test_a_peer_is_named_blocked_and_let_in_again(network: Page, node: PageNode) -> None:
    entered(node, circle_of(node), "Bo")
    node.move(lambda world: world.meets("Bo", "direct", clock_offset_s=-240.0))
    seat(network, "Bo").click()
    card = network.get_by_role("dialog")
    expect(card.get_by_role("heading", name="Bo")).to_be_visible()
    expect(card).to_contain_text("4 min 0 s behind yours")
    expect(card).to_contain_text(who("Bo").words)
    card.get_by_label("Your name for this peer").fill("Bo's laptop")
    card.get_by_role("button", name="Save").click()
    expect(card.get_by_role("heading", name="Bo's laptop")).to_be_visible()
    card.get_by_role("button", name="Block").click()
    expect(card.get_by_role("status")).to_contain_text("blocked")
    expect(card).to_contain_text("You blocked this peer.")
    card.get_by_role("button", name="Unblock").click()
    expect(card.get_by_role("button", name="Block", exact=True)).to_be_visible()
    node.move(lambda world: world.meets("Bo", "", reason="No answer on any way."))
    expect(card).to_contain_text("No answer on any way.")
    network.keyboard.press("Escape")
    expect(card).to_have_count(0)
    expect(network).to_have_url(re.compile("#/network$"))


def test_members_are_removed_only_by_who_may(network: Page, node: PageNode) -> None:
    node.move(lambda world: world.joins(world.offered("lab")))
    lab = key_of("lab")
    entered(node, lab, "Cy")
    node.move(lambda world: world.enters(lab, "Dee", by="Cy"))
    node.move(lambda world: world.enters(lab, "Eli", by="Ada"))
    network.goto(f"{node.url}/#/network/circle/{lab}")
    expect(row(network, "Dee")).to_contain_text("Cy")
    expect(network.get_by_role("button", name=re.compile("^Remove "))).to_have_count(2)
    network.get_by_role("button", name="Remove Dee").click()
    network.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(row(network, "Dee")).to_be_visible()
    network.get_by_role("button", name="Remove Dee").click()
    network.get_by_role("dialog", name="Remove Dee from lab?").get_by_role("button", name="Remove").click()
    expect(row(network, "Dee")).to_have_count(0)


def test_a_circle_is_renamed_and_left_after_asking(network: Page, node: PageNode) -> None:
    node.move(lambda world: world.joins(world.offered("lab")))
    card = network.get_by_role("region", name="Circles").get_by_role("listitem").filter(has_text="lab")
    card.get_by_role("button", name="More for lab").click()
    network.get_by_role("menuitem", name="Rename").click()
    network.get_by_role("textbox", name="Name").fill("Ada's lab")
    network.get_by_role("button", name="Save").click()
    expect(network.get_by_text("It calls itself lab.")).to_be_visible()
    network.get_by_role("button", name="More for Ada's lab").click()
    network.get_by_role("menuitem", name="Leave").click()
    network.get_by_role("dialog", name="Leave Ada's lab?").get_by_role("button", name="Leave").click()
    expect(network.get_by_role("heading", name="Nobody knows this node yet.")).to_be_visible()


def test_the_line_about_being_reached_and_the_word_in_the_rail_follow_the_node(network: Page, node: PageNode) -> None:
    rail = network.get_by_role("navigation", name="Main")
    expect(rail).to_contain_text("Ready")
    circle = circle_of(node)
    expect(rail).to_contain_text("Looking for your peers")
    entered(node, circle, "Bo")
    expect(rail).to_contain_text("1 peer online")
    node.move(
        lambda world: world.becomes(
            reachable="relay only", nat="symmetric", message="Peers come over a relay.", hint="Run `pares up --relay`."
        )
    )
    line = network.get_by_role("region", name="Can others reach this node?")
    expect(line).to_contain_text("Through a relayPeers come over a relay.Run pares up --relay.")
    expect(network.get_by_role("region", name="This node", exact=True)).to_contain_text(
        "takes another address for every peer"
    )
    ways = network.get_by_role("region", name="Ways of finding peers")
    expect(ways.get_by_role("listitem").filter(has_text="Through a relay")).to_contain_text("fails")
    expect(ways.get_by_role("listitem").filter(has_text="Public directory")).to_contain_text("off")


def test_the_first_run_offers_to_join_a_friend(start_node: StartNode, open_page: OpenPage) -> None:
    page = open_page(start_node().page_url)
    page.get_by_role("link", name="Join a friend: paste a link").click()
    expect(page.get_by_label("The link that somebody sent you")).to_be_focused()


def test_what_a_peer_calls_itself_is_only_ever_text(network: Page, node: PageNode) -> None:
    name = "<img src=x onerror='window.pwned = 1'>"
    entered(node, circle_of(node), name)
    network.get_by_role("radio", name="Table").check()
    network.get_by_role("link", name=name).click()
    expect(network.get_by_role("dialog").get_by_role("heading", name=name)).to_be_visible()
    assert network.evaluate("window.pwned") is None


def test_the_map_by_keyboard_alone(network: Page, node: PageNode) -> None:
    entered(node, circle_of(node), "Bo")
    seat(network, "Bo").wait_for()
    network.get_by_role("radio", name="Map").focus()
    network.keyboard.press("Tab")
    expect(seat(network, "Bo")).to_be_focused()
    halo = seat(network, "Bo").locator(".halo")
    assert halo.evaluate("circle => getComputedStyle(circle).stroke") != "none"
    network.keyboard.press("Enter")
    expect(network.get_by_role("dialog").get_by_role("heading", name="Bo")).to_be_visible()
    network.keyboard.press("Escape")
    expect(seat(network, "Bo")).to_be_focused()
    tab_to(network, "Copy the words")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, SMALLEST])
def test_nobody_is_hindered_and_nothing_scrolls_sideways(
    node: PageNode, open_page: OpenPage, scheme: Scheme, size: tuple[int, int]
) -> None:
    circle = circle_of(node, "a circle with a very long name, " + "x" * 30)
    entered(node, circle, "Bo", "Cy", "Dee", "Eli of the long and winding name without end")
    node.move(lambda world: world.meets("Bo", "relayed", offers=("relay", "64 GB memory"), clock_offset_s=99.0))
    node.move(lambda world: world.meets("Cy", "lan"))
    node.move(lambda world: world.meets("Dee", "", reason="No answer."))
    node.move(lambda world: world.becomes(reachable="not from outside", message="Nobody comes in.", hint="Ask."))
    link = node.move(lambda world: world.offered("lab", open=True))
    page = open_page(f"{node.page_url}", scheme=scheme, size=size, reduced_motion="reduce")

    def fine(where: str) -> None:
        widths = page.evaluate("[document.documentElement.scrollWidth, document.querySelector('main').scrollWidth]")
        assert max(widths) <= size[0], where
        assert violations(page) == [], where

    page.get_by_label("Your message").wait_for()
    page.goto(f"{node.url}/#/network")
    for view in ("Map", "Table"):
        page.get_by_role("radio", name=view).check()
        fine(view)
    page.goto(f"{node.url}/#/network/peer/{key_of('Bo')}")
    page.get_by_role("dialog").wait_for()
    fine("peer")
    page.goto(f"{node.url}/#/network/join")
    page.get_by_label("The link").fill(link)
    fine("join")
    page.get_by_role("button", name="See where it leads").click()
    page.get_by_role("button", name="Join lab").wait_for()
    fine("preview")
    page.goto(f"{node.url}/#/network/circle/{circle}")
    page.get_by_role("button", name="Invite somebody").click()
    fine("invite")
    page.get_by_role("button", name="Make the link").click()
    page.get_by_role("button", name="Done").wait_for()
    fine("link")
    page.get_by_role("button", name="Done").click()
    fine("circle")
