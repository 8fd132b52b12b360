"""From JSON to a request model: exact numbers, and all faults at once."""

from collections import Counter
from decimal import Decimal, InvalidOperation
from json import JSONDecoder
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from service.errors import Fault, InvalidRequest, MalformedJson

ModelT = TypeVar("ModelT", bound=BaseModel)

_LARGEST_EXPONENT = 20
"""Above every limit of the contract: a larger number is out of range, whatever its digits."""


_MOST_MEMBERS = 8
"""Some more than any request has. Each unknown member is answered, and 64 KiB hold seven thousand of them."""


def _number(text: str) -> int | Decimal:
    """A JSON number with a fraction or an exponent, exactly. `5.0` and `5e0` are the integer 5 (RFC 8259, 6)."""
    try:
        number = Decimal(text)
    except InvalidOperation:  # an exponent of 19 digits
        raise ValueError(f"the number {text[:20]}... cannot be represented") from None
    if number.adjusted() < _LARGEST_EXPONENT and number == number.to_integral_value():
        return int(number)
    return number


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is not JSON")


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Of two members of one name readers keep this one or that one, so it is refused (RFC 7493, 2.3)."""
    if len(members) > _MOST_MEMBERS:
        raise ValueError(f"an object of {len(members)} members, where no request has more than five")
    result = dict(members)
    if len(result) != len(members):
        name = next(name for name, count in Counter(name for name, _ in members).items() if count > 1)
        raise ValueError(f"the member {name!r} is given twice")
    return result


# pydantic's own reader is 1.3 us faster on a two-line order, but reads each fraction as a float: it
# takes 1.00000000000000000001 for 1, and 90071992547409.91 for ...09.9.
_decode = JSONDecoder(parse_float=_number, parse_constant=_no_constant, object_pairs_hook=_object).decode


def read_json(data: bytes) -> object:
    """The JSON document (RFC 8259), fractions as exact decimals. Raises MalformedJson."""
    try:
        return _decode(data.decode())
    except RecursionError:
        raise MalformedJson("The JSON is nested too deeply.") from None
    except UnicodeDecodeError as error:
        raise MalformedJson(f"This is not UTF-8: byte {error.start} cannot be read.") from None
    except ValueError as error:
        # int() itself says of 4,300 digits how to make Python take more of them.
        reason = "a number has too many digits" if "int_max_str_digits" in str(error) else error
        raise MalformedJson(f"This is not JSON: {reason}.") from None


def validate(model: type[ModelT], document: object, source: str = "body") -> ModelT:
    """A document as `model`. Raises InvalidRequest with all faults; `source` says what of the request it is."""
    # Here and not in an exception handler, where bad data read from Redis would look like a bad request.
    try:
        return model.model_validate(document)
    except ValidationError as error:
        faults = [
            Fault(pointer(fault["loc"]), _DETAILS.get(fault["type"], fault["msg"]), source)
            for fault in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise InvalidRequest(f"The {source} does not fit: see errors.", faults) from None


_DETAILS = {
    "extra_forbidden": "Unknown member: it is refused, so that a misspelt one is never ignored",
    "missing": "Member is required",
    "model_type": "Input should be an object",
    "string_unicode": "Input should be Unicode text, without lone surrogates",
}


def pointer(location: tuple[int | str, ...]) -> str:
    """An RFC 6901 JSON pointer in its URI fragment form: `#/products/1/quantity`."""
    tokens = (str(token).replace("~", "~0").replace("/", "~1") for token in location)
    return "#" + "".join("/" + quote(token, safe="~", errors="replace") for token in tokens)
