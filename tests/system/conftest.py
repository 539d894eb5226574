"""Every system test leaves the machine as it found it."""

import pytest
from tests.leaks import leaks_checked

__all__ = ["leaks_checked"]


@pytest.fixture(autouse=True)
def nothing_is_left_behind(leaks_checked: None) -> None:
    """Check for processes, descriptors, segments and temporary files after each test."""
