"""What the scripts of this folder print."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict
from registry.distributions import Environment, Json


class _Report(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CandidateReport(_Report):
    name: str
    module: str
    distribution: str
    version: str
    editable_path: Path | None = None


class ProviderReport(_Report):
    """A provider that was loaded, or its error."""

    file: Path | None = None
    summary: str | None = None
    shortcomings: list[str] = []
    error: str | None = None
    message: str | None = None


class SelectionReport(_Report):
    """What was selected, or the error."""

    enabled: list[str] = []
    disabled: list[str] = []
    required: list[str] = []
    error: str | None = None
    message: str | None = None


class RegistryReport(_Report):
    imported_by_discover: list[str]
    candidates: list[CandidateReport]
    selections: list[SelectionReport]
    providers: dict[str, ProviderReport]
    misspelt_groups: list[str]

    def candidate(self, name: str) -> CandidateReport:
        (found,) = [candidate for candidate in self.candidates if candidate.name == name]
        return found


class ConfigurationReport(_Report):
    """A worker that was made: what it offers, or the error."""

    offered: list[str] = []
    warnings: list[str]
    error: str | None = None
    message: str | None = None


class RunReport(_Report):
    """How a workflow ended, and the attempt number of each of its activity tasks."""

    result: str | None = None
    error: str | None = None
    message: str | None = None
    attempts: list[int]
    stack_trace: str | None = None


class Warnings(_Report):
    configured: list[str]
    started: list[str]
    used: list[str]


class WorkerReport(_Report):
    configurations: list[ConfigurationReport]
    warnings: Warnings
    discovered_in_workflow: RunReport
    uses: list[RunReport]


def registry_report(environment: Environment, environs: Json = None) -> RegistryReport:
    """Look at an environment with the registry, also through each of the environs."""
    return RegistryReport.model_validate_json(environment.run("report_registry.py", environs))


def worker_report(environment: Environment, arguments: Json) -> WorkerReport:
    """Make and run workers in an environment."""
    return WorkerReport.model_validate_json(environment.run("report_worker.py", arguments))
