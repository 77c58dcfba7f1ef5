"""The environment of the process: read once into `service.settings.Settings`, passed on to children without the keys.

The only place in which the service looks at it.
"""

import itertools
import os
import re
from collections.abc import Mapping

from pydantic import ValidationError

from service.settings import PREFIX, Settings, SettingsError


def load() -> Settings:
    """The settings of this environment; `SettingsError` names every variable at fault on one line."""
    try:
        settings = Settings()
    except ValidationError as error:
        raise SettingsError("; ".join(_describe(fault["loc"], fault["msg"]) for fault in error.errors())) from None
    if not settings.api_keys and os.environ.get(f"{PREFIX}API_KEY"):  # whoever sets it does not want to be open to all
        raise SettingsError(f"{PREFIX}API_KEY: is no setting; {PREFIX}API_KEYS is")
    return settings


def _describe(location: tuple[int | str, ...], message: str) -> str:
    text = message.removeprefix("Value error, ")
    if not location:
        return re.sub(r"\b([A-Z]+(?:_[A-Z]+)+)\b", rf"{PREFIX}\1", text)
    return f"{PREFIX}{str(location[0]).upper()}: {text[:1].lower()}{text[1:]}"


def described() -> str:
    """Every variable with its default and what it is for."""
    lines = ["python -m service takes no arguments. It goes by these variables of the environment:", ""]
    for name, field in Settings.model_fields.items():
        value = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        lines += [f"{PREFIX}{name.upper()}={'' if value is None else value}", f"    {field.description}"]
    return "\n".join(lines)


def unknown_variables(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Variables that look like settings and are none, such as a misspelt name."""
    names = os.environ if environment is None else environment
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    return tuple(sorted(name for name in names if name.startswith(PREFIX) and name not in known))


def visible_gpus() -> int | None:
    """How many GPUs CUDA shows to this process and its children; None where nothing is said of it.

    CUDA_VISIBLE_DEVICES, of which nothing counts from an invalid index on, such as -1 (CUDA programming guide,
    environment variables).
    """
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return None
    names = (name.strip() for name in listed.split(","))
    return len(list(itertools.takewhile(lambda name: name and not name.startswith("-"), names)))


def environment_of_children() -> dict[str, str]:
    """Our environment (threads, caches, GPUs) without the API keys, which are nobody's business behind the door."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith(f"{PREFIX}API_KEY")}
