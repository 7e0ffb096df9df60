"""What is fetched and given away: pieces, who sends what, and the switches."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from pares.api.commons import Source
from scripted_commons import torrent
from scripted_network import who
from ui.conftest import DESK, OpenPage, Scheme
from ui.fixture_server import PageNode
from ui.test_reaching_all import SMALLEST, violations

ADA = Source(
    peer=who("Ada"),
    address="192.0.2.7:4000",
    kind="peer",
    have=1.0,
    down_bytes_per_s=1_900_000,
    up_bytes_per_s=0,
    downloaded=18_000_000,
    uploaded=0,
)
BO = Source(
    peer=who("Bo"),
    address="127.0.0.1:2",
    kind="tunnel",
    have=0.4,
    down_bytes_per_s=500_000,
    up_bytes_per_s=350_000,
    downloaded=4_500_000,
    uploaded=9_000_000,
)
STRANGER = Source(
    peer=None,
    address="198.51.100.9:5000",
    kind="peer",
    have=0.1,
    down_bytes_per_s=0,
    up_bytes_per_s=10_000,
    downloaded=0,
    uploaded=40_000,
)


@pytest.fixture
def swarm(page: Page, node: PageNode) -> Page:
    page.goto(f"{node.url}/#/models/swarm")
    page.get_by_role("region", name="Files").wait_for()
    return page


def item(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name="Files").get_by_role("listitem").filter(has_text=name)


def test_an_idle_swarm_says_so(swarm: Page) -> None:
    expect(swarm.get_by_text("Nothing is fetched from circles or given away.")).to_be_visible()
    expect(swarm.get_by_text("The transfers sleep")).to_be_visible()


def test_pieces_are_drawn_and_told(swarm: Page, node: PageNode) -> None:
    node.stir(lambda world: world.moves(torrent("smol")))
    words = "21 of 48 pieces here · 19 missing · 8 not wanted · 1.05 MB each"
    pieces = swarm.get_by_role("img", name=f"Pieces of smol: {words}")
    expect(pieces).to_be_visible()
    expect(item(swarm, "smol")).to_contain_text("22 MB of the 41.9 MB wanted, of 50 MB")
    width = swarm.evaluate("() => document.querySelector('.pieces svg').getBoundingClientRect().width")
    here = pieces.locator("path.here")
    assert here.evaluate("path => path.getBBox().width") == 24  # from the first piece to the end of the second run
    heights = [pieces.locator(f"path.{look}").evaluate("path => path.getBBox().height") for look in ("here", "missing")]
    assert heights[0] > heights[1] > 0
    assert width > 100
    node.stir(lambda world: world.moves(torrent("smol", pieces="40+ 8~", done=41_943_040, state="seeding")))
    expect(swarm.get_by_role("img", name="Pieces of smol: 40 of 48 pieces here · 8 not wanted")).to_be_visible()


def test_a_file_of_many_pieces_is_drawn_in_few_columns(swarm: Page, node: PageNode) -> None:
    pieces = " ".join("1+ 1-" for _ in range(50_000))
    node.stir(lambda world: world.moves(torrent("huge", pieces=pieces)))
    drawing = swarm.get_by_role("img", name="Pieces of huge: 50,000 of 100,000 pieces here")
    expect(drawing).to_be_visible()
    assert drawing.locator("path").count() == 1
    assert drawing.locator("path.part").evaluate("path => path.getBBox().width") == 480


def test_who_sends_and_takes_is_told_by_name_and_addresses_are_kept_back(swarm: Page, node: PageNode) -> None:
    node.stir(lambda world: world.moves(torrent("smol", sources=(ADA, BO, STRANGER))))
    rows = swarm.get_by_role("region", name="Who sends and takes smol").get_by_role("row")
    expect(rows.filter(has=swarm.get_by_role("link", name="Ada"))).to_contain_text("directly")
    expect(rows.filter(has=swarm.get_by_role("link", name="Ada"))).to_contain_text("1.9 MB/s")
    expect(rows.filter(has=swarm.get_by_role("link", name="Bo"))).to_contain_text("through the circle's own connection")
    expect(rows.filter(has_text="somebody of the swarm")).to_contain_text("10 kB/s")
    expect(swarm.get_by_role("main")).not_to_contain_text("198.51.100.9")


def test_totals_and_ratio_are_told(swarm: Page, node: PageNode) -> None:
    node.stir(
        lambda world: world.moves(uploaded=300_000_000, downloaded=200_000_000, kept_bytes=4_000_000_000, port=6881)
    )
    main = swarm.get_by_role("main")
    for words in ("300 MB", "200 MB", "1.5", "4 GB", "TCP port 6881"):
        expect(main).to_contain_text(words)


def test_giving_is_switched_and_limited(swarm: Page, node: PageNode) -> None:
    switch = swarm.get_by_role("switch", name="Give away what is shared")
    expect(switch).to_be_checked()
    switch.focus()
    swarm.keyboard.press("Space")
    expect(switch).not_to_be_checked()
    assert not node.stir(lambda world: world.now.seeding)
    swarm.get_by_label("Upload, kB/s").fill("250")
    swarm.get_by_label("Download, kB/s").fill("")
    swarm.get_by_role("button", name="Set").click()
    expect(swarm.get_by_role("status").filter(has_text="The limits are in force.")).to_have_count(1)
    assert node.stir(lambda world: (world.now.upload_limit, world.now.download_limit)) == (250_000, 0)


def test_an_error_says_what_to_do(swarm: Page, node: PageNode) -> None:
    full = torrent("smol", state="failed", code="disk_full", error="There is no room for 180 MB more.")
    node.stir(lambda world: world.moves(full))
    alert = item(swarm, "smol").get_by_role("alert")
    expect(alert).to_contain_text("There is no room for 180 MB more.")
    expect(alert).to_contain_text("Free some disk")


def test_a_file_leads_to_its_version(swarm: Page, node: PageNode) -> None:
    version = node.stir(lambda world: world.offers("smol"))
    node.stir(lambda world: world.moves(torrent("model.gguf", version=version)))
    item(swarm, "model.gguf").get_by_role("link", name="model.gguf").click()
    expect(swarm.get_by_role("heading", name="smol", level=1)).to_be_visible()


def test_without_events_it_is_asked_for(swarm: Page, node: PageNode) -> None:
    node.stir(
        lambda world: setattr(
            world,
            "now",
            type(world.now)(
                **{
                    **{name: getattr(world.now, name) for name in world.now.__struct_fields__},
                    "torrents": (torrent("quiet"),),
                }
            ),
        )
    )
    expect(item(swarm, "quiet")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, SMALLEST])
def test_nobody_is_hindered_and_nothing_scrolls_sideways(
    node: PageNode, open_page: OpenPage, scheme: Scheme, size: tuple[int, int]
) -> None:
    failed = torrent("x" * 90, state="failed", code="disk_full", error="There is no room.")
    node.stir(lambda world: world.moves(torrent("smol", sources=(ADA, BO, STRANGER)), failed))
    page = open_page(node.page_url, scheme=scheme, size=size, reduced_motion="reduce")
    page.get_by_label("Your message").wait_for()
    page.goto(f"{node.url}/#/models/swarm")
    page.get_by_role("region", name="Files").wait_for()
    widths = page.evaluate("[document.documentElement.scrollWidth, document.querySelector('main').scrollWidth]")
    assert max(widths) <= size[0]
    assert violations(page) == []
