"""A product on sale."""

from json.encoder import encode_basestring as quoted  # what JSONEncoder(ensure_ascii=False) does to text
from typing import NamedTuple

from service.domain.money import Cents, format_cents


class Product(NamedTuple):
    """A product on sale. `price` of one unit, `stock` in units."""

    id: int
    name: str
    description: str
    price: Cents
    stock: int

    def json(self) -> str:
        """Return the product as the API shows it."""
        # Written out: json.dumps() takes four times as long for 100 products, and cannot write exact decimals.
        return (
            f'{{"id":{self.id},"name":{quoted(self.name)},"description":{quoted(self.description)},'
            f'"price":{format_cents(self.price)},"stock":{self.stock}}}'
        )
