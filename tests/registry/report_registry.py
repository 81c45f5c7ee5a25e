"""Run in an environment's interpreter: prints what the registry finds, selects and loads there.

The argument is a JSON list of environments (in the sense of `os.environ`) to select by.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from sandbox_core.config import load_configuration
from sandbox_core.errors import SandboxCoreError
from sandbox_core.providers import Candidate, FailedProvider, LoadedProvider, discover, load
from sandbox_core.providers.discovery import misspelt_groups, select


def main() -> None:
    before = set(sys.modules)
    candidates = discover()
    imported = sorted(set(sys.modules) - before)
    report = {
        "imported_by_discover": imported,
        "candidates": [asdict(candidate) for candidate in candidates],
        "selections": [_select(candidates, environ) for environ in json.loads(sys.argv[1]) or ()],
        "misspelt_groups": misspelt_groups(),
        "providers": {_name(result): _result(result) for result in load(candidates)},
    }
    print(json.dumps(report, default=str))  # noqa: T201 - what the test reads


def _select(candidates: Sequence[Candidate], environ: Mapping[str, str]) -> dict[str, object]:
    try:
        selection = select(candidates, load_configuration(environ))
    except SandboxCoreError as error:
        return _error(error)
    return {
        "enabled": [candidate.name for candidate in selection.enabled],
        "disabled": [candidate.name for candidate in selection.disabled],
        "required": sorted(selection.required),
    }


def _result(result: LoadedProvider | FailedProvider) -> dict[str, object]:
    if isinstance(result, FailedProvider):
        return _error(result.error)
    module = sys.modules[type(result.provider).__module__]
    return {
        "file": module.__file__,
        "summary": result.provider.summary,
        "shortcomings": result.shortcomings,
    }


def _name(result: LoadedProvider | FailedProvider) -> str:
    return result.name if isinstance(result, FailedProvider) else result.provider.name


def _error(error: SandboxCoreError) -> dict[str, object]:
    return {"error": type(error).__name__, "message": error.message}


if __name__ == "__main__":
    main()
