"""Run in an environment's interpreter: imports each module that is named in the JSON argument.

Prints, for each, the top-level packages that are then imported.
"""

from __future__ import annotations

import importlib
import json
import sys


def main() -> None:
    report: dict[str, list[str]] = {}
    for module in json.loads(sys.argv[1]):
        importlib.import_module(module)
        report[module] = sorted({name.partition(".")[0] for name in sys.modules})
    print(json.dumps(report))  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main()
