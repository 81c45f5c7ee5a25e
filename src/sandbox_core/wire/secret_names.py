"""Recognizes secrets by their names and forms, with parts of regular expressions for other modules.

Names are compared without regard to case. Each user decides how strict to be: redacting harmless
text costs little, refusing harmless options costs much.
"""

from __future__ import annotations

import re

SENSITIVE_NAME = (
    r"(?:token(?![si])|secret|passw(?:or)?d|passphrase|credential"
    r"|(?:api|access|account|private|secret|signing|encryption|auth)[_-]?key)"
)
"""Occurs in the names of secrets, and often in those of settings about secrets."""

WELL_KNOWN_FORM = (
    r"(?:gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|sk-[\w-]{16,}|xox[abprs]-[\w-]{10,}"
    r"|AKIA[A-Z0-9]{16})"
)
"""The forms of tokens of GitHub, GitLab, Slack, AWS and model providers."""

_SECRET_NAME = re.compile(rf"(?:{SENSITIVE_NAME}|credentials|authorization|cookie)$", re.IGNORECASE)


def names_secret(name: str) -> bool:
    """Return whether a name ends like that of a secret.

    ``GITHUB_TOKEN`` and ``apiKey`` do; ``TOKEN_LIMIT`` and ``PASSWORD_FILE`` do not.
    """
    return _SECRET_NAME.search(name) is not None
