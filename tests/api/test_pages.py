"""The web pages: which form a client gets, where they lead, and what a browser may load."""

import gzip
import re
from html import unescape

import pytest
from httpx2 import AsyncClient

from service.domain.errors.catalog import all_problems
from service.storage.store import Store
from tests.support.documented import DocumentedTransport
from tests.support.problems import assert_problem
from tests.support.shop import with_state

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "is_page"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("application/json;q=0.5, text/html;q=0.6", True),
        ("*/*", False),
        ("application/json", False),
        ("text/html, application/json", False),
        ("text/html;q=0", False),
        ("text/html;q=x;q=0.5, application/json;q=0.7", False),
        ("", False),
        (";,;;=", False),
        ("text/*", True),
        ("text/html;q=0.5, */*", False),
        ("text/html;q=0.5, */*;q=0.1", True),
    ],
)
@pytest.mark.parametrize("path", ["/problems", "/problems/insufficient-stock"])
async def test_a_browser_gets_a_page_and_a_program_gets_json(
    client: AsyncClient, path: str, accept: str, is_page: bool
) -> None:
    response = await client.get(path, headers={"Accept": accept})
    assert response.status_code == 200
    assert response.headers["content-type"] == ("text/html; charset=utf-8" if is_page else "application/json")
    assert response.headers["vary"].lower() == "accept"


async def test_the_list_of_problems_has_each_problem_and_leads_to_its_explanation(client: AsyncClient) -> None:
    names = {problem.name for problem in all_problems()}
    listed = (await client.get("/problems")).json()
    assert {entry["type"].removeprefix("/problems/") for entry in listed} == names
    page = (await client.get("/problems", headers={"Accept": BROWSER})).text
    assert set(re.findall(r'href="/problems/([a-z0-9-]+)"', page)) == names
    assert [entry["status"] for entry in listed] == sorted(entry["status"] for entry in listed)


async def test_an_explanation_says_what_a_problem_means_and_what_to_do_with_an_example(client: AsyncClient) -> None:
    explained = (await client.get("/problems/insufficient-stock")).json()
    assert explained.keys() == {"type", "status", "title", "meaning", "remedy", "example"}
    assert explained["example"]["errors"][0]["available"] == 2
    page = unescape((await client.get("/problems/insufficient-stock", headers={"Accept": BROWSER})).text)
    assert "<h2>What to do</h2>" in page
    assert "<code>available</code>" in page
    assert '"available": 2' in page


@pytest.mark.parametrize(
    "path", ["/problems/nothing", "/problems/a/b", "/docs/nothing.js", "/docs/../pages.py", "/nothing"]
)
async def test_an_unknown_path_names_the_documentation(client: AsyncClient, path: str) -> None:
    problem = assert_problem(await client.get(path), 404, "not-found")
    assert problem["detail"].endswith(" /docs lists all calls.")


@pytest.mark.parametrize("root_path", ["", "/shop"])
async def test_all_addresses_on_the_pages_have_the_prefix_of_a_proxy_and_exist(store: Store, root_path: str) -> None:
    app = DocumentedTransport(with_state(store), root_path=root_path)
    async with AsyncClient(transport=app, base_url="http://holdfast") as client:
        start = await client.get(f"{root_path}/")
        assert start.status_code == 307
        seen, waiting = set(), [start.headers["location"]]
        assert waiting == [f"{root_path}/docs"]
        while waiting:
            path = waiting.pop()
            if path in seen or path == f"{root_path}/openapi.json":
                continue
            seen.add(path)
            response = await client.get(path, headers={"Accept": BROWSER})
            assert response.status_code == 200, path
            if response.headers["content-type"].startswith("text/html"):
                addresses = re.findall(r'(?:href|src|data-openapi)="([^"#]+)"', response.text)
                waiting += [address for address in addresses if address != "data:,"]
    assert all(path.startswith(f"{root_path}/") for path in seen)
    assert {f"{root_path}/docs/swagger-ui.js", f"{root_path}/problems/overloaded"} <= seen


@pytest.mark.parametrize("path", ["/docs", "/problems", "/problems/overloaded"])
async def test_a_page_may_only_load_files_of_this_service(client: AsyncClient, path: str) -> None:
    response = await client.get(path, headers={"Accept": BROWSER})
    rules = dict(rule.split(" ", 1) for rule in response.headers["content-security-policy"].split("; "))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert {
        source for name in ("script-src", "style-src", "connect-src") for source in rules.get(name, "'self'").split()
    } == {"'self'"}
    assert "<script>" not in response.text
    assert " style=" not in response.text
    assert "<style" not in response.text


async def test_a_file_is_compressed_if_the_client_can_read_that_and_not_sent_again(client: AsyncClient) -> None:
    plain = await client.get("/docs/swagger-ui.js", headers={"Accept-Encoding": "identity"})
    assert b"SwaggerUIBundle" in plain.content
    assert "content-encoding" not in plain.headers
    async with client.stream("GET", "/docs/swagger-ui.js", headers={"Accept-Encoding": "gzip, br"}) as response:
        compressed = b"".join([part async for part in response.aiter_raw()])
    assert response.headers["content-encoding"] == "gzip"
    assert gzip.decompress(compressed) == plain.content
    assert len(compressed) < len(plain.content) / 2
    assert response.headers["etag"] != plain.headers["etag"]
    known = {"If-None-Match": plain.headers["etag"], "Accept-Encoding": "identity"}
    again = await client.get("/docs/swagger-ui.js", headers=known)
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["vary"] == "accept-encoding"
    refused = await client.get("/docs/swagger-ui.js", headers={"Accept-Encoding": "gzip;q=0, x-nogzip"})
    assert "content-encoding" not in refused.headers


@pytest.mark.parametrize("path", ["/products", "/orders/1", "/board", "/events", "/docs"])
async def test_a_page_of_another_site_may_not_read_anything(client: AsyncClient, path: str) -> None:
    """No CORS (https://fetch.spec.whatwg.org/#http-cors-protocol): browsers let only the pages of the service read."""
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    response = await client.request("OPTIONS", path, headers=headers)
    assert response.status_code == 405
    assert not [name for name in response.headers if name.startswith("access-control-")]
