"""Web pages for people: the documentation of the API, and the explanation of each problem."""

import json
import re
from functools import lru_cache
from html import escape
from typing import Any, Final

from starlette.responses import HTMLResponse, RedirectResponse, Response

from service.api.negotiation import prefers_html
from service.api.problems import problem_document
from service.api.request import Request
from service.api.responses import JsonResponse
from service.api.static_files import STATIC
from service.domain.errors.base import Problem
from service.domain.errors.catalog import all_problems
from service.domain.errors.request import PathNotFound

_PROBLEMS: Final = {problem.name: problem for problem in sorted(all_problems(), key=lambda each: each.status)}

_POLICY: Final = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

_PAGE_HEADERS: Final = {
    # These pages change only with a new version of Holdfast.
    "Cache-Control": "max-age=3600",
    "Content-Security-Policy": f"{_POLICY}; style-src 'self'",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept",
}

_DOCS_HEADERS: Final = {
    **_PAGE_HEADERS,
    # The page reads from this service only: the board /events; Swagger UI /openapi.json and what is tried out.
    "Content-Security-Policy": f"{_POLICY}; script-src 'self'; style-src 'self'; connect-src 'self'",
}

_HEAD: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · Holdfast</title>
<link rel="icon" href="data:,">
"""

_PAGE: Final = _HEAD + '<link rel="stylesheet" href="{root}/docs/pages.css">\n{body}'


async def redirect_to_docs(request: Request) -> Response:
    """Lead to the documentation. (GET /)"""
    return RedirectResponse(f"{request.scope['root_path']}/docs", headers={"Cache-Control": "no-store"})


async def show_docs(request: Request) -> Response:
    """Return the documentation of all calls, in which they can be tried. (GET /docs)"""
    return _own_page(request, "docs.html", "API")


async def show_board(request: Request) -> Response:
    """Return the live board of a sale, which listens to the events. (GET /board)"""
    return _own_page(request, "board.html", "Live board")


def _own_page(request: Request, name: str, title: str) -> Response:
    """Return a page whose HTML is in static/."""
    text = _HEAD + _read_page(name)
    return HTMLResponse(text.format(title=title, root=request.scope["root_path"]), headers=_DOCS_HEADERS)


@lru_cache
def _read_page(name: str) -> str:
    return (STATIC / name).read_text("utf-8")


async def list_problems(request: Request) -> Response:
    """Return all problem types: a page for a browser, otherwise JSON. (GET /problems)"""
    root: str = request.scope["root_path"]
    if not prefers_html(request.scope["headers"]):
        return _json([_summary(problem, root) for problem in _PROBLEMS.values()])
    rows = "".join(
        f'<dt>{problem.status}</dt><dd><a href="{root}/problems/{problem.name}"><code>{problem.name}</code></a><br>'
        f"{escape(problem.title)}</dd>\n"
        for problem in _PROBLEMS.values()
    )
    text = "Each error answer of this service has one of these types. Its <code>type</code> leads to the explanation."
    return _html(root, "Problems", f'<nav><a href="{root}/docs">API</a></nav>\n<h1>Problems</h1>\n<p>{text}</p>\n'
                 f"<dl>\n{rows}</dl>\n")  # fmt: skip


async def explain_problem(request: Request) -> Response:
    """Return what a problem type means, what to do, and an example. (GET /problems/{name})"""
    root: str = request.scope["root_path"]
    problem = _PROBLEMS.get(request.scope["path_params"]["name"])
    if problem is None:
        raise PathNotFound(request.scope["path"], f"{root}/docs")
    from service.domain.errors.examples import EXAMPLES

    example = json.loads(problem_document(EXAMPLES[problem.name], "5f3a9c1e-7", root))
    if not prefers_html(request.scope["headers"]):
        texts = {"meaning": problem.meaning, "remedy": problem.remedy}
        return _json({**_summary(problem, root), **texts, "example": example})
    nav = f'<nav><a href="{root}/docs">API</a> · <a href="{root}/problems">Problems</a></nav>'
    return _html(
        root,
        problem.title,
        f'{nav}\n<h1>{escape(problem.title)}</h1>\n<p class="status">Status {problem.status}, '
        f"<code>{root}/problems/{problem.name}</code></p>\n"
        f"<h2>What it means</h2>\n<p>{_marked_up(problem.meaning)}</p>\n"
        f"<h2>What to do</h2>\n<p>{_marked_up(problem.remedy)}</p>\n<h2>Example</h2>\n"
        f"<pre>{escape(json.dumps(example, indent=2))}</pre>\n",
    )


def _summary(problem: Problem, root: str) -> dict[str, Any]:
    return {"type": f"{root}/problems/{problem.name}", "status": problem.status, "title": problem.title}


def _json(document: object) -> Response:
    response = JsonResponse(json.dumps(document, ensure_ascii=False))
    response.raw_headers = [
        *[field for field in response.raw_headers if field[0] != b"cache-control"],
        (b"cache-control", b"max-age=3600"),
        (b"vary", b"accept"),
    ]
    return response


def _html(root: str, title: str, body: str) -> Response:
    return HTMLResponse(_PAGE.format(title=escape(title), root=root, body=body), headers=_PAGE_HEADERS)


def _marked_up(text: str) -> str:
    """Return a text as HTML. What is in backticks becomes code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
