"""The node stops, is restarted, or does not know who is asking."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from ui.conftest import OpenPage, Watch, answered, ask
from ui.fixture_server import PageNode

GONE = ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE")


def test_a_stopped_node_is_said_at_once_and_found_again(page: Page, node: PageNode, watch: Watch) -> None:
    ask(page, "a poem")
    answered(page)
    page.get_by_label("Your message").fill("not sent yet")
    node.stop()
    gone = page.get_by_role("alert").filter(has_text="The node stopped or was restarted.")
    expect(gone).to_contain_text("pares up")
    expect(gone).to_contain_text("Retrying in")
    expect(page.get_by_role("navigation", name="Main")).to_contain_text("Not reachable")
    node.start()
    expect(gone).to_have_count(0)
    expect(page.get_by_role("navigation", name="Main")).to_contain_text("Ready")
    expect(page.get_by_label("Your message")).to_have_value("not sent yet")
    ask(page, "a poem")
    answered(page, 2)
    watch.forgive(*GONE)


def test_retrying_by_hand_does_not_wait(page: Page, node: PageNode, watch: Watch) -> None:
    node.stop()
    page.get_by_role("button", name="Retry now").wait_for()
    node.start()
    page.get_by_role("button", name="Retry now").click()
    expect(page.get_by_role("navigation", name="Main")).to_contain_text("Ready", timeout=2000)
    watch.forgive(*GONE)


def test_an_answer_cut_off_by_the_end_of_the_node_is_kept_as_far_as_it_came(
    page: Page, node: PageNode, watch: Watch
) -> None:
    ask(page, "hold the function")
    answer = page.get_by_role("article", name="Answer of")
    expect(answer).to_contain_text("Split at white")
    node.stop()
    expect(answer.get_by_role("button", name="Try again").first).to_be_visible()
    expect(answer).to_contain_text("Split at white")
    node.start()
    expect(page.get_by_role("navigation", name="Main")).to_contain_text("Ready")
    expect(answer).to_contain_text("Split at white")
    watch.forgive(*GONE)


def test_what_changed_meanwhile_is_fetched_again(page: Page, node: PageNode, watch: Watch) -> None:
    listed = page.get_by_role("navigation", name="Conversations").get_by_role("link")
    expect(listed).to_have_count(0)
    node.stop()
    page.get_by_role("button", name="Retry now").wait_for()
    node.start()
    node.keep("asked elsewhere", "answered elsewhere")
    page.get_by_role("button", name="Retry now").click()
    expect(listed).to_have_text(["asked elsewhere"])
    watch.forgive(*GONE)


def test_a_stranger_is_told_how_to_get_in(node: PageNode, open_page: OpenPage, watches: dict[Page, Watch]) -> None:
    page = open_page(node.url)
    expect(page.get_by_role("heading", name="Who is asking?")).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text("pares status --url")
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("alert")).to_contain_text("does not know this token")
    page.get_by_label("Token").fill(node.page_url.rpartition("=")[2])
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_label("Your message")).to_be_visible()
    watches[page].forgive("401")


def test_the_token_does_not_stay_in_the_address(page: Page, node: PageNode) -> None:
    assert "token" not in page.url
    assert page.url.startswith(node.url)
