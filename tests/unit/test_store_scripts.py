"""Many rows go as few statements, and leave the same rows in the same order."""

from __future__ import annotations

import sqlite3

import pytest

from toft.store import database


def table() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE kept (number INTEGER PRIMARY KEY, what BLOB, state TEXT)")
    return connection


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 40, 71, 100])
def test_all_rows_are_there_once_and_in_order(count: int) -> None:
    connection, ran = table(), []
    connection.set_trace_callback(lambda text: ran.append(text))
    rows = [(number, b"\x00'?" * number, f"it's {number}; (?, ?)") for number in range(count)]
    database.run_many(connection, "INSERT INTO kept (number, what, state) VALUES (?, ?, ?)", rows)
    assert connection.execute("SELECT * FROM kept ORDER BY rowid").fetchall() == rows
    assert len(ran) - 1 == count // 32 + (count % 32).bit_count()


@pytest.mark.parametrize(
    "statement",
    ["UPDATE kept SET what = ? WHERE number = ?", "INSERT INTO kept (what, number) SELECT ?, ?"],
)
def test_other_statements_run_for_each_row(statement: str) -> None:
    connection = table()
    if statement.startswith("UPDATE"):
        connection.executemany("INSERT INTO kept (number) VALUES (?)", [(number,) for number in range(40)])
    database.run_many(connection, statement, [(bytes([number]), number) for number in range(40)])
    found = connection.execute("SELECT number, what FROM kept").fetchall()
    assert found == [(number, bytes([number])) for number in range(40)]


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_rows_are_changed_by_rows_with_few_statements(count: int) -> None:
    connection, ran = table(), []
    connection.executemany("INSERT INTO kept (number) VALUES (?)", [(number,) for number in range(50)])
    statement = (
        "WITH told (what, number) AS (\n  VALUES (?, ?)\n)\n"
        "UPDATE kept SET what = told.what FROM told WHERE kept.number = told.number"
    )
    connection.set_trace_callback(lambda text: ran.append(text))
    database.run_many(connection, statement, [(bytes([number]), number) for number in range(count)])
    assert len(ran) == count // 32 + (count % 32).bit_count()
    found = connection.execute("SELECT number, what FROM kept").fetchall()
    assert found == [(number, bytes([number]) if number < count else None) for number in range(50)]


def test_one_row_that_is_refused_leaves_nothing_of_its_transaction() -> None:
    connection = table()
    connection.execute("BEGIN")
    with pytest.raises(sqlite3.IntegrityError):
        database.run_many(connection, "INSERT INTO kept (number) VALUES (?)", [(n % 31,) for n in range(40)])
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
