"""For each name of the SDK's sessions and clients, its counterpart in a workflow."""

from __future__ import annotations

from enum import Enum

from agents.sandbox.session.base_sandbox_session import BaseSandboxSession


class Kind(Enum):
    """What a name of the surface is in a workflow."""

    ACTIVITY = "activity"
    """One activity, against the real session on the worker."""

    COMPOSED = "composed"
    """Does nothing itself: calls others of this table."""

    PURE = "pure"
    """Computed in the workflow, without any I/O."""

    SETTING = "settings told with the next request"
    """Kept in the workflow; the worker is told with the next activity."""

    WORKER_ONLY = "worker only"
    """Called by the SDK only inside the real session, which lives on the worker."""


def _table(kinds: dict[Kind, str]) -> dict[str, Kind]:
    return {name: kind for kind, names in kinds.items() for name in names.split()}


SESSION = _table(
    {
        Kind.ACTIVITY: """
            start stop shutdown running exec _exec_internal pty_exec_start pty_write_stdin
            pty_terminate_all read write ls mkdir rm extract apply_patch _validate_path_access
            apply_manifest _apply_manifest _apply_entry_batch persist_workspace hydrate_workspace
            resolve_exposed_port
        """,
        Kind.COMPOSED: """
            __aenter__ __aexit__ aclose _aclose_impl run_pre_stop_hooks _run_pre_stop_hooks _read
            _annotate _emit_start_event _emit_finish_event _aclose_dependencies
        """,
        Kind.SETTING: """
            _set_concurrency_limits _set_archive_limits register_persist_workspace_skip_path
        """,
        Kind.PURE: """
            __init__ state dependencies set_dependencies _dependencies _dependencies_closed
            normalize_path _workspace_path_policy _workspace_path_policy_cache _workspace_root_path
            describe supports_pty _manifest_base_dir _validate_manifest_application
            _runtime_has_protected_mount_authority register_pre_stop_hook _pre_stop_hooks
            _pre_stop_hooks_ran _pre_stop_hooks_failed _pre_stop_hooks_lock _aclose_lock
            _max_manifest_entry_concurrency _max_local_dir_file_concurrency _archive_limits
            _assert_exposed_port_configured _overlapping_mount_relpaths
            _mount_relpaths_within_workspace _workspace_relpaths_overlap
            _runtime_persist_workspace_skip_relpaths _inner _instrumentation _seq _next_seq
            _bind_session_to_sinks _trace_span_data _apply_trace_finish_data
        """,
        Kind.WORKER_ONLY: """
            _after_shutdown _after_start _after_start_failed _after_stop _before_shutdown
            _before_stop _can_reuse_preserved_workspace_on_resume
            _can_reuse_restorable_snapshot_workspace _can_skip_snapshot_restore_on_resume
            _check_mkdir_with_exec _check_read_with_exec _check_rm_with_exec _check_write_with_exec
            _clear_workspace_dir_on_resume_pruned _clear_workspace_root_on_resume
            _compute_and_cache_snapshot_fingerprint _current_runtime_helper_cache_key
            _delete_cached_snapshot_fingerprint_best_effort _ensure_backend_started
            _ensure_runtime_helper_installed _ensure_runtime_helpers _exec_checked_nonzero
            _extract_tar_archive _extract_zip_archive _live_workspace_matches_snapshot_on_resume
            _mark_workspace_root_ready_from_probe _native_snapshot_requires_tar_fallback
            _parse_snapshot_fingerprint_record _persist_snapshot _persist_workspace_skip_relpaths
            _prepare_backend_workspace _prepare_exec_command
            _probe_workspace_root_for_preserved_resume _raise_read_error_from_exec
            _read_cached_snapshot_fingerprint _reapply_ephemeral_manifest_on_resume
            _resolve_exposed_port _resolve_pty_session_entry
            _restore_snapshot_and_reapply_ephemeral_on_resume
            _restore_snapshot_into_workspace_on_resume _resume_manifest_digest
            _runtime_helper_cache_key _runtime_helpers _runtime_helpers_installed
            _safe_zip_member_rel_path _set_start_state_preserved
            _should_compute_snapshot_fingerprint_on_persist _shutdown_backend
            _snapshot_fingerprint_cache_path _snapshot_fingerprint_version
            _start_system_state_preserved _start_workspace _start_workspace_root_ready
            _start_workspace_state_preserved _sync_runtime_helper_install_cache
            _system_state_preserved_on_start _terminate_ambiguous_mount_transition
            _validate_remote_path_access _workspace_fingerprint_skip_relpaths
            _workspace_resume_mount_skip_relpaths _workspace_state_preserved_on_start
            _wrap_start_error _wrap_stop_error provision_manifest_accounts
            should_provision_manifest_accounts_on_resume supports_docker_volume_mounts
        """,
    }
)

SINCE_0_24 = _table(
    {
        Kind.ACTIVITY: "mv same_file read_bounded _write_new_file",
        Kind.WORKER_ONLY: "_read_bounded _remove_workspace_entry_on_resume",
    }
)
"""What the Agents SDK's session has from this version on; ours has its operations in any case."""

if hasattr(BaseSandboxSession, "mv"):
    SESSION |= SINCE_0_24

CLIENT = _table(
    {
        Kind.ACTIVITY: "create resume delete",
        Kind.PURE: """
            backend_id supports_default_options serialize_session_state _serialize_session_state
            deserialize_session_state _wrap_session _resolve_dependencies _dependencies
        """,
        Kind.WORKER_ONLY: "_validate_manifest_for_create _deserialize_session_state_payload",
    }
)
