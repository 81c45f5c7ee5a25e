"""Finds secrets in client options, which must not enter a workflow's history."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import JsonValue

from sandbox_core.wire.secret_names import WELL_KNOWN_FORM, names_secret

_ALL_OF = re.compile(r"(secrets|credentials)$", re.IGNORECASE)

# In the options of a gateway, `secret` is the name of one that the backend stores. A variable of
# that name is in capitals.
_REFERENCE = "secret"

# Recognizable without a name.
_EVIDENT = re.compile(
    rf"{WELL_KNOWN_FORM}|(Bearer|Basic) \S{{8,}}|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*"
)


def find_secrets(options: JsonValue, *, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of each text in options, as JSON, that looks like a secret.

    It does if its name ends like that of one, as in ``GITHUB_TOKEN`` and ``apiKey``, if it is in a
    table of secrets, or if it has the form of a well-known kind of token.
    """
    if isinstance(options, dict):
        for name, value in options.items():
            yield from find_secrets(value, path=(*path, name))
    elif isinstance(options, list):
        for value in options:
            yield from find_secrets(value, path=path)
    elif isinstance(options, str) and options and path:
        *tables, name = path
        named = names_secret(name) and name != _REFERENCE
        if named or any(map(_ALL_OF.search, tables)) or _EVIDENT.fullmatch(options):
            yield path
