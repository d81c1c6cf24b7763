"""Swagger UI in a real browser: an example is chosen, tried and executed, and nothing leaves the server's origin."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Final

import pytest
from playwright.sync_api import BrowserContext, Page, sync_playwright

from app.front.openapi.example_queries import examples
from tests.server import Server

BROWSER: Final = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser is installed (chromium, chromium-browser or google-chrome)")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    """One for all pages: a start of it takes 1.2 s of CPU time."""
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("browser"),
            executable_path=BROWSER,
            args=list(FLAGS),
            viewport={"width": 1400, "height": 1600},
        )
        yield context
        context.close()


@pytest.fixture
def page(browser: BrowserContext, server: Server) -> Iterator[Page]:
    """A page that must stay at home: no request to another origin, nothing on the console."""
    asked: list[str] = []
    said: list[str] = []
    page = browser.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    page.close()
    assert [url for url in asked if not url.startswith((server.url + "/", "data:", "blob:"))] == []
    assert said == []


def test_softmax_jacobian_by_hand(server: Server, page: Page) -> None:
    page.goto(f"{server.url}/docs")
    section = page.locator("#operations-queries-query")
    section.locator(".opblock-summary-control").click()
    section.get_by_role("button", name="Try it out").click()
    # Another first, so that choosing is tried.
    choice = section.locator(".opblock-section-request-body .examples-select select")
    choice.select_option("pinv")
    choice.select_option("softmax_jacobian")
    section.get_by_role("button", name="Execute").click()
    live = section.locator(".live-responses-table")
    assert live.locator("tbody .response-col_status").first.inner_text().split()[0] == "200"
    answer = json.loads(live.locator("tbody .highlight-code code").first.inner_text())
    jacobian = answer["jacobian"]["output"]["input"]
    assert jacobian["shape"] == [3, 3]
    assert jacobian["data"][0] == pytest.approx(examples()["softmax_jacobian"].expect["jacobian.output.input"][0])


def test_every_example_can_be_chosen(server: Server, page: Page) -> None:
    page.goto(f"{server.url}/docs")
    section = page.locator("#operations-queries-query")
    section.locator(".opblock-summary-control").click()
    options = section.locator(".opblock-section-request-body .examples-select option").evaluate_all(
        "all => all.map(one => one.value)"
    )
    assert options == list(examples())


def test_root_leads_to_the_page(server: Server, page: Page) -> None:
    page.goto(server.url)
    page.locator("#operations-queries-query").wait_for()
    assert page.title() == "Pullback"
