"""All settings: name, default, allowed values and help text of each.

The options of the command line and the `HOLDFAST_*` variables are made from these definitions. A test compares the
table in docs/operations.md with them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args

from service.environment import PREFIX, kubernetes_variables, read_environment, unknown_variables
from service.partition_url import partition_url_problem
from service.pipes import is_named_pipe
from service.setting_types import (
    SettingType,
    boolean,
    choice,
    directory,
    file_path,
    names,
    seconds,
    text_matching,
    whole_number,
)

Durability = Literal["always", "everysec", "none"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "json", "console"]


API_PATHS: Final = (
    "products",
    "orders",
    "livez",
    "readyz",
    "events",
    "board",
    "metrics",
    "docs",
    "openapi.json",
    "problems",
    "shops",
)
"""The first parts of all paths of the API."""


_SHOP_NAME: Final = r"(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}"
"""A name that can be a part of a path. A browser would remove `.` and `..` from it."""


class Setting(NamedTuple):
    """The definition of one setting."""

    name: str
    default: Any
    value_type: SettingType
    help_text: str

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()

    @property
    def option(self) -> str:
        return "--" + self.name.replace("_", "-")


class InvalidSettings(Exception):
    """Some settings have values that are not allowed. `reasons` says why, by the name of the variable."""

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__("\n".join(f"{variable}: {reason}" for variable, reason in reasons.items()))
        self.reasons = reasons


def setting(default: Any, value_type: SettingType, help_text: str) -> Any:
    """Return a dataclass field that carries the whole definition of a setting."""
    return field(
        default=default, repr=not value_type.secret, metadata={"value_type": value_type, "help_text": help_text}
    )


# Only Settings itself needs the methods of a dataclass: to make those of all its parts takes 5 ms at each start.
@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class ListenSettings:
    """The address of the service, and its number of processes."""

    host: str = setting(
        "127.0.0.1",
        text_matching(r"\S+", "an IP address or a host name", "TEXT"),  # an empty text would be all addresses
        "address to listen on",
    )
    port: int = setting(8000, whole_number(0, 65_535), "port to listen on; 0 takes any free port")
    workers: int = setting(1, whole_number(1, 256), "number of processes that serve requests")
    root_path: str = setting(
        "",
        text_matching(
            rf"(?!/({'|'.join(API_PATHS)})(/|$))(/(?!\.{{1,2}}(/|$))[A-Za-z0-9._~-]+)*",
            "a path such as /shop, of ASCII letters, digits and ._~-, without / at its end, and not one of the API",
            "PATH",
        ),
        "prefix of a proxy in front of the service, such as /shop: it is put before the paths in Link, Location and "
        "problem types",
    )


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class EngineSettings:
    """The Redis that stores the data, and how safely it must store them."""

    redis_url: str | None = setting(
        None,
        text_matching(
            r"(rediss?(\+sentinel|\+cluster)?|unix)://(?s:.*)",
            "a URL that begins with redis:// or rediss://, redis+sentinel:// or rediss+sentinel://, "
            "redis+cluster:// or rediss+cluster://, or unix://",
            "URL",
            True,
        ),
        "URL of a Redis >= 7.0 or Valkey >= 8, as redis://, rediss:// or unix://, or of the sentinels that know it, as "
        "redis+sentinel://host1,host2/name, or of nodes of a cluster, as redis+cluster://host1,host2; {partition} in "
        "it is the number of a partition; without a URL, Holdfast starts an embedded engine for each partition",
    )
    wait_replicas: int = setting(
        0,
        whole_number(0, 100),
        "number of replicas that must have a change before it is answered; 0: no replica is waited for",
    )
    data_dir: Path = setting(Path("data"), directory(), "directory where the embedded engine keeps its data")
    durability: Durability = setting(
        "always",
        choice(get_args(Durability)),
        "what an answered order survives. always: a power cut; everysec: a power cut may lose the last second; "
        "none: what your own Redis is configured to keep; with the embedded engine, a power cut may lose more than "
        "a second. Your own Redis must be configured for the value",
    )
    engine_allocator: Path | None = setting(
        None,
        file_path(),
        "library with a faster malloc for the embedded engine, such as libjemalloc.so.2; only on Linux",
    )


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class ShopSettings:
    """The shop that this service works for, its partitions, and how many of its events and refusals are kept."""

    shop: str = setting(
        "shop",
        text_matching(r"[A-Za-z0-9_.-]{1,64}", "1 to 64 ASCII letters, digits, dots, hyphens or underscores", "NAME"),
        "first part of every key in Redis",
    )
    shops: tuple[str, ...] | None = setting(
        None,
        names(
            rf"{_SHOP_NAME}|[A-Za-z0-9_.*-]*\*[A-Za-z0-9_.*-]*",
            "different names of shops, with commas between them; * in a name stands for any characters",
            "NAMES",
        ),
        "several shops that this service works for, below /shops/NAME; the paths without a shop stay if HOLDFAST_SHOP "
        "is one of them. * in a name stands for any characters: all shops that exist and fit",
    )
    partitions: int = setting(
        1,
        whole_number(1, 64),
        "number of partitions that a shop is divided into, so that several engines serve it; it cannot be changed once "
        "the shop exists",
    )
    events_max: int = setting(
        1_000_000,
        whole_number(1, 1_000_000_000),  # about 200 GB of events
        "approximate number of events that the stream keeps",
    )
    refusals_max: int = setting(
        1_000_000,
        whole_number(0, 1_000_000_000),
        "number of refusals a day that an Idempotency-Key remembers for 24 hours; further ones for a minute",
    )


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class LimitSettings:
    """The time that an action may take, and the number of commands at the same time."""

    redis_timeout: float = setting(2.0, seconds(0.01, 60), "seconds to wait for the reply to a Redis command")
    max_in_flight: int = setting(
        4096,
        whole_number(1, 1_000_000),  # each needs a few KB of memory
        "number of Redis commands that may wait for a reply at the same time, per worker; further requests get 503",
    )
    max_connections: int = setting(
        10_000,
        whole_number(1, 1_000_000),
        "number of connections that clients may have open, per worker; at the limit, the connection that is idle "
        "longest is closed",
    )
    head_timeout: int = setting(
        10, whole_number(1, 3600), "seconds that a client may take for the request line and header fields"
    )
    body_timeout: int = setting(30, whole_number(1, 3600), "seconds that a client may take for the body of a request")
    keep_alive_timeout: int = setting(
        75,
        whole_number(1, 86_400),
        "seconds that a connection may be idle; more than a proxy in front of Holdfast keeps its connections",
    )
    write_timeout: int = setting(30, whole_number(1, 3600), "seconds that a client may take to read a response")
    shutdown_timeout: int = setting(
        10, whole_number(1, 3600), "seconds that running requests get to finish on shutdown"
    )


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class AccessSettings:
    """Who may call the service."""

    api_keys_file: Path | None = setting(
        None,
        file_path(),
        "file of the API keys that may call the service, one per line, as `holdfast key new` writes it; read again "
        "every second",
    )
    api_keys: str | None = setting(
        None,
        text_matching(r"(?s:.+)", "lines as `holdfast key new` prints them", "KEYS", True),
        "API keys that may call the service, in the form of the file, with line feeds or semicolons between them",
    )
    open: bool = setting(
        False,
        boolean(),
        "start without API keys also on an address that other machines reach: then every program that can connect may "
        "call the service. Without effect if there are API keys",
    )


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class LogSettings:
    """What is logged and how, and where traces are sent."""

    log_level: LogLevel = setting("info", choice(get_args(LogLevel)), "lowest level to log")
    log_format: LogFormat = setting(
        "auto",
        choice(get_args(LogFormat)),
        "json: a JSON object per line; console: readable lines; auto: console on a terminal, otherwise json",
    )
    access_log: bool = setting(False, boolean(), "log every request")
    otlp_endpoint: str | None = setting(
        None,
        text_matching(r"https?://\S+", "a URL that begins with http:// or https://", "URL", True),
        "URL of a collector of traces, such as http://localhost:4318; without it, there are no traces. Needs "
        "holdfast[otel]",
    )


@dataclass(frozen=True, kw_only=True)
class Settings(ListenSettings, AccessSettings, EngineSettings, ShopSettings, LimitSettings, LogSettings):
    """All settings, with flat names. `Settings()` has the defaults; `read_settings()` knows the environment."""

    @property
    def all_shops(self) -> tuple[str, ...]:
        """The shops that the service works for from its start: the names without a `*`."""
        return (self.shop,) if self.shops is None else tuple(name for name in self.shops if "*" not in name)

    @property
    def shop_patterns(self) -> tuple[str, ...]:
        """The names with a `*`. The service also works for each shop that exists and fits one of them."""
        return tuple(name for name in self.shops or () if "*" in name)

    def serves(self, shop: str) -> bool:
        """Return whether the service works for a shop, if it exists."""
        return shop in self.all_shops or (
            re.fullmatch(_SHOP_NAME, shop) is not None
            and any(fnmatchcase(shop, pattern) for pattern in self.shop_patterns)
        )

    @property
    def root_shop(self) -> str:
        """The shop of the paths that name none; an empty text: there is no such shop."""
        return self.shop if self.shop in self.all_shops else ""


SETTINGS: Final = tuple(
    Setting(item.name, item.default, item.metadata["value_type"], item.metadata["help_text"])
    for group in Settings.__bases__
    for item in fields(group)
)

_MAX_SECRET_LENGTH: Final = 65_536
"""A longer file is no secret. A link to /dev/zero would fill the memory."""


def read_settings(options: Mapping[str, str] | None = None) -> Settings:
    """Return the settings. An option wins over its variable, and a variable over the default. Raise InvalidSettings."""
    texts = {**read_environment(), **(options or {})}
    return parse_settings({**_read_secret_files(texts), **texts})


def _read_secret_files(texts: Mapping[str, str]) -> dict[str, str]:
    """Return the secrets that files contain: `redis_url_file` names the file of `redis_url`. Raise InvalidSettings."""
    secrets = {}
    for setting in SETTINGS:
        path = texts.get(f"{setting.name}_file")
        if path and _has_file_variable(setting) and setting.name not in texts:
            try:
                if is_named_pipe(Path(path)):
                    raise InvalidSettings(
                        {f"{setting.variable}_FILE": f"{path!r} is a named pipe, and perhaps nobody writes into it"}
                    )
                with Path(path).open() as file:
                    text = file.read(_MAX_SECRET_LENGTH + 1)
                if len(text) > _MAX_SECRET_LENGTH:
                    raise ValueError
                secrets[setting.name] = text.strip()
            except (OSError, UnicodeError, ValueError) as error:
                reason = getattr(error, "strerror", None) or "not a text file"
                raise InvalidSettings({f"{setting.variable}_FILE": f"cannot read {path!r}: {reason}"}) from None
    return secrets


def _has_file_variable(setting: Setting) -> bool:
    """Return whether a variable may name a file with the value. HOLDFAST_API_KEYS_FILE is a setting of its own."""
    return setting.value_type.secret and all(each.name != f"{setting.name}_file" for each in SETTINGS)


def ignored_variables() -> list[str]:
    """Return a sentence for the operator about each `HOLDFAST_*` variable without effect. It never shows a value."""
    sentences = []
    if names := kubernetes_variables():
        sentences.append(f"Kubernetes sets {', '.join(names)} for a Service: ignored")
    names_of_settings = [setting.name for setting in SETTINGS]
    files_of_secrets = {f"{setting.name}_file" for setting in SETTINGS if _has_file_variable(setting)}
    for variable in unknown_variables({*names_of_settings, *files_of_secrets}):
        from difflib import get_close_matches  # imported late: rarely needed

        matches = get_close_matches(variable[len(PREFIX) :].lower(), names_of_settings, 1)
        guess = "".join(f". Did you mean {PREFIX}{name.upper()}?" for name in matches)
        sentences.append(f"{variable} is not a setting: ignored{guess}")
    return sentences


def client_key() -> str | None:
    """Return the API key with which the commands call a service (HOLDFAST_API_KEY), or None.

    It is no setting: an option of the command line would show it in the list of processes.
    """
    return read_environment().get("api_key")


def parse_settings(texts: Mapping[str, str]) -> Settings:
    """Return the settings with these values, given as texts by setting name. Raise InvalidSettings for bad values."""
    values, reasons = {}, {}
    for name, _, value_type, _ in SETTINGS:
        if name in texts:
            try:
                values[name] = value_type.parse(texts[name])
            except ValueError:
                shown = "" if value_type.secret else f", not {texts[name]!r}"
                reasons[PREFIX + name.upper()] = f"must be {value_type.values}{shown}"
    if reasons:
        raise InvalidSettings(reasons)
    settings = Settings(**values)
    if settings.partitions > 1 and settings.shop_patterns:
        raise InvalidSettings(
            {f"{PREFIX}SHOPS": f"must not have a * in it, because HOLDFAST_PARTITIONS is {settings.partitions}"}
        )
    if settings.redis_url and (problem := partition_url_problem(settings.redis_url, settings.partitions)):
        raise InvalidSettings({f"{PREFIX}REDIS_URL": problem})
    return settings
