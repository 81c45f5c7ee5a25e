"""Shared by the tests of providers for hosted services: loopback servers in place of the services.

A vendor's unmodified SDK connects to its server, which implements the part of the vendor's protocol
that the Agents SDK's client needs, and really runs the commands, on a machine made of namespaces.
"""

import pytest

pytest.register_assert_rewrite("loopback.http_faults", "loopback.contract")
