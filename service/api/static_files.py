"""The files of the web pages: those in static/, and Swagger UI, which the package `offapi` contains."""

import asyncio
import gzip
from functools import lru_cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from starlette.responses import Response

from service.api.negotiation import weights
from service.api.request import Request
from service.api.responses import not_modified_or
from service.domain.errors.request import PathNotFound

STATIC: Final = Path(__file__).with_name("static")

_TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}

_SWAGGER_UI: Final = {"swagger-ui.css": "swagger_style.css", "swagger-ui.js": "swagger_bundle.js"}
"""Our name of each file, and its name in `offapi`."""

NAMES: Final = frozenset({*_SWAGGER_UI, *(path.name for path in STATIC.iterdir() if path.suffix in _TYPES)})


class _File(NamedTuple):
    body: bytes
    compressed: bytes
    etag: bytes


@lru_cache
def _load(name: str) -> _File:
    body = _path(name).read_bytes()
    return _File(body, gzip.compress(body, 6, mtime=0), f'"{sha256(body).hexdigest()[:32]}"'.encode())


def _path(name: str) -> Path:
    """Return the path of a file. `offapi` is found without its import, which would take 74 MB of memory."""
    if name not in _SWAGGER_UI:
        return STATIC / name
    spec = find_spec("offapi")
    if spec is None or spec.origin is None:
        raise RuntimeError("the package offapi, which has the files of Swagger UI, is not installed")
    return Path(spec.origin).with_name(_SWAGGER_UI[name])


async def static_file(request: Request) -> Response:
    """Return a file of the web pages. (GET /docs/{file})"""
    name = request.scope["path_params"]["file"]
    if name not in NAMES:
        raise PathNotFound(request.scope["path"], f"{request.scope['root_path']}/docs")
    # In a thread: Swagger UI has 1.6 MB, and compressing it takes 60 ms.
    file = await asyncio.to_thread(_load, name)
    is_compressed = weights(request.scope["headers"], b"accept-encoding").get("gzip", 0) > 0
    response = Response(file.compressed if is_compressed else file.body)
    response.raw_headers = [
        (b"content-type", _TYPES[Path(name).suffix].encode()),
        (b"content-length", str(len(response.body)).encode()),
        (b"cache-control", b"no-cache"),
        (b"vary", b"accept-encoding"),
        (b"etag", file.etag[:-1] + b'-gzip"' if is_compressed else file.etag),
    ]
    if is_compressed:
        response.raw_headers.append((b"content-encoding", b"gzip"))
    return not_modified_or(request, response)
