"""What must hold, looked at after every commit: each row before and after it, and what the operators saw."""

from collections.abc import Callable, Mapping

from dispatcher.ground.operator import Operator
from dispatcher.ground.policy import PUT_OFF
from dispatcher.ground.schedule import Delays, Schedule
from dispatcher.seal.vault import Vault
from dispatcher.store.notary import Key, about
from dispatcher.store.workers import LIMIT
from tests.simulation.bulk import Bulk
from tests.simulation.loop import Process, World
from tests.simulation.machine import Link
from tests.simulation.operators import Delivery, Operators, Sent
from tests.simulation.rows import ATTEMPTS, DELIVERIES, JOURNAL_KEY, KEY, OPERATORS, Closed, Made, Seen, due_again
from tests.simulation.settings import RETENTION
from tests.simulation.windows import Ended, Windows


class Watch:
    """Looks at the store after each commit, and blames what must not be."""

    def __init__(
        self,
        world: World,
        link: Link,
        operators: Operators,
        settings: Mapping[str, Operator],
        most: int,
        vault: Vault,
    ) -> None:
        self.world = world
        self.link = link
        self.operators = operators
        self.settings = settings
        self.most = most
        self.vault = vault
        self._journal_key: Key | None = None
        self.rows: dict[int, Seen] = {}
        # No worker may have come so far as to declare any of them.
        self.closed = {name: Closed(None, None, None, 0, 0) for name in settings}
        # By operator, the versions of its key, and since when each is in the database (µs of the world).
        self.keys: dict[str, list[tuple[int, int]]] = {}
        self.workers: dict[int, Process] = {}
        self.living: set[int] = set()
        # A person's command is under way, on behalf of nobody's claim.
        self.by_hand = False
        # By delivery: the end of the last request that decided (µs of the world).
        self.decided: dict[int, int] = {}
        self.claimant: dict[int, Process | None] = {}
        self.adopted_from: dict[int, Process] = {}
        self.windows, self.bulk = Windows(world, self.closed), Bulk(link)
        self.swept: set[Delivery] = set()
        self._moves: dict[tuple[str, str], Callable[[Seen, Seen, Process | None], None]] = {
            ("pending", "pending"): self._waits,
            ("pending", "sending"): self._claimed,
            ("sending", "sending"): self._adopted,
            ("sending", "pending"): self._settled,
            ("sending", "delivered"): self._settled,
            ("sending", "dead"): self._settled,
            ("dead", "pending"): self._by_hand,
            ("resolved", "pending"): self._by_hand,
            ("dead", "resolved"): self._by_hand,
            ("dead", "dead"): self._rests,
        }

    def blame(self, invariant: str, told: str) -> None:
        self.world.blame(invariant, told)

    def look(self) -> None:
        """After a commit."""
        actor = self.world.current
        self._see_operators()
        self.living = {number for (number,) in self.link.seen("SELECT id FROM workers")}
        now = {row[0]: Seen._make(row) for row in self.link.seen(DELIVERIES)}
        before, self.rows = self.rows, now
        claimed = []
        for id_, row in now.items():
            old = before.get(id_)
            if old is None:
                self._accepted(row)
            elif old != row:
                self.world.tell(actor, f"{old} -> {row.status} {row.due_at} {row.attempts} {row.parked}")
                self._moves.get((old.status, row.status), self._forbidden)(old, row, actor)
                if row.status == "sending" and row.claimed_at != old.claimed_at:
                    claimed.append(row)
        for row in before.values():
            if row.id not in now:
                self._gone(row, actor)
        if claimed and actor is not None:
            self._places(claimed, actor)

    def _see_operators(self) -> None:
        for name, key_version, paused_at, held_at, since, total in self.link.seen(OPERATORS):
            keys = self.keys.setdefault(name, [])
            if not keys or keys[-1][1] != key_version:
                keys.append((self.world.now, key_version))
            was = self.closed[name]
            if (was.paused_at, was.held_at, was.since, was.total) != (paused_at, held_at, since, total):
                fresh = Closed(paused_at, held_at, since, total, self.world.now)
                fresh.follow(was, self.world.highest)
                self.closed[name] = fresh
                self.windows.history[name].append(fresh)
                self.world.tell(self.world.current, f"{name}: paused {paused_at} held {held_at} closed {since} {total}")

    def _forbidden(self, old: Seen, row: Seen, actor: Process | None) -> None:
        worker = actor is not None and actor in self.workers.values()
        told = f"{old} was changed by {actor and actor.name}: {row.status}, due at {row.due_at}"
        self.blame("token" if worker and not self.by_hand else "moves", told)

    def _accepted(self, row: Seen) -> None:
        if (row.status, row.attempts, row.due_at is None) != ("pending", 0, False):
            self.blame("moves", f"{row} is new")
        self.world.tell(self.world.current, f"{row} is accepted")

    def _gone(self, row: Seen, actor: Process | None) -> None:
        self.world.tell(actor, f"{row} is swept")
        self.swept.add(row.delivery)
        old = row.finished_at is not None and row.finished_at <= self.world.highest - RETENTION
        if row.status not in ("delivered", "resolved") or not old:
            self.blame("swept", f"{row} is gone, finished at {row.finished_at}")
        if self.link.seen("SELECT 1 FROM attempts WHERE delivery_id = ?", row.id):
            self.blame("swept", f"{row} is gone, and its attempts are not")
        self.decided.pop(row.id, None)

    def _waits(self, old: Seen, row: Seen, actor: Process | None) -> None:
        if old._replace(parked=row.parked, in_line=row.in_line) != row:
            self._forbidden(old, row, actor)

    def _rests(self, old: Seen, row: Seen, actor: Process | None) -> None:
        if old._replace(in_line=row.in_line) != row:
            self._forbidden(old, row, actor)

    def _by_hand(self, old: Seen, row: Seen, _actor: Process | None) -> None:
        if not self.by_hand and (told := self.bulk.took(old, row)):
            self.blame("moves", told)
        if row.status == "pending" and (row.run_from, row.probes, row.anchor_at) != (old.attempts, 0, None):
            self.blame("moves", f"{row} was sent again, and no new run began")

    # A claim.

    def _claimed(self, old: Seen, row: Seen, actor: Process | None) -> None:
        owner = self.workers.get(row.worker or 0)
        if actor is None or owner is not actor:
            self.blame("token", f"{row} was claimed for another")
            return
        self.claimant[row.id] = actor
        self.adopted_from.pop(row.id, None)
        wall = self.world.highest
        if old.due_at is None or row.claimed_at is None or not old.due_at <= row.claimed_at <= wall:
            self.blame("early", f"{row} was due at {old.due_at}, is claimed at {row.claimed_at}, it is {wall}")
        if row.attempts != old.attempts + 1:
            self.blame("numbers", f"{row} had {old.attempts} attempts before")
        # Whoever stood before it may have left in the same transaction.
        if self._is_behind_another(row):
            self.blame("line", f"{row} was claimed before its turn")
        told = self.windows.overrun(row, self._made(row), self._schedule(row))
        if told is not None:
            self.blame("budget", f"{row}: {told}")

    def _is_behind_another(self, row: Seen) -> bool:
        if row.sequence is None:
            return False
        same = [
            one
            for one in self.rows.values()
            if (one.operator, one.sequence) == (row.operator, row.sequence) and one.id != row.id and one.in_line
        ]
        return any(
            one.status == "sending"
            or (not one.parked and one.status == "pending")
            or (one.status == "dead" and one.id < row.id)
            for one in same
        )

    def _schedule(self, row: Seen) -> Schedule:
        return self.settings[row.operator].terms[row.type].schedule

    def _places(self, claimed: list[Seen], actor: Process) -> None:
        mine = [
            one
            for one in self.rows.values()
            if one.status == "sending" and self.claimant.get(one.id) is actor and one.id not in self.adopted_from
        ]
        if len(mine) > self.most:
            self.blame("places", f"{actor.name} has {len(mine)} in hand, of {self.most}")
        for name in sorted({row.operator for row in claimed}):
            own = [one for one in mine if one.operator == name]
            most = self.settings[name].concurrency
            if len(own) > most:
                self.blame("places", f"{actor.name} has {len(own)} in hand for {name}, of {most}")
            closed = self.closed[name]
            knew = actor.knows.get("survey", -1)
            if closed.paused_at is not None and closed.paused_from < knew:
                self.blame("paused", f"{actor.name} claimed for {name}, and knew that it is paused")
            if closed.held_at is not None and closed.at < knew and len(own) > 1:
                self.blame("held", f"{actor.name} tries {len(own)} at {name}, and knew that it is held")

    # Its end.

    def _adopted(self, old: Seen, row: Seen, actor: Process | None) -> None:
        if row.claimed_at != old.claimed_at:
            self._settled(old, row, actor)
            self._claimed(old._replace(due_at=row.claimed_at, attempts=row.made), row, actor)
            return
        if old._replace(worker=row.worker, token=row.token) != row or actor is None:
            self.blame("moves", f"{row} was changed while it was adopted")
            return
        self.adopted_from[row.id] = owner = self.workers[old.worker or 0]
        if owner is not actor and old.worker in self.living:
            self.blame("adopted", f"{row} was taken from {owner.name}, which is there")
        if self.workers.get(row.worker or 0) is not actor:
            self.blame("token", f"{row} was adopted for another")

    def _settled(self, old: Seen, row: Seen, actor: Process | None) -> None:
        if actor is None or self.workers.get(old.worker or 0) is not actor:
            self.blame("token", f"{row} was settled by {actor and actor.name}, who does not hold it")
            return
        made = self._made(row)
        if [one.n for one in made] != list(range(1, row.made + 1)):
            self.blame("numbers", f"{row} has attempts {[one.n for one in made]}")
            return
        if row.made == old.attempts - 1:
            self._put_off(old, row, actor)
            return
        if row.made != old.attempts:
            self.blame("numbers", f"{row} had {old.attempts}")
            return
        last = made[-1]
        if last.reason == "interrupted" and last.duration is None:
            self._interrupted(old, row, actor)
        else:
            self._answered(old, row, last, actor)

    def _made(self, row: Seen) -> list[Made]:
        return [Made._make(one) for one in self.link.seen(ATTEMPTS, row.id)]

    def _request(self, row: Seen, started_at: int | None, process: Process) -> Sent | None:
        """The last one of this process for this delivery, begun at this moment of its clock."""
        for sent in reversed(self.operators.sent):
            if sent.delivery == row.delivery and sent.process is process:
                return sent if started_at in (None, sent.began_wall) else None
        return None

    def _put_off(self, old: Seen, row: Seen, actor: Process) -> None:
        sent = self._request(row, None, actor)
        if sent is None or sent.kind != "ours":
            self.blame("put_off", f"{row} was put off, and {sent and sent.kind} was no fault of ours")
            return
        self.windows.put_off(row, Ended(actor, sent.ended or 0, sent.ended_wall))
        due = sent.ended_wall + PUT_OFF
        if row.due_at != due and (row.status != "sending" or due > (row.claimed_at or 0)):
            self.blame("put_off", f"{row} was put off to {row.due_at}")

    def _interrupted(self, old: Seen, row: Seen, actor: Process) -> None:
        if old.anchor_at is None:
            self.windows.began(row, Ended(actor, self.world.now, row.due_at or row.claimed_at or 0))
        # What another had taken from it, and died with, it may take again: nobody's answer to that decides any more.
        if self.claimant.get(row.id) is actor is self.adopted_from.get(row.id):
            self.blame("interrupted", f"{row} is told to be cut off, and its worker works")
        failures = row.made - row.run_from - row.probes
        schedule = self._schedule(row)
        over = isinstance(schedule, Delays) and failures > len(schedule.delays)
        if (row.status == "dead") != over or (row.due_at or 0) > self.world.highest:
            self.blame("schedule", f"{row} was cut off, and is due at {row.due_at}")

    def _answered(self, old: Seen, row: Seen, last: Made, actor: Process) -> None:
        sent = self._request(row, last.started_at, actor)
        if sent is None:
            self.blame("sent", f"{row}: its attempt {last} was never seen by the operator")
            return
        if sent.ended is None:
            self.blame("overlap", f"{row} is settled, and its request is still under way")
            return
        if sent.began < self.decided.get(row.id, 0):
            self.blame("overlap", f"{row}: two attempts that decided ran side by side")
        self.decided[row.id] = sent.ended
        self._check_key(row, last, sent)
        self.windows.answered(row, Ended(actor, sent.ended, sent.ended_wall, sent.behind), begins=old.anchor_at is None)
        if row.status == "delivered" and row.delivery not in self.operators.book:
            self.blame("booked", f"{row} is delivered, and was never booked")
        if (row.status == "delivered") != sent.yes:
            self.blame("verdict", f"{row}: the answer {sent.kind} was {'a' if sent.yes else 'no'} yes")
        if row.status != "delivered":
            self._check_schedule(old, row, sent)

    def _check_key(self, row: Seen, last: Made, sent: Sent) -> None:
        if row.type != "notice":
            return
        if (self._hidden(row.operator, sent.fingerprint),) not in self.link.seen(KEY, row.operator, last.key_version):
            self.blame("key", f"{row} was not sealed with the key {last.key_version} that is recorded")
        read_at = max((read for read, in_force in sent.process.loads if in_force < sent.began), default=0)
        known = [version for since, version in self.keys[row.operator] if since < read_at]
        if known and (last.key_version or 0) < known[-1]:
            self.blame("key", f"{row} was sealed with key {last.key_version}, when {known[-1]} was known")

    def _hidden(self, operator: str, plain: str | None) -> str | None:
        """A fingerprint as the store has it."""
        if self._journal_key is None:
            ((version, locked),) = self.link.seen(JOURNAL_KEY)
            self._journal_key = Key(version, self.vault.unlock(locked, about(version)))
        return None if plain is None else self._journal_key.fingerprint(operator, plain)

    def _check_schedule(self, old: Seen, row: Seen, sent: Sent) -> None:
        ended, closed = sent.ended_wall, self.closed[row.operator]
        if row.probes > old.probes:
            if not closed.ever:
                self.blame("budget", f"{row} was a probe, and {row.operator} was never held")
            expected: set[int | None] = {ended}
            exact = True
        else:
            if old.anchor_at is None and not closed.ever and row.anchor_at != ended:
                self.blame("schedule", f"{row} is measured from {row.anchor_at}, its first attempt ended at {ended}")
            # By what is known now, or as it was when the attempt ended.
            states = self.windows.since(row.operator, sent.ended or 0)
            reckoned = [due_again(row, sent, self._schedule(row), one) for one in states]
            expected, exact = {due for due, _ in reckoned}, all(clear for _, clear in reckoned)
        if row.status == "sending":
            # It was due again by the time that this was written, and claimed by the same turn.
            if exact and all(due is None or due > (row.claimed_at or 0) for due in expected):
                self.blame("early", f"{row} is due at {expected} by its schedule, and is claimed at {row.claimed_at}")
        elif row.due_at is not None and row.due_at < ended:
            self.blame("early", f"{row} is due at {row.due_at}, and its last attempt ended at {ended}")
        elif exact and row.due_at not in expected:
            self.blame("schedule", f"{row} is due at {row.due_at}, by its schedule at {expected}")

    # At the end.

    def overdue(self, by: int) -> list[Seen]:
        """What waits although it is due, and nobody said that it should (µs)."""
        return [row for row in self.rows.values() if self._is_stuck(row, self.world.wall() - by, by)]

    def _is_stuck(self, row: Seen, before: int, by: int) -> bool:
        closed = self.closed[row.operator]
        if row.status == "sending":
            return row.claimed_at is not None and row.claimed_at < before - 2 * LIMIT
        if self.world.now - closed.at < by:
            # It was open again a moment ago.
            return False
        if row.status != "pending" or closed.paused_at is not None or closed.held_at is not None:
            return False
        if row.parked:
            return not self._may_stay_parked(row)
        return row.due_at is not None and row.due_at < before

    def _may_stay_parked(self, row: Seen) -> bool:
        return any(
            one.in_line and not one.parked and (one.operator, one.sequence) == (row.operator, row.sequence)
            for one in self.rows.values()
        )

    def unfinished(self) -> list[Seen]:
        """What goes on by itself: neither finished, nor paused, nor behind a dead one that holds it up."""
        return [
            row
            for row in self.rows.values()
            if row.status in ("pending", "sending")
            and self.closed[row.operator].paused_at is None
            and not (row.parked and self._behind_dead(row))
        ]

    def _behind_dead(self, row: Seen) -> bool:
        return any(
            one.in_line and one.status == "dead" and (one.operator, one.sequence) == (row.operator, row.sequence)
            for one in self.rows.values()
        )
