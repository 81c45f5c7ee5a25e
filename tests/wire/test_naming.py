"""The activity-name scheme, and the rule for provider names."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox_core.errors import InvalidProviderName
from sandbox_core.wire.naming import (
    activity_name,
    check_provider_name,
    offered_providers,
    split_activity_name,
)
from sandbox_core.wire.operations import operations

OPERATIONS = [row.name for row in operations()]
RULE = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"

some = settings(max_examples=50, deadline=None)
VALID_NAMES = st.from_regex(RULE, fullmatch=True)


class TestActivityName:
    def test_it_is_the_provider_then_sandbox_then_the_operation(self) -> None:
        assert "daytona-sandbox_create_session" == activity_name("daytona", "create_session")

    @some
    @given(provider=VALID_NAMES, operation=st.sampled_from(OPERATIONS))
    def test_it_splits_into_what_it_was_made_of(self, provider: str, operation: str) -> None:
        assert (provider, operation) == split_activity_name(activity_name(provider, operation))

    def test_a_provider_named_like_the_infix_is_told_apart_from_it(self) -> None:
        name = activity_name("my-sandbox", "exec")

        assert "my-sandbox-sandbox_exec" == name
        assert ("my-sandbox", "exec") == split_activity_name(name)

    @some
    @given(
        pairs=st.lists(
            st.tuples(VALID_NAMES, st.sampled_from(OPERATIONS)), unique=True, max_size=10
        )
    )
    def test_no_two_operations_of_providers_share_one(self, pairs: list[tuple[str, str]]) -> None:
        assert len(pairs) == len({activity_name(*pair) for pair in pairs})


class TestSplitActivityName:
    @pytest.mark.parametrize(
        "name",
        [
            "",
            "exec",
            "invoke_model_activity",
            "-sandbox_exec",
            "daytona-sandbox_",
            "daytona-sandbox-exec",
            "daytona_sandbox_exec",
            "Daytona-sandbox_exec",
            "day tona-sandbox_exec",
        ],
    )
    def test_another_activity_is_none_of_ours(self, name: str) -> None:
        assert split_activity_name(name) is None


class TestCheckProviderName:
    @some
    @given(name=VALID_NAMES)
    def test_a_valid_name_comes_back_unchanged(self, name: str) -> None:
        assert name == check_provider_name(name)

    @pytest.mark.parametrize(
        "name",
        [
            "",
            " ",
            "Daytona",
            "1password",
            "-daytona",
            "daytona-",
            "unix--local",
            "unix_local",
            "unix.local",
            "unix local",
            " daytona",
            "daytona\n",
            "dáytona",
            "daytona\uff12",
            "daytona/eu",
        ],
    )
    def test_an_invalid_name_is_rejected_with_the_rule(self, name: str) -> None:
        with pytest.raises(InvalidProviderName) as caught:
            check_provider_name(name)

        assert (
            f"{name!r} is not a provider name: use lower-case letters and digits in words joined "
            "by single hyphens, starting with a letter, for example 'daytona' or 'unix-local'."
        ) == str(caught.value)

    @some
    @given(name=st.text().filter(lambda text: not re.fullmatch(RULE, text)))
    def test_a_name_is_rejected_and_never_normalised(self, name: str) -> None:
        with pytest.raises(InvalidProviderName):
            check_provider_name(name)


class TestOfferedProviders:
    def test_it_finds_the_providers_among_what_a_worker_says_it_has(self) -> None:
        registered = "b-sandbox_exec, a-sandbox_exec, a-sandbox_read, invoke_model_activity."

        assert ["a", "b"] == offered_providers(registered)

    def test_a_worker_without_sandboxes_offers_none(self) -> None:
        assert [] == offered_providers("invoke_model_activity, charge_card")

    @some
    @given(names=st.sets(VALID_NAMES, max_size=5))
    def test_it_finds_every_provider_once(self, names: set[str]) -> None:
        registered = ", ".join(activity_name(name, op) for name in names for op in OPERATIONS)

        assert sorted(names) == offered_providers(registered)
