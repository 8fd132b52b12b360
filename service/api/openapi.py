"""GET /openapi.json: the description of the API (OpenAPI 3.1), made from the table of calls and the request models.

https://spec.openapis.org/oas/v3.1.1.html
"""

import asyncio
import json
from functools import lru_cache

from starlette.responses import Response

from service.api.request import Request
from service.api.responses import JsonResponse, cacheable, hash_of, not_modified_or


async def describe_api(request: Request) -> Response:
    """Return this description of the API. (GET /openapi.json)"""
    # In a thread: it is made once, and takes about 40 ms.
    shops = request.scope["state"].get("shop_names", ())  # only if the path names no shop of several
    text = await asyncio.to_thread(openapi_text, request.scope["root_path"], shops)
    response = JsonResponse(text)
    return not_modified_or(request, cacheable(response, hash_of(response.body)))


@lru_cache(maxsize=64)  # one for each shop
def openapi_text(root_path: str, shops: tuple[str, ...] = ()) -> str:
    """Return the description of the API as JSON. The arguments are those of `openapi_document`."""
    from service.api.openapi_document import openapi_document

    return json.dumps(openapi_document(root_path, shops), ensure_ascii=False)
