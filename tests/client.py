"""`dispatcher` for a shell: asks the nursery for a process, and ends as that does. `python -I -S client.py FD WORDS…`

It imports next to nothing, so it costs a tenth of what the command itself would to start.
"""

import _socket
import marshal
import os
import sys

asked = _socket.socket(fileno=int(sys.argv[1]))
told, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
fds = (0, 1, 2, theirs.fileno())
message = marshal.dumps((["-m", "dispatcher", *sys.argv[2:]], [0, 1, 2], os.getcwd(), dict(os.environ)))
rights = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
asked.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
theirs.close()
told.recv(64)
status = int(told.recv(64))
if status < 0:
    os.kill(os.getpid(), -status)
os._exit(status)
