"""Settings: limits, defaults, and what the environment means."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.settings import Settings


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"HOLDFAST_{name.upper()}", raising=False)


def test_without_any_setting_it_serves_this_machine_only_and_loses_nothing() -> None:
    settings = Settings()
    assert settings.host == "127.0.0.1"
    assert settings.port == 8000
    assert settings.workers == 1
    assert settings.redis_url is None
    assert settings.data_dir == Path("data")
    assert settings.shop == "shop"
    assert settings.durability == "always"
    assert settings.log_level == "info"
    assert settings.access_log is False


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("host", "0.0.0.0", "0.0.0.0"),
        ("port", "0", 0),
        ("port", "65535", 65_535),
        ("workers", "256", 256),
        ("redis_url", "redis://user:pass@host:6379/3", "redis://user:pass@host:6379/3"),
        ("redis_url", "rediss://host?ssl_cert_reqs=none", "rediss://host?ssl_cert_reqs=none"),
        ("redis_url", "unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("data_dir", "/var/lib/holdfast", Path("/var/lib/holdfast")),
        ("shop", "A.b_c-9", "A.b_c-9"),
        ("shop", "x" * 64, "x" * 64),
        ("durability", "everysec", "everysec"),
        ("redis_timeout", "0.25", 0.25),
        ("redis_timeout", "60", 60.0),
        ("max_in_flight", "1", 1),
        ("events_max", "1", 1),
        ("shutdown_timeout", "1", 1),
        ("log_level", "debug", "debug"),
        ("access_log", "true", True),
        ("access_log", "1", True),
        ("access_log", "false", False),
    ],
)
def test_a_variable_sets_its_setting(monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object) -> None:
    monkeypatch.setenv(f"HOLDFAST_{name.upper()}", text)
    assert getattr(Settings(), name) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "-1"),
        ("port", "65536"),
        ("port", "http"),
        ("port", "80.5"),
        ("workers", "0"),
        ("workers", "257"),
        ("redis_url", "http://localhost"),
        ("redis_url", "localhost:6379"),
        ("redis_url", " redis://localhost"),
        ("shop", " "),
        ("shop", "a b"),
        ("shop", "{shop}"),
        ("shop", "a:b"),
        ("shop", "a*"),
        ("shop", "caf\u00e9"),
        ("shop", "shop\n"),
        ("shop", "x" * 65),
        ("durability", "maybe"),
        ("durability", "ALWAYS"),
        ("redis_timeout", "0"),
        ("redis_timeout", "-1"),
        ("redis_timeout", "60.1"),
        ("redis_timeout", "nan"),
        ("redis_timeout", "inf"),
        ("max_in_flight", "0"),
        ("events_max", "0"),
        ("shutdown_timeout", "0"),
        ("log_level", "loud"),
        ("access_log", "perhaps"),
    ],
)
def test_a_value_beyond_its_limits_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(f"HOLDFAST_{name.upper()}", text)
    with pytest.raises(ValidationError) as error:
        Settings()
    assert [fault["loc"] for fault in error.value.errors()] == [(name,)]


def test_everything_that_is_wrong_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "WORKERS", "SHOP"):
        monkeypatch.setenv(f"HOLDFAST_{name}", "?")
    with pytest.raises(ValidationError) as error:
        Settings()
    assert [fault["loc"] for fault in error.value.errors()] == [("port",), ("workers",), ("shop",)]


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"HOLDFAST_{name.upper()}", "")
    assert Settings() == Settings.model_validate({})
    assert getattr(Settings(), name) == Settings.model_fields[name].default


def test_variables_without_the_prefix_mean_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "REDIS_URL", "WORKERS"):
        monkeypatch.setenv(name, "12")
    assert Settings() == Settings.model_validate({})
    assert (Settings().port, Settings().redis_url, Settings().workers) == (8000, None, 1)


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_settings_cannot_be_changed_and_say_what_they_are(name: str) -> None:
    settings: Any = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, name, getattr(settings, name))
    assert Settings.model_fields[name].description
