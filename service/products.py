"""The calls under /products."""

from starlette.responses import Response

from service.errors import ProductNotFound
from service.http import (
    MERGE_PATCH,
    REPLAYED,
    JsonResponse,
    Request,
    page_response,
    read_body,
    read_id,
    read_idempotency_key,
    read_query,
    share_page,
)
from service.models import NewProduct, ProductChange, ProductsQuery, StockMove


async def list_products(request: Request) -> Response:
    """GET /products: a page of the products on sale, in id order."""
    return await share_page(request, _load_page)


async def _load_page(request: Request) -> Response:
    query = read_query(request, ProductsQuery)
    products, after = await request.state["store"].list_products(query)
    return page_response(request, [product.json() for product in products], {} if after is None else {"after": after})


async def add_product(request: Request) -> Response:
    """POST /products: adds one."""
    product = await request.state["store"].add_product(await read_body(request, NewProduct))
    return JsonResponse(product.json(), 201, [(b"location", f"/products/{product.id}".encode())])


async def get_product(request: Request) -> Response:
    """GET /products/{id}."""
    product = await request.state["store"].get_product(_product_id(request))
    return JsonResponse(product.json())


async def change_product(request: Request) -> Response:
    """PATCH /products/{id}: a JSON Merge Patch (RFC 7396) of name, description and price."""
    product_id = _product_id(request)
    change = await read_body(request, ProductChange, MERGE_PATCH)
    product = await request.state["store"].change_product(product_id, change)
    return JsonResponse(product.json())


async def withdraw_product(request: Request) -> Response:
    """DELETE /products/{id}: withdraws it from sale."""
    await request.state["store"].withdraw_product(_product_id(request))
    return Response(status_code=204)


async def move_stock(request: Request) -> Response:
    """POST /products/{id}/stock: moves the stock by a signed amount."""
    product_id, key = _product_id(request), read_idempotency_key(request)
    product, replayed = await request.state["store"].move_stock(product_id, await read_body(request, StockMove), key)
    return JsonResponse(product.json(), headers=[REPLAYED] if replayed else [])


def _product_id(request: Request) -> int:
    product_id = read_id(request)
    if product_id is None:
        raise ProductNotFound(request.path_params["id"])
    return product_id
