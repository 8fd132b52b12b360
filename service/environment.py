"""The only module that reads the environment. Imports only `os`, because `holdfast health` must start fast."""

import os

PREFIX = "HOLDFAST_"


def read_environment() -> dict[str, str]:
    """Return the `HOLDFAST_*` variables by setting name: `{"port": "9000"}`. An empty variable counts as unset."""
    return {
        name[len(PREFIX) :].lower(): text
        for name, text in os.environ.items()
        if text and name.upper().startswith(PREFIX)
    }
