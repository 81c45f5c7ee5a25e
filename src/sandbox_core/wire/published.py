"""The providers that are published beside sandbox-core: made by ``python docs/generate.py``.

Only these are advised to be installed. A name that comes from a workflow may be anybody's.
"""

from __future__ import annotations

PUBLISHED = {
    "blaxel": "sandbox-blaxel",
    "bubblewrap": "sandbox-bubblewrap",
    "cloudflare": "sandbox-cloudflare",
    "daytona": "sandbox-daytona",
    "docker": "sandbox-docker",
    "e2b": "sandbox-e2b",
    "local": "sandbox-local",
    "runloop": "sandbox-runloop",
    "vercel": "sandbox-vercel",
}
"""Their distributions, by the name of the provider."""


def how_to_install(*names: str) -> str:
    """Return what installs the providers with these names: a command, where that is known."""
    known = [PUBLISHED[name] for name in names if name in PUBLISHED]
    if len(known) == len(names):
        return f"pip install {' '.join(known)}"
    return "with the distribution that its author names"
