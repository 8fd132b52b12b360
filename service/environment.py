"""The only module that reads the environment. Imports only `os`, because `holdfast health` must start fast."""

import os

PREFIX = "HOLDFAST_"

_OTHER_NAMES = {"api_key", "bind", "cluster_net", "redis_password", "test_engine"}
"""Variables that are not settings, and that no warning names. `api_key`: read by `holdfast load`. `bind`: by
docker-compose.yml. `cluster_net`: by docker-compose.cluster.yml. `redis_password`: by docker-compose.yml of older
versions. `test_engine`: by the tests.
"""

_PROTOCOLS = ("TCP", "UDP", "SCTP")


def read_environment() -> dict[str, str]:
    """Return the `HOLDFAST_*` variables by setting name: `{"port": "9000"}`.

    An empty variable counts as unset, and so do variables that Kubernetes sets. A name in upper case wins.
    """
    found = {}
    for variable, text in sorted(_variables().items(), reverse=True):  # upper case comes last, and replaces the other
        if not _is_set_by_kubernetes(variable, text):
            found[variable[len(PREFIX) :].lower()] = text
    return found


def kubernetes_variables() -> list[str]:
    """Return the names of the `HOLDFAST_*` variables that Kubernetes sets in a pod for the Services of its namespace.

    A Service named `holdfast` leads to HOLDFAST_PORT=tcp://10.96.12.7:8000 and about six more.
    """
    return sorted(variable for variable, text in _variables().items() if _is_set_by_kubernetes(variable, text))


def unknown_variables(setting_names: set[str]) -> list[str]:
    """Return the names of the `HOLDFAST_*` variables that are no setting."""
    names = setting_names | _OTHER_NAMES
    return sorted(
        variable
        for variable, text in _variables().items()
        if variable[len(PREFIX) :].lower() not in names and not _is_set_by_kubernetes(variable, text)
    )


def _variables() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if text and name.upper().startswith(PREFIX)}


def _is_set_by_kubernetes(variable: str, text: str) -> bool:
    """Return whether Kubernetes sets such a variable for a Service named `holdfast` or `holdfast-...`."""
    name = variable[len(PREFIX) - 1 :]  # "_PORT_8000_TCP", and for the Service `holdfast-redis` "_REDIS_PORT_6379_TCP"
    if name.endswith("_PORT") and text.lower().startswith(("tcp://", "udp://", "sctp://")):
        return True
    if name.endswith(("_SERVICE_HOST", "_SERVICE_PORT")) or "_SERVICE_PORT_" in name:
        return True
    parts = name.split("_")
    if parts[-1] in ("PROTO", "PORT", "ADDR"):
        parts.pop()
    return len(parts) > 3 and parts[-3] == "PORT" and parts[-2].isdigit() and parts[-1] in _PROTOCOLS


def colours_wanted() -> bool:
    """Return whether the output may have colours (https://no-color.org/)."""
    return not os.environ.get("NO_COLOR")
