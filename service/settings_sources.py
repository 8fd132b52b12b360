"""Reads the settings: from the options of a command, `HOLDFAST_*` variables, and files with secrets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from service.environment import PREFIX, kubernetes_variables, read_environment, unknown_variables
from service.pipes import is_named_pipe
from service.settings import SETTINGS, InvalidSettings, Setting, Settings, parse_settings

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
