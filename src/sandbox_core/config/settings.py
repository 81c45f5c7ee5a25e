"""THE table of settings: each field is a key of `sandbox.toml` and an environment variable.

The key `max_file_bytes` is the variable ``SANDBOX_CORE_MAX_FILE_BYTES``, and `task_queue` in the
table ``[worker]`` is ``SANDBOX_CORE_WORKER_TASK_QUEUE``. A field's title is what its value has to
be. Documentation, ``sandbox-core config show`` and ``sandbox-core doctor`` are made from this.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from typing_extensions import Self

from sandbox_core.config.durations import parse_duration, write_duration
from sandbox_core.wire.limits import (
    DEFAULT_MAX_FILE_BYTES,
    DEFAULT_MAX_OUTPUT_BYTES,
    INLINE_BYTES,
    THRESHOLD_BYTES,
)

PREFIX = "SANDBOX_CORE_"
"""What the name of each variable begins with."""

CONFIG_VARIABLE = "SANDBOX_CORE_CONFIG"
"""The environment variable with the path of the file."""

FILE_NAME = "sandbox.toml"
"""The file in the working directory that is read if the variable is not set."""

OTHER_VARIABLES = {
    CONFIG_VARIABLE: f"The path of the file, instead of `{FILE_NAME}` in the working directory.",
    "SANDBOX_CORE_TEST_TEMPORAL_ADDRESS": "The Temporal server that the provider kit's tests use.",
}
"""The variables that are not settings, and what they are for."""


def _absolute(path: str) -> str:
    if not Path(path).is_absolute():  # Workers that were started elsewhere would use another one.
        raise ValueError("not an absolute path")
    return path


def _duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


Text = Annotated[str, Field(min_length=1)]
Texts = tuple[Text, ...]
Duration = Annotated[timedelta, BeforeValidator(_duration)]
Folders = tuple[Annotated[Text, AfterValidator(_absolute)], ...]
Limit = Annotated[int, Field(ge=1)]
Port = Annotated[int, Field(ge=1, le=65535)]

_SWITCH = "true or false"
_NAMES = "a list of names"
_BYTES = "a number of bytes, 1 or more"
_DURATION = "a duration such as 30s, 10m or 2h"
_PORT = "a port from 1 to 65535"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def overridden(self, **arguments: object) -> Self:
        """Return a copy with the arguments that are not None; the caller checks them."""
        passed = {name: value for name, value in arguments.items() if value is not None}
        return self.model_copy(update=passed)


class WorkerSettings(_Table):
    """The command ``sandbox-core worker``: its arguments and options."""

    targets: Texts = Field(
        default=(),
        title="a list of MODULE:ATTR",
        description="The workflows and activities; without any, the worker only runs sandboxes.",
    )
    task_queue: Text = Field(
        default="sandbox",
        title="a string",
        description="The task queue; also of `sandbox-core dev` and `sandbox-core reap --every`.",
    )
    openai: bool = Field(
        default=False,
        title=_SWITCH,
        description="Whether to add `OpenAIAgentsPlugin`, which calls the models.",
    )
    max_concurrent_activities: Limit = Field(
        default=100, title="a number, 1 or more", description="How many activities run at once."
    )
    health_port: Port | None = Field(
        default=None, title=_PORT, description="Where to serve `/livez` and `/readyz`."
    )
    metrics_port: Port | None = Field(
        default=None, title=_PORT, description="Where to serve Prometheus metrics."
    )
    otlp: bool = Field(
        default=False,
        title=_SWITCH,
        description="Whether to export spans and, without `metrics_port`, metrics by OTLP, as the "
        "variables `OTEL_EXPORTER_OTLP_...` say.",
    )
    log_format: Literal["text", "json"] = Field(
        default="text", title='"text" or "json"', description="The format of the log."
    )
    grace_period: Duration = Field(
        default=timedelta(seconds=25),
        title=_DURATION,
        description="How long running activities may take to end after SIGTERM.",
    )


class Settings(_Table):
    """All settings, with their defaults."""

    storage: Text | None = Field(
        default=None,
        title="a URL or an absolute path",
        description="Where to keep large payloads and snapshots, without credentials; by default a "
        "directory of this host.",
    )
    storage_patience: Duration = Field(
        default=timedelta(minutes=5),
        title=_DURATION,
        description="How long to wait for unreachable storage before what needs it fails.",
    )
    storage_threshold: int | None = Field(
        default=None,
        ge=0,
        le=INLINE_BYTES,
        title=f"a number of bytes from 0 to {INLINE_BYTES:,}",
        description="The size from which activity inputs and results go to the storage; by default "
        f"{THRESHOLD_BYTES:,}, or {INLINE_BYTES:,} if no storage is configured.",
    )
    max_file_bytes: Limit = Field(
        default=DEFAULT_MAX_FILE_BYTES,
        title=_BYTES,
        description="The maximum size of a file, archive, workspace, request or response.",
    )
    max_output_bytes: Limit = Field(
        default=DEFAULT_MAX_OUTPUT_BYTES,
        title=_BYTES,
        description="The maximum size of a command's stdout, and of its stderr.",
    )
    local_sources: Folders = Field(
        default=(),
        title="a list of absolute paths",
        description="The directories of this host from which manifests may copy files.",
    )
    worker_env: Texts = Field(
        default=(),
        title=_NAMES,
        description="The environment variables of the worker that `WorkerEnv` may read.",
    )
    providers: Texts = Field(
        default=(),
        min_length=1,
        title="a list of one or more names of providers",
        description="The exclusive list of required providers; by default, all installed ones are "
        "used, and none is required.",
    )
    disabled_providers: Texts = Field(
        default=(),
        title="a list of names of providers",
        description="The providers that are not used; takes precedence over `providers`.",
    )
    max_sandboxes: dict[Text, Limit] = Field(
        default={},
        title="a number, 1 or more, for each provider",
        description="The maximum number of sandboxes per worker, by provider.",
    )
    peer_clients: dict[Text, Text] = Field(
        default={},
        title="the name of a provider for each name of a client",
        description="Runs workflows that were started with the OpenAI plugin's own sandboxes.",
    )
    register_activities: bool = Field(
        default=True,
        title=_SWITCH,
        description="Whether workers run sandbox operations, or only workflows.",
    )
    helper: bool = Field(
        default=True,
        title=_SWITCH,
        description="Whether commands run under the helper; without it, a command whose worker "
        "dies has an unknown outcome.",
    )
    worker: WorkerSettings = Field(default=WorkerSettings(), description="See `WorkerSettings`.")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One row of the table."""

    name: str
    """Its key in the file, with the table's: ``worker.task_queue``."""
    kind: str
    """What its value has to be: the end of a sentence."""
    description: str
    table: type[BaseModel]
    key: str

    @property
    def default(self) -> object:
        """Its default; None and empty collections have a meaning that the description states."""
        return cast("object", self.table.model_fields[self.key].default)

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return variable_of(self.name)

    @property
    def argument(self) -> str:
        """The argument or option that takes precedence; empty if there is none."""
        if self.table is WorkerSettings:
            is_option = self.key != "targets"
            option = f"--{self.key.replace('_', '-')}" if is_option else "[MODULE:ATTR]..."
            return f"sandbox-core worker {option}"
        return "" if self.key in _WITHOUT_ARGUMENT else f"SandboxPlugin({self.key}=...)"

    def is_blank(self, text: str) -> bool:
        """Return whether a variable counts as not set: it is empty or, for a list, only spaces."""
        is_list = isinstance(self.default, tuple | dict)
        return not (text.strip() if is_list else text)

    def parse(self, value: object) -> object:
        """Return the value of a file's key.

        Raises:
            ValidationError: It is not of the setting's kind.
        """
        if isinstance(self.default, tuple) and isinstance(value, list):
            value = tuple(value)
        return self._validated(value, strict=True)

    def parse_text(self, text: str) -> object:
        """Return the value of a variable: lists have commas, and mappings ``key=value``.

        Raises:
            ValidationError: It is not of the setting's kind.
        """
        value: object = text
        if isinstance(self.default, tuple):
            value = tuple(_split(text))
        elif isinstance(self.default, dict):
            pairs = [word.partition("=") for word in _split(text)]
            value = {key.strip(): after.strip() for key, _, after in pairs}
        return self._validated(value, strict=False)

    def _validated(self, value: object, *, strict: bool) -> object:
        parsed = self.table.model_validate({self.key: value}, strict=strict)
        return cast("object", getattr(parsed, self.key))

    def of(self, settings: Settings) -> object:
        """Return its value."""
        value: object = settings
        for key in self.name.split("."):
            value = getattr(value, key)
        return value


# SandboxPlugin's `providers` are the application's own objects, which no text can name.
_WITHOUT_ARGUMENT = ("providers", "disabled_providers", "helper")


def _split(text: str) -> list[str]:
    return [word for word in map(str.strip, text.split(",")) if word]


def variable_of(name: str) -> str:
    """Return the environment variable of a setting."""
    return f"{PREFIX}{name.replace('.', '_').upper()}"


def write_value(value: object) -> str:
    """Return a value as it is written in a variable; empty for none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, timedelta):
        return write_duration(value)
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, dict):
        return ",".join(f"{key}={each}" for key, each in value.items())
    return str(value)


def _rows(table: type[BaseModel], prefix: str = "") -> Iterator[Setting]:
    for key, field in table.model_fields.items():
        if isinstance(field.default, _Table):
            yield from _rows(type(field.default), f"{prefix}{key}.")
            continue
        yield Setting(
            name=f"{prefix}{key}",
            kind=cast("str", field.title),
            description=cast("str", field.description),
            table=table,
            key=key,
        )


SETTINGS = tuple(_rows(Settings))
"""All settings, in the order of the documentation."""
