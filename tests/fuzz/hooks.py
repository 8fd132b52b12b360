"""What schemathesis cannot know from a JSON schema. `st run` imports this module (SCHEMATHESIS_HOOKS)."""

from datetime import UTC, datetime, timezone
from typing import Any

import schemathesis
from hypothesis import strategies as st

schemathesis.openapi.format(
    "date-time",
    st.datetimes(
        datetime(1970, 1, 2), datetime(9998, 1, 1), timezones=st.sampled_from([UTC, timezone.max, timezone.min])
    ).map(lambda moment: moment.isoformat()),
)

ALLOWED_ERRORS = {
    "Input should be after on_sale_from",
    "Input should not be blank",
    "Input should have printable characters only",
}
"""Errors about two fields together, and about invisible characters: a JSON schema cannot express them."""


@schemathesis.check
def valid_data_is_refused_only_for_the_state_of_the_shop(ctx: Any, response: Any, case: Any) -> None:
    """Fail if a request that fits the schema does not fit the service.

    It takes the place of `positive_data_acceptance`, which knows status codes only: a valid order can be refused with
    409, 410, 412 and 422 because of what is in the shop. In such answers, the type is never `invalid-request`.
    """
    meta = case.meta
    if meta is None or not meta.generation.mode.is_positive or response.status_code not in (400, 413, 415, 422):
        return
    problem = response.json()
    if problem["type"] == "/problems/invalid-request":
        details = {error["detail"] for error in problem["errors"]}
        assert details <= ALLOWED_ERRORS, f"valid data are refused: {problem}"
    else:
        assert problem["status"] == 422, f"valid data are refused: {problem}"
