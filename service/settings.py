"""All settings. The only reader of the environment: each field is `HOLDFAST_<NAME>`."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

Durability = Literal["always", "everysec", "none"]


class Settings(BaseSettings):
    """Holdfast's settings, from the environment and the command line. An empty variable is an unset one."""

    model_config = SettingsConfigDict(env_prefix="HOLDFAST_", env_ignore_empty=True, frozen=True)

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65_535, description="port to listen on; 0 takes any free one")
    workers: int = Field(1, ge=1, le=256, description="processes that serve requests")
    redis_url: str | None = Field(
        None,
        pattern=r"^(redis|rediss|unix)://",
        description="redis://, rediss:// or unix:// URL of a Redis >= 7.0 or Valkey >= 8; unset: the embedded engine",
    )
    data_dir: Path = Field(Path("data"), description="where the embedded engine keeps its data")
    shop: str = Field("shop", pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="first part of every key in Redis")
    durability: Durability = Field(
        "always",
        description="what an acknowledged order must survive: always = a power cut, everysec = all but "
        "the last second of it, none = nothing; Redis must be set up for it",
    )
    redis_timeout: float = Field(2.0, gt=0, le=60, description="seconds until a call to Redis is given up")
    max_in_flight: int = Field(
        4096, ge=1, description="calls to Redis under way per worker; a request beyond that is refused (503)"
    )
    events_max: int = Field(1_000_000, ge=1, description="entries kept in the event stream, about")
    shutdown_timeout: int = Field(10, ge=1, description="seconds that requests under way get to finish on shutdown")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level to log")
    access_log: bool = Field(False, description="log every request")
