"""Arguments of `SandboxPlugin` of another type than they should have."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sandbox_core.worker import SandboxPlugin


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("local_sources", "/srv/skills", "pass local_sources=['/srv/skills']"),
        ("local_sources", Path("/srv/skills"), "pass local_sources=['/srv/skills']"),
        ("local_sources", [""], "local_sources has '', which is not the path of a directory"),
        ("local_sources", [None], "local_sources has None"),
        ("worker_env", "TOKEN", "pass worker_env=['TOKEN']"),
        ("providers", "docker", "providers takes a collection of providers, not 'docker'"),
        ("providers", ["docker"], "SANDBOX_CORE_PROVIDERS chooses among them"),
        ("register_activities", "no", "register_activities is 'no'; it must be True or False"),
        ("storage", 5, "storage is 5; it must be a str"),
        ("storage_patience", 5, "storage_patience is 5; it must be a timedelta"),
        ("storage_threshold", "1", "storage_threshold is '1'; it must be an int"),
        ("storage_threshold", True, "storage_threshold is True; it must be an int"),
        ("max_file_bytes", "1", "max_file_bytes is '1'; it must be a number of bytes"),
        ("max_output_bytes", 1.5, "max_output_bytes is 1.5; it must be a number of bytes"),
        ("max_sandboxes", 4, "max_sandboxes is 4; it must be a dict"),
        ("max_sandboxes", {"docker": "4"}, "max_sandboxes['docker'] is '4'; it must be of type"),
        ("peer_clients", ["local"], "peer_clients is ['local']; it must be a dict"),
    ],
)
def test_is_one_error_that_names_it(argument: str, value: Any, said: str) -> None:  # noqa: ANN401 - any
    with pytest.raises(TypeError) as failed:
        SandboxPlugin(**{argument: value})

    assert said in str(failed.value)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("max_file_bytes", 0),
        ("max_output_bytes", -1),
        ("max_sandboxes", {"docker": 0}),
        ("storage_patience", timedelta(seconds=-1)),
        ("storage_threshold", -1),
    ],
)
def test_out_of_range_is_one_error_that_names_it(argument: str, value: Any) -> None:  # noqa: ANN401 - any
    with pytest.raises(ValueError, match=f"{argument}.* must"):
        SandboxPlugin(**{argument: value})
