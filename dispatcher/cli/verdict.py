"""What `dispatcher verify` says: one JSON document, or the answer first and the rest by why it fails."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from dispatcher.cli.common import print_json
from dispatcher.ground.crypto import BLOCK, IvEncoding, KeyEncoding, Output
from dispatcher.ground.errors import listed
from dispatcher.ground.fields import printable
from dispatcher.verify.advice import Advice, advise, next_steps
from dispatcher.verify.mistakes import Found, find
from dispatcher.verify.plaintext import Worth
from dispatcher.verify.readings import (
    Material,
    Reading,
    ciphertext_sizes,
    key_text_size,
    presets_for,
    rewritten,
    sizes,
)
from dispatcher.verify.trials import EITHER_OR, Trial, make_all, try_all

# So many of what a plaintext gives are shown unless all are asked for.
FEW = 4


def reach_verdict(material: Material, text: str, kind: str, *, every: bool = False, as_json: bool) -> int:
    """Tries everything on a text of this kind ("ciphertext" or "plaintext") and says it; returns the exit status."""
    making = kind == "plaintext"
    trials = make_all(material, text) if making else try_all(material, text.strip())
    decrypts = any(trial.decrypts for trial in trials)
    found = [] if making or decrypts else find(material, text)
    steps = [] if decrypts or found else [*next_steps(trials, None if making else text.strip())]
    if as_json:
        print_json(_document(material, trials, found, None if making else text) | {"next": steps})
    elif making and trials:
        _print_made(material, trials, every=every)
    elif decrypts:
        _print_decrypted(material, trials)
    else:
        _print_failed(material, trials, found)
    if not as_json and not decrypts:
        _print_given(material, None if making else text)
        for step in steps:
            click.echo(f"\n{step}")
    return 0 if decrypts else 1


def _document(
    material: Material, trials: Sequence[Trial], found: Sequence[Found], ciphertext: str | None
) -> dict[str, Any]:
    best = trials[0] if trials and trials[0].decrypts else None
    return {
        "readings": [_row(material, trial) for trial in trials],
        "mistakes": [_found_row(one) for one in found],
        "settings": best.reading.toml() if best else None,
        "presets": presets_for(best.reading) if best else [],
        "languages": [
            {"language": one.language, "reads": not one.wrong, "wrong": list(one.wrong), "call": one.call}
            for one in (_advice(material, best) if best else ())
        ],
        "bytes": _given(material, ciphertext),
    }


def _row(material: Material, trial: Trial) -> dict[str, Any]:
    otherwise = rewritten(material, trial.reading)
    row = trial.reading.settings() | {
        "decrypts": trial.decrypts,
        "plaintext": trial.plaintext,
        "note": trial.note,
        "from_byte_16": trial.tail,
        "key_written": otherwise.get("key"),
        "iv_written": otherwise.get("iv"),
    }
    return row if trial.ciphertext is None else row | {"ciphertext": trial.ciphertext}


def _found_row(found: Found) -> dict[str, Any]:
    whole = found.worth > Worth.TAIL
    return {
        "mistakes": [{"name": one.name, "told": one.told, "mend": one.mend} for one in found.mistakes],
        "key_encoding": found.key_encoding,
        "cipher": found.cipher,
        "iv_mode": found.iv_mode,
        "padding": found.padding,
        "output": found.output,
        "plaintext": found.plaintext if whole else None,
        "from_byte_16": None if whole else found.plaintext,
    }


def _advice(material: Material, best: Trial) -> list[Advice]:
    return advise(best.reading, key_text_size(material, best.reading))


def _given(material: Material, ciphertext: str | None) -> dict[str, dict[str, int | None]]:
    """How many bytes each reading of what was given gives."""
    given = {"key": sizes(material.keys[0], KeyEncoding)}
    if material.ivs:
        given["iv"] = sizes(material.ivs[0], IvEncoding)
    if ciphertext is not None:
        given["ciphertext"] = ciphertext_sizes(ciphertext.strip())
    return given


def _print_decrypted(material: Material, trials: Sequence[Trial]) -> None:
    good = [trial for trial in trials if trial.decrypts]
    whole = good[0].worth is Worth.JSON
    click.secho("This is it: it decrypts to a JSON object." if whole else "It decrypts to readable text.", bold=True)
    groups = _grouped(good)
    for group in groups:
        click.echo(f"\n  {_quoted(group[0].plaintext)}\n  ({group[0].note})")
        if len(groups) > 1:
            click.echo(f"  {_settings(group[0].reading.settings())}{_otherwise(material, group[0].reading)}")
        _print_same(material, group)
    _print_settings(material, good[0])
    click.echo("\nWhat typical code makes of these settings:")
    _print_languages(material, good[0])
    _print_rest("The other readings", [trial for trial in trials if not trial.decrypts])


def _grouped(trials: Iterable[Trial]) -> list[list[Trial]]:
    """Those that give the same from the same bytes together, in the order of the first of them."""
    groups: dict[object, list[Trial]] = {}
    for trial in trials:
        reading = trial.reading
        known = (trial.plaintext, trial.tail) if trial.ciphertext is None else (reading.padding, reading.output)
        groups.setdefault((reading.key, reading.iv, known), []).append(trial)
    return list(groups.values())


def _otherwise(material: Material, reading: Reading) -> str:
    """Which text a reading takes, where it isn't the configured one: its settings alone would give something else."""
    told = [
        f"the {'IV' if name == 'iv' else name} written as {manner}"
        for name, manner in rewritten(material, reading).items()
    ]
    return f", with {' and '.join(told)}" if told else ""


def _print_same(material: Material, group: Sequence[Trial]) -> None:
    """What else gives the same: only the settings that differ."""
    first = group[0].reading.settings()
    others = [
        " and ".join(f'{name} = "{value}"' for name, value in trial.reading.settings().items() if value != first[name])
        + _otherwise(material, trial.reading)
        for trial in group[1:]
    ]
    if any(others):
        click.echo(
            f"  The same bytes, written otherwise: {'; '.join(dict.fromkeys(other for other in others if other))}"
        )


def _print_settings(material: Material, best: Trial) -> None:
    if best.reading.crypto() == material.own:
        click.echo("\nThat is what the configuration says already.")
        return
    beside = _otherwise(material, best.reading) or ", with key and iv beside it"
    click.echo(f"\nTo write into the configuration{beside}:\n  {best.reading.toml()}")
    fitting = presets_for(best.reading)
    if fitting:
        told = listed([f'preset = "{name}"' for name in fitting])
        click.echo(f'  The rest but key_encoding = "{best.reading.key_encoding}" is what {told} says already.')


def _print_languages(material: Material, best: Trial) -> None:
    for advice in _advice(material, best):
        told = "reads it" if not advice.wrong else "; ".join(advice.wrong)
        click.echo(f"  {advice.language:<7} {told}\n          {advice.call}")


def _print_rest(title: str, trials: Sequence[Trial]) -> None:
    if trials:
        click.echo(f"\n{title}, by why they fail:")
        for note, count in Counter(trial.note for trial in trials).most_common():
            click.echo(f"  {count:>4}  {note}")


def _print_failed(material: Material, trials: Sequence[Trial], found: Sequence[Found]) -> None:
    click.secho("No reading decrypts it." if trials else "No reading gives a key for AES.", bold=True)
    if found:
        click.echo("\nA known mistake explains it:" if len(found) == 1 else "\nEach of these explains it:")
    for one in found:
        _print_found(one)
    # A whole text under a mistake says more than half of one.
    for trial in _tails(trials) if not found or found[0].worth is Worth.TAIL else ():
        _print_tail(material, trial)
    _print_rest("The readings", trials)


def _tails(trials: Sequence[Trial]) -> list[Trial]:
    """For each key that is right under a wrong IV the trial that says most: all IVs give the same from byte 16 on."""
    found: dict[bytes, Trial] = {}
    tails = [trial for trial in trials if trial.worth is Worth.TAIL]
    for trial in sorted(tails, key=lambda one: (one.note != EITHER_OR, one.reading.iv is None)):
        found.setdefault(trial.reading.key, trial)
    return list(found.values())


def _print_found(found: Found) -> None:
    for mistake in found.mistakes:
        click.echo("")
        click.secho(f"  {mistake.name}: {mistake.told}", bold=True)
        click.echo(f"  Mend: {mistake.mend}")
    where = "from byte 16 on " if found.worth is Worth.TAIL else ""
    click.echo(f"  Then {where}it reads: {_quoted(found.plaintext)}")
    click.echo(f"  with {_settings(found._asdict())}")


def _print_tail(material: Material, trial: Trial) -> None:
    click.echo("")
    click.secho(f"  {trial.note}", bold=True)
    click.echo(f"  …{_quoted(trial.tail)}")
    settings = _settings(trial.reading.settings() | {"iv_mode": None, "iv_encoding": None})
    click.echo(f"  with {settings}{_otherwise(material, trial.reading)}")
    click.echo("  Ask the operator for the IV of 16 bytes, and whether it stands in front of each message.")


def _print_given(material: Material, ciphertext: str | None) -> None:
    click.echo("\nWhat was given:")
    for name, counts in _given(material, ciphertext).items():
        told = (f"{how} can't read it" if n is None else f"{how} gives {n} bytes" for how, n in counts.items())
        click.echo(f"  {name}: {', '.join(told)}")
    wanted = f"A key has 16, 24 or 32 bytes, an IV {BLOCK}"
    click.echo(f"  {wanted}, a ciphertext whole blocks of {BLOCK}.")


def _print_made(material: Material, trials: Sequence[Trial], *, every: bool) -> None:
    """One alphabet is enough for people; the others are in the JSON. So is one padding in a short list."""
    output = material.own.output if material.own else Output.BASE64
    groups = _grouped(trial for trial in trials if trial.reading.output is output)
    padding = groups[0][0].reading.padding
    shown = groups if every else [group for group in groups if group[0].reading.padding is padding][:FEW]
    click.secho(f"A right implementation sends, as {output} (--json has the others):", bold=True)
    if material.own:
        click.echo("The first is as configured; below it, its key and IV read as if their texts meant something else.")
    for group in shown:
        trial = group[0]
        told = f"{_settings(trial.reading.settings())}{_otherwise(material, trial.reading)}"
        click.echo(f"\n  {told} ({trial.note})\n  {trial.ciphertext}")
        _print_same(material, group)
    if len(shown) < len(groups):
        click.echo(f"\n{len(groups) - len(shown)} further readings are not shown; --all shows them.")
    click.echo("\nWhat typical code makes of the first of these settings:")
    _print_languages(material, groups[0][0])


def _settings(values: Mapping[str, Any]) -> str:
    """Those that are certain, as they stand in the configuration."""
    names = ("key_encoding", "cipher", "iv_mode", "iv_encoding", "padding", "output")
    return ", ".join(f'{name} = "{values[name]}"' for name in names if values.get(name))


def _quoted(text: str | None) -> str:
    return printable(text) if text else "(empty)"
