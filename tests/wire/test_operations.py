"""The table of operations, and that both halves implement each of its rows exactly once."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

from syntax import syntax_tree

import sandbox_core.reap_workflow
import sandbox_core.worker
import sandbox_core.workflow
from sandbox_core.wire import operations as ops
from sandbox_core.wire.messages import Message
from sandbox_core.wire.operations import Effect, Operation
from sandbox_core.worker.handlers.table import HANDLERS

# What recorded histories hold and what the peer of this package calls too.
SETTLED = {
    "create_session",
    "resume_session",
    "delete_session",
    "start",
    "stop",
    "shutdown",
    "running",
    "exec",
    "pty_exec_start",
    "pty_write_stdin",
    "pty_terminate_all",
    "read",
    "write",
    "ls",
    "mkdir",
    "rm",
    "extract",
    "apply_patch",
    "apply_manifest",
    "apply_entries",
    "persist_workspace",
    "hydrate_workspace",
    "resolve_exposed_port",
}
# The constant of each row in the module, for example EXEC.
ROWS = {key: row for key, row in vars(ops).items() if isinstance(row, Operation)}


class TestTable:
    def test_the_operations_that_histories_hold_exist(self) -> None:
        assert set() == SETTLED - {row.name for row in ops.operations()}

    def test_no_row_hides_another_of_the_same_name(self) -> None:
        assert list(ROWS.values()) == list(ops.operations())

    def test_a_constant_is_its_operations_name_in_capitals(self) -> None:
        assert {row.name.upper() for row in ROWS.values()} == set(ROWS)

    def test_a_name_is_a_python_identifier_in_lower_case(self) -> None:
        assert [] == [
            row.name for row in ops.operations() if not re.fullmatch(r"[a-z]+(_[a-z]+)*", row.name)
        ]

    def test_each_operation_has_a_request_of_its_own(self) -> None:
        requests = [row.request for row in ops.operations()]

        assert len(requests) == len(set(requests))
        assert all(issubclass(request, Message) for request in requests)

    def test_an_answer_is_a_message_or_bytes_or_nothing(self) -> None:
        assert all(
            issubclass(row.response, Message) or row.response in (bytes, type(None))
            for row in ops.operations()
        )

    def test_what_edits_by_difference_is_never_repeated(self) -> None:
        assert ["apply_patch"] == [
            row.name for row in ops.operations() if row.effect is Effect.ONCE
        ]

    def test_a_create_and_what_runs_a_command_carry_a_key(self) -> None:
        assert ["create_session", "exec", "pty_exec_start", "pty_write_stdin"] == [
            row.name for row in ops.operations() if row.effect is Effect.KEYED
        ]

    def test_only_what_changes_nothing_is_a_read(self) -> None:
        assert {
            "running",
            "read",
            "ls",
            "validate_path_access",
            "list_skills",
            "persist_workspace",
            "ping",
            "inspect",
            "resolve_exposed_port",
            "same_file",
        } == {row.name for row in ops.operations() if row.effect is Effect.READ}

    def test_raw_data_goes_to_what_writes_it(self) -> None:
        assert {"write", "extract", "hydrate_workspace"} == {
            row.name for row in ops.operations() if row.takes_bytes
        }


class TestHandlers:
    def test_every_row_has_a_handler_and_every_handler_a_row(self) -> None:
        assert {row.name for row in ops.operations()} == set(HANDLERS)

    def test_no_handler_replaces_another_or_serves_two_rows(self) -> None:
        handled = _mentions(Path(sandbox_core.worker.__file__).parent, in_decorators=True)

        assert Counter(ROWS.keys()) == Counter(row for row, _ in handled)
        assert len(HANDLERS) == len(set(HANDLERS.values()))


class TestWorkflowHalf:
    def test_every_row_is_dispatched_by_exactly_one_function(self) -> None:
        dispatched = _mentions(Path(sandbox_core.workflow.__file__).parent)
        dispatched += _mentions(Path(sandbox_core.reap_workflow.__file__))

        rows = ROWS.keys() - {"INSPECT"}  # For those who are no workflow.
        assert Counter(rows) == Counter(row for row, _ in set(dispatched))


def _mentions(package: Path, *, in_decorators: bool = False) -> list[tuple[str, str]]:
    """Return each ``ops.ROW`` that is not compared, with the function that has it."""
    found: list[tuple[str, str]] = []
    for module in sorted(package.rglob("*.py")) if package.is_dir() else [package]:
        for function in ast.walk(syntax_tree(module)):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                where = f"{module.name}:{function.name}"
                searched: list[ast.expr] | list[ast.stmt] = (
                    function.decorator_list if in_decorators else function.body
                )
                found += [(row, where) for node in searched for row in _rows_in(node)]
    return found


def _rows_in(tree: ast.AST) -> list[str]:
    if isinstance(tree, ast.Compare):
        return []
    if isinstance(tree, ast.Attribute) and isinstance(tree.value, ast.Name):
        return [tree.attr] if tree.value.id == "ops" and tree.attr in ROWS else []
    return [row for child in ast.iter_child_nodes(tree) for row in _rows_in(child)]
