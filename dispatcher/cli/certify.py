"""`dispatcher certify`: an operator's endpoint tried with test orders, before real ones go there."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dispatcher.cli.common import print_json, print_table, read_configuration, tabled
from dispatcher.cli.opening import operator_named
from dispatcher.config import Config
from dispatcher.config.operators import message_url
from dispatcher.ground.clock import WallClock, to_datetime
from dispatcher.ground.errors import EventError, Refused, Unfit
from dispatcher.ground.fields import bearer_token, printable
from dispatcher.ground.lang import language_of
from dispatcher.ground.operator import Auth, Operator
from dispatcher.ground.readers import operator_url
from dispatcher.ground.secret import Secret
from dispatcher.protocols import PROTOCOLS

if TYPE_CHECKING:
    from dispatcher.certify.orders import Orders
    from dispatcher.certify.report import Run
    from dispatcher.certify.suite import Finding


@click.command(name="certify")
@click.argument("name", metavar="OPERATOR")
@click.option("--url", metavar="URL", help="Instead of the operator's notice_url or callback_url, with its settings.")
@click.option("--type", "kind", type=click.Choice(list(PROTOCOLS)), help="Of this message type only.")
@click.option("--field", "fields", metavar="FIELD=VALUE", multiple=True, help="In every test order, like uid=player-7.")
@click.option("--token-file", metavar="FILE", help="A player's token for auth = per_event, or - for standard input.")
@click.option("--received", metavar="URL", help="Where the operator lists its bookings: GET URL?order_no=KEY.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The report as an HTML page.")
@click.option("--yes-test-orders", "agreed", is_flag=True, help="Send them: the URL is a test system's.")
@tabled
def command(
    name: str,
    url: str | None,
    kind: str | None,
    fields: tuple[str, ...],
    token_file: str | None,
    received: str | None,
    output: Path | None,
    agreed: bool,
    config_path: Path,
    as_json: bool,
    lang: str | None,
) -> None:
    """Try OPERATOR's endpoint with test orders, right ones and broken ones, and say what its answers prove.

    They are sent as production sends them, and nothing is stored here. The operator may book the right ones: their
    numbers begin with 7777, and --yes-test-orders is wanted before any is sent. Exit status 1 where a check failed.
    """
    config = read_configuration(config_path)
    operator = _aimed(operator_named(config, name), url, kind, config)
    kinds = [one for one, terms in operator.terms.items() if terms.url is not None]
    token = _token(operator, token_file)
    if received is not None:
        try:
            operator_url(received, config.allow)
        except Unfit as unfit:
            raise click.UsageError(f"--received {unfit}") from None
    started = WallClock().now()
    orders = {one: _orders(operator, one, started, _fields(fields, kinds)[one], token) for one in kinds}
    language = language_of(lang)
    run = asyncio.run(_certify(operator, orders, received, config, agreed=agreed, at=_shown(started)))
    _print(run, language, as_json=as_json)
    if output is not None:
        _write(output, run, language)
    if run.failed:
        sys.exit(1)


def _shown(at: int) -> str:
    return to_datetime(at).strftime("%Y-%m-%d %H:%M:%S")


def _aimed(operator: Operator, url: str | None, kind: str | None, config: Config) -> Operator:
    """The operator with the message types that are to be tried, and where."""
    taken = [one for one, terms in operator.terms.items() if terms.url is not None]
    if url is not None and kind is None and len(taken) > 1:
        raise click.UsageError(f"--url does not say for which message type; add --type {taken[0]} or --type {taken[1]}")
    if kind is not None and kind not in taken and url is None:
        mend = f"write --type {taken[0]}, or give its --url"
        raise click.UsageError(f"{operator.name} takes no {kind}: it has no {PROTOCOLS[kind].url}; {mend}")
    wanted = [kind] if kind is not None else taken
    terms = dict(operator.terms)
    for one in terms:
        if one not in wanted:
            terms[one] = replace(terms[one], url=None)
        elif url is not None:
            try:
                terms[one] = replace(terms[one], url=message_url(url, PROTOCOLS[one], config.allow))
            except Unfit as unfit:
                raise click.UsageError(f"--url {unfit}") from None
    if operator.reading is None and any(PROTOCOLS[one].encrypts for one in wanted):
        raise click.UsageError(f"{operator.name} has no crypto settings, and a {wanted[0]} is encrypted; add them")
    return replace(operator, terms=terms)


def _token(operator: Operator, file: str | None) -> Secret | None:
    """The player's token; nothing of it is ever said."""
    wanted = [one for one, terms in operator.terms.items() if terms.url and terms.auth is Auth.PER_EVENT]
    if file is None:
        if wanted:
            raise click.UsageError(f"the {wanted[0]} of {operator.name} carries the player's token: give --token-file")
        return None
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
        return Secret(bearer_token(text.strip()))
    except Unfit as unfit:
        raise click.UsageError(f"--token-file {unfit}") from None
    except (OSError, ValueError):
        # Not its name: who mixes it up with the token has written the token there.
        raise click.UsageError("--token-file can't be read; name a file with the token, or -") from None


def _fields(texts: Sequence[str], kinds: Sequence[str]) -> Mapping[str, dict[str, str]]:
    """What is written into every order of each type; a field goes to the types that have it."""
    given: dict[str, dict[str, str]] = {kind: {} for kind in kinds}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"--field {text} is no FIELD=VALUE; write e.g. --field uid=player-7")
        having = [kind for kind in kinds if any(field.name == name for field in PROTOCOLS[kind].fields)]
        for kind in having or kinds:
            given[kind][name] = value
    return given


def _orders(operator: Operator, kind: str, started: int, more: Mapping[str, str], token: Secret | None) -> "Orders":
    from dispatcher.certify.orders import Orders

    try:
        return Orders(operator, kind, started, more, token)
    except EventError as error:
        raise click.UsageError("; ".join(str(fault) for fault in error.faults)) from None


async def _certify(
    operator: Operator, orders: Mapping[str, "Orders"], received: str | None, config: Config, *, agreed: bool, at: str
) -> "Run":
    from dispatcher.certify.books import Books
    from dispatcher.certify.letters import Sender
    from dispatcher.certify.report import Run
    from dispatcher.certify.suite import Suite

    async with AsyncExitStack() as stack:
        suites: list[Suite] = []
        for kind, own in orders.items():
            sender = Sender(operator, kind, config.allow)
            stack.push_async_callback(sender.aclose)
            books = Books(received, operator, kind, config.allow) if received is not None else None
            if books is not None:
                stack.push_async_callback(books.aclose)
            suites.append(Suite(operator, own, sender, books, _progress))
        plans = [suite.plan() for suite in suites]
        for plan in plans:
            told = f"{plan.requests} requests for {plan.orders} test orders (7777…, player {plan.player})"
            click.echo(f"{plan.kind}: {told} to {plan.url}", err=True)
        if not agreed:
            raise click.UsageError("nothing was sent; if that is a test system, say so with --yes-test-orders")
        findings = [finding for suite in suites for finding in await suite.run()]
    return Run(operator.name, at, plans, findings)


def _progress(finding: "Finding") -> None:
    if sys.stderr.isatty():
        click.echo(f"{finding.kind} {finding.check.name}: {finding.result}", err=True)


def _write(output: Path, run: "Run", language: str) -> None:
    from dispatcher.certify.report import page

    try:
        output.write_text(page(run, language), "utf-8")
    except OSError as error:
        raise Refused(f"{output} can't be written ({error.strerror}); name another file") from None


def _print(run: "Run", language: str, *, as_json: bool) -> None:
    from dispatcher.certify import text
    from dispatcher.certify.check import Result
    from dispatcher.certify.report import document

    if as_json:
        print_json(document(run, language))
        return
    headings = {name: one.said(language) for name, one in text.HEADINGS.items()}
    rows = [
        (
            finding.kind,
            finding.check.title.said(language),
            text.RESULTS[finding.result].said(language),
            finding.check.expected.said(language),
            finding.came(language),
        )
        for finding in run.findings
    ]
    print_table(("type", "check", "result", "expected", "came"), rows, headings)
    for finding in run.findings:
        if finding.result is Result.PASS:
            continue
        result = text.RESULTS[finding.result].said(language)
        click.echo(f"{finding.kind} {finding.check.name}: {result}")
        told = [note.said(language) for note in finding.notes]
        if finding.result in (Result.FAIL, Result.WARNING):
            told += [f"{headings[name]}: {getattr(finding.check, name).said(language)}" for name in ("why", "mend")]
        for line in [*told, *([f"{headings['orders']}: {', '.join(finding.keys)}"] if finding.keys else [])]:
            click.echo(f"  {printable(line)}")
    verdict = text.FAILED.fill(count=run.failed) if run.failed else text.PASSED
    click.echo(verdict.said(language))
