"""The API calls under /products."""

from starlette.responses import Response

from service.api.request import Request, store_of
from service.api.responses import (
    JsonResponse,
    created,
    no_content,
    not_modified_or,
    ok,
    page_response,
    share_page,
    with_etag,
)
from service.domain.requests import NewProduct, ProductChange, ProductsQuery, StockChange


async def list_products(request: Request, query: ProductsQuery) -> Response:
    """Return one page of the products on sale, sorted by id. (GET /products)"""
    return not_modified_or(request, await share_page(request, lambda: _load_page(request, query)))


async def _load_page(request: Request, query: ProductsQuery) -> Response:
    products, after = await store_of(request).products.list(query)
    items = [product.json() for product in products]
    return with_etag(page_response(request, items, {} if after is None else {"after": after}))


async def add_product(request: Request, new: NewProduct) -> Response:
    """Add a product. (POST /products)"""
    product = await store_of(request).products.add(new)
    return created(request, f"/products/{product.id}", product.json())


async def get_product(request: Request, product_id: int) -> Response:
    """Return one product. (GET /products/{id})"""
    product = await store_of(request).products.get(product_id)
    return not_modified_or(request, with_etag(JsonResponse(product.json())))


async def change_product(request: Request, product_id: int, change: ProductChange) -> Response:
    """Change name, description or price by a JSON Merge Patch, RFC 7396. (PATCH /products/{id})"""
    product = await store_of(request).products.change(product_id, change)
    return ok(product.json())


async def withdraw_product(request: Request, product_id: int) -> Response:
    """Withdraw a product from sale. (DELETE /products/{id})"""
    await store_of(request).products.withdraw(product_id)
    return no_content()


async def change_stock(request: Request, product_id: int, change: StockChange) -> Response:
    """Add units to the stock, or remove units from it. (POST /products/{id}/stock)"""
    product, replayed = await store_of(request).stock.change(product_id, change, request.idempotency_key)
    return ok(product.json(), replayed=replayed)
