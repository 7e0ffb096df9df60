"""A real browser for the tests of the page, with guards: nothing in the console, nothing asked of other hosts.

Playwright's synchronous API keeps a loop running in the main thread while it is open, so the browser belongs to this
package and is gone before asynchronous tests of other packages begin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request, expect, sync_playwright

from tiny import tiny_llama
from ui.fixture_server import THINKING, PageNode

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
WAIT_MS = 15_000
DESK = (1280, 800)
PHONE = (390, 844)

Scheme = Literal["light", "dark"]


class Watch:
    """What a page did that it must not do."""

    def __init__(self, page: Page, origin: str) -> None:
        self.origin = origin
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", self._error)
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _error(self, error: Error) -> None:
        self.complaints.append(str(error))

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self.origin, "data:", "blob:")):
            self.foreign.append(request.url)

    def forgive(self, *parts: str) -> None:
        """What the browser itself writes about an answer that the test wants, such as a 404."""
        self.complaints = [each for each in self.complaints if not any(part in each for part in parts)]


OpenPage = Callable[..., Page]
StartNode = Callable[..., PageNode]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def start_node(tmp_path: Path) -> Iterator[StartNode]:
    """A scripted node with the given models; stopped afterwards."""
    nodes: list[PageNode] = []

    def start(
        models: Sequence[Path] = (),
        *,
        starter: Path | None = None,
        context: int = 4096,
        settings: Mapping[str, object] | None = None,
    ) -> PageNode:
        node = PageNode(tmp_path / "home", models, starter=starter, context=context, settings=settings)
        nodes.append(node)
        node.start()
        return node

    yield start
    for node in nodes:
        node.stop()


@pytest.fixture(scope="session")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file that is quickly hashed: what the scripted model says does not come from it."""
    return tiny_llama(tmp_path_factory.mktemp("models") / "talker.gguf", template=THINKING)


@pytest.fixture
def node(start_node: StartNode, talker: Path) -> PageNode:
    """A scripted node with one model on its disk."""
    return start_node([talker])


@pytest.fixture
def watches() -> dict[Page, Watch]:
    return {}


@pytest.fixture
def open_page(browser: Browser, watches: dict[Page, Watch]) -> Iterator[OpenPage]:
    """Open an address in a browser profile of its own. Afterwards nothing may have been complained about."""
    contexts = []

    def open_(url: str, *, size: tuple[int, int] = DESK, scheme: Scheme = "light", **more: object) -> Page:
        viewport = {"width": size[0], "height": size[1]}
        context = browser.new_context(viewport=viewport, color_scheme=scheme, locale="en-GB", **more)  # type: ignore[arg-type]
        context.set_default_timeout(WAIT_MS)
        contexts.append(context)
        page = context.new_page()
        watches[page] = Watch(page, "/".join(url.split("/")[:3]))
        page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()
    for watch in watches.values():
        assert watch.foreign == []
        assert watch.complaints == []


@pytest.fixture
def watch(page: Page, watches: dict[Page, Watch]) -> Watch:
    """What was complained about on `page`."""
    return watches[page]


@pytest.fixture
def page(node: PageNode, open_page: OpenPage) -> Page:
    """The page of `node`, ready to chat."""
    page = open_page(node.page_url)
    page.get_by_label("Your message").wait_for()
    return page


def ask(page: Page, question: str) -> None:
    """Write and send."""
    page.get_by_label("Your message").fill(question)
    page.get_by_label("Your message").press("Enter")


def answered(page: Page, count: int = 1) -> None:
    """Wait until so many answers are whole."""
    page.get_by_label("Copy the answer").nth(count - 1).wait_for()
