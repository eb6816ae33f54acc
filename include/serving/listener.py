"""The node's listening socket: opened here, or inherited from the supervisor.

While the supervisor holds it, a connection that comes while the node is away waits in its queue for
the next node, where a closed port would refuse it.
"""

from __future__ import annotations

import socket

from include.errors import ConfigError


def open_listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address.

    Raises:
        ConfigError: the port is taken, or is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"the serving node cannot listen on {host}:{port} ({error.strerror}); "
            "stop what holds the port, or set EVERGREEN_NODE_PORT to a free one"
        ) from error
    listener.setblocking(False)
    return listener


def take_over(descriptor: int) -> socket.socket:
    """Return the listening socket that this process has inherited.

    Raises:
        ConfigError: the descriptor is none.
    """
    try:
        listener = socket.socket(fileno=descriptor)
        listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        listening = 0
    if not listening:
        raise ConfigError(
            f"EVERGREEN_NODE_LISTENER is {descriptor}, which is no listening socket of this "
            "process; leave it out"
        )
    listener.set_inheritable(False)  # no child of the node is to hold it open
    listener.setblocking(False)
    return listener
