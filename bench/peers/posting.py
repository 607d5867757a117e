"""How the peers that work in threads post: requests, a connection for each thread."""

import threading

import requests


class _Own(threading.local):
    """Each thread's."""

    session: requests.Session | None = None


_own = _Own()


def session() -> requests.Session:
    """One connection for each thread."""
    if _own.session is None:
        _own.session = requests.Session()
        # Without a look for proxies at every request.
        _own.session.trust_env = False
    return _own.session
