"""The options of a sandbox at Blaxel, in a form that can be sent to a worker."""

from __future__ import annotations

from typing import Literal

from agents.extensions.sandbox.blaxel import BlaxelSandboxClientOptions, BlaxelTimeouts
from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from pydantic import JsonValue

from sandbox_core.providers import StrictOptions


class BlaxelOptions(StrictOptions, BaseSandboxClientOptions):
    """The fields of the SDK's `BlaxelSandboxClientOptions`.

    The SDK's class is a dataclass: it has no `type`, by which a worker recognizes options, and
    cannot be an activity's argument.
    """

    type: Literal["blaxel"] = "blaxel"
    image: str | None = None
    memory: int | None = None
    region: str | None = None
    ports: tuple[dict[str, JsonValue], ...] | None = None
    env_vars: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    ttl: str | None = None
    name: str | None = None
    pause_on_exit: bool = False
    timeouts: BlaxelTimeouts | None = None
    exposed_port_public: bool = True
    exposed_port_url_ttl_s: int = 3600

    def for_sdk(self) -> BlaxelSandboxClientOptions:
        """Return the same options as the SDK's class."""
        fields = {name: getattr(self, name) for name in type(self).model_fields if name != "type"}
        return BlaxelSandboxClientOptions(**fields)
