"""Who is served: the operators in force, each in its lane of the corridor; a change takes effect between two turns."""

from dispatcher.config import Config
from dispatcher.dispatch import Dispatch, Lane
from dispatcher.dispatch.lane import REMEMBERED, Change, Turn
from dispatcher.ground.clock import Clock
from dispatcher.roster import Member, Roster, differing_members, load, provision
from dispatcher.seal import Seal
from dispatcher.seal.vault import Vault
from dispatcher.store import operators
from dispatcher.store.engine import Database
from dispatcher.store.line import let_dead_leave
from dispatcher.telemetry import Log
from dispatcher.tls import tls_context
from dispatcher.wire import Grant, PinnedTransport, Resolver, Transport

_UNFIT = "change its settings by what each fault says; its deliveries wait"


class Enrolment:
    """`config` says what holds for every operator; `transport` replaces the network, for tests."""

    def __init__(
        self,
        config: Config,
        database: Database,
        vault: Vault,
        dispatch: Dispatch,
        clock: Clock,
        log: Log,
        transport: Transport | None = None,
    ) -> None:
        self.config = config
        self.roster = Roster({}, {}, 0)
        self._database = database
        self._vault = vault
        self._dispatch = dispatch
        self._clock = clock
        self._log = log
        self._transport, self._resolver = transport, Resolver()
        self._retired: list[Transport] = []
        self._closings: dict[str, list[operators.Closing]] = {}

    def provision(self, config: Config) -> None:
        """What this file declares is written into the database."""
        changed = provision(self._database, self._vault, config, self._clock.now(), actor="file")
        declared = [name for name in changed if name in config.documents]
        if changed:
            gone = [name for name in changed if name not in declared]
            self._log.info("operators_declared", operators=declared, gone=gone)

    def load(self) -> Roster:
        """As the database has them now."""
        known = self.roster.members
        roster = load(self._database, self._vault, self.config, known)
        # A resume may be timed after a jump ahead that we have not heard of: a window that begins would lose the jump.
        self._database.set_clock()
        let_dead_leave(self._database, [name for name, one in roster.operators.items() if not one.blocks])
        turned = {
            name
            for name, one in roster.members.items()
            if name not in known or _closed(known[name].standing) != _closed(one.standing)
        }
        self._closings |= operators.closings(self._database, turned, REMEMBERED)
        return roster

    def take(self, roster: Roster) -> None:
        """Puts operators into their lanes; attempts under way end with the settings that they began with."""
        lanes: dict[str, Lane] = {}
        for name, member in roster.members.items():
            lane, before = self._dispatch.lanes.get(name), self.roster.members.get(name)
            if lane is None:
                lane = self._lane(member)
            elif before is None or before.operator is not member.operator:
                self._retired.append(lane.transport)
                lane.take(self._lane(member))
            released = lane.stand(member.standing, self._closings.get(name, ()))
            if released:
                self._dispatch.changes.add(Change(name, Turn.RELEASE, self._clock.now()))
            lanes[name] = lane
        self._retired += [lane.transport for name, lane in self._dispatch.lanes.items() if name not in lanes]
        self._tell(roster)
        self._dispatch.lanes, self.roster, self._dispatch.revision = lanes, roster, roster.revision
        self._dispatch.unfit = roster.faults.keys()

    def _tell(self, roster: Roster) -> None:
        """What differs from those before."""
        for name, fault in roster.faults.items():
            if self.roster.faults.get(name) != fault:
                self._log.error("operator_unfit", operator=name, faults=fault.splitlines(), mend=_UNFIT)
        for name in roster.members.keys() & self.roster.members.keys():
            told = differing_members(self.roster.members[name], roster.members[name])
            if told:
                self._log.info("operator_changed", operator=name, **told)

    def _lane(self, member: Member) -> Lane:
        operator = member.operator
        context = tls_context(operator.tls) if operator.tls else None
        pinned = PinnedTransport(self._resolver, self.config.allow, operator.connect_timeout, context)
        transport = self._transport or pinned
        return Lane(
            operator,
            Seal(operator.reading) if operator.reading else None,
            transport,
            Grant(transport, operator.oauth) if operator.oauth else None,
            member.standing.key_version,
        )

    async def retire(self) -> None:
        """Transports that no lane has any more: what is under way on one ends, what rests is closed."""
        retired, self._retired = self._retired, []
        for transport in retired:
            await transport.aclose()

    async def close(self) -> None:
        self._retired += [lane.transport for lane in self._dispatch.lanes.values()]
        await self.retire()


def _closed(standing: operators.Standing) -> tuple[int | None, int]:
    return standing.closed_since, standing.closed_total
