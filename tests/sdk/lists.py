"""The SDK's tests that are run in workflows, and the reasons why the others are not.

The lists are checked: a file of the SDK's that is in neither fails the tests, and so does an
outdated item.
"""

from __future__ import annotations

from typing import Final

from agents.sandbox.session.base_sandbox_session import BaseSandboxSession

_SINCE_0_24: Final = hasattr(BaseSandboxSession, "mv")

IN_WORKFLOWS: Final = (
    "capabilities/test_apply_patch_preflight.py",
    "capabilities/test_apply_patch_tool.py",
    "capabilities/test_skills_capability.py",
    "integration_tests/test_runner_pause_resume.py",
    "test_apply_patch.py",
    "test_exposed_ports.py",
    "test_extract.py",
    "test_memory.py",
    "test_run_cwd.py",
    "test_runtime.py",
    *(() if _SINCE_0_24 else ("test_session_sinks.py",)),
    "test_unix_local.py",
    "test_unix_local_file_io.py",
)
"""The files of tests that make a client or a session which a workflow's can stand in for."""

_PURE = "computes something, without any session"
_WORKER = "is about the inside of a session that a backend implements, which is the worker's"
_DOCKER = "is about the Docker client, against a fake of its API"
_CANNED = "is about a tool, with a session that gives canned answers and records its calls"
_RECORDING = "asserts the calls that a session of its own has recorded"
_LATE_IMPORT = "imports what it makes sessions of in a function, where nothing can stand in for it"
_REMOVAL = "is about a service that removes folders from the host's side, which no worker uses"

_ELSEWHERE_SINCE_0_24: Final = {
    "capabilities/test_tool_input_errors.py": _CANNED,
    "test_bounded_read.py": _WORKER,
    "test_docker_removal.py": _REMOVAL,
    "test_docker_removal_client.py": _REMOVAL,
    "test_docker_removal_worker.py": _REMOVAL,
    "test_manifest_config.py": _PURE,
    "test_recursive_removal_compatibility.py": _LATE_IMPORT,
    "test_session_sinks.py": _LATE_IMPORT,
    "test_unix_local_create.py": _LATE_IMPORT,
    "test_unix_local_special_files.py": _LATE_IMPORT,
    "test_workspace_jsonl_sink.py": _RECORDING,
}

ELSEWHERE: Final = {
    "capabilities/test_compaction_capability.py": _PURE,
    "capabilities/test_filesystem_capability.py": "binds tools to a session and asks it nothing",
    "capabilities/test_shell_capability.py": _CANNED,
    "capabilities/test_view_image_tool.py": _CANNED,
    "integration_tests/test_model.py": "is no test, but a model that others use",
    "test_client_options.py": _PURE,
    "test_compaction.py": _PURE,
    "test_compatibility_guards.py": "is about names and signatures that the SDK exports",
    "test_dependencies.py": _PURE,
    "test_docker.py": _DOCKER,
    "test_docker_network_mode.py": _DOCKER,
    "test_entries.py": _RECORDING,
    "test_errors.py": _PURE,
    "test_manifest.py": _PURE,
    "test_manifest_application.py": _WORKER,
    "test_materialization.py": _PURE,
    "test_mount_lifecycle.py": _WORKER,
    "test_mount_security.py": "is about what a manifest may hold, with clients of its own",
    "test_mounts.py": _RECORDING,
    "test_parse_utils.py": _PURE,
    "test_posix_tool_paths.py": _CANNED,
    "test_pty_output.py": _WORKER,
    "test_pty_types.py": _PURE,
    "test_remote_mount_policy.py": _PURE,
    "test_retry.py": _PURE,
    "test_runtime_agent_preparation.py": _PURE,
    "test_runtime_helpers.py": "is about scripts that backends install in a sandbox",
    "test_sandboxes_import.py": "is about imports on Windows",
    "test_session_manager.py": "is about events, and asks its session nothing",
    "test_session_state_roundtrip.py": "is about states of its own, as JSON",
    "test_session_utils.py": _RECORDING,
    "test_snapshot.py": _RECORDING,
    "test_snapshot_defaults.py": _PURE,
    "test_tar_utils.py": _PURE,
    "test_tar_workspace.py": _PURE,
    "test_token_truncation.py": _PURE,
    "test_types.py": _PURE,
    "test_unix_local_user_file_io.py": "replaces what the local session calls of the system",
    "test_view_image_content_validation.py": _CANNED,
    "test_workspace_paths.py": _PURE,
    "test_workspace_payloads.py": _PURE,
    **(_ELSEWHERE_SINCE_0_24 if _SINCE_0_24 else {}),
}
"""Every other file, and what keeps its tests from saying anything of a workflow's session."""

_RECORDED = "asserts the calls that the session which was replaced has recorded"
_ROOT = "names files below /workspace, where the real workspace is not"
_ENVIRONMENT = "the provider on the worker, not the client, says what commands inherit"
_SIGNALS = "sets a signal handler, which only the main thread may; a workflow has another"
_THREADS = "awaits a thread, and the event loop of a workflow has none"
_DEFAULT = "a workflow's default snapshot is a remote one, in the store, and not a local one"
_SWAPS = "swaps files in the session's normalize_path, which only the worker's session asks"
_LATE = "swaps a folder before the first operation, and only that opens the worker's session here"

_KEPT = "expects a workspace to be set back to its snapshot, which is kept as it was left"
_OWN_MV = "puts a method of its own into the session, which only the worker's session is asked"
_INNER = "asks the session in the wrapper whether it is the local one"

_PATCH_TOOL = "capabilities/test_apply_patch_tool.py::TestSandboxApplyPatchTool::"
_SKILLS = "capabilities/test_skills_capability.py::"
_FILE_IO = "test_unix_local_file_io.py::"
_PARENT = f"{_FILE_IO}test_parent_swap_after_validation_cannot_access_outside"
_LEAF = f"{_FILE_IO}test_leaf_swap_does_not_follow_new_symlink"
_SIGNAL = (
    "test_unix_local.py::TestUnixLocalPty::"
    "test_pty_terminal_signals_interrupt_even_if_parent_ignores_signal"
)

_KNOWN_BEFORE_0_24: Final = {
    "test_session_sinks.py::test_chained_sink_runs_in_order": _THREADS,
    "test_session_sinks.py::test_filesystem_test_session_rejects_process_backed_operations": (
        "is about the session which was replaced"
    ),
    "test_session_sinks.py::test_sandbox_session_apply_manifest_preserves_write_instrumentation": (
        "a manifest is applied in one activity, so there is no event of each file that it writes"
    ),
    "test_session_sinks.py::"
    "test_sandbox_session_ops_nest_under_sdk_trace_and_events_carry_trace_ids": (
        "expects unix_local as the backend of a span, which is local, the name of the provider"
    ),
}

_GRANTS = (
    "test_runtime.py::test_unix_local_virtual_environment_grants_follow_client_path_inheritance"
)
_INVALID = (
    "test_unix_local.py::test_unix_local_resume_rejects_invalid_snapshot_before_clearing_workspace"
)
_STALE = (
    "test_unix_local.py::"
    "test_unix_local_snapshot_resume_removes_stale_link_without_following_target"
)
_HARDLINKS = "test_unix_local.py::test_unix_local_snapshot_round_trips_hardlinks"
_MOVE = "test_apply_patch.py::test_fallback_move"
_DIVERGED = f"{_FILE_IO}test_apply_patch_preserves_diverged_alias_source"

_KNOWN_SINCE_0_24: Final = {
    f"{_MOVE}_cannot_put_source_inside_a_new_directory": _OWN_MV,
    f"{_MOVE}_rejects_directory_source_through_parent_alias": _OWN_MV,
    f"{_MOVE}_replaces_a_directory_symlink": _OWN_MV,
    **{f"{_GRANTS}[{a}-{b}]": _INNER for a in (False, True) for b in (False, True)},
    "test_unix_local.py::test_base_default_create_preserves_provider_write_semantics": _OWN_MV,
    "test_unix_local.py::test_client_delete_keeps_workspace_removal_off_the_event_loop": (
        "awaits a thread, and a workflow has none: it hangs until the workflow times out"
    ),
    "test_unix_local.py::test_unix_local_resume_cancellation_waits_for_archive_validation": _KEPT,
    **{f"{_INVALID}[{case}]": _KEPT for case in ("external_symlink", "hardlink", "invalid_tar")},
    **{f"{_STALE}[{case}]": _KEPT for case in ("directory", "file", "missing")},
    **{f"{_HARDLINKS}[{case}]": _KEPT for case in (False, True)},
    "test_unix_local.py::test_unix_local_start_cancellation_waits_for_workspace_creation": _THREADS,
    **{f"{_DIVERGED}[{case}]": _OWN_MV for case in (False, True)},
    **{f"{_LEAF}[{case}]": _SWAPS for case in ("mv", "same_file")},
    **{f"{_PARENT}[{case}]": _SWAPS for case in ("mv", "same_file")},
}

KNOWN: Final = {
    f"{_PATCH_TOOL}test_editor_keeps_absolute_path_behavior_with_workspace_scope": _ROOT,
    f"{_PATCH_TOOL}test_editor_move_to_same_path_does_not_remove_the_file": _RECORDED,
    f"{_PATCH_TOOL}test_editor_removes_moved_source_as_bound_user": _RECORDED,
    f"{_PATCH_TOOL}test_editor_runs_file_operations_as_bound_user": _RECORDED,
    f"{_PATCH_TOOL}test_editor_scoped_decode_error_keeps_posix_absolute_path_on_windows": _ROOT,
    f"{_PATCH_TOOL}test_scoped_custom_tool_keeps_absolute_path_at_workspace_root": _ROOT,
    f"{_SKILLS}TestSkillsInstructions::"
    "test_lazy_local_dir_load_skill_tool_materializes_single_skill": (
        "expects FileNotFoundError, which no session of the SDK itself raises"
    ),
    f"{_SKILLS}TestSkillsLazyLoading::test_load_skill_materializes_with_bound_run_as_user": (
        _RECORDED
    ),
    "integration_tests/test_runner_pause_resume.py::"
    "test_runner_preserves_unix_local_lifecycle_state_across_pause_and_resume": _DEFAULT,
    "test_apply_patch.py::test_apply_patch_allows_absolute_path_within_root": _ROOT,
    "test_apply_patch.py::"
    "test_apply_patch_mapping_operation_without_move_to_updates_in_place": _RECORDED,
    "test_apply_patch.py::test_apply_patch_uses_custom_patch_format": (
        "passes an object, which cannot travel to the worker; it is refused"
    ),
    "test_memory.py::test_sandbox_memory_fallback_does_not_mutate_run_config": _THREADS,
    "test_memory.py::test_sandbox_memory_groups_segments_by_sdk_session_until_close": _THREADS,
    "test_runtime.py::"
    "test_runner_persists_workspace_and_tool_choice_state_across_sandbox_resume": _DEFAULT,
    "test_unix_local.py::test_unix_local_inherits_host_environment_by_default": _ENVIRONMENT,
    "test_unix_local.py::test_unix_local_rejects_host_path_before_creating_workspace": (
        "a path of the host is refused in the workflow, as an InvalidRequest"
    ),
    "test_unix_local.py::test_unix_local_uses_custom_host_environment_allowlist": _ENVIRONMENT,
    "test_unix_local.py::"
    "test_unix_local_uses_default_allowlist_when_inheritance_is_disabled": _ENVIRONMENT,
    f"{_SIGNAL}[sigint]": _SIGNALS,
    f"{_SIGNAL}[sigquit]": _SIGNALS,
    f"{_PARENT}[read]": _SWAPS,
    f"{_PARENT}[write]": _SWAPS,
    f"{_PARENT}[mkdir]": _SWAPS,
    f"{_PARENT}[ls]": _SWAPS,
    f"{_PARENT}[rm]": _SWAPS,
    f"{_PARENT}[rmtree]": _SWAPS,
    f"{_PARENT}[patch]": _SWAPS,
    f"{_LEAF}[read]": _SWAPS,
    f"{_LEAF}[write]": _SWAPS,
    f"{_LEAF}[mkdir]": _SWAPS,
    f"{_LEAF}[ls]": _SWAPS,
    f"{_FILE_IO}test_recursive_removal_keeps_worker_owned_until_cancelled_io_finishes": _THREADS,
    f"{_FILE_IO}test_safe_symlinks_grants_and_listing_paths_remain_supported": (
        "expects rm of a link to remove what it leads to; provider local removes the link"
    ),
    f"{_FILE_IO}test_replacing_grant_alias_does_not_expand_authority": _LATE,
    f"{_FILE_IO}test_root_replacement_cannot_reauthorize_an_outside_directory": _LATE,
    **(_KNOWN_SINCE_0_24 if _SINCE_0_24 else _KNOWN_BEFORE_0_24),
}
"""The tests that fail, and what of them no session in a workflow can do, or none should."""
