from hypothesis import given
from hypothesis import strategies as st

from treadle.mcp.restart import RestartPause, RestartPolicy

POLICY = RestartPolicy(first_delay=1.0, max_delay=10.0, healthy_after=60.0)


def test_a_server_is_started_at_once_at_first() -> None:
    assert RestartPause(POLICY).remaining(0.0) == 0.0


def test_pauses_double_up_to_a_bound() -> None:
    pause = RestartPause(POLICY, jitter=lambda: 1.0)
    pauses: list[float] = []
    for _ in range(6):
        pause.ended(100.0, 0.0)
        pauses.append(pause.remaining(100.0))
    assert pauses == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert pause.remaining(104.0) == 6.0
    assert pause.remaining(111.0) == 0.0


def test_a_server_that_lived_begins_anew() -> None:
    pause = RestartPause(POLICY, jitter=lambda: 1.0)
    for lived in (0.0, 0.0, 0.0, 61.0):
        pause.ended(0.0, lived)
    assert pause.remaining(0.0) == 1.0


@given(st.lists(st.floats(0, 100), max_size=200))
def test_a_pause_is_never_longer_than_the_bound(lives: list[float]) -> None:
    pause = RestartPause(POLICY)
    for lived in lives:
        pause.ended(0.0, lived)
        assert 0.0 <= pause.remaining(0.0) <= POLICY.max_delay
