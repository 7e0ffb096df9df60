"""What circles offer, getting it with its licence, sharing one's own, and what is said of a version."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from pares.api.commons import Finding, Holder
from pares.api.schemas import PullPlan, PullRequest, PullStatus
from pares.errors import Conflict
from scripted_commons import APACHE
from scripted_network import who
from tiny import tiny_llama
from ui.conftest import DESK, OpenPage, Scheme, StartNode, Watch
from ui.fixture_server import PageNode
from ui.test_reaching_all import SMALLEST, tab_to, violations

PULLS = "**/pares/v1/pulls"
HOSTILE = "</p><img src=x onerror=window.pwned=1>{{constructor}}"


class Asked:
    """Answers for what would be fetched from a circle, in the shapes of the API, and what was asked for."""

    def __init__(self, page: Page, *, accepted: bool = False, fits: bool = True) -> None:
        self.requests: list[PullRequest] = []
        self._accepted, self._fits = accepted, fits
        page.route(PULLS, self._answer)

    def _answer(self, route: Route) -> None:
        if route.request.method != "POST":
            return route.fallback()
        asked = msgspec.json.decode(route.request.post_data_buffer or b"", type=PullRequest)
        self.requests.append(asked)
        size = 9_000_000 if asked.layers else 98_362_432
        answer: object = PullStatus("1", asked.source, "smol", "queued", 0, size, 0.0, None, "", version=asked.source)
        if asked.dry_run:
            answer = PullPlan(
                source=asked.source,
                name="smol",
                size=size,
                disk_needed=size,
                disk_free=10**11 if self._fits else 10,
                sha256="",
                licence="Apache-2.0",
                fits_disk=self._fits,
                fit="runs well",
                need=None,
                version=asked.source,
                licence_text=APACHE,
                licence_accepted=self._accepted,
                holders=2,
            )
        return route.fulfill(body=msgspec.json.encode(answer), content_type="application/json")


@pytest.fixture
def circle(node: PageNode) -> str:
    return node.move(lambda world: world.founds("home"))


@pytest.fixture
def offered(page: Page, node: PageNode, circle: str) -> Iterator[Page]:
    """What circles offer, on a node that belongs to one."""
    page.goto(f"{node.url}/#/models/circles")
    page.get_by_role("heading", name="Models", level=1).wait_for()
    yield page
    assert page.evaluate("window.pwned") is None


def item(page: Page, name: str) -> Locator:
    return page.get_by_role("listitem").filter(has=page.get_by_role("link", name=name, exact=True))


def test_without_a_circle_the_way_to_one_is_shown(page: Page, node: PageNode) -> None:
    page.goto(f"{node.url}/#/models/circles")
    page.get_by_role("link", name="Start or join one").click()
    expect(page.get_by_role("heading", name="Network", level=1)).to_be_visible()


def test_what_is_offered_tells_who_holds_it_and_follows_events(offered: Page, node: PageNode, circle: str) -> None:
    expect(offered.get_by_text("Nobody in your circles offers a model yet.")).to_be_visible()
    version = node.stir(lambda world: world.offers("smol", circles=[circle], holders=3, whole=2, online=2))
    expect(item(offered, "smol")).to_contain_text("3 hold it, 2 whole, 2 there now · in home")
    expect(item(offered, "smol")).to_contain_text("quantized · llama · 135 M parameters · Q4_1 · 98.4 MB · Apache-2.0")
    expect(item(offered, "smol").get_by_text("Ada")).to_have_attribute("title", who("Ada").words)
    node.stir(lambda world: world.changes(version, online=0, complete=False, here="part"))
    expect(item(offered, "smol")).to_contain_text("not all of it is there now")
    expect(item(offered, "smol").get_by_role("button", name="Get smol")).to_have_text("Get the rest")


def test_rows_are_searched_and_narrowed(offered: Page, node: PageNode, circle: str) -> None:
    node.stir(lambda world: world.offers("smol", circles=[circle]))
    node.stir(lambda world: world.offers("large", by="Bo", circles=[circle], licence="MIT", fit="will not run"))
    rows = offered.get_by_role("main").get_by_role("listitem")
    expect(rows).to_have_count(2)
    offered.get_by_role("searchbox", name="Search what circles offer").fill("LAR bo")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("large")
    offered.get_by_role("searchbox").fill("")
    for label, choice in (("Licence", "MIT"), ("Published by", "Bo")):
        offered.get_by_label(label).select_option(choice)
        expect(rows).to_contain_text(["large"])
        offered.get_by_label(label).select_option("")
    offered.get_by_label("Fits this PC").check()
    expect(rows).to_contain_text(["smol"])
    expect(offered.get_by_role("status").filter(has_text="1 of 2")).to_be_visible()


def test_a_contested_name_is_shown_with_its_publishers_side_by_side(offered: Page, node: PageNode, circle: str) -> None:
    for by in ("Ada", "Bo"):
        node.stir(lambda world, by=by: world.offers("smol", by=by, circles=[circle], conflict=True))  # type: ignore[misc]
    rivals = offered.get_by_role("list", name="Versions called smol").get_by_role("listitem")
    expect(rivals).to_have_count(2)
    for by, rival in (("Ada", rivals.nth(0)), ("Bo", rivals.nth(1))):
        expect(rival).to_contain_text(who(by).words)
    expect(offered.get_by_text("2 people publish something called smol.")).to_be_visible()
    boxes = [rivals.nth(i).bounding_box() for i in (0, 1)]
    assert boxes[0]
    assert boxes[1]
    assert boxes[0]["y"] == boxes[1]["y"]


def test_a_licence_is_shown_and_agreed_to_before_anything_is_fetched(
    offered: Page, node: PageNode, circle: str
) -> None:
    version = node.stir(lambda world: world.offers("smol", circles=[circle]))
    asked = Asked(offered)
    offered.get_by_role("button", name="Get smol by Ada").click()
    dialog = offered.get_by_role("dialog", name="Get smol")
    expect(dialog).to_contain_text("2 members who are there now")
    expect(dialog.get_by_label("Text of the licence")).to_have_text(APACHE)
    fetch = dialog.get_by_role("button", name="Fetch 98.4 MB")
    expect(fetch).to_be_disabled()
    dialog.get_by_label("I have read the licence and agree to it").check()
    fetch.click()
    expect(offered.get_by_role("link", name="Downloads")).to_have_attribute("aria-current", "page")
    assert [each.dry_run for each in asked.requests] == [True, False]
    assert asked.requests[1] == PullRequest(source=version, accept_licence=True)


def test_only_some_layers_are_fetched(offered: Page, node: PageNode, circle: str) -> None:
    node.stir(lambda world: world.offers("smol", circles=[circle]))
    asked = Asked(offered, accepted=True)
    offered.get_by_role("button", name="Get smol by Ada").click()
    dialog = offered.get_by_role("dialog", name="Get smol")
    dialog.locator("summary").click()
    dialog.get_by_role("radio", name="Some layers").check()
    dialog.get_by_label("First layer").fill("20")
    dialog.get_by_label("Last layer").fill("10")
    expect(dialog.get_by_role("button", name="Fetch")).to_be_disabled()
    dialog.get_by_label("First layer").fill("5")
    dialog.get_by_label("With the embedding and the output").check()
    expect(dialog.get_by_role("status")).to_contain_text("9 MB")
    dialog.get_by_role("button", name="Fetch 9 MB").click()
    expect(dialog).to_have_count(0)
    assert asked.requests[-1].layers == "5-11+head"
    assert not asked.requests[-1].dry_run


def test_what_does_not_fit_the_disk_is_not_begun(offered: Page, node: PageNode, circle: str) -> None:
    node.stir(lambda world: world.offers("smol", circles=[circle]))
    Asked(offered, accepted=True, fits=False)
    offered.get_by_role("button", name="Get smol by Ada").click()
    dialog = offered.get_by_role("dialog", name="Get smol")
    expect(dialog).to_contain_text("does not fit")
    expect(dialog.get_by_role("button", name="Fetch")).to_be_disabled()


def test_a_model_is_shared_and_no_longer_and_the_last_copy_is_asked_for(
    page: Page, node: PageNode, circle: str, watch: Watch
) -> None:
    page.goto(f"{node.url}/#/models")
    page.get_by_role("button", name="More for").click()
    page.get_by_role("menuitem", name="Share in circles").click()
    dialog = page.get_by_role("dialog", name="Share talker")
    expect(dialog.get_by_role("checkbox", name="home")).to_be_checked()
    expect(dialog).to_contain_text("That it is you who publishes it.")
    dialog.get_by_label("Licence", exact=True).fill("MIT")
    dialog.get_by_label("State").fill("v2")
    dialog.get_by_text("More to state").click()
    dialog.get_by_label("Made from").fill("SmolLM2")
    dialog.get_by_role("button", name="Share", exact=True).click()
    expect(page.get_by_role("status").filter(has_text="talker is shared in home.")).to_be_visible()
    [asked] = node.stir(lambda world: world.shares)
    assert (asked.model, asked.circles, asked.licence, asked.label) == ("talker", (circle,), "MIT", "v2")
    assert asked.base is not None
    assert asked.base.name == "SmolLM2"
    expect(page.get_by_text("shared in home", exact=True)).to_be_visible()

    last = Conflict("This is the last copy in home that anybody knows of.", hint="Wait until another holds it.")
    node.stir(lambda world: setattr(world, "refusal", last))
    page.get_by_role("button", name="More for").click()
    page.get_by_role("menuitem", name="Stop sharing").click()
    dialog = page.get_by_role("dialog", name="Stop sharing talker?")
    dialog.get_by_role("button", name="Stop sharing").click()
    expect(dialog.get_by_role("alert")).to_contain_text("the last copy in home")
    dialog.get_by_role("button", name="Stop all the same").click()
    expect(page.get_by_text("shared in home", exact=True)).to_have_count(0)
    watch.forgive("409")


def test_the_last_copy_is_not_removed_without_insisting(
    page: Page, node: PageNode, circle: str, watch: Watch, talker: Path
) -> None:
    node.stir(lambda world: world.offers("talker", by="desk", model="talker", here="whole", shared=(circle,)))
    node.stir(lambda world: setattr(world, "refusal", Conflict("home has no other copy of it.", hint="Wait for one.")))
    page.goto(f"{node.url}/#/models")
    page.get_by_role("button", name="More for").click()
    page.get_by_role("menuitem", name="Delete").click()
    dialog = page.get_by_role("dialog", name="Remove talker?")
    dialog.get_by_role("button", name="Take off the list").click()
    expect(dialog.get_by_role("alert")).to_contain_text("home has no other copy of it.")
    dialog.get_by_role("button", name="Remove all the same").click()
    expect(page.get_by_text("There are no models on this PC yet.")).to_be_visible()
    assert talker.exists()
    watch.forgive("409")


def test_a_version_tells_who_signed_it_and_what_was_checked(offered: Page, node: PageNode, circle: str) -> None:
    version = node.stir(lambda world: world.offers("smol", circles=[circle], model="talker", here="whole"))
    item(offered, "smol").get_by_role("link", name="smol").click()
    expect(offered.get_by_role("heading", name="smol", level=1)).to_be_visible()
    offered.get_by_role("button", name="Verify everything").click()
    expect(offered.get_by_role("status").filter(has_text="every byte and every signature")).to_be_visible()
    wrong = Finding(what="files", ok=False, message="Piece 12 is not what it should be.")
    node.stir(lambda world: world.tells(version, findings=(*world.details[version].findings, wrong)))
    expect(offered.get_by_role("region", name="Publisher")).to_contain_text(who("Ada").words)
    findings = offered.get_by_role("region", name="What was checked here").get_by_role("listitem")
    for words in ("signature holds", "header cannot be checked here", "files does not hold"):
        expect(findings.filter(has_text=re.compile(words))).to_have_count(1)
    expect(offered.get_by_role("region", name="Evaluations")).to_contain_text("HellaSwag")
    offered.get_by_role("link", name="Look into the model").click()
    expect(offered.get_by_role("navigation", name="Parts of talker")).to_be_visible()


def test_files_holders_licence_and_template_have_their_place(page: Page, node: PageNode, circle: str) -> None:
    version = node.stir(lambda world: world.offers("smol", circles=[circle]))
    holders = (
        Holder(peer=who("Ada"), online=True, layers=None, head=True),
        Holder(peer=who("Bo"), online=False, layers=(10, 20), head=True),
        Holder(peer=who("Cy"), online=False, layers=(0, 0), head=False),
    )
    node.stir(lambda world: world.tells(version, holders=holders))
    page.goto(f"{node.url}/#/inspect/version/{version}/files")
    for name, words in (("Ada", "all of it"), ("Bo", "layers 10 to 19, and the head"), ("Cy", "the header")):
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name=name))
        expect(row).to_contain_text(words)
    root = node.stir(lambda world: world.details[version].files[0].root)
    expect(page.get_by_role("region", name="Files", exact=True)).to_contain_text(root)
    page.get_by_role("link", name="Licence and template").click()
    expect(page.get_by_label("Text of the licence")).to_have_text(APACHE)
    template = node.stir(lambda world: str(world.details[version].predicate["chat_template_sha256"]))
    expect(page.get_by_role("region", name="Chat template")).to_contain_text(template)


def test_one_stands_for_a_version_warns_of_it_and_takes_it_back(page: Page, node: PageNode, circle: str) -> None:
    version = node.stir(lambda world: world.offers("smol", circles=[circle]))
    page.goto(f"{node.url}/#/inspect/version/{version}")
    others = page.get_by_role("region", name="What others say")
    others.get_by_role("button", name="Warn of it").click()
    dialog = page.get_by_role("dialog", name="Warn of smol?")
    expect(dialog.get_by_role("button", name="Warn of it")).to_be_disabled()
    dialog.get_by_label("Why").fill("It answers in riddles.")
    dialog.get_by_role("button", name="Warn of it").click()
    expect(others).to_contain_text("It answers in riddles.")
    others.get_by_role("button", name="Stand for it").click()
    page.get_by_role("dialog").get_by_role("button", name="Stand for it").click()
    expect(others.get_by_text("stands for it")).to_be_visible()
    expect(others.get_by_role("button", name="Take it back")).to_be_visible()
    expect(others.get_by_role("button", name="Stand for it")).to_have_count(0)


def test_an_unknown_version_says_so(page: Page, node: PageNode, watch: Watch) -> None:
    page.goto(f"{node.url}/#/inspect/version/{'0' * 64}")
    expect(page.get_by_role("alert")).to_contain_text("There is no version")
    watch.forgive("404")


def test_what_others_write_stays_text(offered: Page, node: PageNode, circle: str) -> None:
    version = node.stir(
        lambda world: world.offers(
            HOSTILE,
            by=HOSTILE,
            label=HOSTILE,
            circles=[circle],
            licence=HOSTILE[:60],
            licence_text=HOSTILE,
            architecture=HOSTILE,
            trouble=HOSTILE,
        )
    )
    signed = {"description": HOSTILE, "recipe": {HOSTILE: {"deep": [HOSTILE]}}, "data": "no list", "evaluations": [7]}
    node.stir(lambda world: world.tells(version, predicate=signed))
    node.stir(lambda world: world.says(version, "warning", HOSTILE, HOSTILE))
    expect(offered.get_by_role("main")).to_contain_text(HOSTILE)
    for part in ("", "/lineage", "/files", "/licence"):
        offered.goto(f"{node.url}/#/inspect/version/{version}{part}")
        expect(offered.get_by_role("main")).to_contain_text(HOSTILE)
        offered.wait_for_load_state("networkidle")
        assert offered.locator("main img").count() == 0
    assert violations(offered) == []


def test_getting_by_keyboard_alone(offered: Page, node: PageNode, circle: str) -> None:
    node.stir(lambda world: world.offers("smol", circles=[circle]))
    Asked(offered)
    offered.get_by_role("searchbox").focus()
    tab_to(offered, "Get smol")
    offered.keyboard.press("Enter")
    offered.get_by_label("Text of the licence").wait_for()
    offered.get_by_role("checkbox", name="I have read").focus()
    offered.keyboard.press("Space")
    tab_to(offered, "Fetch 98.4 MB")
    offered.keyboard.press("Escape")
    expect(offered.get_by_role("button", name="Get smol")).to_be_focused()


def test_a_download_is_hurried_and_held_back(start_node: StartNode, open_page: OpenPage, smollm2: Path) -> None:
    node = start_node(starter=smollm2)
    page = open_page(node.page_url)
    page.get_by_role("button", name="Start chatting").wait_for()
    page.goto(f"{node.url}/#/models/catalogue")
    node.hold_download()
    page.get_by_role("button", name=re.compile("^Fetch SmolLM2 135M")).click()
    page.goto(f"{node.url}/#/models/downloads")
    row = page.get_by_role("listitem").filter(has_text="smollm2-135m-instruct")
    row.get_by_role("button", name="Pace of").click()
    pace = page.get_by_role("dialog", name="Pace of")
    pace.get_by_label("Priority").select_option("first")
    pace.get_by_label("At most").fill("250")
    pace.get_by_role("button", name="Set").click()
    expect(row).to_contain_text("first · at most 250 kB/s")
    node.go_on()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, SMALLEST])
def test_nobody_is_hindered_and_nothing_scrolls_sideways(
    node: PageNode, open_page: OpenPage, circle: str, scheme: Scheme, size: tuple[int, int], tmp_path: Path
) -> None:
    tiny_llama(tmp_path / "other.gguf")
    long = "a-model-with-a-long-name-" + "x" * 60
    for by in ("Ada", "Bo of the long and winding name without end"):
        node.stir(lambda world, by=by: world.offers(long, by=by, circles=[circle], conflict=True))  # type: ignore[misc]
    version = node.stir(
        lambda world: world.offers(
            "smol", circles=[circle], model="talker", here="whole", shared=(circle,), trouble="Cy warns: " + "why " * 30
        )
    )
    node.stir(lambda world: world.says(version, "endorsement", "Bo", "w" * 200))
    page = open_page(node.page_url, scheme=scheme, size=size, reduced_motion="reduce")
    Asked(page)

    def fine(where: str) -> None:
        page.wait_for_load_state("networkidle")
        widths = page.evaluate("[document.documentElement.scrollWidth, document.querySelector('main').scrollWidth]")
        assert max(widths) <= size[0], where
        assert violations(page) == [], where

    page.get_by_label("Your message").wait_for()
    page.goto(f"{node.url}/#/models/circles")
    page.get_by_role("button", name="Get a-model").first.click()
    page.get_by_label("Text of the licence").wait_for()
    page.get_by_role("dialog").locator("summary").click()
    page.get_by_role("radio", name="Some layers").check()
    fine("get")
    page.keyboard.press("Escape")
    fine("circles")
    page.goto(f"{node.url}/#/models")
    page.get_by_text("shared in home").wait_for()
    fine("models")
    for verb in ("Share in circles", "Stop sharing"):
        page.get_by_role("button", name="More for").first.click()
        page.get_by_role("menuitem", name=verb).click()
        page.get_by_role("dialog").wait_for()
        fine(verb)
        page.keyboard.press("Escape")
    for part in ("", "/files", "/licence"):
        page.goto(f"{node.url}/#/inspect/version/{version}{part}")
        page.get_by_role("navigation", name="Parts of smol").wait_for()
        fine(part)
