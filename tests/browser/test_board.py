"""The live board in a browser, while orders come in."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from httpx2 import Client
from playwright.sync_api import Page, expect

from tests.browser.conftest import page_errors
from tests.support.command_line import HoldfastCommand
from tests.support.service_process import ServiceProcess, StartService


@contextmanager
def load(service: ServiceProcess, products: list[int]) -> Iterator[list[int]]:
    """Place orders for these products in the background. Yield the statuses of the answers."""
    statuses: list[int] = []
    stop = threading.Event()

    def run() -> None:
        with Client(base_url=f"http://127.0.0.1:{service.port}") as client:
            for number in range(100_000):
                if stop.is_set():
                    return
                body: dict[str, Any] = {"products": [{"product_id": products[number % len(products)], "quantity": 1}]}
                if number % 3 == 0:
                    body |= {"status": "pending", "hold_seconds": 300}
                statuses.append(client.post("/orders", json=body).status_code)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield statuses
    finally:
        stop.set()
        thread.join()


def number_in(page: Page, selector: str) -> int:
    return int(re.sub("[^0-9]", "", page.locator(selector).inner_text()) or 0)


def open_board(page: Page, service: ServiceProcess, prefix: str = "") -> None:
    page.goto(f"http://127.0.0.1:{service.port}{prefix}/board")
    expect(page.locator("#state")).to_have_text("live")


def test_the_numbers_of_the_board_are_those_of_the_shop(start_service: StartService, page: Page) -> None:
    service = start_service(workers=2, root_path="/shop")
    products = [service.add_product(stock=300, name=name) for name in ("Mug", "<b>Pot</b>", "Cup & saucer")]
    open_board(page, service, "/shop")
    with load(service, products) as statuses:
        expect(page.locator("#legend")).to_contain_text("refused: sold out", timeout=30_000)
        expect(page.locator("#refused")).to_have_text(re.compile("[1-9]"))
    expect(page.locator("#accepted-total")).to_contain_text(f"{statuses.count(201):,} since")
    expect(page.locator("#refused-total")).to_contain_text(f"{statuses.count(409):,} since")
    expect(page.locator("#left-units")).to_have_text("0 of 900 units")
    expect(page.locator("#products-title")).to_have_text("3 products, 3 with nothing left")
    expect(page.locator("#held-count")).to_have_text("300 pending orders hold stock")
    assert page.locator("#next li").count() == 12
    expect(page.locator("#revenue")).to_have_text("11,994.00")  # 600 at 19.99; what is held is not sold
    expect(page.locator(".product b").nth(1)).to_have_text("<b>Pot</b>")


def test_the_board_says_when_its_numbers_are_old_and_continues_after_a_restart(
    start_service: StartService, page: Page, tmp_path: Path
) -> None:
    service = start_service()
    service.add_product(stock=10, name="Mug")
    open_board(page, service)
    expect(page.locator(".product .big")).to_have_text("10 left")
    service.close()
    expect(page.locator("#state")).to_contain_text("no data for")
    expect(page.locator("body.stale")).to_be_visible()
    again = start_service(port=service.port)
    again.order(1, 4)
    expect(page.locator("#state")).to_have_text("live", timeout=15_000)
    expect(page.locator(".product .big")).to_have_text("6 left")
    errors = page_errors(page)
    assert all("ERR_" in error for error in errors)  # the browser names each attempt to connect
    errors.clear()


def test_many_products_are_a_map_and_fit_a_phone(start_service: StartService, page: Page, tmp_path: Path) -> None:
    service = start_service()
    products = tmp_path / "products.jsonl"
    with products.open("w") as file:
        for number in range(1, 10_001):  # the page draws a map from 61 products on
            row = {"id": number, "name": f"Ticket {number}", "description": "", "price": 9.5, "stock": 2}
            file.write(json.dumps(row) + "\n")
    command = HoldfastCommand(tmp_path, HOLDFAST_REDIS_URL=service.engine_url)
    assert command("import", products).returncode == 0
    page.set_viewport_size({"width": 390, "height": 844})
    open_board(page, service)
    expect(page.locator("#products-title")).to_have_text("10,000 products, 0 with nothing left")
    for _ in range(2):
        service.order(777)
    expect(page.locator("#products-title")).to_have_text("10,000 products, 1 with nothing left")
    expect(page.locator(".product").first).to_contain_text("Ticket 777")
    page.locator("#search").fill("ticket 1999")
    expect(page.locator(".product")).to_have_count(1)
    page.locator("#map").hover(position={"x": 3, "y": 3})
    expect(page.locator("#hint")).to_contain_text("Ticket 1 (1): 2 left")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_service_with_keys_asks_for_one_and_keeps_it_in_the_tab(
    start_service: StartService, page: Page, tmp_path: Path
) -> None:
    made = HoldfastCommand(tmp_path)("key", "new", "board", "--scopes", "ops:read")
    service = start_service(api_keys=made.stderr.strip())
    page.goto(f"http://127.0.0.1:{service.port}/board")
    expect(page.locator("#state")).to_have_text("needs a key")
    page.locator("#key").fill("hf_wrong")
    page.locator("#access button").click()
    expect(page.locator("#access-reason")).to_have_text("The key is not known.")
    page.locator("#key").fill(made.stdout.strip())
    page.locator("#access button").click()
    expect(page.locator("#state")).to_have_text("live")
    expect(page.locator("#access")).to_be_hidden()
    page.reload()
    expect(page.locator("#state")).to_have_text("live")
    errors = page_errors(page)
    assert all("401" in error for error in errors)  # the browser names each refused request
    errors.clear()
