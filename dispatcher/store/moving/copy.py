"""A whole store from one database to another: it can be killed at any moment and goes on from where it was.

    mark both → pages, while events still come in → the last ones, alone → the source has left → the target is done

What the source has up to some number never changes once it is marked, so the target always holds exactly the source's
rows up to its own highest key: that key is where it goes on. If the power goes between the last two steps, neither is
worked on, and the next run takes the last one. At no moment are both in use.
"""

import secrets
from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import Connection, Table, func, select

from dispatcher.ground.errors import Refused
from dispatcher.ground.place import Place
from dispatcher.store.engine import Database, reach
from dispatcher.store.journal import COPY, Entry, append
from dispatcher.store.moving import tally
from dispatcher.store.moving.mark import Mark, State, clear_mark, passing, set_mark
from dispatcher.store.moving.quiet import identity, moving, refuse_live
from dispatcher.store.moving.tally import Tally
from dispatcher.store.moving.transfer import (
    GROWING,
    PAGE,
    STREAMS,
    WHOLE,
    count_on,
    filled,
    hold_still,
    key_of,
    last,
    look_over,
    make_equal,
    page,
    put,
)
from dispatcher.store.schema import deliveries
from dispatcher.store.version import admit

# The last pages are copied while nobody can hand anything in; so many rows at most.
_FEW = 5_000
_ROUNDS = 20


class Different(Refused):
    """Source and target do not hold the same; each difference is a sentence that names its table."""

    def __init__(self, found: list[str]) -> None:
        super().__init__("; ".join(found))
        self.found = found


class Copied(NamedTuple):
    """What both sides hold. `already`: it had been done before."""

    copy: str
    already: bool
    counted: Tally


# How many rows of how many are over there.
Tell = Callable[[int, int], None]


def copy(source: Database, target: Database, now: int, tell: Tell, actor: str = "dispatcher") -> Copied:
    """The target holds what the source held, and the source has left. Raises Refused, StoreUnavailable, Different."""
    if identity(source) == identity(target):
        raise Refused(f"{source.place} and {target.place} are one database; name another")
    with moving(source), moving(target):
        mark = _begin(source, target, now)
        if mark.state is State.LEFT and _mark(target) is None:
            return Copied(mark.copy, True, _whole_tally(target))
        move = _Move(source, target, mark, tell)
        if mark.state is State.LEAVING:
            move.follow()
            counted = move.finish(now)
        else:
            counted = _same(_whole_tally(source), _whole_tally(target))
        with target.writing() as connection:
            clear_mark(connection)
            if target.notary is not None:
                entry = Entry(COPY, actor, f"from {source.place}")
                append(connection, target.notary, [entry], now)
        return Copied(mark.copy, False, counted)


def abandon(source: Database) -> Mark:
    """The source is as if nobody had begun to copy it; returns the mark that it had. What is in the target stays."""
    with moving(source), source.writing() as connection:
        mark = source.look(connection).mark
        if mark is None or mark.state is not State.LEAVING:
            told = mark.told(source.place) if mark else f"the database {source.place} is not being copied"
            raise Refused(f"there is no copy to give up: {told}; see: dispatcher db status")
        clear_mark(connection)
        return mark


def open_side(place: Place, *, create: bool) -> Database:
    """A store to copy from or to, whatever its mark. Raises as `open_database` does for one of another revision."""
    database, found = reach(place, create=create)
    try:
        admit(place, found)
        if found.revision is None:
            database.make()
    except BaseException:
        database.close()
        raise
    return database


def _mark(database: Database) -> Mark | None:
    with database.reading() as connection:
        return database.look(connection).mark


def _begin(source: Database, target: Database, now: int) -> Mark:
    """The source's mark. Raises Refused where the two are not at the same copy, or the target has rows of its own."""
    here, there = _mark(source), _mark(target)
    if here is None:
        return _mark_both(source, target, there, now)
    if here.state is State.ARRIVING:
        raise here.refused(source.place)
    if there is None and here.state is State.LEFT and here.other == str(target.place):
        with target.reading() as connection:
            known = bool(filled(connection))
    else:
        known = there is not None and there.copy == here.copy
    if not known:
        raise here.refused(source.place)
    return here


def _mark_both(source: Database, target: Database, there: Mark | None, now: int) -> Mark:
    if there is not None and there.state is not State.ARRIVING:
        raise there.refused(target.place)
    mark = Mark(secrets.token_hex(8), State.LEAVING, str(target.place), now)
    with target.writing() as connection:
        set_mark(connection, target.place, Mark(mark.copy, State.ARRIVING, str(source.place), now))
        # Looked at now that nobody can add any more.
        refuse_live(connection, target.place)
        if tables := filled(connection):
            told = there.told(target.place) if there else f"the database {target.place} has rows in {', '.join(tables)}"
            raise Refused(f"{told}; a copy goes into an empty database: name another")
    with source.writing() as connection:
        set_mark(connection, source.place, mark)
        # One that has begun since we looked; from here on none can.
        refuse_live(connection, source.place)
    return mark


def _whole_tally(database: Database) -> Tally:
    with database.reading() as connection:
        streams = tally.tally_of_deliveries(connection, -1) + tally.tally_of_streams(connection)
        return streams + tally.tally_of_whole(connection)


def _same(source: Tally, target: Tally) -> Tally:
    if found := tally.differences(source, target):
        raise Different(found)
    return source


class _Move:
    """The pages of one copy."""

    def __init__(self, source: Database, target: Database, mark: Mark, tell: Tell) -> None:
        self._source = source
        self._target = target
        self._mark = mark
        self._tell = tell
        # The number up to which all of the source's deliveries are in the target.
        self._upto = -1
        with source.reading() as here, target.reading() as there:
            self._all = sum(_rows(here, table) for table in STREAMS)
            self._done = sum(_rows(there, table) for table in STREAMS)

    def follow(self) -> None:
        """All that the source holds, and what comes in meanwhile, but for the last few."""
        with self._source.reading() as here, self._target.writing() as there, passing(there):
            for table in WHOLE:
                make_equal(here, there, table)
        for _ in range(_ROUNDS):
            self._upto = self._horizon()
            came = self._pages(deliveries, self._upto)
            for table in STREAMS[1:]:
                self._pages(table)
            if came <= _FEW:
                break
        with self._target.writing() as there:
            look_over(there)

    def _horizon(self) -> int:
        """A number such that whoever hands something in from now on gets a higher one."""
        with self._source.writing() as here:
            hold_still(here)
            return int(here.scalar(select(func.coalesce(func.max(deliveries.c.id), -1))) or 0)

    def _pages(self, table: Table, upto: int | None = None) -> int:
        """Each page is committed. How many rows went over."""
        with self._target.reading() as there:
            after = last(there, table)
        came = 0
        while True:
            with self._source.reading() as here:
                rows = page(here, table, after, upto)
            if rows:
                with self._target.writing() as there, passing(there):
                    put(there, table, rows)
                after = key_of(table, rows[-1])
                came += len(rows)
                self._told(len(rows))
            if len(rows) < PAGE:
                return came

    def _told(self, rows: int) -> None:
        self._done += rows
        self._all = max(self._all, self._done)
        self._tell(self._done, self._all)

    def finish(self, now: int) -> Tally:
        """The rest, while nobody else writes; what both hold is counted, and the source has left."""
        with self._source.reading() as here, self._target.reading() as there:
            # What is frozen is counted first: whoever hands something in waits for the rest alone.
            counted = _same(*(tally.tally_of_deliveries(side, -1, self._upto) for side in (here, there)))
            counted += _same(*(tally.tally_of_streams(side) for side in (here, there)))
        with self._source.writing() as here:
            hold_still(here)
            with self._target.writing() as there, passing(there):
                self._rest(here, there)
            with self._target.reading() as there:
                counted += _same(*(tally.tally_of_deliveries(side, self._upto) for side in (here, there)))
                counted += _same(*(tally.tally_of_whole(side) for side in (here, there)))
            set_mark(here, self._source.place, self._mark._replace(state=State.LEFT, since=now))
        return counted

    def _rest(self, here: Connection, there: Connection) -> None:
        for table in GROWING:
            after = last(there, table)
            while rows := page(here, table, after):
                put(there, table, rows)
                after = key_of(table, rows[-1])
                self._told(len(rows))
        for table in WHOLE:
            make_equal(here, there, table)
        count_on(there)


def _rows(connection: Connection, table: Table) -> int:
    return connection.scalar(select(func.count()).select_from(table)) or 0
