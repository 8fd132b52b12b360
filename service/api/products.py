"""The API calls under /products."""

from starlette.responses import Response

from service.api.preconditions import expected_stocks, expected_versions, product_response, stock_response
from service.api.request import Request, key_name, store_of
from service.api.responses import cacheable_page, created, no_content, not_modified_or, ok, page_response, share_page
from service.domain.requests import NewProduct, ProductChange, ProductsQuery, StockChange, StockCount


async def list_products(request: Request, query: ProductsQuery) -> Response:
    """Return one page of the products on sale, sorted by id. (GET /products)"""
    return not_modified_or(request, await share_page(request, lambda: _load_page(request, query)))


async def _load_page(request: Request, query: ProductsQuery) -> Response:
    products, after = await store_of(request).products.list(query)
    items = [product.json for product in products]
    return cacheable_page(page_response(request, items, {} if after is None else {"after": after}))


async def add_product(request: Request, new: NewProduct) -> Response:
    """Add a product. (POST /products)"""
    product = await store_of(request).products.add(new, key_name(request))
    return created(request, f"/products/{product.id}", product.json())


async def get_product(request: Request, product_id: int) -> Response:
    """Return one product. (GET /products/{id})"""
    product = await store_of(request).products.get(product_id)
    return not_modified_or(request, product_response(product))


async def change_product(request: Request, product_id: int, change: ProductChange) -> Response:
    """Change the catalogue part of a product by a JSON Merge Patch, RFC 7396. (PATCH /products/{id})"""
    product = await store_of(request).products.change(product_id, change, expected_versions(request), key_name(request))
    return ok(product.json())


async def withdraw_product(request: Request, product_id: int) -> Response:
    """Withdraw a product from sale. (DELETE /products/{id})"""
    await store_of(request).products.withdraw(product_id, expected_versions(request), key_name(request))
    return no_content()


async def get_stock(request: Request, product_id: int) -> Response:
    """Return the units of a product: in stock, held, sold. (GET /products/{id}/stock)"""
    levels = await store_of(request).stock.levels(product_id)
    return not_modified_or(request, stock_response(product_id, levels))


async def change_stock(request: Request, product_id: int, change: StockChange | StockCount) -> Response:
    """Add units to the stock, remove units from it, or set it to a count. (POST /products/{id}/stock)"""
    product, replayed = await store_of(request).stock.change(
        product_id, change, request.idempotency_key, expected_stocks(request), key_name(request)
    )
    return ok(product.json(), replayed=replayed)
