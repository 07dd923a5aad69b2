"""What all tests share: a floor under the number of tests, so that none can vanish unnoticed, and Hypothesis settings.

No test asserts a time, so Hypothesis has no deadline; on CI its examples are the same at every run.
"""

import os

import pytest
from hypothesis import settings

settings.register_profile("taskheat", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("taskheat")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--min-collected", type=int, default=0, help="fail when fewer tests than this are selected")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    floor = config.getoption("--min-collected")
    if len(items) < floor:
        raise pytest.UsageError(f"{len(items)} tests were collected; there must be at least {floor}")
