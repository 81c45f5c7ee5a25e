"""What the names and the forms of secrets have in common, as parts of regular expressions.

Names are compared without regard to case. Which of them count as secrets differs by what follows
from it: the removal of a harmless text costs little, the refusal of harmless options much.
"""

from __future__ import annotations

import re

SENSITIVE_NAME = (
    r"(?:token(?![si])|secret|passw(?:or)?d|passphrase|credential"
    r"|(?:api|access|account|private|secret|signing|encryption|auth)[_-]?key)"
)
"""What the names of secrets contain; those of settings about secrets often do, too."""

WELL_KNOWN_FORM = (
    r"(?:gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|sk-[\w-]{16,}|xox[abprs]-[\w-]{10,}"
    r"|AKIA[A-Z0-9]{16})"
)
"""The forms of tokens of GitHub, GitLab, Slack, AWS and model providers."""

_ENDS_LIKE_ONE = re.compile(
    rf"(?:{SENSITIVE_NAME}|credentials|authorization|cookie)$", re.IGNORECASE
)


def names_secret(name: str) -> bool:
    """Return whether a name ends like that of a secret.

    ``GITHUB_TOKEN`` and ``apiKey`` do; ``TOKEN_LIMIT`` and ``PASSWORD_FILE`` do not.
    """
    return _ENDS_LIKE_ONE.search(name) is not None
