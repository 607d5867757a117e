"""The operators in force: what the file declares and what people set, as the database has it, unlocked and read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dispatcher.config import Config, Draft, draft_operator
from dispatcher.errors import ConfigError, DispatcherError, Unfit
from dispatcher.events import whose_token
from dispatcher.operator import Operator
from dispatcher.seal.vault import MasterKey, Vault, VaultError, read_or_make_key_file
from dispatcher.store import operators as store
from dispatcher.store.engine import Database
from dispatcher.store.operators import Declared, Standing

FILE, COMMAND = "file", "command"
PAGE = 1_000


class Member(NamedTuple):
    """An operator in force: its draft, with every secret in the document, and its row."""

    draft: Draft
    standing: Standing

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
    """The operators in force by name, what is wrong with the others, and the revision that this is."""

    members: Mapping[str, Member]
    faults: Mapping[str, str]
    revision: int

    @property
    def operators(self) -> Mapping[str, Operator]:
        return {name: member.operator for name, member in self.members.items()}


def key_file(config: Config) -> Path:
    """Where the master key is kept unless the configuration names another place: beside the database."""
    return config.database.with_name(f"{config.database.name}-key")


def open_vault(config: Config, database: Database) -> Vault:
    """The vault under the configured master key, or under the key beside the database.

    That one is made with the first secret; never when there are locked ones already, which it could not open.
    Raises ConfigError.
    """
    if config.master_key is None:
        locked = any(standing.settings for standing in store.standings(database))
        current = read_or_make_key_file(key_file(config), make=not locked)
    else:
        current = _parsed(config.master_key.reveal(), "secrets.master_key")
    former = config.former_master_key
    return Vault(current, *([_parsed(former.reveal(), "secrets.former_master_key")] if former else []))


def _parsed(text: str, where: str) -> MasterKey:
    try:
        return MasterKey.parse(text)
    except Unfit as unfit:
        raise ConfigError([unfit.at(where)]) from None


def provision(
    database: Database, vault: Vault, config: Config, now: int, *, actor: str, only_new: bool = False
) -> list[str]:
    """Brings the database in line with the file: writes what differs, takes away what the file no longer declares.

    With `only_new` only what the database does not know is written. Returns the names of what was changed.
    """
    known = {row.name: row for row in store.standings(database) if row.settings is not None}
    changed = [
        name
        for name, document in config.documents.items()
        if name not in known or not (only_new or _is(known[name], document.reveal(), vault))
    ]
    gone = [name for name, row in known.items() if row.origin == FILE and name not in config.documents]
    gone = [] if only_new else gone
    if changed or gone:
        rows = [_declared(config.operators[name], config.documents[name].reveal(), vault) for name in changed]
        store.declare(database, rows, gone, FILE, ("set", actor), now)
    return changed + gone


def _is(standing: Standing, document: str, vault: Vault) -> bool:
    try:
        return standing.origin == FILE and _document(standing, vault) == document
    except VaultError:
        # Locked under a key that is lost; the file still knows it.
        return False


def _declared(operator: Operator, document: str, vault: Vault) -> Declared:
    fingerprint = operator.reading.fingerprint if operator.reading else None
    return Declared(operator.name, vault.lock(document.encode(), _about(operator.name)), fingerprint)


def _about(name: str) -> str:
    return f"settings of {name}"


def _document(standing: Standing, vault: Vault) -> str:
    return vault.unlock(standing.settings or "", _about(standing.name)).decode()


def put(database: Database, vault: Vault, draft: Draft, now: int, *, actor: str) -> None:
    """Writes the settings that a person gave to an operator."""
    declared = _declared(draft.operator, draft.document.reveal(), vault)
    store.declare(database, [declared], [], COMMAND, ("set", actor), now)


def load(database: Database, vault: Vault, config: Config, known: Mapping[str, Member] | None = None) -> Roster:
    """The operators in force. What stands unchanged in `known` is not read again.

    An operator that can't be read takes nobody down with it: it is left out, and `faults` says why.
    """
    members: dict[str, Member] = {}
    faults: dict[str, str] = {}
    revision = 0
    for standing in store.standings(database):
        revision = max(revision, standing.revision)
        if standing.settings is None:
            continue
        before = (known or {}).get(standing.name)
        try:
            members[standing.name] = (
                before._replace(standing=standing)
                if before is not None and before.standing.settings == standing.settings
                else _member(standing, vault, config)
            )
        except DispatcherError as error:
            faults[standing.name] = str(error)
    return Roster(members, faults, revision)


def _member(standing: Standing, vault: Vault, config: Config) -> Member:
    raw = json.loads(_document(standing, vault))
    return Member(draft_operator(standing.name, raw, config.defaults, config.path.parent), standing)


def relock(database: Database, vault: Vault) -> tuple[int, int]:
    """Locks under the current master key what is locked under a former one: operators and tokens, as many as told."""
    old = [row for row in store.standings(database) if row.settings and not vault.is_current(row.settings)]
    renewed = [(row.name, row.settings or "", _relocked(vault, _about(row.name), row.settings or "")) for row in old]
    operators = store.relock(database, renewed) if renewed else 0
    tokens, last = 0, 0
    while page := store.locked_tokens(database, vault.current_id, last, PAGE):
        store.relock_tokens(database, [(one.id, _relocked(vault, whose_token(one), one.bearer)) for one in page])
        tokens, last = tokens + len(page), page[-1].id
    return operators, tokens


def _relocked(vault: Vault, about: str, locked: str) -> str:
    return vault.lock(vault.unlock(locked, about), about)
