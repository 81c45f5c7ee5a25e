"""Secrets in client options are found by the names and the forms that they have."""

from __future__ import annotations

import pytest
from agents.extensions.sandbox.cloudflare import CloudflareSandboxClientOptions
from agents.extensions.sandbox.daytona import DaytonaSandboxClientOptions
from agents.extensions.sandbox.e2b import E2BSandboxClientOptions
from agents.extensions.sandbox.runloop import (
    RunloopExistingSecret,
    RunloopGatewaySpec,
    RunloopSandboxClientOptions,
)
from agents.extensions.sandbox.vercel import VercelSandboxClientOptions
from agents.sandbox.sandboxes.docker import DockerSandboxClientOptions
from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from pydantic import TypeAdapter
from vercel.sandbox import NetworkPolicyCustom

from sandbox_core.wire.agents_models import dump_options
from sandbox_core.wire.option_secrets import find_secrets

_HEADER = TypeAdapter(NetworkPolicyCustom).validate_python(
    {"allow": {"api.example.com": [{"transform": [{"headers": {"Authorization": "Bearer abc"}}]}]}}
)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (CloudflareSandboxClientOptions(worker_url="https://b", api_key="k"), ["api_key"]),
        (
            DaytonaSandboxClientOptions(env_vars={"GITHUB_TOKEN": "x", "DB_PASSWORD": "y"}),
            ["env_vars.DB_PASSWORD", "env_vars.GITHUB_TOKEN"],
        ),
        (E2BSandboxClientOptions("e2b", mcp={"a": {"apiKey": "x"}}), ["mcp.a.apiKey"]),
        (E2BSandboxClientOptions("e2b", envs={"A": "ghp_" + "a" * 36}), ["envs.A"]),
        (
            RunloopSandboxClientOptions(
                managed_secrets={"A": "value", "STORED": RunloopExistingSecret()}
            ),
            ["managed_secrets.A"],
        ),
        (
            VercelSandboxClientOptions(network_policy=_HEADER),
            ["network_policy.allow.api.example.com.transform.headers.Authorization"],
        ),
    ],
)
def test_it_is_found(options: BaseSandboxClientOptions, found: list[str]) -> None:
    """In every place where the SDK's options can have one."""
    assert found == sorted({".".join(path) for path in find_secrets(dump_options(options))})


@pytest.mark.parametrize(
    "options",
    [
        DockerSandboxClientOptions("python:3.12", labels={"team": "a"}),
        DaytonaSandboxClientOptions(
            image="python:3.12",
            env_vars={
                "TOKEN_LIMIT": "100",
                "PASSWORD_FILE": "/run/secrets/x",
                "TOKENIZER": "bpe",
                "API_KEY": "",
                "PYTHONPATH": "src",
            },
        ),
        RunloopSandboxClientOptions(
            gateways={"A": RunloopGatewaySpec(gateway="g", secret="name")},
            metadata={"owner": "b"},
        ),
        E2BSandboxClientOptions("e2b", template="base", metadata={"secretary": "c"}),
    ],
)
def test_nothing_else_is(options: BaseSandboxClientOptions) -> None:
    """Names of secrets, settings with similar names, and what is empty."""
    assert [] == list(find_secrets(dump_options(options)))
