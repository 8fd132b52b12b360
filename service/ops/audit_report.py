"""What the audit reports: its findings, what it has read, and why it could not finish."""

from dataclasses import asdict, dataclass, field
from typing import Final

EVENTS_MISSING: Final = (
    "more changes were made during the audit than the event stream keeps (HOLDFAST_EVENTS_MAX): "
    "use a larger number, or run the audit when there are fewer changes"
)


class AuditInconclusive(Exception):
    """The audit could not finish, so its findings cannot be trusted, and are not reported."""


class ShopIsEmpty(AuditInconclusive):
    """There is nothing to audit."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong in the data: the key, and what is wrong with it."""

    key: str
    what: str


@dataclass
class Report:
    """What the audit read, and what is wrong in it.

    `product_ids`: of all products that there are, or that orders name. `is_readable`: whether all keys that there are
    once per shop have the right type. Otherwise nothing else was read.
    """

    products: int = 0
    orders: int = 0
    pending: int = 0
    archived: int = 0
    events_followed: int = 0
    findings: list[Finding] = field(default_factory=list)
    product_ids: set[int] = field(default_factory=set, repr=False)
    is_readable: bool = True

    @property
    def balanced(self) -> bool:
        return not self.findings

    def as_dict(self) -> dict[str, object]:
        facts = asdict(self)
        for name in ("product_ids", "is_readable"):
            del facts[name]
        return {"balanced": self.balanced, **facts}
