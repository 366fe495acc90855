"""How long a supervisor waits for its daemon."""

from __future__ import annotations

import pytest

from fusefs.mounting.supervisor import Limits

STARTED = 100.0

CASES = [
    # seconds since the start, the last beat after it, whether it must serve by now, what is said
    (19.0, 0.0, True, ""),
    (40.0, 0.0, True, ""),
    (59.0, 0.0, False, ""),
    (61.0, 0.0, False, "did not answer for 61 s"),
    (21.0, 0.5, False, "did not answer for 20 s"),
    (20.0, 0.5, False, ""),
    (59.0, 58.0, True, ""),
    (61.0, 60.0, True, "was not ready after 61 s"),
    (600.0, 599.0, False, ""),
]


@pytest.mark.parametrize(("passed", "beat", "must_serve", "said"), CASES)
def test_a_daemon_has_longer_to_begin_than_to_answer(
    passed: float, beat: float, must_serve: bool, said: str
) -> None:
    limits = Limits(heartbeat=20.0, readiness=60.0)
    now = STARTED + passed
    assert limits.exceeded(now, STARTED, STARTED + beat, must_serve=must_serve) == said
