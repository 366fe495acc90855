"""A built image of a model on two nodes, the second while the first still fetches it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fixtures.loading import Load, make_model
from fixtures.mounting import until
from fixtures.site import Plan, Site

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are root's"),
]

SIZE = 64 << 20
"""Nine seconds over such a link."""


def test_a_second_node_takes_from_the_first_what_that_has(tmp_path: Path) -> None:
    make_model(tmp_path, SIZE)
    truth = Load(tmp_path / "tree").result().digest
    plan = Plan(hosts=2, rate="60mbit", seed=False, host_words=("--prefetch", "none"))
    with Site(plan, tmp_path / "image", tmp_path / "site") as site:
        first = Load(site.mount(0), "in order")
        until(lambda: site.sources(0)["origin"] > SIZE // 8)
        second = Load(site.mount(1), "in order")
        assert {first.result().digest, second.result().digest} == {truth}
        assert site.sources(1)["peer"] > SIZE // 8
        assert site.origin_sent() <= 1.05 * SIZE
