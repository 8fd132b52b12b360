"""HTML pages for people: the explanation of each problem."""

from typing import Final

from starlette.responses import HTMLResponse, Response

from service.api.request import Request
from service.domain.errors.catalog import all_problems
from service.domain.errors.request import PathNotFound

_PROBLEMS: Final = {problem.name: problem for problem in all_problems()}

_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title} · Holdfast</title>
<style>body {{ font: 1.1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem }}
code {{ background: #8882; padding: .1em .3em }} small {{ color: #767676 }}</style>
<small>{status} <code>/problems/{name}</code></small>
<h1>{title}</h1>
<p>{about}</p>
"""


async def explain_problem(request: Request) -> Response:
    """Return the page that explains a problem type. (GET /problems/{name})"""
    problem = _PROBLEMS.get(request.path_params["name"])
    if problem is None:
        raise PathNotFound(request.scope["path"])
    # It changes only with a new version of Holdfast.
    return HTMLResponse(_PAGE.format(**problem._asdict()), headers={"Cache-Control": "max-age=3600"})
