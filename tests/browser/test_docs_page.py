"""The documentation of the API in a browser."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.command_line import HoldfastCommand
from tests.support.service_process import StartService


@pytest.mark.parametrize("root_path", ["", "/shop"])
def test_a_call_can_be_tried_in_the_documentation(start_service: StartService, page: Page, root_path: str) -> None:
    service = start_service(root_path=root_path)
    service.add_product(id=1)
    page.goto(f"http://127.0.0.1:{service.port}{root_path}/")
    assert page.url.endswith(f"{root_path}/docs")
    expect(page.get_by_role("heading", name=re.compile("Holdfast"))).to_be_visible()
    call = page.locator("#operations-orders-place_order")
    call.locator(".opblock-summary-control").click()
    call.get_by_role("button", name="Try it out").click()
    call.get_by_role("button", name="Execute").click()
    expect(call.locator(".live-responses-table .response-col_status").last).to_contain_text("201")
    expect(call.locator(".live-responses-table")).to_contain_text('"total_price": 39.98')
    assert service.stock(1) == 8


def test_the_documentation_fits_a_phone_and_follows_the_dark_colours(start_service: StartService, page: Page) -> None:
    service = start_service()
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme="dark")
    page.goto(f"http://127.0.0.1:{service.port}/docs")
    expect(page.get_by_text("/orders/{id}/complete")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgba(0, 0, 0, 0)"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("width", [390, 1280])
def test_the_explanations_of_problems_are_pages(start_service: StartService, page: Page, width: int) -> None:
    service = start_service()
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(f"http://127.0.0.1:{service.port}/problems")
    page.get_by_role("link", name="insufficient-stock").click()
    expect(page.get_by_role("heading", name="What to do")).to_be_visible()
    expect(page.locator("pre")).to_contain_text('"available": 2')
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("link", name="API").click()
    expect(page.get_by_text("/orders/{id}/complete")).to_be_visible()


def test_a_key_can_be_given_to_the_documentation(start_service: StartService, page: Page, tmp_path: Path) -> None:
    made = HoldfastCommand(tmp_path)("key", "new", "shop", "--scopes", "catalog:read")
    service = start_service(api_keys=made.stderr.strip())
    page.goto(f"http://127.0.0.1:{service.port}/docs")
    page.get_by_role("button", name="Authorize").first.click()
    dialog = page.locator(".dialog-ux")
    dialog.locator("input").fill(made.stdout.strip())
    dialog.get_by_role("button", name=re.compile("Apply|Authorize")).click()
    dialog.get_by_role("button", name="Close", exact=True).click()
    call = page.locator("#operations-products-list_products")
    call.locator(".opblock-summary-control").click()
    call.get_by_role("button", name="Try it out").click()
    call.get_by_role("button", name="Execute").click()
    expect(call.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
