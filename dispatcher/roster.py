"""The operators in force: what the file declares and what people set, as the database has it, unlocked and read."""

import json
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from dispatcher.config import Config, Draft, draft_operator
from dispatcher.config.operators import Defaults
from dispatcher.ground.clock import duration_text
from dispatcher.ground.errors import ConfigError, DispatcherError, Fault, Refused, Unfit
from dispatcher.ground.events import whose_token
from dispatcher.ground.operator import Operator
from dispatcher.ground.secret import Secret
from dispatcher.seal.vault import MasterKey, Vault, VaultError, read_or_make_key_file
from dispatcher.store import operators as store
from dispatcher.store.engine import Database
from dispatcher.store.notary import Notary, about
from dispatcher.store.operators import Declared, LockedToken, Standing

FILE, COMMAND = "file", "command"
PAGE = 1_000


class Member(NamedTuple):
    """An operator in force: its draft, with every secret in the document, its row, the defaults it was read with."""

    draft: Draft
    standing: Standing
    defaults: Defaults

    @property
    def operator(self) -> Operator:
        return self.draft.operator

    def settings(self) -> dict[str, Any]:
        """The document for people: every secret is `…`."""
        whole: dict[str, Any] = json.loads(self.draft.document.reveal())
        for *path, last in self.draft.secrets:
            table = whole
            for part in path:
                table = table[part]
            table[last] = "…"
        return whole


class Roster(NamedTuple):
    """The operators in force by name, what is wrong with the others, and the revision that this is.

    `shut`: those of the others whose settings no master key that is given opens, or that were changed past us.
    Notifications are members, and no operators: nobody hands in events for them.
    """

    members: Mapping[str, Member]
    faults: Mapping[str, str]
    revision: int
    shut: Set[str] = frozenset()

    @property
    def operators(self) -> Mapping[str, Operator]:
        return {name: one.operator for name, one in self.members.items() if one.operator.notification is None}

    @property
    def notifications(self) -> Mapping[str, Operator]:
        return {name: one.operator for name, one in self.members.items() if one.operator.notification is not None}


def key_file(config: Config) -> Path:
    """Where the master key is kept unless the configuration names another place.

    Beside an SQLite file; for a database on a server, beside the configuration.
    """
    if not isinstance(config.database, Path):
        return config.path.with_name("dispatcher.key")
    return config.database.with_name(f"{config.database.name}-key")


def open_vault(config: Config, database: Database) -> Vault:
    """The vault under the configured master key, or under the key file; what is done by hand from now on can be noted.

    That one is made with the first secret; never when there are locked ones already, which it could not open.
    Raises ConfigError.
    """
    current, former = given_keys(config)
    if current is None:
        current = read_or_make_key_file(key_file(config), make=not anything_locked(database))
    vault = Vault(current, *([former] if former else []))
    _swear_in(database, vault)
    return vault


def _swear_in(database: Database, vault: Vault, *, lost_key: bool = False) -> None:
    """`lost_key`: what the journal was sealed with may be lost, too; then it goes on with another key."""
    if lost_key or database.notary is None or not database.notary.goes_by(vault.unlock):
        database.notary = Notary(vault.lock, vault.unlock, lost_key=lost_key)


def given_keys(config: Config) -> tuple[MasterKey | None, MasterKey | None]:
    """The current master key and the former one, where the configuration gives them. Raises ConfigError."""
    keys: list[MasterKey | None] = []
    faults = []
    for name in ("master_key", "former_master_key"):
        secret = getattr(config, name)
        try:
            keys.append(MasterKey.parse(secret.reveal()) if secret else None)
        except Unfit as unfit:
            faults.append(unfit.at(f"secrets.{name}"))
    if faults:
        raise ConfigError(faults)
    current, former = keys
    return current, former


def anything_locked(database: Database) -> bool:
    """True where the database holds what only its master key opens: settings, the journal's key, a player's token."""
    if store.locked_keys(database) or any(row.settings for row in store.standings(database)):
        return True
    # No sealed text begins with the empty name of a key: whatever there is, is locked under another.
    return bool(store.locked_tokens(database, "", 0, 1))


def provision(
    database: Database,
    vault: Vault,
    config: Config,
    now: int,
    *,
    actor: str,
    only_new: bool = False,
    lost_key: bool = False,
) -> list[str]:
    """Brings the database in line with the file: writes what differs, takes away what the file no longer declares.

    With `only_new` only what the database does not know is written. Returns the names of what was changed. Raises
    Refused where it would write over settings that it can't open, unless their master key is said to be lost.
    """
    known = {row.name: row for row in store.standings(database) if row.settings is not None}
    changed = [
        name
        for name, document in config.documents.items()
        if name not in known or not (only_new or _is(known[name], document, vault, lost_key=lost_key))
    ]
    gone = [name for name, row in known.items() if row.origin == FILE and name not in config.documents]
    gone = [] if only_new else gone
    if changed or gone:
        _swear_in(database, vault, lost_key=lost_key)
        rows = [
            _declared(config.declared[name], config.documents[name].reveal(), vault, _before(vault, known.get(name)))
            for name in changed
        ]
        store.declare(database, rows, gone, FILE, ("set", actor), now)
    return changed + gone


def _is(standing: Standing, document: Secret, vault: Vault, *, lost_key: bool) -> bool:
    try:
        return Secret(document_of(standing, vault)) == document and standing.origin == FILE
    except VaultError as error:
        if lost_key:
            return False
        mend = "or, if that key is lost, write the file's over them: dispatcher operators apply --lost-key"
        raise Refused(f"the stored settings of {standing.name} can't be read: {error}; {mend}") from None


def _before(vault: Vault, standing: Standing | None) -> str | None:
    """The settings that are written over; `{}` where there are none, None where they can't be opened."""
    with suppress(VaultError):
        return "{}" if standing is None else document_of(standing, vault)
    return None


def _declared(operator: Operator, document: str, vault: Vault, before: str | None) -> Declared:
    fingerprint = operator.reading.fingerprint if operator.reading else None
    changed = None if before is None else differing(json.loads(before), json.loads(document))
    return Declared(operator.name, vault.lock(document.encode(), _about(operator.name)), fingerprint, changed)


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The names of the settings (`crypto.key`) that the one document has otherwise than the other, or alone."""
    names = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        tables = [one for one in (old, new) if one is not None]
        if all(isinstance(one, dict) for one in tables):
            names += [f"{name}.{inner}" for inner in differing(old or {}, new or {})]
        elif old != new:
            names.append(name)
    return names


def _about(name: str) -> str:
    return f"settings of {name}"


def document_of(standing: Standing, vault: Vault) -> str:
    """An operator's settings with every secret in them, as JSON. Raises VaultError."""
    return vault.unlock(standing.settings or "", _about(standing.name)).decode()


def put(database: Database, vault: Vault, draft: Draft, now: int, *, actor: str, instead: str | None) -> bool:
    """Writes the settings that a person gave to an operator, `instead` of those (locked) that they were made from.

    False where somebody else has written others meanwhile: theirs stand.
    """
    # Where they can't be opened they are lost, and were given anew as a whole.
    before = "{}" if instead is None else None
    if instead is not None:
        with suppress(VaultError):
            before = vault.unlock(instead, _about(draft.operator.name)).decode()
    _swear_in(database, vault, lost_key=before is None)
    declared = _declared(draft.operator, draft.document.reveal(), vault, before)
    return store.declare(database, [declared], [], COMMAND, ("set", actor), now, instead={draft.operator.name: instead})


def load(database: Database, vault: Vault, config: Config, known: Mapping[str, Member] | None = None) -> Roster:
    """The operators in force. What stands unchanged in `known` is not read again.

    An operator that can't be read takes nobody down with it: it is left out, and `faults` says why.
    """
    members: dict[str, Member] = {}
    faults: dict[str, str] = {}
    shut: set[str] = set()
    revision = 0
    for standing in store.standings(database):
        revision = max(revision, standing.revision)
        if standing.settings is None:
            continue
        try:
            members[standing.name] = _member(standing, vault, config, (known or {}).get(standing.name))
        except DispatcherError as error:
            faults[standing.name] = str(error)
            if isinstance(error, VaultError):
                shut.add(standing.name)
    return Roster(members, faults, revision, shut)


def _member(standing: Standing, vault: Vault, config: Config, before: Member | None) -> Member:
    """As it was `before` where its settings say the same, even if they are locked anew."""
    if before is not None and before.defaults != config.defaults:
        before = None
    if before is not None and before.standing.settings == standing.settings:
        return before._replace(standing=standing)
    document = document_of(standing, vault)
    same_key = before is not None and before.standing.key_version == standing.key_version
    if before is not None and same_key and before.draft.document == Secret(document):
        return before._replace(standing=standing)
    draft = draft_operator(standing.name, json.loads(document), config.defaults, config.path.parent)
    return Member(draft, standing, config.defaults)


def differing_members(before: Member, after: Member) -> dict[str, object]:
    """What a person would want to know of a change: new settings or a new key, paused or not; nothing of secrets."""
    told: dict[str, object] = {}
    if before.operator is not after.operator:
        told["settings"] = "changed"
    if before.standing.key_version != after.standing.key_version:
        told["key_version"] = after.standing.key_version
    if (before.standing.paused_at is None) != (after.standing.paused_at is None):
        told["paused"] = after.standing.paused_at is not None
    return told


def lease_fault(operator: Operator, config: Config) -> Fault | None:
    """What is wrong with an operator whose attempts may last as long as a claim does; the file's are refused for it."""
    if operator.total_timeout < config.lease:
        return None
    told = f"{duration_text(operator.total_timeout)} is not shorter than worker.lease, {duration_text(config.lease)}"
    return Fault(f"operators.{operator.name}.total_timeout", told, "write a shorter one, or a longer lease")


class Relocked(NamedTuple):
    """How many operators and tokens were locked anew, and of the rest how many tokens stay behind, which operators."""

    operators: int
    tokens: int
    tokens_left: int
    operators_left: Mapping[str, str]


def relock(database: Database, vault: Vault, actor: str, now: int) -> Relocked:
    """Locks under the current master key what is locked under a former one; what neither opens stays as it is.

    Each page of tokens is a transaction: cut off between two of them, it is begun again and goes on.
    """
    renewed: list[tuple[str, str, str]] = []
    left: dict[str, str] = {}
    for row in store.standings(database):
        if row.settings is None or vault.is_current(row.settings):
            continue
        try:
            renewed.append((row.name, row.settings, _relocked(vault, _about(row.name), row.settings)))
        except VaultError as error:
            left[row.name] = str(error)
    keys = _relocked_keys(database, vault)
    operators = 0
    if renewed or keys or store.locked_tokens(database, vault.current_id, 0, 1):
        # With a former key that opens settings but not the journal's key, that one is lost for good.
        _swear_in(database, vault, lost_key=bool(renewed))
        by = (actor, f"under master key {vault.current_id}")
        operators = store.relock(database, renewed, keys, by, now)
    tokens, seen, last = 0, 0, 0
    while page := store.locked_tokens(database, vault.current_id, last, PAGE):
        opened = _opened(vault, page)
        store.relock_tokens(database, opened)
        tokens, seen, last = tokens + len(opened), seen + len(page), page[-1].id
    return Relocked(operators, tokens, seen - tokens, left)


def _relocked_keys(database: Database, vault: Vault) -> list[tuple[int, str]]:
    """The journal's keys that were locked under a former master key; of one that is lost, the journal tells."""
    renewed = []
    for version, locked in store.locked_keys(database):
        with suppress(VaultError):
            if not vault.is_current(locked):
                renewed.append((version, _relocked(vault, about(version), locked)))
    return renewed


def _opened(vault: Vault, page: Sequence[LockedToken]) -> list[tuple[int, str]]:
    renewed = []
    for token in page:
        with suppress(VaultError):
            renewed.append((token.id, _relocked(vault, whose_token(token), token.bearer)))
    return renewed


def _relocked(vault: Vault, about: str, locked: str) -> str:
    return vault.lock(vault.unlock(locked, about), about)
