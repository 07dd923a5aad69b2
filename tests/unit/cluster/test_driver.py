"""What Ctrl-C means while a run goes on. (Whole runs on real Ray are in tests/integration.)"""

import signal
import socket

import pytest

from cluster.config import LaunchConfig
from cluster.driver import ray_cluster, stop_on_signal
from scheduler.errors import ResourceError


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_to_stop_the_second_interrupts_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_on_signal() as stop:
        assert not stop.is_set()
        signal.raise_signal(number)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_an_address_at_which_nothing_listens_is_refused_before_ray_tries_for_minutes() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"  # bound, and nobody listens
        with pytest.raises(ResourceError, match=f"launch.address: .* nothing answers at {address}"):
            ray_cluster(LaunchConfig(address=address), "tests").__enter__()
