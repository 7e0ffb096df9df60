"""Settings, keys, other tools, doctor, log."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from ui.conftest import Watch
from ui.fixture_server import PageNode


@pytest.fixture
def settings(page: Page, node: PageNode) -> Page:
    page.goto(f"{node.url}/#/settings")
    page.get_by_role("heading", name="Settings", level=1).wait_for()
    return page


def tab(page: Page, name: str) -> None:
    page.get_by_role("navigation", name="Settings").get_by_role("link", name=name).click()


def test_a_setting_shows_its_source_and_is_changed_and_put_back(settings: Page) -> None:
    row = settings.get_by_role("listitem").filter(has_text="Downloads at the same time")
    expect(row).to_contain_text("default")
    row.get_by_role("textbox").fill("3")
    row.get_by_role("textbox").blur()
    expect(row).to_contain_text("set here")
    row.get_by_role("button", name="Back to 2").click()
    expect(row).to_contain_text("default")
    expect(row.get_by_role("textbox")).to_have_value("2")


def test_a_switch_is_a_switch(settings: Page) -> None:
    row = settings.get_by_role("listitem").filter(has_text="Send nothing beyond this machine")
    row.get_by_role("switch").check()
    expect(row).to_contain_text("set here")


def test_what_a_flag_set_cannot_be_changed_here(settings: Page) -> None:
    row = settings.get_by_role("listitem").filter(has_text="Port of the API")
    expect(row).to_contain_text("set on the command line")
    expect(row.get_by_role("textbox")).to_be_disabled()


def test_a_wrong_value_is_refused_with_the_reason(settings: Page, watch: Watch) -> None:
    row = settings.get_by_role("listitem").filter(has_text="Downloads at the same time")
    row.get_by_role("textbox").fill("many")
    row.get_by_role("textbox").blur()
    expect(row.get_by_role("alert")).to_be_visible()
    watch.forgive("status of")


def test_the_appearance_is_kept(settings: Page) -> None:
    settings.get_by_label("Dark").check()
    settings.reload()
    expect(settings.locator("html")).to_have_attribute("data-theme", "dark")
    assert settings.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 22, 20)"


def test_a_key_is_made_shown_once_and_revoked(settings: Page) -> None:
    tab(settings, "Keys")
    settings.get_by_label("What is it for?").fill("Editor")
    settings.get_by_role("button", name="Make a key").click()
    fresh = settings.get_by_role("status").filter(has_text="Key for Editor")
    secret = fresh.locator("code").inner_text()
    assert len(secret) > 20
    fresh.get_by_role("button", name="I have it").click()
    expect(settings.get_by_text(secret)).to_have_count(0)
    settings.get_by_role("button", name="Revoke the key for Editor?").click()
    settings.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(settings.get_by_role("listitem").filter(has_text="Editor")).to_contain_text("revoked")


def test_addresses_for_other_tools_can_be_copied(settings: Page, node: PageNode) -> None:
    settings.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab(settings, "Other tools")
    settings.get_by_role("button", name="Copy: Base URL").click()
    assert settings.evaluate("navigator.clipboard.readText()") == f"{node.url}/v1"


def test_the_doctor_reports_every_check(settings: Page) -> None:
    tab(settings, "Doctor")
    expect(settings.get_by_role("status").filter(has_text=re.compile("things? to look at"))).to_be_visible()
    expect(settings.get_by_role("main").get_by_role("listitem").filter(has_text="disk")).to_contain_text("free")


def test_the_log_shows_what_the_node_did(settings: Page) -> None:
    tab(settings, "Log")
    expect(settings.get_by_role("region", name="Log")).to_contain_text("node.ready")
