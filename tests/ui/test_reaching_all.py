"""For everyone: by keyboard, by screen reader, on a phone, in the dark, without motion."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from ui.conftest import DESK, PHONE, OpenPage, Scheme, StartNode, answered, ask
from ui.fixture_server import PageNode

SCREENS = (
    "chat",
    "chat/temporary",
    "models",
    "models/catalogue",
    "models/downloads",
    "network",
    "inspect",
    "settings",
    "settings/tools",
    "settings/keys",
    "settings/doctor",
    "settings/log",
)
PARTS = ("tensors", "tokenizer", "template", "file")
SMALLEST = (360, 640)
AXE = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def violations(page: Page) -> list[str]:
    """What axe finds that hinders somebody."""
    found = Axe().run(page, options=AXE).response["violations"]
    return [
        f"{each['id']}: {node['target']} {node['failureSummary']}"
        for each in found
        for node in each["nodes"]
        if each["impact"] in ("serious", "critical", "moderate")
    ]


def screens(page: Page, node: PageNode) -> list[str]:
    model = page.request.get(f"{node.url}/pares/v1/models").json()["models"][0]["name"]
    return [*SCREENS, *(f"inspect/{model}/{part}" for part in PARTS)]


def visit(page: Page, node: PageNode, screen: str) -> None:
    page.goto(f"{node.url}/#/{screen}")
    page.get_by_role("heading", level=1).wait_for()
    page.wait_for_load_state("networkidle") if screen != "settings/log" else None


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE])
def test_axe_finds_nothing_on_any_screen(
    node: PageNode, open_page: OpenPage, scheme: Scheme, size: tuple[int, int]
) -> None:
    page = open_page(node.page_url, scheme=scheme, size=size, reduced_motion="reduce")
    ask(page, "a function")
    answered(page)
    assert violations(page) == []
    for screen in screens(page, node):
        visit(page, node, screen)
        assert violations(page) == [], screen


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_what_opens(page: Page, node: PageNode, scheme: Scheme) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    ask(page, "fail with a function")
    page.get_by_role("alert").wait_for()
    page.get_by_role("button", name="How it answers").click()
    assert violations(page) == []
    page.keyboard.press("Escape")
    for opener in ("Model:", "Runs on this PC", "More for"):
        page.get_by_role("button", name=opener).click()
        assert violations(page) == [], opener
        page.keyboard.press("Escape")
    page.get_by_role("button", name="More for").click()
    page.get_by_role("menuitem", name="Delete").click()
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("main").focus()
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keyboard").wait_for()
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.goto(f"{node.url}/#/models")
    page.get_by_role("button", name="Runs well: show the sum").click()
    assert violations(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_the_first_run_and_at_the_door(
    start_node: StartNode, open_page: OpenPage, scheme: Scheme, watches: dict[Page, object]
) -> None:
    node = start_node()
    page = open_page(node.page_url, scheme=scheme)
    page.get_by_role("button", name="Start chatting").wait_for()
    assert violations(page) == []
    stranger = open_page(node.url, scheme=scheme)
    stranger.get_by_role("heading", name="Who is asking?").wait_for()
    assert violations(stranger) == []
    watches[stranger].forgive("401")  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [SMALLEST, PHONE])
def test_no_screen_scrolls_sideways_on_a_phone(node: PageNode, open_page: OpenPage, size: tuple[int, int]) -> None:
    page = open_page(node.page_url, size=size, has_touch=True)
    ask(page, "a function")
    answered(page)
    for screen in screens(page, node):
        visit(page, node, screen)
        widths = page.evaluate("[document.documentElement.scrollWidth, document.querySelector('main').scrollWidth]")
        assert max(widths) <= size[0], screen


def test_the_composer_stays_above_a_soft_keyboard(node: PageNode, open_page: OpenPage) -> None:
    page = open_page(node.page_url, size=PHONE, has_touch=True)
    ask(page, "a function")
    answered(page)
    page.set_viewport_size({"width": PHONE[0], "height": 420})
    box = page.get_by_label("Your message").bounding_box()
    assert box is not None
    assert 0 < box["y"] < 420 - box["height"]


def test_on_a_phone_the_list_lies_over_the_chat_and_goes_away(node: PageNode, open_page: OpenPage) -> None:
    page = open_page(node.page_url, size=PHONE)
    ask(page, "a poem")
    answered(page)
    listed = page.get_by_role("complementary", name="Conversations")
    expect(listed).to_have_count(0)
    page.get_by_role("button", name="Conversations").click()
    expect(listed).to_be_visible()
    page.keyboard.press("Escape")
    expect(listed).to_have_count(0)


FOCUSED = """() => {
    const active = document.activeElement;
    if (active === document.body) return ['', false];
    const style = getComputedStyle(active.closest('.box') ?? active);
    const shown = style.outlineStyle !== 'none' || style.boxShadow !== 'none';
    return [active.getAttribute('aria-label') || (active.innerText ?? active.textContent).trim(), shown];
}"""


def focused(page: Page) -> tuple[str, bool]:
    """Name or text of what has the focus, empty where nothing has it; and whether it can be seen to have it."""
    name, shown = page.evaluate(FOCUSED)
    return str(name), bool(shown)


def tab_to(page: Page, name: str) -> None:
    """Press Tab until something of that name has the focus, and can be seen to have it."""
    for _ in range(80):
        page.keyboard.press("Tab")
        found, shown = focused(page)
        if found.startswith(name):
            assert shown, f"{name} has the focus, and nothing shows it"
            return
    raise AssertionError(f"Tab never comes to {name}")


def test_a_closed_dialog_takes_the_focus_from_nobody(page: Page) -> None:
    ask(page, "a poem")
    answered(page)
    page.get_by_role("button", name="More for").click()
    page.get_by_role("menuitem", name="Rename").click()
    page.get_by_role("dialog").wait_for()
    page.evaluate("""() => {
        document.querySelector('dialog').close();
        document.querySelector('[aria-label="How it answers"]').focus();
    }""")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="How it answers")).to_be_focused()


def test_a_whole_conversation_by_keyboard_alone(page: Page, node: PageNode) -> None:
    keyboard = page.keyboard
    expect(page.get_by_label("Your message")).to_be_focused()
    keyboard.type("hold the function")
    keyboard.press("Enter")
    page.get_by_text("Split at white").wait_for()
    keyboard.press("Escape")
    expect(page.get_by_text("stopped", exact=True)).to_be_visible()
    keyboard.press("ArrowUp")
    expect(page.get_by_label("Edit your message")).to_be_focused()
    keyboard.press("Control+A")
    keyboard.type("a poem")
    keyboard.press("Enter")
    expect(page.get_by_role("article", name="Answer of")).to_contain_text("The lamp turns slow")
    tab_to(page, "Model:")
    keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Model:").get_by_role("button").first).to_be_focused()
    keyboard.press("ArrowDown")
    keyboard.press("Escape")
    expect(page.get_by_role("button", name="Model:")).to_be_focused()
    keyboard.press("Control+K")
    expect(page.get_by_role("searchbox", name="Search")).to_be_focused()
    tab_to(page, "More for")
    keyboard.press("Enter")
    expect(page.get_by_role("menuitem", name="Rename")).to_be_focused()
    keyboard.press("ArrowUp")
    keyboard.press("Enter")
    page.get_by_role("dialog", name="Delete this conversation?").wait_for()
    tab_to(page, "Delete")
    keyboard.press("Enter")
    expect(page.get_by_text("What would you like to know?")).to_be_visible()
    keyboard.press("Control+Shift+O")
    expect(page.get_by_label("Your message")).to_be_focused()
    page.get_by_role("main").focus()
    keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keyboard")).to_have_count(0)


def test_screens_are_reached_by_keyboard(page: Page) -> None:
    tab_to(page, "Skip to the content")
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    assert focused(page)[0] == "Inspect"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Inspect", level=1)).to_be_visible()


def test_nothing_moves_for_who_asked_for_less_motion(node: PageNode, open_page: OpenPage) -> None:
    page = open_page(node.page_url, reduced_motion="reduce")
    ask(page, "hold the function")
    page.get_by_text("Split at white").wait_for()
    assert page.evaluate("document.getAnimations().length") == 0
    node.go_on()
    answered(page)


def test_forced_colours_keep_what_carries_meaning(node: PageNode, open_page: OpenPage) -> None:
    page = open_page(node.page_url, forced_colors="active")
    page.goto(f"{node.url}/#/inspect")
    page.get_by_role("link", name="Tensors").click()
    colour = page.locator(".cell").first.evaluate("cell => getComputedStyle(cell).backgroundColor")
    assert colour == "rgb(11, 107, 87)"
