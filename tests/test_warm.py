"""A session that goes from one store of the tests to the next is the same one, and nobody can tell."""

import pytest
from sqlalchemy import Connection

from dispatcher.store.engine import open_database
from tests.stores import PostgreSQL

ITS = "SELECT pg_backend_pid(), current_setting('lock_timeout'), (SELECT count(*) FROM pg_listening_channels())"


@pytest.fixture(autouse=True)
def own(postgresql: PostgreSQL) -> None:
    if postgresql.process is None:
        pytest.skip("another's server is reached as it is")


def told(connection: Connection) -> tuple[int, str, int]:
    pid, timeout, heard = connection.exec_driver_sql(ITS).one()
    return pid, timeout, heard


def test_who_comes_next_has_the_session_without_what_was_left_in_it(postgresql: PostgreSQL) -> None:
    beside, one = open_database(postgresql.place), open_database(postgresql.place)
    with one.writing() as connection:
        before = told(connection)
        connection.exec_driver_sql("SET lock_timeout = 7")
        connection.exec_driver_sql("LISTEN somebody")
        connection.exec_driver_sql("CREATE TEMPORARY TABLE notes (note text)")
    with one.writing() as connection:
        assert told(connection)[1:] == ("7ms", 1)
    one.close()
    with beside.writing() as connection:
        connection.exec_driver_sql("NOTIFY somebody, 'nobody is awake'")
    other = open_database(postgresql.place)
    with other.writing() as connection:
        assert told(connection) == before
        assert connection.exec_driver_sql("SELECT to_regclass('notes')").scalar() is None
        driver = connection.connection.dbapi_connection
        assert driver is not None
        assert [*driver.notifies(timeout=0)] == []
    for store in (beside, other):
        store.close()


def test_who_has_closed_it_reaches_nobody_by_it(postgresql: PostgreSQL) -> None:
    one = open_database(postgresql.place)
    with one.reading() as connection:
        driver = connection.connection.dbapi_connection
    assert driver is not None
    assert not driver.closed
    one.close()
    assert driver.closed


def test_a_session_that_the_server_has_ended_meanwhile_is_handed_to_nobody(postgresql: PostgreSQL) -> None:
    postgresql.empty()
    one = open_database(postgresql.place)
    with one.reading() as connection:
        (gone, *_) = told(connection)
    one.close()
    postgresql.cut_off()
    other = open_database(postgresql.place)
    with other.reading() as connection:
        assert told(connection)[0] != gone
    other.close()
