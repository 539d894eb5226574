"""Arrays and a worker that has no numpy: they arrive as what they are, and go back unchanged."""

from __future__ import annotations

import numpy as np
import pytest
from tests.interpreters import interpreter
from tests.leaks import leaks_checked
from tests.workers import worker

__all__ = ["leaks_checked"]
pytestmark = pytest.mark.usefixtures("leaks_checked")


@pytest.mark.parametrize("size", [10, 100_000])
async def test_arrays_pass_through_a_worker_without_numpy(size: int) -> None:
    async with worker(python=interpreter("3.8")) as run:
        if await run.call("array_facts", value=np.zeros(3)) != "toft_sdk.arrays.Array":
            pytest.skip("needs interpreters: the Python 3.8 here has numpy")
        value = np.arange(size, dtype=">i4")
        back = await run.call("execute", value=[value, np.float32(1.5)])
        assert back[0].dtype == value.dtype
        assert np.array_equal(back[0], value)
        assert back[1] == np.float32(1.5)
