"""Where versions come from, what weights look like, and how two models differ."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tiny import tiny_llama
from ui.conftest import DESK, OpenPage, Scheme, StartNode
from ui.fixture_server import PageNode
from ui.test_reaching_all import SMALLEST, violations

TENSOR = "blk.0.attn_k.weight"


def family(node: PageNode) -> dict[str, str]:
    """A base known by name, what was made from it, and a merge that goes wrong in every way; ids by name."""
    circle = node.move(lambda world: world.founds("home"))
    names = (("base", "base"), ("small", "quantized"), ("tuned", "adapter"), ("merged", "merge"))
    ids = {
        name: node.stir(lambda world, name=name, kind=kind: world.offers(name, kind=kind, circles=[circle]))  # type: ignore[misc]
        for name, kind in names
    }

    def derive(child: str, parent: str, kind: str, state: str, why: str) -> None:
        node.stir(lambda world: world.derives(ids[child], ids.get(parent, parent), kind, state, why))  # type: ignore[arg-type]

    derive("base", "Made elsewhere", "base", "missing", "Nobody has published it.")
    derive("small", "base", "quantized", "checked", "Both are signed.")
    derive("tuned", "base", "adapter", "stated", "Its publisher says so.")
    derive("merged", "small", "merge", "wrong", "It names layers that its parent has not.")
    derive("merged", "tuned", "merge", "revoked", "Ada took it back.")
    derive("base", "merged", "finetune", "cycle", "It would be its own parent.")
    node.stir(lambda world: world.changes(ids["merged"], trouble="Ada took it back."))
    return ids


def graph(page: Page) -> Locator:
    return page.get_by_role("group", name="Lineage of 5 versions")


@pytest.fixture
def ids(node: PageNode) -> dict[str, str]:
    return family(node)


@pytest.fixture
def lineage(page: Page, node: PageNode, ids: dict[str, str]) -> Page:
    page.goto(f"{node.url}/#/inspect/version/{ids['small']}/lineage")
    graph(page).wait_for()
    return page


def test_every_step_is_drawn_and_told(lineage: Page) -> None:
    for name in ("base", "small", "tuned", "merged"):
        expect(graph(lineage).get_by_role("link", name=f"{name},")).to_be_visible()
    expect(graph(lineage).get_by_role("img", name="Made elsewhere, known by name only")).to_be_visible()
    expect(graph(lineage).get_by_role("link", name="small, quantized, by Ada, this one")).to_be_visible()
    rows = lineage.get_by_role("region", name="Every step").get_by_role("row")
    for state, why in (
        ("checked", "Both are signed."),
        ("stated", "Its publisher says so."),
        ("missing", "Nobody has published it."),
        ("wrong", "It names layers that its parent has not."),
        ("revoked", "Ada took it back."),
        ("circle", "It would be its own parent."),
    ):
        expect(rows.filter(has_text=state).filter(has_text=why).first).to_be_visible()


def test_the_state_of_a_step_is_a_line_of_its_own(lineage: Page) -> None:
    edges = graph(lineage).locator(".lineage-edge path")
    looks = edges.evaluate_all(
        "paths => paths.map(path => [getComputedStyle(path).stroke, getComputedStyle(path).strokeDasharray].join(' '))"
    )
    assert len(set(looks)) == len(looks) == 6


def test_roots_come_first_and_nothing_lies_upon_another(lineage: Page, open_page: OpenPage, node: PageNode) -> None:
    boxes = graph(lineage).locator(".node-box")
    assert boxes.count() == 5
    places = [boxes.nth(i).bounding_box() for i in range(5)]
    found = [place for place in places if place]
    assert len({(round(place["x"]), round(place["y"])) for place in found}) == 5
    base = graph(lineage).get_by_role("link", name="base,").bounding_box()
    merged = graph(lineage).get_by_role("link", name="merged,").bounding_box()
    assert base
    assert merged
    assert base["x"] + base["width"] < merged["x"]


def test_the_graph_is_walked_by_keyboard(lineage: Page, ids: dict[str, str]) -> None:
    graph(lineage).get_by_role("link", name="small,").focus()
    lineage.keyboard.press("ArrowLeft")
    expect(graph(lineage).get_by_role("link", name="base,")).to_be_focused()
    outline = graph(lineage).get_by_role("link", name="base,").locator(".node-box")
    assert outline.evaluate("box => getComputedStyle(box).strokeWidth") == "3.5px"
    lineage.keyboard.press("ArrowLeft")
    expect(graph(lineage).get_by_role("img", name="Made elsewhere")).to_be_focused()
    lineage.keyboard.press("ArrowRight")
    lineage.keyboard.press("Enter")
    expect(lineage.get_by_role("heading", name="base", level=1)).to_be_visible()
    assert lineage.url.endswith(f"/inspect/version/{ids['base']}/lineage")


def test_a_version_of_which_nothing_is_known_says_so(page: Page, node: PageNode) -> None:
    version = node.stir(lambda world: world.offers("lonely"))
    page.goto(f"{node.url}/#/inspect/version/{version}/lineage")
    expect(page.get_by_text("Nothing is known of what it was made from")).to_be_visible()


def test_a_large_family_is_cut_around_the_version_in_question(page: Page, node: PageNode) -> None:
    root = node.stir(lambda world: world.offers("root", kind="base"))

    def many(world: object) -> None:
        for i in range(90):
            world.derives(world.offers(f"child {i}"), root, "quantized")  # type: ignore[attr-defined]

    node.stir(many)
    page.goto(f"{node.url}/#/inspect/version/{root}/lineage")
    expect(page.get_by_text("31 more are in the table.")).to_be_visible()
    expect(page.get_by_role("region", name="Every step").get_by_role("row")).to_have_count(91)


def test_the_weights_of_a_tensor_are_looked_at_on_demand(page: Page, node: PageNode) -> None:
    node.stir(lambda world: world.samples_as("talker", TENSOR, odd=3))
    page.goto(f"{node.url}/#/inspect/talker/tensors")
    page.get_by_role("button", name=f"Weights of {TENSOR}").click()
    dialog = page.get_by_role("dialog", name=TENSOR)
    expect(dialog.get_by_role("img", name="Histogram from -0.5 to 0.75.")).to_be_visible()
    expect(dialog).to_contain_text("-0.5 to 0.75")
    expect(dialog).to_contain_text("25 %")
    expect(dialog).to_contain_text("Not a number")
    assert violations(page) == []


@pytest.fixture
def pair(start_node: StartNode, open_page: OpenPage, talker: Path, tmp_path: Path) -> tuple[Page, PageNode]:
    """A node with two models, and its page."""
    node = start_node([talker, tiny_llama(tmp_path / "other.gguf")])
    node.stir(lambda world: world.differs("talker", "other", [0.0, 0.01, 0.05]))
    page = open_page(node.page_url)
    page.get_by_label("Your message").wait_for()
    return page, node


def test_two_models_are_compared_layer_by_layer(pair: tuple[Page, PageNode]) -> None:
    page, node = pair
    page.goto(f"{node.url}/#/inspect/talker/compare")
    page.get_by_label("Compare with").select_option("other")
    expect(page.get_by_role("status").filter(has_text="2 tensors differ, 25 are the same.")).to_be_visible()
    bars = page.get_by_role("img", name="Difference of 3 layers as bars, at most 5 %")
    widths = bars.locator("rect").evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().width)")
    assert widths[2] / widths[1] == pytest.approx(5, rel=0.02)
    expect(page.get_by_role("region", name="By layer").get_by_role("row").nth(3)).to_contain_text("5 %")
    tensors = page.get_by_role("region", name="Tensors that differ").get_by_role("row")
    expect(tensors.filter(has_text="output.weight")).to_contain_text("only in the second")
    assert page.url.endswith("/inspect/talker/compare/other")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, SMALLEST])
def test_nobody_is_hindered_and_nothing_scrolls_sideways(
    pair: tuple[Page, PageNode], open_page: OpenPage, scheme: Scheme, size: tuple[int, int]
) -> None:
    _, node = pair
    ids = family(node)
    page = open_page(node.page_url, scheme=scheme, size=size, reduced_motion="reduce")
    page.get_by_label("Your message").wait_for()
    for screen in (f"version/{ids['merged']}/lineage", "talker/compare/other"):
        page.goto(f"{node.url}/#/inspect/{screen}")
        page.get_by_role("table").first.wait_for()
        page.wait_for_load_state("networkidle")
        widths = page.evaluate("[document.documentElement.scrollWidth, document.querySelector('main').scrollWidth]")
        assert max(widths) <= size[0], screen
        assert violations(page) == [], screen
