"""The line that the Temporal UI shows for an activity, with likely secrets removed."""

from __future__ import annotations

import re

from sandbox_core.wire.secret_names import SENSITIVE_NAME, WELL_KNOWN_FORM

_SUMMARY_CHARS = 100
_NAMED = rf"(?<![\w.-])[\w.-]*(?:{SENSITIVE_NAME}|_pass|_pwd)[\w-]*"
_VALUE = r"(?:(?P<quote>\\?[\"'])(?:(?!(?P=quote)).)*(?:(?P=quote)|$)|[^\s\"'\\]+)"
_SECRETS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # A header, whatever its scheme; a cookie may have several words.
        r"(?P<kept>\bauthorization\\?[\"']?\s*[:=]\s*\\?[\"']?(?:[a-z]+\s+(?![\"'\\|;&]))?)[^\s\"'\\]+",
        r"(?P<kept>\bcookie:\s*)[^\"'\\]+",
        r"(?P<kept>\bbearer\s+)(?=[^\s\"']*\d)[^\s\"'\\]+",
        # name=value, name: value, "name": "value"; but not test_token.py::test_x or secrets:/run.
        rf"(?P<kept>{_NAMED}\\?[\"']?\s*(?:=+|:(?![:/]))\s*){_VALUE}",
        # --name value; but not --password-stdin and --token-file, whose value is none.
        rf"(?P<kept>(?:(?<![^\s\"'])(?=-)|\bset\s+)(?!\S*(?:stdin|file|path|dir|name)\b){_NAMED}\s+)"
        rf"(?![-<>|&;]){_VALUE}",
        # curl -u name:secret, and the user part of a URL.
        r"(?P<kept>\bcurl\b.*?\s(?:-u|--user)[ =]?[\"']?(?!\d+:\d)[^\s:\"']+:)[^\s\"']+",
        r"(?P<kept>://[^\s/:@\"']*:)[^\s/@\"']+(?=@)",
        # Tokens of a well-known form, and JSON Web Tokens.
        rf"(?P<kept>)\b(?:{WELL_KNOWN_FORM}|eyJ[\w-]{{8,}}\.[\w-]+(?:\.[\w-]*)?)",
    )
)
_QUOTE_IN_QUOTES = "'\"'\"'"  # How shlex.join writes one.
_SCANNED_CHARS = 1000


def summarize(text: str) -> str:
    """Return `text` as one line of at most 100 characters, with likely secrets removed.

    Lone surrogates are shown as escape sequences.
    """
    # The patterns are quadratic in the length of the text. Its last word may be cut in two.
    shown = text[:_SCANNED_CHARS].encode("utf-8", "backslashreplace").decode("utf-8")
    words = shown.replace(_QUOTE_IN_QUOTES, "'").split()
    line = " ".join(words[:-1] or words if len(text) > _SCANNED_CHARS else words)
    for pattern in _SECRETS:
        line = pattern.sub(r"\g<kept>***", line)
    return (
        line
        if len(line) <= _SUMMARY_CHARS
        else line[: _SUMMARY_CHARS - 1] + "\N{HORIZONTAL ELLIPSIS}"
    )
