"""A port is taken before a command says that it serves there."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a socket that listens; whoever connects before the server runs waits, and is not refused.

    port: 0 takes a free one.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise typer.BadParameter(f"--host {host} is no address of this machine: {error}") from None
    with socket.socket(family, kind) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(address)
            bound.listen()
        except OSError as error:
            raise typer.BadParameter(
                f"port {port} of {host} cannot be used ({error}): take another with --port"
            ) from None
        yield bound


def address_of(bound: socket.socket, host: str) -> str:
    """Return the address as a URL has it: the host as it was named, and the port that was taken."""
    return f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"
