"""Certificates of a swarm and of another one, and a clock for hosts with caches on the disk."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from fixtures.patience import patient
from fixtures.swarmcerts import SwarmCerts


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> SwarmCerts:
    """Make the CA of a swarm."""
    return SwarmCerts(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> SwarmCerts:
    """Make the CA of somebody else's swarm."""
    return SwarmCerts(tmp_path_factory.mktemp("foreign"))


@pytest.fixture
def clock() -> MockClock:
    """Give threads, which touch files here, the time that they need.

    Time is real in a test that does not name its clock, whatever its fixtures do.
    """
    return patient()
