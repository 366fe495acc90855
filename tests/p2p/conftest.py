"""Certificates of a swarm, and of another one."""

from __future__ import annotations

import pytest

from fixtures.swarmcerts import SwarmCerts


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> SwarmCerts:
    """Make the CA of a swarm."""
    return SwarmCerts(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> SwarmCerts:
    """Make the CA of somebody else's swarm."""
    return SwarmCerts(tmp_path_factory.mktemp("foreign"))
