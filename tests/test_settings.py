"""Settings: limits, defaults, and the values that the environment gives."""

import os
import time
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from service.partition_url import partition_url
from service.settings import SETTINGS, InvalidSettings, Setting, Settings, read_settings

each_setting = pytest.mark.parametrize("setting", SETTINGS, ids=[setting.name for setting in SETTINGS])


@pytest.fixture(autouse=True)
def without_holdfast_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)


def test_by_default_only_this_machine_can_connect_and_no_order_is_lost() -> None:
    settings = read_settings()
    assert settings == Settings()
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
        ("redis_url", "redis+sentinel://one,two:1/main", "redis+sentinel://one,two:1/main"),
        ("redis_url", "rediss+sentinel://one/main", "rediss+sentinel://one/main"),
        ("wait_replicas", "2", 2),
        ("data_dir", "/var/lib/holdfast", Path("/var/lib/holdfast")),
        ("shop", "A.b_c-9", "A.b_c-9"),
        ("shop", "x" * 64, "x" * 64),
        ("shops", "berlin,fair-*", ("berlin", "fair-*")),
        ("shops", "*", ("*",)),
        ("durability", "everysec", "everysec"),
        ("redis_timeout", "0.25", 0.25),
        ("redis_timeout", "60", 60.0),
        ("redis_timeout", "0.01", 0.01),
        ("max_in_flight", "1", 1),
        ("max_in_flight", "1000000", 1_000_000),
        ("events_max", "1", 1),
        ("events_max", "1000000000", 1_000_000_000),
        ("shutdown_timeout", "1", 1),
        ("shutdown_timeout", "3600", 3600),
        ("data_dir", "~/shop", Path.home() / "shop"),
        ("data_dir", "~", Path.home()),
        ("data_dir", "a~b", Path("a~b")),
        ("log_level", "debug", "debug"),
        ("access_log", "true", True),
        ("access_log", "1", True),
        ("access_log", "ON", True),
        ("access_log", "false", False),
    ],
)
def test_a_variable_sets_its_setting(monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object) -> None:
    monkeypatch.setenv(f"HOLDFAST_{name.upper()}", text)
    assert getattr(read_settings(), name) == value


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
        ("redis_url", "unix+sentinel://one/main"),
        ("wait_replicas", "-1"),
        ("wait_replicas", "101"),
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
        ("max_in_flight", "1000001"),
        ("events_max", "0"),
        ("events_max", "1000000001"),
        ("events_max", "99999999999999999999"),
        ("events_max", "9" * 5000),
        ("events_max", "1_000"),
        ("port", "\u0668\u0660\u0660\u0660"),
        ("port", " 8000"),
        ("port", "8000\n"),
        ("redis_timeout", "0.009"),
        ("redis_timeout", "1_0"),
        ("redis_timeout", "\u0661"),
        ("redis_timeout", "."),
        ("shutdown_timeout", "3601"),
        ("data_dir", "~nobody-has-this-name/data"),
        ("shutdown_timeout", "0"),
        ("host", " 127.0.0.1"),
        ("host", "127.0.0.1\n"),
        ("log_level", "loud"),
        ("access_log", "perhaps"),
    ],
)
def test_an_invalid_value_is_reported(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(f"HOLDFAST_{name.upper()}", text)
    with pytest.raises(InvalidSettings) as error:
        read_settings()
    [(variable, reason)] = error.value.reasons.items()
    assert variable == f"HOLDFAST_{name.upper()}"
    assert reason.startswith("must be ")
    assert (text not in reason) if name == "redis_url" else (repr(text) in reason)  # a URL may contain a password


PARTITION_URLS = [
    "redis://engine-{partition}:6379/0",
    "rediss://user:p{}ss@engine-{partition}",
    "unix:///run/{partition}/redis.sock",
    "redis+sentinel://one,two/shop-{partition}",
]


@pytest.mark.parametrize("url", [*PARTITION_URLS, "redis+cluster://one,two", "rediss+cluster://one"])
def test_the_url_of_a_shop_with_partitions_says_where_each_of_them_is(url: str) -> None:
    assert read_settings({"partitions": "4", "redis_url": url}).redis_url == url


@pytest.mark.parametrize("url", ["redis://secret", "unix:///secret", "redis+sentinel://secret/main"])
def test_a_url_of_one_redis_is_refused_for_several_partitions(url: str) -> None:
    with pytest.raises(InvalidSettings) as error:
        read_settings({"partitions": "4", "redis_url": url})
    reason = "must be the URL of a cluster, or have {partition} in it, because HOLDFAST_PARTITIONS is 4"
    assert error.value.reasons == {"HOLDFAST_REDIS_URL": reason}


@pytest.mark.parametrize("url", PARTITION_URLS)
def test_a_url_with_a_place_for_the_partition_is_refused_without_partitions(url: str) -> None:
    with pytest.raises(InvalidSettings) as error:
        read_settings({"redis_url": url})
    assert error.value.reasons == {
        "HOLDFAST_REDIS_URL": "must not have {partition} in it, because HOLDFAST_PARTITIONS is 1"
    }


def test_a_cluster_has_all_partitions() -> None:
    with pytest.raises(InvalidSettings) as error:
        read_settings({"partitions": "4", "redis_url": "redis+cluster://node-{partition}"})
    assert error.value.reasons == {
        "HOLDFAST_REDIS_URL": "must not have {partition} in it: all partitions are in one cluster"
    }


def test_only_the_place_for_the_partition_changes_in_a_url() -> None:
    url = "redis://user:%7Bpartition%7D{}@engine-{partition}/{partition}"
    assert partition_url(url, 12) == "redis://user:%7Bpartition%7D{}@engine-12/12"
    assert partition_url("redis+cluster://one,two", 3) == "redis+cluster://one,two"


def test_all_bad_values_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "WORKERS", "SHOP"):
        monkeypatch.setenv(f"HOLDFAST_{name}", "?")
    with pytest.raises(InvalidSettings) as error:
        read_settings()
    assert list(error.value.reasons) == ["HOLDFAST_PORT", "HOLDFAST_WORKERS", "HOLDFAST_SHOP"]


@each_setting
def test_an_empty_variable_has_no_effect(monkeypatch: pytest.MonkeyPatch, setting: Setting) -> None:
    monkeypatch.setenv(setting.variable, "")
    assert read_settings() == Settings()
    assert getattr(Settings(), setting.name) == setting.default


@pytest.mark.parametrize("name", ["host", "data_dir", "port", "redis_url", "shop", "redis_timeout", "access_log"])
def test_an_empty_option_is_refused(name: str) -> None:
    """An empty host would listen on all addresses, and an empty data directory would be the current directory."""
    with pytest.raises(InvalidSettings):
        read_settings({name: ""})


NUMBERS = [setting for setting in SETTINGS if setting.value_type.metavar in ("NUMBER", "SECONDS")]


@pytest.mark.parametrize("setting", NUMBERS, ids=lambda setting: setting.name)
@pytest.mark.parametrize(
    "text", ["9" * 20, "9" * 5000, "-1", "-0", "nan", "inf", "1e5", "+1", "0x1", " 1", "\u0663", "\xb2"]
)
def test_each_number_has_bounds_and_only_plain_digits(setting: Setting, text: str) -> None:
    with pytest.raises(InvalidSettings):
        read_settings({setting.name: text})


def test_variables_without_the_prefix_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "REDIS_URL", "WORKERS"):
        monkeypatch.setenv(name, "12")
    assert read_settings() == Settings()


def test_a_variable_in_lower_case_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("holdfast_port", "9000")
    assert read_settings().port == 9000


def test_an_option_overrides_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_PORT", "9000")
    monkeypatch.setenv("HOLDFAST_SHOP", "berlin")
    settings = read_settings({"port": "9001"})
    assert (settings.port, settings.shop) == (9001, "berlin")


@each_setting
def test_a_setting_cannot_be_changed_and_has_a_help_text(setting: Setting) -> None:
    settings: Any = Settings()
    with pytest.raises(FrozenInstanceError):
        setattr(settings, setting.name, setting.default)
    assert setting.help_text


@each_setting
def test_each_default_is_an_allowed_value(setting: Setting) -> None:
    if setting.default is not None:
        assert setting.value_type.parse(str(setting.default)) == setting.default


def test_printed_settings_do_not_show_the_password_of_redis() -> None:
    assert "secret" not in repr(Settings(redis_url="redis://clerk:secret@host"))


@pytest.fixture
def url_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "redis-url"
    monkeypatch.setenv("HOLDFAST_REDIS_URL_FILE", str(path))
    return path


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_file_can_contain_the_url_of_redis(url_file: Path, end: str) -> None:
    url_file.write_text("redis://user:pass@host:6379" + end)
    assert read_settings().redis_url == "redis://user:pass@host:6379"


def test_the_variable_and_the_option_win_over_the_file(url_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url_file.write_text("redis://file")
    assert read_settings({"redis_url": "redis://option"}).redis_url == "redis://option"
    monkeypatch.setenv("HOLDFAST_REDIS_URL", "redis://variable")
    assert read_settings().redis_url == "redis://variable"


def test_a_missing_file_is_named_with_its_variable(url_file: Path) -> None:
    with pytest.raises(InvalidSettings) as caught:
        read_settings()
    assert caught.value.reasons == {
        "HOLDFAST_REDIS_URL_FILE": f"cannot read {str(url_file)!r}: No such file or directory"
    }


@pytest.mark.parametrize("content", [b"", b"secret-pass", b"\xff\xfe"])
def test_a_file_without_a_url_is_refused_and_not_shown(url_file: Path, content: bytes) -> None:
    """Also an empty file: starting the embedded engine instead would hide the mistake."""
    url_file.write_bytes(content)
    with pytest.raises(InvalidSettings) as caught:
        read_settings()
    assert [name.removesuffix("_FILE") for name in caught.value.reasons] == ["HOLDFAST_REDIS_URL"]
    assert "secret-pass" not in str(caught.value)


def test_a_file_without_an_end_is_refused(url_file: Path) -> None:
    url_file.symlink_to("/dev/zero")
    with pytest.raises(InvalidSettings) as caught:
        read_settings()
    assert caught.value.reasons == {"HOLDFAST_REDIS_URL_FILE": f"cannot read {str(url_file)!r}: not a text file"}


def test_a_named_pipe_is_refused_instead_of_waiting_for_its_writer(url_file: Path) -> None:
    os.mkfifo(url_file)
    with pytest.raises(InvalidSettings) as caught:
        read_settings()
    assert list(caught.value.reasons) == ["HOLDFAST_REDIS_URL_FILE"]
    assert "is a named pipe" in str(caught.value)


def test_a_pipe_of_the_shell_can_contain_the_url_of_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bash: HOLDFAST_REDIS_URL_FILE=<(pass redis) holdfast serve."""
    reading, writing = os.pipe()
    os.write(writing, b"redis://user:pass@host:6379\n")
    os.close(writing)
    monkeypatch.setenv("HOLDFAST_REDIS_URL_FILE", f"/dev/fd/{reading}")
    try:
        assert read_settings().redis_url == "redis://user:pass@host:6379"
    finally:
        os.close(reading)


def test_only_a_secret_can_be_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "port").write_text("9000")
    monkeypatch.setenv("HOLDFAST_PORT_FILE", str(tmp_path / "port"))
    assert read_settings().port == 8000


@pytest.mark.parametrize(
    ("shops", "served", "not_served"),
    [
        (
            "berlin,fair-*",
            ["berlin", "fair-", "fair-may"],
            ["shop", "fair", "Fair-may", "a.fair-may", "fair-*", "berlin2"],
        ),
        ("*", ["shop", "...", "x" * 64], ["", ".", "..", "x" * 65, "a b", "a/b", "a\n", "é"]),
        ("a*b*c", ["abc", "a.b.c"], ["acb", "abcd"]),
        ("a.c*", ["a.c", "a.cd"], ["abc"]),
        ("berlin", ["berlin"], ["berlin2", "shop"]),
    ],
)
def test_a_star_in_the_names_of_shops_stands_for_any_characters(
    shops: str, served: list[str], not_served: list[str]
) -> None:
    settings = read_settings({"shops": shops})
    assert [shop for shop in (*served, *not_served) if settings.serves(shop)] == served


def test_only_names_without_a_star_are_shops_from_the_start() -> None:
    settings = read_settings({"shops": "berlin,fair-*", "shop": "fair-may"})
    assert (settings.all_shops, settings.shop_patterns, settings.root_shop) == (("berlin",), ("fair-*",), "")


def test_a_pattern_with_many_stars_is_matched_in_no_time() -> None:
    started = time.perf_counter()
    assert not read_settings({"shops": "*a" * 20 + "*b"}).serves("a" * 64)
    assert time.perf_counter() - started < 1


def test_a_pattern_of_shops_is_refused_with_partitions() -> None:
    with pytest.raises(InvalidSettings) as raised:
        read_settings({"partitions": "4", "shops": "berlin,fair-*"})
    assert raised.value.reasons == {"HOLDFAST_SHOPS": "must not have a * in it, because HOLDFAST_PARTITIONS is 4"}
