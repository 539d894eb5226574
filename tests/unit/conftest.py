"""What the files about central's rooms have in common; a file about another room has a `store` of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from toft.store import database


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[database.Database]:
    """A database with the tables of central."""
    opened = database.Database(tmp_path / "central.db")
    await opened.open({"central": "toft.central"})
    yield opened
    await opened.close()
