"""The environment: variables of Kubernetes, and misspelt variables."""

import os

import pytest

from service.environment import read_environment
from service.settings import ignored_variables, read_settings

ADDRESS = "10.96.12.7"


def service_variables(name: str, ports: dict[str, int], protocol: str = "tcp") -> dict[str, str]:
    """Return what Kubernetes sets for a Service, as makeEnvVariableName and makeLinkVariables in the kubelet do."""
    prefix = name.upper().replace("-", "_")
    first = next(iter(ports.values()))
    variables = {f"{prefix}_SERVICE_HOST": ADDRESS, f"{prefix}_SERVICE_PORT": str(first)}
    variables |= {f"{prefix}_SERVICE_PORT_{port_name.upper()}": str(port) for port_name, port in ports.items()}
    variables[f"{prefix}_PORT"] = f"{protocol}://{ADDRESS}:{first}"
    for port in ports.values():
        link = f"{prefix}_PORT_{port}_{protocol.upper()}"
        variables |= {link: f"{protocol}://{ADDRESS}:{port}", f"{link}_PROTO": protocol}
        variables |= {f"{link}_PORT": str(port), f"{link}_ADDR": ADDRESS}
    return variables


@pytest.fixture(autouse=True)
def without_holdfast_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("HOLDFAST_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("holdfast", "tcp"),
        ("holdfast", "udp"),
        ("holdfast", "sctp"),
        ("holdfast-redis", "tcp"),
        ("holdfast-port", "tcp"),
        ("holdfast-redis-url", "tcp"),
        ("holdfast-service-port", "tcp"),
    ],
)
def test_the_variables_of_a_kubernetes_service_are_ignored_with_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, protocol: str
) -> None:
    variables = service_variables(name, {"http": 8000, "metrics": 9000}, protocol)
    for variable, text in variables.items():
        monkeypatch.setenv(variable, text)
    assert read_environment() == {}
    assert read_settings().port == 8000
    [sentence] = ignored_variables()
    for variable in variables:
        assert variable in sentence
    assert ADDRESS not in sentence


def test_a_setting_beside_the_variables_of_kubernetes_has_its_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, text in service_variables("holdfast", {"http": 8000}).items():
        monkeypatch.setenv(variable, text)
    monkeypatch.setenv("HOLDFAST_PORT", "9000")  # the `env` of a container replaces what Kubernetes sets
    monkeypatch.setenv("HOLDFAST_WORKERS", "3")
    assert (read_settings().port, read_settings().workers) == (9000, 3)


@pytest.mark.parametrize("text", ["tcp", "tcp:8000", "http://10.96.12.7:8000", "80"])
def test_another_port_is_not_ignored(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("HOLDFAST_PORT", text)
    assert read_environment() == {"port": text}


@pytest.mark.parametrize(
    ("variable", "guess"),
    [
        ("HOLDFAST_WORKER", "HOLDFAST_WORKERS"),
        ("HOLDFAST_REDISURL", "HOLDFAST_REDIS_URL"),
        ("HOLDFAST_DATADIR", "HOLDFAST_DATA_DIR"),
        ("holdfast_event_max", "HOLDFAST_EVENTS_MAX"),
        ("HOLDFAST_XYZ", None),
        ("HOLDFAST_", None),
    ],
)
def test_a_misspelt_variable_is_named_without_its_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, guess: str | None
) -> None:
    monkeypatch.setenv(variable, "secret")
    [sentence] = ignored_variables()
    assert sentence.startswith(f"{variable} is not a setting")
    assert (f"Did you mean {guess}?" in sentence) if guess else ("Did you mean" not in sentence)
    assert "secret" not in sentence


def test_an_empty_misspelt_variable_and_those_of_compose_are_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_WORKER", "")
    monkeypatch.setenv("HOLDFAST_BIND", "127.0.0.1")
    monkeypatch.setenv("HOLDFAST_REDIS_PASSWORD", "secret")
    assert ignored_variables() == []


@pytest.mark.parametrize("first", ["HOLDFAST_PORT", "holdfast_port"])
def test_a_variable_in_upper_case_wins(monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    monkeypatch.setenv(first, "1")
    monkeypatch.setenv("holdfast_port", "2")
    monkeypatch.setenv("HOLDFAST_PORT", "3")
    assert read_settings().port == 3
