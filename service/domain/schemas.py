"""The JSON schemas of requests, made from their models, for the description of the API."""

from collections.abc import Iterable
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from service.domain.requests import ProductChange, RequestModel, StockCount

REF_TEMPLATE: Final = "#/components/schemas/{model}"

_ONLY_FOR_ERRORS: Final = {StockCount.__name__: "change"}
"""A field of a model that exists only for the error of a client that sends it."""


def request_schemas(models: Iterable[type[RequestModel]]) -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each model by its name, with those that they refer to."""
    _, document = models_json_schema([(model, "validation") for model in models], ref_template=REF_TEMPLATE)
    schemas: dict[str, dict[str, Any]] = document["$defs"]
    for name, schema in schemas.items():
        schema["properties"].pop(_ONLY_FOR_ERRORS.get(name), None)
        schema.pop("description", None)  # the docstring is for developers of Holdfast
        for field in schema["properties"].values():
            field.pop("title", None)
            # Some generated clients send each default, and hold_seconds is refused for an order that is not held.
            default = field.pop("default", None)
            if default is not None and name != ProductChange.__name__:  # there, it only marks a field as optional
                field["description"] = f"If it is absent: {str(default).lower()}."
            for part in (field, *field.get("anyOf", ())):
                # pydantic's words for the bounds of a number that a validator has made from a text.
                for word, keyword in (("ge", "minimum"), ("le", "maximum")):
                    if word in part:
                        part[keyword] = part.pop(word)
    return schemas
