"""`dispatcher …` under what its unit forbids: no page that is written and run, its system calls, its kinds of sockets.

`python -m tests.confined UNIT run -c …`; what systemd would do before it starts the service, by hand.
"""

import ctypes
import re
import struct
import subprocess
import sys
from pathlib import Path

NUMBERS = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
_PR_SET_MDWE, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 65, 38, 22, 2
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _EPERM, _NO_FAMILY = 0x7FFF0000, 0x00050000 | 1, 0x00050000 | 97
_FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}


def calls(name: str) -> set[str]:
    """The system calls of a set, with those of the sets in it."""
    if not name.startswith("@"):
        return {name}
    line = ["systemd-analyze", "syscall-filter", "--no-pager", name]
    told = subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    inside = [one.strip() for one in told if one.strip() and not one.strip().startswith("#")]
    return set().union(*(calls(one) for one in inside))


def allowed(unit: str) -> set[str]:
    found: set[str] = set()
    for text in re.findall(r"^SystemCallFilter=(.*)$", unit, re.MULTILINE):
        named = set().union(*(calls(one) for one in text.removeprefix("~").split()))
        found = found - named if text.startswith("~") else found | named
    # What systemd adds by itself, since nothing starts or ends without.
    return found | calls("@default") | {"execve", "exit", "exit_group", "rt_sigreturn"}


def program(unit: str) -> bytes:
    """For seccomp, as BPF."""
    numbers = dict(re.findall(r"#define __NR_(\w+) (\d+)", NUMBERS.read_text()))
    families = re.findall(r"^RestrictAddressFamilies=(.*)$", unit, re.MULTILINE)[0].split()

    def one(code: int, value: int, if_so: int = 0, if_not: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_so, if_not, value)

    parts = [one(_LOAD, 0), one(_EQUAL, int(numbers["socket"]), 0, 2 + 2 * len(families)), one(_LOAD, 16)]
    for family in families:
        parts += [one(_EQUAL, _FAMILIES[family], 0, 1), one(_RETURN, _ALLOW)]
    parts.append(one(_RETURN, _NO_FAMILY))
    for name in sorted(allowed(unit) & numbers.keys()):
        parts += [one(_EQUAL, int(numbers[name]), 0, 1), one(_RETURN, _ALLOW)]
    return b"".join([*parts, one(_RETURN, _EPERM)])


def confine(unit: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    bpf = program(unit)
    kept = ctypes.create_string_buffer(bpf, len(bpf))
    header = struct.pack("HxxxxxxQ", len(bpf) // 8, ctypes.addressof(kept))
    assert libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(_PR_SET_MDWE, 1, 0, 0, 0) == 0, "the kernel is too old for this"
    assert libc.prctl(_PR_SET_SECCOMP, _FILTER, header, 0, 0) == 0


if __name__ == "__main__":
    confine(Path(sys.argv[1]).read_text("utf-8"))
    sys.argv = ["dispatcher", *sys.argv[2:]]
    from dispatcher.cli import main

    main()
