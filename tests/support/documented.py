"""A client whose every answer is compared with the description of the API, so that the two cannot drift apart."""

import json
import re
from functools import lru_cache
from typing import Any

import jsonschema_rs
from httpx2 import ASGITransport, Request, Response

from service.api.openapi import openapi_text


class DocumentedTransport(ASGITransport):
    """Calls the application, and fails for an answer that the description of the API does not have."""

    async def handle_async_request(self, request: Request) -> Response:
        response = await super().handle_async_request(request)
        if "content-encoding" not in response.headers:
            await response.aread()
            shop = re.match(
                "/shops/(berlin|paris|fair-[a-z]+)(?=/|$)", request.url.path
            )  # those of a service with several shops
            assert_documented(request.method, request.url.path, response, shop[0] if shop else self.root_path)
        return response


def assert_documented(method: str, path: str, response: Response, root_path: str = "") -> None:
    """Fail if the call cannot have this status, media type, body and header fields."""
    if path == root_path or path.startswith(f"{root_path}/"):
        path = path.removeprefix(root_path) or "/"
    operation = _find_operation(root_path, "GET" if method == "HEAD" else method, path)
    status, media_type = str(response.status_code), response.headers.get("content-type", "").partition(";")[0]
    if status == "404" and b'"type": "/problems/shop-not-found"' in response.content:
        return  # the path names no shop: it is not one of the described paths
    if operation is None:
        assert response.status_code in (404, 405, 400, 431, 505), f"{method} {path} is not documented"
        return
    where = f"{status} of {operation['operationId']}"
    assert status in operation["responses"], f"{where} is not documented: {response.text}"
    documented = operation["responses"][status]
    for name in ("location", "link", "etag", "idempotent-replayed", "retry-after", "allow"):
        if name in response.headers:
            assert name in {name.lower() for name in documented["headers"]}, f"the header {name} of {where}"
    if not response.content and method == "HEAD":
        return
    if not media_type:
        assert "content" not in documented, f"{where} has no body"
        return
    assert media_type in documented["content"], f"{media_type} of {where} is not documented"
    schema = documented["content"][media_type]["schema"]
    if media_type.endswith("json"):
        body = response.json()
        if "oneOf" in schema:
            name = schema["discriminator"]["mapping"].get(body["type"], "").rpartition("/")[2]
            assert name, f"the problem {body['type']} of {where} is not documented"
        else:
            name = schema["$ref"].rpartition("/")[2]
        validator = _validator(root_path, name)
        assert validator.is_valid(body), f"{where}: {next(validator.iter_errors(body))}\n{response.text}"


@lru_cache
def document(root_path: str = "") -> dict[str, Any]:
    """Return the description of the API."""
    found: dict[str, Any] = json.loads(openapi_text(root_path))
    return found


@lru_cache
def _paths(root_path: str) -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    return [
        (re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path)) + ("/?" if path != "/" else "")), operations)
        for path, operations in document(root_path)["paths"].items()
    ]


@lru_cache(maxsize=10_000)
def _find_operation(root_path: str, method: str, path: str) -> dict[str, Any] | None:
    for pattern, operations in _paths(root_path):
        if pattern.fullmatch(path):
            operation: dict[str, Any] | None = operations.get(method.lower())
            return operation
    return None


@lru_cache
def _validator(root_path: str, schema: str) -> Any:
    """Return the validator of a schema of the document."""
    whole = {"$ref": f"#/components/schemas/{schema}", "components": document(root_path)["components"]}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
