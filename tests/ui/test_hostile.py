"""What a model says is hostile input: it may not run, load, navigate, restyle, or hang the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from ui.answers import LONG_LINE
from ui.conftest import DESK, PHONE, OpenPage, StartNode, Watch, answered, ask
from ui.fixture_server import PageNode

FORBIDDEN = "script, style, iframe, form, svg:not(.icon), img, base, object, embed, link, meta"
HANDLERS = "[onerror], [onload], [onclick], [onfocus], [onmouseover], [style]"


def test_hostile_markdown_becomes_text(page: Page) -> None:
    ask(page, "hostile")
    answered(page)
    answer = page.get_by_role("article", name="Answer of").locator(".markdown")
    expect(answer).to_contain_text("""<img src=x onerror="window.pwned=1">""")
    expect(answer).to_contain_text("After.")
    assert page.evaluate("window.pwned") is None
    assert answer.locator(FORBIDDEN).count() == 0
    assert answer.locator(HANDLERS).count() == 0
    assert page.evaluate("getComputedStyle(document.body).display") == "block"


def test_only_harmless_addresses_are_links(page: Page) -> None:
    ask(page, "hostile")
    answered(page)
    answer = page.get_by_role("article", name="Answer of").locator(".markdown")
    links = answer.locator("a").evaluate_all("links => links.map(link => [link.protocol, link.host, link.rel])")
    assert links == [
        ["https:", "example.org", "noopener noreferrer nofollow"],
        ["https:", "elsewhere.invalid", "noopener noreferrer nofollow"],
        ["http:", "www.elsewhere.invalid", "noopener noreferrer nofollow"],
    ]
    expect(answer).to_contain_text("(javascript:window.pwned=4)")
    expect(answer).to_contain_text("[image, not loaded: a picture https://elsewhere.invalid/track.png]")


def test_the_same_holds_in_what_was_thought_and_after_a_reload(page: Page) -> None:
    ask(page, "hostile")
    answered(page)
    page.reload()
    answered(page)
    assert page.evaluate("window.pwned") is None
    assert page.locator(".markdown").locator(FORBIDDEN).count() == 0


@pytest.mark.parametrize("question", ["nested", "long prose"])
def test_an_answer_that_nests_or_runs_on_is_streamed(
    start_node: StartNode, open_page: OpenPage, talker: Path, question: str
) -> None:
    page = open_page(start_node([talker], context=1_000_000).page_url)
    ask(page, question)
    answered(page)
    expect(page.get_by_role("article", name="Answer of")).to_contain_text("Alive.")
    page.get_by_label("Your message").fill("still here")
    expect(page.get_by_label("Your message")).to_have_value("still here")


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_a_line_of_a_megabyte_is_shown_and_widens_nothing(page: Page, node: PageNode, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.goto(f"{node.url}/#/chat/{node.keep('a long line', LONG_LINE)}")
    expect(page.get_by_role("article", name="Answer of")).to_contain_text("Alive.")
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_the_browser_enforces_that_no_markup_is_written(page: Page, node: PageNode, watch: Watch) -> None:
    policy = page.request.get(node.url).headers["content-security-policy"]
    assert "trusted-types 'none'" in policy
    assert "unsafe" not in policy
    refused = page.evaluate("""() => {
        try { document.createElement('div').innerHTML = '<b>x</b>'; } catch (error) { return error.name; }
    }""")
    assert refused == "TypeError"
    watch.forgive("TrustedHTML")


def test_titles_and_names_are_text_too(page: Page) -> None:
    ask(page, "<img src=x onerror=window.pwned=1> a poem")
    answered(page)
    expect(page.get_by_role("article", name="You")).to_contain_text("<img src=x onerror=window.pwned=1>")
    expect(page.get_by_role("navigation", name="Conversations").get_by_role("link")).to_contain_text("<img src=x")
    assert page.evaluate("window.pwned") is None
    assert page.locator("img").count() == 0
