"""Run in an environment's interpreter: prints what is discovered, and once more for each line read.

At the end of the input it prints the names of what loads.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable

from sandbox_core.providers import LoadedProvider, discover, load


def main() -> None:
    _print(candidate.name for candidate in discover())
    for _ in sys.stdin:
        _print(candidate.name for candidate in discover())
    loaded = (result for result in load(discover()) if isinstance(result, LoadedProvider))
    _print(result.provider.name for result in loaded)


def _print(names: Iterable[str]) -> None:
    print(json.dumps(list(names)), flush=True)  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main()
