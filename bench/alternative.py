"""The usual alternative to Holdfast: FastAPI, SQLAlchemy and PostgreSQL, with the calls that are measured.

The code is written to be correct and fast:

- SQLAlchemy's Core instead of its ORM, because the Core is faster;
- reads without a transaction;
- rows are locked in the order of their ids, so there are no deadlocks;
- each step of an order is one statement for all lines: lock the rows, take the stock, add the lines;
- money in whole cents;
- responses are serialized by the part of pydantic that is written in Rust.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    bindparam,
    func,
    select,
)
from sqlalchemy.ext.asyncio import create_async_engine

from service.server.gc_tuning import tune_gc

metadata = MetaData()

products = Table(
    "products",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("name", String(200), nullable=False),
    Column("description", Text, nullable=False),
    Column("price", BigInteger, nullable=False),
    Column("stock", BigInteger, CheckConstraint("stock >= 0"), nullable=False),
    Column("received", BigInteger, nullable=False),  # for check_balance(): orders never change this column
    postgresql_with={"fillfactor": 50},  # so that an update finds room in the same page (HOT updates)
)
orders = Table(
    "orders",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("total_price", BigInteger, nullable=False),
    Column("status", String(10), nullable=False),
    Column("created_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
)
order_lines = Table(
    "order_lines",
    metadata,
    Column("order_id", ForeignKey("orders.id"), primary_key=True),
    Column("product_id", ForeignKey("products.id"), primary_key=True),
    Column("quantity", Integer, nullable=False),
    Column("price", BigInteger, nullable=False),
)

_columns = (products.c.id, products.c.name, products.c.description, products.c.price, products.c.stock)
_get_product = select(*_columns).where(products.c.id == bindparam("id"))
_list_products = (
    select(*_columns).where(products.c.id > bindparam("after")).order_by(products.c.id).limit(bindparam("limit"))
)
_lock_products = (
    select(products.c.id, products.c.price, products.c.stock)
    .where(products.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(products.c.id)
    .with_for_update()
)
_take_stock = (
    products.update()
    .where(products.c.id == bindparam("product_id"))
    .values(stock=products.c.stock - bindparam("quantity"))
)
_add_order = orders.insert().returning(orders.c.id, orders.c.created_at)
_add_lines = order_lines.insert()


class NewOrderLine(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    product_id: Annotated[int, Field(ge=1, le=2**53 - 1)]
    quantity: Annotated[int, Field(ge=1, le=1_000_000)]


class NewOrder(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    products: Annotated[list[NewOrderLine], Field(min_length=1, max_length=100)]


class Product(BaseModel):
    id: int
    name: str
    description: str
    price: float
    stock: int


class OrderLine(BaseModel):
    product_id: int
    quantity: int
    price: float


class Order(BaseModel):
    id: int
    products: list[OrderLine]
    total_price: float
    status: str
    created_at: datetime


def create_app() -> FastAPI:
    """Return the application. Uvicorn calls this in each worker."""
    engine = create_async_engine(
        os.environ["BENCH_DATABASE_URL"], pool_size=int(os.environ["BENCH_POOL_SIZE"]), max_overflow=0, pool_timeout=60
    )
    read_engine = engine.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)

    @app.get("/products")
    async def list_products(
        response: Response,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[int, Query(ge=0)] = 0,
    ) -> list[Product]:
        async with read_engine.connect() as connection:
            rows = (await connection.execute(_list_products, {"after": after, "limit": limit})).all()
        if len(rows) == limit:
            response.headers["Link"] = f'</products?limit={limit}&after={rows[-1].id}>; rel="next"'
        return [_product(row) for row in rows]

    @app.get("/products/{product_id}")
    async def get_product(product_id: int) -> Product:
        async with read_engine.connect() as connection:
            row = (await connection.execute(_get_product, {"id": product_id})).one_or_none()
        if row is None:
            raise HTTPException(404)
        return _product(row)

    @app.post("/orders", status_code=201, response_model=Order)
    async def place_order(new: NewOrder, response: Response) -> Order | Response:
        quantities: dict[int, int] = {}
        for line in new.products:
            quantities[line.product_id] = quantities.get(line.product_id, 0) + line.quantity
        async with engine.begin() as connection:
            rows = (await connection.execute(_lock_products, {"ids": list(quantities)})).all()
            found = {row.id: row for row in rows}
            if unknown := [product_id for product_id in quantities if product_id not in found]:
                return _problem(404, "product-not-found", [{"product_id": product_id} for product_id in unknown])
            if unavailable := [
                {"product_id": product_id, "requested": quantity, "available": found[product_id].stock}
                for product_id, quantity in quantities.items()
                if found[product_id].stock < quantity
            ]:
                return _problem(409, "insufficient-stock", unavailable)
            lines = [
                {"product_id": product_id, "quantity": quantity, "price": found[product_id].price}
                for product_id, quantity in quantities.items()
            ]
            total = sum(found[product_id].price * quantity for product_id, quantity in quantities.items())
            await connection.execute(_take_stock, lines)
            order = (await connection.execute(_add_order, {"total_price": total, "status": "completed"})).one()
            await connection.execute(_add_lines, [{"order_id": order.id, **line} for line in lines])
        response.headers["Location"] = f"/orders/{order.id}"
        return Order(
            id=order.id,
            products=[OrderLine(**{**line, "price": line["price"] / 100}) for line in lines],
            total_price=total / 100,
            status="completed",
            created_at=order.created_at,
        )

    tune_gc()
    return app


def _product(row: Row[*tuple[Any, ...]]) -> Product:
    return Product(id=row.id, name=row.name, description=row.description, price=row.price / 100, stock=row.stock)


def _problem(status: int, name: str, errors: list[dict[str, int]]) -> Response:
    problem = {"type": f"/problems/{name}", "title": name, "status": status, "errors": errors}
    return JSONResponse(problem, status, media_type="application/problem+json")
