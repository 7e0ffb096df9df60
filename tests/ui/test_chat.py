"""Chatting on the page, against the real API and a scripted model."""

from __future__ import annotations

import json
import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from ui.conftest import Watch, answered, ask
from ui.fixture_server import PageNode


def said(page: Page, words: str) -> Locator:
    """Words of an answer."""
    return page.get_by_role("article", name="Answer of").get_by_text(words)


def test_an_answer_is_streamed_rendered_and_measured(page: Page) -> None:
    ask(page, "Write a function that counts words")
    answered(page)
    answer = page.get_by_role("article", name="Answer of")
    expect(answer.get_by_role("heading", name="Counting words")).to_be_visible()
    expect(answer.get_by_role("table")).to_contain_text("one of them twice")
    expect(answer.locator(".hl-keyword").first).to_have_text("def")
    expect(answer.get_by_text(re.compile(r"\d+ tokens$"))).to_be_visible()
    expect(answer.get_by_text("tokens/s")).to_be_visible()
    expect(page.get_by_text(re.compile(r"of 4,096 tokens"))).to_be_visible()
    link = answer.get_by_role("link", name="the documentation")
    expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")
    expect(link).to_have_attribute("target", "_blank")


def test_finished_blocks_are_built_once_while_the_rest_streams(page: Page, node: PageNode) -> None:
    ask(page, "hold the function")
    heading = page.get_by_role("article", name="Answer of").get_by_role("heading", name="Counting words")
    heading.wait_for()
    heading.evaluate("element => { element.mark = 'the same' }")
    node.go_on()
    answered(page)
    assert heading.evaluate("element => element.mark") == "the same"


def test_a_finished_answer_is_announced_once_and_not_by_token(page: Page) -> None:
    page.evaluate("""() => {
        window.announced = [];
        const region = document.querySelector('.unseen[role=status]');
        const hear = () => window.announced.push(region.textContent);
        new MutationObserver(hear).observe(region, {childList: true, subtree: true, characterData: true});
    }""")
    ask(page, "a poem")
    answered(page)
    announced = [words for words in page.evaluate("window.announced") if words]
    assert len(announced) == 1
    assert "The lamp turns slow" in announced[0]


def test_escape_stops_and_continue_goes_on_from_there(page: Page, node: PageNode) -> None:
    ask(page, "hold the function")
    page.get_by_text("Split at white").wait_for()
    page.keyboard.press("Escape")
    expect(page.get_by_text("stopped", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    node.node.model.hold_after = None
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_text("stopped", exact=True)).to_have_count(0)
    answer = page.get_by_role("article", name="Answer of")
    expect(answer).to_have_count(1)
    expect(answer).to_contain_text(re.compile("Split at white space.*Split at white space"))


def test_the_stop_button_frees_the_model(page: Page, node: PageNode) -> None:
    ask(page, "hold the poem")
    page.get_by_text("The lamp").wait_for()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    expect(page.get_by_text("stopped", exact=True)).to_be_visible()
    assert node.node.model.active == 0


def test_another_answer_is_another_version_and_both_can_be_read(page: Page) -> None:
    ask(page, "a poem")
    answered(page)
    page.get_by_role("button", name="Try again").click()
    versions = page.get_by_role("article", name="Answer of").get_by_role("group", name="Versions")
    expect(versions).to_contain_text("2/2")
    versions.get_by_role("button", name="Older version").click()
    expect(versions).to_contain_text("1/2")


def test_an_edit_begins_a_branch_and_the_first_one_stays(page: Page) -> None:
    ask(page, "a poem")
    answered(page)
    page.get_by_label("Your message").press("ArrowUp")
    editor = page.get_by_label("Edit your message")
    expect(editor).to_be_focused()
    editor.fill("a function")
    editor.press("Enter")
    expect(page.get_by_role("heading", name="Counting words")).to_be_visible()
    versions = page.get_by_role("article", name="You").get_by_role("group", name="Versions")
    expect(versions).to_contain_text("2/2")
    versions.get_by_role("button", name="Older version").click()
    expect(said(page, "The lamp turns slow")).to_be_visible()
    page.reload()
    expect(said(page, "The lamp turns slow")).to_be_visible()


def test_thinking_is_folded(page: Page) -> None:
    ask(page, "think about the sky")
    answered(page)
    expect(said(page, "Because air scatters blue light.")).to_be_visible()
    expect(page.get_by_text("The question is short.")).not_to_be_visible()
    page.get_by_text("What it thought first").click()
    expect(page.get_by_text("The question is short.")).to_be_visible()


def test_loading_is_shown_with_its_progress(page: Page, node: PageNode) -> None:
    node.hold_loading()
    ask(page, "a poem")
    expect(page.get_by_text(re.compile(r"Loading .* into memory: 45 %"))).to_be_visible()
    node.go_on()
    answered(page)


def test_a_queue_is_shown_with_the_place(page: Page, node: PageNode) -> None:
    ask(page, "a poem")
    answered(page)
    node.node.model.hold_at_once = True
    node.queue(3)
    ask(page, "another poem")
    expect(page.get_by_text("Waiting for a place: 3 are before you")).to_be_visible()
    node.go_on()
    answered(page, 2)


def test_a_failure_says_what_happened_and_what_to_do_now(page: Page) -> None:
    ask(page, "fail with a function")
    fault = page.get_by_role("article", name="Answer of").get_by_role("alert")
    expect(fault).to_contain_text("The process that held the model ended.")
    expect(fault).to_contain_text("Try again: it is started anew.")
    expect(fault.get_by_role("button", name="Try again")).to_be_enabled()


def test_a_refused_message_comes_back_to_where_it_was_written(page: Page, node: PageNode, watch: Watch) -> None:
    page.route("**/pares/v1/models", lambda route: route.abort())  # the page does not hear that the model is gone
    [model] = page.request.get(f"{node.url}/pares/v1/models").json()["models"]
    assert page.request.delete(f"{node.url}/pares/v1/models/{model['name']}").ok
    ask(page, "Is anybody there?")
    expect(page.get_by_role("alert").filter(has_text="There is no model named")).to_be_visible()
    expect(page.get_by_label("Your message")).to_have_value("Is anybody there?")
    watch.forgive("404", "ERR_FAILED")


def test_a_draft_survives_a_reload(page: Page) -> None:
    page.get_by_label("Your message").fill("half a thought")
    page.reload()
    expect(page.get_by_label("Your message")).to_have_value("half a thought")


def test_shift_enter_starts_a_new_line(page: Page) -> None:
    box = page.get_by_label("Your message")
    box.fill("one")
    box.press("Shift+Enter")
    box.press_sequentially("two")
    expect(box).to_have_value("one\ntwo")
    expect(page.get_by_role("article")).to_have_count(0)


def test_conversations_are_listed_found_renamed_and_deleted(page: Page) -> None:
    ask(page, "a poem about the sea")
    answered(page)
    page.get_by_role("link", name="New chat").first.click()
    ask(page, "a function for words")
    answered(page)
    listed = page.get_by_role("navigation", name="Conversations").get_by_role("link")
    expect(listed).to_have_count(2)
    page.get_by_role("searchbox", name="Search").fill("sea")
    expect(listed).to_have_count(1)
    page.get_by_role("button", name="More for").click()
    page.get_by_role("menuitem", name="Rename").click()
    page.get_by_role("textbox", name="Title").fill("The sea")
    page.get_by_role("button", name="Rename").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("searchbox", name="Search").fill("")
    expect(listed).to_have_count(2)
    page.get_by_role("link", name="The sea").click()
    expect(said(page, "The lamp turns slow")).to_be_visible()
    page.get_by_role("button", name="More for The sea").click()
    page.get_by_role("menuitem", name="Delete").click()
    page.get_by_role("button", name="Delete").click()
    expect(listed).to_have_count(1)
    expect(page.get_by_text("What would you like to know?")).to_be_visible()


def test_a_conversation_is_exported_and_imported_again(page: Page, tmp_path: Path) -> None:
    ask(page, "a poem")
    answered(page)
    page.get_by_role("button", name="More for").click()
    with page.expect_download() as as_json:
        page.get_by_role("menuitem", name="Export as JSON").click()
    page.get_by_role("button", name="More for").click()
    with page.expect_download() as as_markdown:
        page.get_by_role("menuitem", name="Export as Markdown").click()
    file = tmp_path / "kept.json"
    as_json.value.save_as(file)
    assert json.loads(file.read_text())
    assert "The lamp turns slow" in as_markdown.value.path().read_text()
    page.get_by_label("Import a conversation").set_input_files(file)
    listed = page.get_by_role("navigation", name="Conversations").get_by_role("link")
    expect(listed).to_have_count(2)
    expect(said(page, "The lamp turns slow")).to_be_visible()


def test_a_temporary_chat_is_kept_nowhere(page: Page) -> None:
    page.get_by_role("link", name="Temporary chat").click()
    expect(page.get_by_text("A chat that is kept nowhere.")).to_be_visible()
    ask(page, "a poem")
    answered(page)
    expect(page.get_by_text("153 tokens")).to_be_visible()
    page.get_by_label("Your message").fill("a secret draft")
    assert "secret" not in page.evaluate("JSON.stringify(localStorage)")
    kept = page.evaluate("fetch('/pares/v1/conversations').then(r => r.json())")
    assert kept["conversations"] == []
    page.reload()
    expect(said(page, "The lamp turns slow")).to_have_count(0)


def test_sampling_and_system_prompt_are_kept_and_used(page: Page, node: PageNode) -> None:
    page.get_by_role("button", name="How it answers").click()
    drawer = page.get_by_role("complementary", name="How it answers")
    drawer.get_by_label("System prompt").fill("You are a pirate.")
    drawer.get_by_label("Temperature").fill("0.25")
    drawer.get_by_label("Seed").fill("7")
    drawer.get_by_label("JSON schema").fill('{"type": "object"')
    expect(drawer.get_by_text("This is not JSON yet")).to_be_visible()
    drawer.get_by_label("JSON schema").fill('{"type": "object"}')
    expect(drawer.get_by_text("This is not JSON yet")).to_have_count(0)
    ask(page, "a poem")
    answered(page)
    asked = node.node.model.asked[-1]
    assert (asked.sampling.temperature, asked.sampling.seed) == (0.25, 7)
    assert "You are a pirate." in asked.prompt
    assert node.node.model.schemas == [{"type": "object"}]
    page.reload()
    page.get_by_role("button", name="How it answers").click()
    expect(drawer.get_by_label("System prompt")).to_have_value("You are a pirate.")
    expect(drawer.get_by_label("Temperature")).to_have_value("0.25")
    drawer.get_by_label("Top-p").fill("7")
    drawer.get_by_label("Top-p").blur()
    expect(drawer.get_by_text("Between 0 and 1.")).to_be_visible()


def test_where_it_runs_is_said_in_plain_words(page: Page) -> None:
    page.get_by_role("button", name="Runs on this PC").click()
    expect(page.get_by_role("dialog", name="Runs on this PC")).to_contain_text("Nothing you write in this chat leaves")


def test_the_picker_shows_what_is_here_and_what_could_be(page: Page) -> None:
    ask(page, "a poem")
    answered(page)
    page.get_by_role("button", name="Model:").click()
    picker = page.get_by_role("dialog", name="Model:")
    expect(picker.get_by_role("heading")).to_have_text(["In memory", "Can be fetched"])
    expect(picker.get_by_role("button", name=re.compile("ready"))).to_contain_text("Runs well")


def test_two_tabs_show_the_same_conversations(page: Page, node: PageNode) -> None:
    other = page.context.new_page()
    other.goto(node.url)
    other.get_by_label("Your message").wait_for()
    ask(page, "a poem")
    answered(page)
    expect(other.get_by_role("navigation", name="Conversations").get_by_role("link")).to_have_count(1)


def test_an_unknown_conversation_is_said_to_be_one(page: Page, node: PageNode, watch: Watch) -> None:
    page.goto(f"{node.url}/#/chat/nosuchconversation")
    expect(page.get_by_role("alert")).to_be_visible()
    watch.forgive("404")
