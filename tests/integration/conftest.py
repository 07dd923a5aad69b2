"""One local Ray for all runs made inside the test process; runs made through the real command line start their own."""

from collections.abc import Iterator

import pytest

from cluster.config import LaunchConfig
from cluster.driver import ray_cluster


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Ray on this machine, started as the driver starts it."""
    with ray_cluster(LaunchConfig(), "tests"):
        yield
