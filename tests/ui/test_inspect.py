"""Looking into a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from ui.conftest import OpenPage, StartNode


@pytest.fixture
def inspect(start_node: StartNode, open_page: OpenPage, smollm2: Path, gemma: Path) -> Page:
    node = start_node([smollm2, gemma])
    page = open_page(node.page_url)
    page.get_by_label("Your message").wait_for()
    page.goto(f"{node.url}/#/inspect")
    page.get_by_label("Model").select_option("smollm2-135m-instruct.q4_1")
    page.get_by_text("134,515,008").wait_for()
    return page


def tab(page: Page, name: str) -> None:
    page.get_by_role("navigation", name="Parts of").get_by_role("link", name=name).click()


def test_the_overview_tells_architecture_and_abilities(inspect: Page) -> None:
    main = inspect.get_by_role("main")
    expect(main).to_contain_text("llama.block_count")
    expect(main.get_by_text("chat", exact=True)).to_be_visible()
    inspect.get_by_label("Model").select_option("gemma-3-270m-q4_k_m")
    expect(main).to_contain_text("gemma3.block_count")
    expect(main.get_by_text("chat", exact=True)).to_have_count(0)


def test_exactness_is_measured_by_loading(inspect: Page) -> None:
    inspect.get_by_role("button", name="Load and measure").click()
    expect(inspect.get_by_role("main")).to_contain_text("Kernel fingerprint")
    expect(inspect.get_by_text("exact here")).to_be_visible()


def test_every_tensor_is_on_the_map_and_in_the_table(inspect: Page) -> None:
    tab(inspect, "Tensors")
    expect(inspect.get_by_role("group", name="272 tensors in 30 layers")).to_be_visible()
    assert inspect.locator(".cell").count() == 272
    table = inspect.get_by_role("region", name="All tensors").get_by_role("row")
    expect(table).to_have_count(273)
    inspect.get_by_role("searchbox", name="Filter").fill("layer:7")
    expect(table).to_have_count(10)
    expect(inspect.get_by_role("status").filter(has_text="of 272")).to_contain_text("9 of 272")
    inspect.get_by_role("searchbox", name="Filter").fill("q8_0")
    expect(table).to_have_count(2)
    expect(table.nth(1)).to_contain_text("token_embd.weight")


def test_blocks_are_drawn_to_scale(inspect: Page) -> None:
    tab(inspect, "Tensors")
    widths = {}
    for name in ("blk.3.ffn_up.weight", "blk.3.attn_q.weight"):
        cell = inspect.locator(f'.cell[title^="{name}"]')
        widths[name] = cell.evaluate("cell => cell.getBoundingClientRect().width")
    assert widths["blk.3.ffn_up.weight"] / widths["blk.3.attn_q.weight"] == pytest.approx(1536 / 576, rel=0.02)


def test_tokens_are_searched_and_leafed_through(inspect: Page) -> None:
    tab(inspect, "Tokenizer")
    rows = inspect.get_by_role("region", name="Tokens").get_by_role("row")
    expect(rows.nth(1)).to_contain_text("<|endoftext|>")
    inspect.get_by_role("button", name="Tokens after these").click()
    expect(inspect.get_by_text("101 to 200 of 49,152")).to_be_visible()
    inspect.get_by_role("searchbox", name="Search the tokens").fill("lighthouse")
    expect(rows.nth(1)).to_contain_text("lighthouse")
    inspect.get_by_role("searchbox", name="Search the tokens").fill("no token has this")
    expect(inspect.get_by_text("No token has this text.")).to_be_visible()


def test_the_template_is_shown_as_text(inspect: Page) -> None:
    tab(inspect, "Template")
    expect(inspect.get_by_role("main")).to_contain_text("{% for message in messages %}")


def test_the_file_tells_its_hash_and_is_verified(inspect: Page) -> None:
    tab(inspect, "Licence and file")
    main = inspect.get_by_role("main")
    expect(main).to_contain_text("98,362,432 bytes")
    expect(main).to_contain_text("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53")
    main.get_by_role("button", name="Verify").click()
    expect(inspect.get_by_role("status").filter(has_text="is what it should be")).to_be_visible()
