"""Assertions on problem responses (RFC 9457)."""

from typing import Any

from httpx2 import Response


def assert_problem(response: Response, status: int, name: str) -> dict[str, Any]:
    """Assert that the response is the complete problem of this name. Return its JSON."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["type"] == f"/problems/{name}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"] == response.headers["x-request-id"]
    return problem


def assert_field_errors(response: Response, *pointers: str) -> None:
    """Assert that the request has field errors at exactly these pointers."""
    problem = assert_problem(response, 422, "invalid-request")
    assert sorted(error["pointer"] for error in problem["errors"]) == sorted(pointers)
    assert all(error["detail"] for error in problem["errors"])


def assert_query_errors(response: Response, *pointers: str) -> None:
    """Assert that the query parameters at these pointers, and nothing else, have field errors."""
    assert_field_errors(response, *pointers)
    assert all(error["in"] == "query" for error in response.json()["errors"])
