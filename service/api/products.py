"""The calls under /products."""

from starlette.responses import Response

from service.api.request import Request, store_of
from service.api.responses import created, no_content, ok, page_response, share_page
from service.domain.requests import NewProduct, ProductChange, ProductsQuery, StockMove


async def list_products(request: Request, query: ProductsQuery) -> Response:
    """GET /products: a page of the products on sale, in the order of their ids."""
    return await share_page(request, lambda: _load_page(request, query))


async def _load_page(request: Request, query: ProductsQuery) -> Response:
    products, after = await store_of(request).products.list(query)
    return page_response(request, [product.json() for product in products], {} if after is None else {"after": after})


async def add_product(request: Request, new: NewProduct) -> Response:
    """POST /products: add a product."""
    product = await store_of(request).products.add(new)
    return created(f"/products/{product.id}", product.json())


async def get_product(request: Request, product_id: int) -> Response:
    """GET /products/{id}."""
    product = await store_of(request).products.get(product_id)
    return ok(product.json())


async def change_product(request: Request, product_id: int, change: ProductChange) -> Response:
    """PATCH /products/{id}: a JSON Merge Patch (RFC 7396) of name, description and price."""
    product = await store_of(request).products.change(product_id, change)
    return ok(product.json())


async def withdraw_product(request: Request, product_id: int) -> Response:
    """DELETE /products/{id}: withdraw a product from sale."""
    await store_of(request).products.withdraw(product_id)
    return no_content()


async def move_stock(request: Request, product_id: int, move: StockMove) -> Response:
    """POST /products/{id}/stock: add units to the stock, or take units from it."""
    product, replayed = await store_of(request).stock.move(product_id, move, request.idempotency_key)
    return ok(product.json(), replayed=replayed)
