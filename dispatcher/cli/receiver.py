"""`dispatcher receiver`: the demo operator, until it is told to stop."""

import asyncio
import json
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

import click

from dispatcher.cli.common import config_option, guarded, json_option, read_configuration
from dispatcher.cli.opening import every_operator, no_operator
from dispatcher.config import Config
from dispatcher.ground.errors import Unfit
from dispatcher.ground.operator import Operator
from dispatcher.ground.readers import listen_address

if TYPE_CHECKING:
    from dispatcher.receiver import Faults, Seen


@click.command("receiver")
@config_option
@click.option("--operator", "names", metavar="NAME", multiple=True, help="Play this one only; can be repeated.")
@click.option("--listen", metavar="HOST:PORT", help="Where; the first URL of the first operator unless given.")
@click.option("--status", type=int, metavar="N", help="Fault: answer N.")
@click.option("--delay", metavar="DURATION", help='Fault: answer late, like "2s"; goes with another fault.')
@click.option("--hang", is_flag=True, help="Fault: read the request and never answer.")
@click.option("--reset", is_flag=True, help="Fault: read the request and reset the connection.")
@click.option("--endless", is_flag=True, help="Fault: 200 and a body without end.")
@click.option("--drip", is_flag=True, help="Fault: 200 and one byte of body every 100 ms, for ever.")
@click.option("--redirect", metavar="URL", help="Fault: 302 to URL.")
@click.option("--code", metavar="CODE", help="Fault, of settles alone: answer 200 with this code.")
@click.option("--book-first", is_flag=True, help="Book the message, then misbehave.")
@click.option("--fail-first", type=int, metavar="N", help="Only the first N requests of each message meet the fault.")
@click.option("--fail-rate", type=float, metavar="P", help="Only this share of the requests (0 to 1) meets the fault.")
@click.option("--seed", type=int, metavar="N", help="With --fail-rate: the same requests in every run.")
@json_option
@click.option("-q", "--quiet", is_flag=True, help="No line for each request.")
@guarded
def command(
    config_path: Path, names: Sequence[str], listen: str | None, as_json: bool, quiet: bool, **faults: Any
) -> None:
    """Plays the operators of the configuration, with faults on demand.

    It checks tokens, headers and signatures, decrypts, and books each notice and each settle once. GET /received lists
    what it booked, GET /stats counts. A fault meets every message, unless --fail-first or --fail-rate narrows it (their
    fault is status 500 unless given).
    """
    chosen = _faults(**faults)
    operators = _operators(read_configuration(config_path), names)
    host, port = _parse_listen(listen) if listen is not None else _own_address(operators)
    asyncio.run(_run(operators, chosen, host, port, as_json, quiet))


def _faults(delay: str | None, **options: Any) -> "Faults":
    from dispatcher.ground.clock import parse_duration
    from dispatcher.receiver import Faults

    try:
        return Faults(delay=parse_duration(delay) if delay is not None else 0, **options)
    except Unfit as unfit:
        raise click.UsageError(str(unfit)) from None


def _operators(config: Config, names: Sequence[str]) -> list[Operator]:
    known = every_operator(config)
    if not known:
        raise click.UsageError("the configuration has no operator to play: add [operators.NAME]")
    for name in names:
        if name not in known:
            raise click.UsageError(no_operator(name, known))
    return [known[name] for name in dict.fromkeys(names or known)]


def _parse_listen(text: str) -> tuple[str, int]:
    try:
        return listen_address(text, 'write e.g. "127.0.0.1:9000"')
    except Unfit as unfit:
        raise click.UsageError(f"--listen {unfit}") from None


def _own_address(operators: Sequence[Operator]) -> tuple[str, int]:
    """Where the first URL points to; those that point elsewhere are warned of."""
    from dispatcher.ground.egress import parse_address

    urls = list(_urls(operators))
    setting, first = urls[0]
    host, port = first.hostname or "", first.port or 80
    address = parse_address(host)
    if first.scheme != "http" or not (host == "localhost" or (address and address.is_loopback)):
        raise click.UsageError(f"{setting} is not plain http on this machine: write --listen HOST:PORT")
    for setting, url in urls[1:]:
        if (url.hostname, url.port or 80) != (host, port):
            mend = "play it by a receiver of its own, with --operator and --listen"
            click.echo(f"Warning: {setting} points elsewhere, to {url.netloc}; {mend}", err=True)
    return host, port


def _urls(operators: Sequence[Operator]) -> Iterator[tuple[str, SplitResult]]:
    """Where the operators are posted to, each with the name of its setting; an operator has one at least."""
    from dispatcher.protocols import PROTOCOLS

    for operator in operators:
        for type_, terms in operator.terms.items():
            if terms.url is not None:
                yield f"the {PROTOCOLS[type_].url} of {operator.name}", urlsplit(terms.url)


async def _run(
    operators: Sequence[Operator], faults: "Faults", host: str, port: int, as_json: bool, quiet: bool
) -> None:
    from dispatcher.receiver import serve

    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()

    def end(error: OSError | None = None) -> None:
        if not over.done():
            over.set_exception(error) if error else over.set_result(None)

    def tell(seen: "Seen") -> None:
        try:
            _print(seen, as_json, quiet)
        except OSError as error:
            # Who reads our lines has gone. That ends the command, not just this caller's connection.
            end(error)

    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, end)
    async with serve(operators, faults, host=host, port=port, tell=tell) as receiver:
        names = ", ".join(operator.name for operator in operators)
        click.echo(f"receiver listens on {receiver.url} for {names}", err=True)
        await over


def _print(seen: "Seen", as_json: bool, quiet: bool) -> None:
    from dispatcher.ground.clock import iso

    if as_json:
        click.echo(json.dumps({**seen._asdict(), "at": iso(seen.at)}))
    elif not quiet:
        message = f"{seen.operator or 'nobody'} {seen.key or ('token' if seen.type == 'token' else '-')}"
        told = f"{seen.status or 'no answer'}{f' {seen.code}' if seen.code else ''}{', booked' if seen.booked else ''}"
        click.echo(f"{message}: {told}{f' (fault: {seen.fault})' if seen.fault else ''}", err=True)
