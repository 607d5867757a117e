"""The accounts: an admin's list of all, and everybody's own password."""

from collections.abc import Mapping

from starlette.responses import Response

from dispatcher.console.desk import Page, Visit
from dispatcher.console.door import admit
from dispatcher.console.gate import keys_of
from dispatcher.ground.account import NAME, Account, Power, Role, proves, sealed, weakness
from dispatcher.ground.errors import Refused
from dispatcher.ground.secret import Secret
from dispatcher.store.accounts import account_named, all_accounts, change_account, create_account

ALL = "/console/accounts"


async def show(visit: Visit) -> Response:
    return visit.page("accounts.html", accounts=await visit.desk.ask(all_accounts, visit.desk.database))


async def ask_new(visit: Visit) -> Response:
    return _new(visit, {}, {})


def _new(visit: Visit, given: Mapping[str, str], wrong: Mapping[str, str], status: int = 200) -> Response:
    operators = sorted(visit.desk.operators())
    return visit.page("account_new.html", status, roles=list(Role), operators=operators, given=given, wrong=wrong)


async def create(visit: Visit) -> Response:
    desk, t = visit.desk, visit.look.t
    given = {name: (await visit.field(name)).strip()[:300] for name in ("name", "role", "operator")}
    password, wrong = Secret(await visit.field("password")), {}
    if not NAME.fullmatch(given["name"]):
        wrong["name"] = t["name_rule"]
    elif await desk.ask(account_named, desk.database, given["name"]) is not None:
        wrong["name"] = t["name_taken"]
    if given["role"] not in list(Role):
        wrong["role"] = t["role_missing"]
    bound = given["operator"] if given["role"] == Role.OPERATOR else None
    if bound is not None and bound not in desk.operators():
        wrong["operator"] = t["operator_missing"]
    if weak := weakness(password, given["name"]):
        wrong["password"] = t[f"weak_{weak}"]
    if wrong:
        return _new(visit, given, wrong, 422)
    kept, now = await desk.gate.work(sealed, password), desk.clock.now()
    account = Account(given["name"], Role(given["role"]), bound, kept, now, now)
    await desk.ask(create_account, desk.database, account, visit.actor)
    desk.log.info("account", name=account.name, did="created", role=account.role, by=visit.viewer.name)
    return visit.go(f"{ALL}?told=account_made")


async def show_one(visit: Visit) -> Response:
    return visit.page("account.html", account=await _its_account(visit), wrong={})


async def _its_account(visit: Visit) -> Account:
    """The one that the address names; Refused where there is none."""
    name = visit.request.path_params["name"]
    account: Account | None = await visit.desk.ask(account_named, visit.desk.database, name[:255])
    if account is None:
        raise Refused(visit.look.t["no_account"])
    return account


async def _another(visit: Visit) -> Account:
    """As `_its_account`; not the admin's own: nobody shuts himself out, or resets a password that he did not prove."""
    account = await _its_account(visit)
    if account.name == visit.viewer.name:
        raise Refused(visit.look.t["not_own_account"])
    return account


async def reset(visit: Visit) -> Response:
    desk, account = visit.desk, await _another(visit)
    password = Secret(await visit.field("password"))
    if weak := weakness(password, account.name):
        wrong = {"password": visit.look.t[f"weak_{weak}"]}
        return visit.page("account.html", 422, account=account, wrong=wrong)
    kept = await desk.gate.work(sealed, password)
    await _change(visit, account, password=kept)
    return visit.go(f"{ALL}?told=password_set")


async def disable(visit: Visit) -> Response:
    await _change(visit, await _another(visit), disabled=True)
    return visit.go(f"{ALL}?told=account_disabled")


async def enable(visit: Visit) -> Response:
    await _change(visit, await _another(visit), disabled=False)
    return visit.go(f"{ALL}?told=account_enabled")


async def _change(visit: Visit, account: Account, password: str | None = None, disabled: bool | None = None) -> None:
    desk = visit.desk

    def change() -> None:
        now = desk.clock.now()
        change_account(desk.database, account.name, visit.actor, now, password=password, disabled=disabled)

    await desk.ask(change)
    did = "password" if disabled is None else "disabled" if disabled else "enabled"
    desk.log.info("account", name=account.name, did=did, by=visit.viewer.name)


async def ask_own(visit: Visit) -> Response:
    return visit.page("password.html", wrong={})


async def change_own(visit: Visit) -> Response:
    """Everybody's own, who proves the one before; whoever else is logged in as the same is so no more."""
    desk, t, account = visit.desk, visit.look.t, visit.viewer
    fresh, wrong = Secret(await visit.field("fresh")), {}
    if weak := weakness(fresh, account.name):
        wrong["fresh"] = t[f"weak_{weak}"]
    elif fresh != Secret(await visit.field("again")):
        wrong["again"] = t["not_the_same"]
    if not wrong:
        # A session that was left open is no way to guess the password. They are counted apart from logging in.
        keys = keys_of(account.name, "", f"own {account.name}")
        if wait := desk.gate.wait(keys):
            wrong["password"] = t["too_often"].format(round(wait + 0.5))
        else:
            desk.gate.tried(keys)
            if await desk.gate.work(proves, Secret((await visit.field("password"))[:1_000]), account):
                desk.gate.passed(keys)
            else:
                wrong["password"] = t["wrong_password"]
    if wrong:
        return visit.page("password.html", 422, wrong=wrong)
    await _change(visit, account, password=await desk.gate.work(sealed, fresh))
    renewed = await desk.ask(account_named, desk.database, account.name)
    return await admit(visit, renewed, visit.go("/console/password?told=own_password_set"))


PAGES = (
    Page("GET", ALL, Power.GOVERN, show),
    Page("GET", f"{ALL}/new", Power.GOVERN, ask_new),
    Page("POST", f"{ALL}/new", Power.GOVERN, create),
    Page("GET", f"{ALL}/of/{{name}}", Power.GOVERN, show_one),
    Page("POST", f"{ALL}/of/{{name}}/password", Power.GOVERN, reset),
    Page("POST", f"{ALL}/of/{{name}}/disable", Power.GOVERN, disable),
    Page("POST", f"{ALL}/of/{{name}}/enable", Power.GOVERN, enable),
    Page("GET", "/console/password", Power.VIEW, ask_own),
    Page("POST", "/console/password", Power.VIEW, change_own),
)
