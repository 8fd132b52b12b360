"""Turns JSON into a request model. Numbers are read exactly, and all field errors are reported together."""

from collections import Counter
from decimal import Decimal, InvalidOperation
from json import JSONDecodeError, JSONDecoder
from typing import Any, Final, TypeVar
from urllib.parse import quote

import jiter
from pydantic import ValidationError

from service.domain.errors.request import FieldError, InvalidRequest, MalformedJson, RequestPart
from service.domain.requests import DOT, MAX_QUICK_BYTES, RequestModel

ModelT = TypeVar("ModelT", bound=RequestModel)

_MAX_EXPONENT: Final = 20
"""10 to this power is larger than every limit of the API, so a larger number is out of range in any case."""

_MAX_FIELDS: Final = 3 + max(len(model.model_fields) for model in RequestModel.__subclasses__())
"""Three more than the largest valid object, so that `errors` names a misspelt field.

Not more: a body of 64 KiB can have 7,000 unknown fields, and each would become an entry in `errors`.
"""


def _number(text: str) -> int | Decimal:
    """Return a JSON number that has a fraction or an exponent, exactly. `5.0` and `5e0` are the integer 5."""
    try:
        number = Decimal(text)
    except InvalidOperation:  # an exponent of 19 digits
        raise ValueError(f"the number {text[:20]}... cannot be represented") from None
    if number.adjusted() < _MAX_EXPONENT and number == number.to_integral_value():
        return int(number)
    return number


def _refuse_constant(text: str) -> object:
    raise ValueError(f"{text} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object that has no more fields than a request may have."""
    if len(pairs) > _MAX_FIELDS:
        raise ValueError(f"an object has {len(pairs)} fields, and no request has so many")
    return _wide_object(pairs)


def _wide_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object.

    Refuse a field that is given twice: parsers disagree which of the two counts (RFC 7493, section 2.3).
    """
    result = dict(pairs)
    if len(result) != len(pairs):
        name = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the field {name!r} is given twice")
    return result


_decode = JSONDecoder(parse_float=_number, parse_constant=_refuse_constant, object_pairs_hook=_object).decode
_decode_wide = JSONDecoder(parse_float=_number, parse_constant=_refuse_constant, object_pairs_hook=_wide_object).decode

_SMALL_E, _LARGE_E = b"eE"
"""Ints, for the same reason as DOT."""


def _read_quickly(data: bytes) -> object:
    """Return a JSON document. Raise ValueError or ArithmeticError if it is wrong, or is not usual.

    jiter takes a third of the time of Python's decoder, which _number() and _object() make exact and slow.
    """
    document = jiter.from_json(data, catch_duplicate_keys=True, allow_inf_nan=False, float_mode="decimal")
    # Without one of these letters, there is no fraction and no exponent. And with fewer commas than a request may have
    # fields, no object is too wide.
    if DOT in data or _SMALL_E in data or _LARGE_E in data or data.count(b",") >= _MAX_FIELDS:
        return _exact(document)
    return document


def _exact(value: Any) -> Any:
    """Return a value with what _number() and _object() do."""
    if isinstance(value, Decimal):
        return _number(str(value))
    if isinstance(value, dict):
        if len(value) > _MAX_FIELDS:
            raise ValueError
        return {name: _exact(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_exact(item) for item in value]
    return value


def read_json(data: bytes, *, any_width: bool = False) -> object:
    """Return a JSON document (RFC 8259), fractions as exact decimals. Raise MalformedJson.

    `any_width`: objects may have more fields than any request has, as in a file of another program.
    """
    if not any_width and len(data) <= MAX_QUICK_BYTES:
        try:
            return _read_quickly(data)
        except (ValueError, ArithmeticError):
            pass  # Python's decoder says what is wrong, or reads it after all
    try:
        return _decode_wide(data.decode()) if any_width else _decode(data.decode())
    except RecursionError:
        raise MalformedJson("The JSON is nested too deeply.") from None
    except UnicodeDecodeError as error:
        raise MalformedJson(f"This is not UTF-8: byte {error.start} cannot be read.") from None
    except JSONDecodeError as error:
        raise MalformedJson(f"This is not JSON: {error}.") from None
    except ValueError as error:
        # The message of int() about more than 4,300 digits tells how to change a setting of Python.
        reason = "a number has too many digits" if "int_max_str_digits" in str(error) else error
        raise MalformedJson(f"This JSON is not accepted: {reason}.") from None


def validate(model: type[ModelT], document: object, source: RequestPart = "body") -> ModelT:
    """Return a document as `model`. Raise InvalidRequest with all field errors.

    `source` says which part of the request the document is.
    """
    # Catch the error here: a handler for the whole application would also catch errors in data that were read from
    # Redis, and blame the client.
    try:
        # model_validate() would call this, and takes 1 us more: it looks at its options.
        validated: ModelT = model.__pydantic_validator__.validate_python(document)
    except ValidationError as error:
        field_errors = [
            FieldError(pointer(found["loc"]), _DETAILS.get(found["type"], found["msg"]), source)
            for found in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise InvalidRequest(f"The {source} is not valid: see errors.", field_errors) from None
    return validated


_DETAILS: Final = {
    "extra_forbidden": "Unknown field: check its spelling",
    "missing": "Field is required",
    "model_type": "Input should be an object",
    "string_unicode": "Input should be Unicode text, without lone surrogates",
}


def pointer(location: tuple[int | str, ...]) -> str:
    """Return an RFC 6901 JSON pointer in its URI fragment form: `#/products/1/quantity`."""
    tokens = (str(token).replace("~", "~0").replace("/", "~1") for token in location)
    return "#" + "".join("/" + quote(token, safe="~", errors="replace") for token in tokens)
