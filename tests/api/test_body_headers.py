"""How a body is sent: size, chunks, media type and encoding."""

import json
from collections.abc import AsyncIterator

import pytest
from httpx2 import AsyncClient

from service.storage.sender import CommandSender
from tests.support.problems import assert_problem
from tests.support.redis_content import nothing_changes
from tests.support.shop import add_product, send_json

LINE = {"product_id": 1, "quantity": 1}
ORDER: dict[str, object] = {"products": [LINE]}
MAX_BODY = 65_536
JSON = {"Content-Type": "application/json"}


VALID = json.dumps(ORDER).encode()


async def test_body_up_to_the_size_limit_is_accepted_and_a_larger_body_is_refused(client: AsyncClient) -> None:
    await add_product(client)
    assert (await send_json(client, "POST", "/orders", VALID.ljust(MAX_BODY))).status_code == 201
    response = await send_json(client, "POST", "/orders", VALID.ljust(MAX_BODY + 1))
    assert_problem(response, 413, "body-too-large")


class Upload:
    """A body in chunks. It counts the bytes that were read."""

    def __init__(self, body: bytes, chunk: int) -> None:
        self.chunks = [body[i : i + chunk] for i in range(0, len(body), chunk)]
        self.read = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            self.read += len(chunk)
            yield chunk


@pytest.mark.parametrize("chunk", [1, 100, MAX_BODY])
async def test_body_may_be_sent_in_chunks(client: AsyncClient, chunk: int) -> None:
    await add_product(client)
    upload = Upload(VALID, chunk)
    response = await client.post("/orders", content=upload, headers=JSON)
    assert "content-length" not in response.request.headers
    assert response.status_code == 201


async def test_body_with_a_too_large_content_length_is_refused_unread(
    client: AsyncClient, redis: CommandSender
) -> None:
    await add_product(client)
    upload = Upload(VALID.ljust(5_000_000), 10_000)
    async with nothing_changes(redis):
        response = await client.post("/orders", content=upload, headers={**JSON, "Content-Length": "5000000"})
    assert_problem(response, 413, "body-too-large")
    assert upload.read == 0


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_too_large_chunked_body_is_not_read_to_its_end(
    client: AsyncClient, redis: CommandSender, method: str
) -> None:
    await add_product(client)
    upload = Upload(b" " * 5_000_000, 10_000)
    path = {"POST": "/products", "PATCH": "/products/1"}[method]
    async with nothing_changes(redis):
        response = await client.request(method, path, content=upload, headers=JSON)
    assert_problem(response, 413, "body-too-large")
    assert upload.read <= MAX_BODY + 10_000


@pytest.mark.parametrize("length", ["65537", "9" * 19, "9" * 4300, "9" * 5000, "-1", "abc", "1e3", "\u00b2"])
async def test_wrong_content_length_is_refused(client: AsyncClient, redis: CommandSender, length: str) -> None:
    await add_product(client)
    headers = [(b"content-type", b"application/json"), (b"content-length", length.encode("latin-1"))]
    async with nothing_changes(redis):
        response = await client.post("/orders", content=VALID, headers=headers)
    assert 400 <= response.status_code < 500


OTHER_MEDIA_TYPES = [
    None,
    "",
    "text/plain",
    "text/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
]
OTHER_MEDIA_TYPES += [
    "application/jsonx",
    "application",
    "application/json-patch+json",
    "json",
    "*/*",
    "; application/json",
]


@pytest.mark.parametrize("media_type", [*OTHER_MEDIA_TYPES, "application/merge-patch+json"])
async def test_order_not_declared_as_json_is_refused(
    client: AsyncClient, redis: CommandSender, media_type: str | None
) -> None:
    await add_product(client)
    async with nothing_changes(redis):
        response = await client.post(
            "/orders", content=VALID, headers={} if media_type is None else {"Content-Type": media_type}
        )
    assert_problem(response, 415, "unsupported-media-type")
    assert response.headers["accept"] == "application/json"


@pytest.mark.parametrize("media_type", OTHER_MEDIA_TYPES)
async def test_patch_not_declared_as_json_is_refused(
    client: AsyncClient, redis: CommandSender, media_type: str | None
) -> None:
    await add_product(client)
    async with nothing_changes(redis):
        response = await client.patch(
            "/products/1", content=b'{"price": 1}', headers={} if media_type is None else {"Content-Type": media_type}
        )
    assert_problem(response, 415, "unsupported-media-type")
    assert response.headers["accept-patch"] == "application/json, application/merge-patch+json"


@pytest.mark.parametrize("media_type", ["APPLICATION/Json", "application/json;charset=utf-8", "application/json ; a=b"])
async def test_json_media_type_may_have_capitals_and_parameters(client: AsyncClient, media_type: str) -> None:
    await add_product(client)
    response = await client.post("/orders", content=VALID, headers={"Content-Type": media_type})
    assert response.status_code == 201


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "deflate, gzip", "identity, gzip", "nonsense"])
async def test_body_with_a_content_encoding_is_refused(
    client: AsyncClient, redis: CommandSender, encoding: str
) -> None:
    await add_product(client)
    async with nothing_changes(redis):
        response = await client.post("/orders", content=VALID, headers={**JSON, "Content-Encoding": encoding})
    assert_problem(response, 415, "unsupported-media-type")


async def test_identity_encoding_is_accepted(client: AsyncClient) -> None:
    await add_product(client)
    response = await client.post("/orders", content=VALID, headers={**JSON, "Content-Encoding": "identity"})
    assert response.status_code == 201
