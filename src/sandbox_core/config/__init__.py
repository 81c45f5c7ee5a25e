"""The settings of this process: from environment variables, over `sandbox.toml`, over defaults."""

from sandbox_core.config.reading import (
    Configuration,
    Problem,
    load_configuration,
    read_configuration,
)
from sandbox_core.config.settings import (
    CONFIG_VARIABLE,
    FILE_NAME,
    OTHER_VARIABLES,
    PREFIX,
    SETTINGS,
    Setting,
    Settings,
    WorkerSettings,
    variable_of,
    write_value,
)

__all__ = [
    "CONFIG_VARIABLE",
    "FILE_NAME",
    "OTHER_VARIABLES",
    "PREFIX",
    "SETTINGS",
    "Configuration",
    "Problem",
    "Setting",
    "Settings",
    "WorkerSettings",
    "load_configuration",
    "read_configuration",
    "variable_of",
    "write_value",
]
