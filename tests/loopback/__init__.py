"""What the tests of providers at hosted services share: servers on loopback that take their place.

A vendor's unmodified SDK is pointed at its server, which speaks as much of the vendor's protocol as
the Agents SDK's client needs, and really runs the commands, in a machine of namespaces.
"""

import pytest

pytest.register_assert_rewrite("loopback.http_faults", "loopback.contract")
