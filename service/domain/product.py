"""A product on sale, and the rules about its sale."""

from hashlib import sha256
from json.encoder import encode_basestring as quoted  # what JSONEncoder(ensure_ascii=False) does to text
from typing import Any, Final, NamedTuple

from service.domain.money import Cents, format_cents
from service.domain.times import Milliseconds, format_timestamp


class SaleRules(NamedTuple):
    """Who may buy a product, and when. None: there is no such rule.

    `limit_per_customer`: the units that one customer may hold and have bought, over all orders.
    `on_sale_from`: the first moment of the sale; `on_sale_until`: the first moment after it.
    """

    limit_per_customer: int | None = None
    on_sale_from: Milliseconds | None = None
    on_sale_until: Milliseconds | None = None

    def text(self) -> str:
        """Return the rules as Redis holds them: one row per rule, `limit_per_customer: 2`. Without rules: no text."""
        if self == NO_RULES:
            return ""
        return "\n".join([f"{name}: {value}" for name, value in self._asdict().items() if value is not None])

    def json_members(self) -> str:
        """Return the members of a JSON object, without braces. Only rules that exist are members."""
        members = []
        if self.limit_per_customer is not None:
            members.append(f'"limit_per_customer":{self.limit_per_customer}')
        if self.on_sale_from is not None:
            members.append(f'"on_sale_from":"{format_timestamp(self.on_sale_from)}"')
        if self.on_sale_until is not None:
            members.append(f'"on_sale_until":"{format_timestamp(self.on_sale_until)}"')
        return ",".join(members)


NO_RULES: Final = SaleRules()


def parse_sale_rules(text: str) -> SaleRules:
    """Return the rules in the `sale_rules` field of a product in Redis. Raise ValueError if it is unreadable."""
    values: dict[str, Any] = {}
    for row in text.split("\n"):
        name, separator, digits = row.partition(": ")
        if not separator or name not in SaleRules._fields or not (digits.isascii() and digits.isdigit()):
            raise ValueError(f"unreadable sale rules: {text[:100]!r}")
        values[name] = int(digits)
    return NO_RULES._replace(**values)


class Product(NamedTuple):
    """A product on sale. `price` of one unit, `stock` in units."""

    id: int
    name: str
    description: str
    price: Cents
    stock: int
    rules: SaleRules = NO_RULES

    def json(self) -> str:
        """Return the product as the API shows it."""
        # Written out: json.dumps() takes four times as long for 100 products, and cannot write exact decimals.
        rules = "" if self.rules is NO_RULES or self.rules == NO_RULES else f",{self.rules.json_members()}"
        return (
            f'{{"id":{self.id},"name":{quoted(self.name)},"description":{quoted(self.description)},'
            f'"price":{format_cents(self.price)},"stock":{self.stock}{rules}}}'
        )

    def listed(self) -> "ListedProduct":
        """Return the product as a page of a list needs it."""
        return ListedProduct(self.id, self.stock, self.json())

    def catalogue_version(self) -> str:
        """Return a hash of everything but the stock: it changes if and only if that changes."""
        catalogue = f"{self.id}{quoted(self.name)}{quoted(self.description)}{self.price}{self.rules.text()}"
        return sha256(catalogue.encode()).hexdigest()[:32]


class ListedProduct(NamedTuple):
    """A product in a list. `json`: the product as the API shows it."""

    id: int
    stock: int
    json: str
