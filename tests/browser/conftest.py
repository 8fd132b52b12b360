"""Fixtures for the tests in a real browser, Chromium: `make test-e2e`."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.support.processes import kill_processes_in
from tests.support.service_process import ServiceProcess, StartService


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith("tests/browser/"):
            item.add_marker("e2e")


@pytest.fixture
def start_service(tmp_path: Path) -> Iterator[StartService]:
    """Start a service and wait until it is ready. `start_service(workers=2)` sets HOLDFAST_WORKERS."""
    services: list[ServiceProcess] = []

    def start(**settings: Any) -> ServiceProcess:
        service = ServiceProcess(tmp_path, **settings)
        services.append(service)
        service.wait_until_ready()
        return service

    yield start
    for service in services:
        service.close()
    kill_processes_in(tmp_path)


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of the system's Chromium. At the end, the test fails if the page logged an error.

    So a resource that is missing or that the Content-Security-Policy forbids fails the test. A test that causes an
    error on purpose empties `page_errors(page)`.
    """
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.exit("these tests need Chromium (Debian: apt install chromium)", returncode=1)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page()
        errors: list[str] = []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        _errors[page] = errors
        yield page
        del _errors[page]
        browser.close()
    assert errors == []


_errors: dict[Page, list[str]] = {}


def page_errors(page: Page) -> list[str]:
    """Return the list of the errors that a page has logged until now."""
    return _errors[page]
