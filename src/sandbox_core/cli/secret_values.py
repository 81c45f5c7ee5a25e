"""Removes credentials in URLs, and the values of secret variables, from what is shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from sandbox_core.storage.location import redact

_SECRET_NAME = re.compile(
    r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASS|CREDENTIALS?|AUTHORIZATION|AUTH)S?(_|$)", re.IGNORECASE
)
_SHORTEST_SECRET = 4  # What is shorter occurs in ordinary text.


def remove_secrets(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return a text without credentials in URLs, and without the values of secret variables."""
    values = {
        value
        for name, value in environ.items()
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET
    }
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "[redacted]")
    return redact(text)
