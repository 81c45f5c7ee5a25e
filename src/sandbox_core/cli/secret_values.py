"""Removes credentials in URLs, and the values of secret variables, from what is shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from sandbox_core.storage.location import redact
from sandbox_core.wire.secret_names import SENSITIVE_NAME

# More than the names of secrets: what is removed for nothing is missed by few.
_NAMED = re.compile(
    rf"({SENSITIVE_NAME}|tokens|key|pass|pwd|auth|authorization)s?(_|$)", re.IGNORECASE
)
_SHORTEST_SECRET = 4  # What is shorter occurs in ordinary text.


def remove_secrets(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return a text without credentials in URLs, and without the values of secret variables."""
    values = {
        value
        for name, value in environ.items()
        if _NAMED.search(name) and len(value) >= _SHORTEST_SECRET
    }
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "[redacted]")
    return redact(text)
