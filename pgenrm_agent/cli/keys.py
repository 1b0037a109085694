"""`pgenrm keys ...`: who may call the servers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgenrm_agent.cli.options import JsonOption, KeysOption
from pgenrm_agent.cli.output import print_json
from pgenrm_agent.errors import ConfigurationError

if TYPE_CHECKING:
    from pgenrm_agent.integrations.keys import KeyRing

app = typer.Typer(no_args_is_help=True, help="Who may call the servers.")


@app.command()
def add(
    tenant: Annotated[str, typer.Argument(help="Whose users and memory the key opens.")],
    *,
    file: KeysOption,
) -> None:
    """Make a key for a tenant. It is shown this once; only its hash is kept."""
    key, issued = _key_ring(file).issue(tenant)
    typer.echo(f"key {issued.id} for tenant {tenant}, shown only now:", err=True)
    typer.echo(key)


@app.command("list")
def list_keys(*, file: KeysOption, as_json: JsonOption = False) -> None:
    """The keys in force: id, tenant, when made."""
    keys = [key.model_dump(mode="json", exclude={"digest"}) for key in _key_ring(file).issued()]
    if as_json:
        print_json(keys)
        return
    for key in keys:
        typer.echo(f"{key['id']}  {key['tenant']}  {key['created_at']}")


@app.command()
def revoke(
    identity: Annotated[str, typer.Argument(metavar="ID", help="As `pgenrm keys list` shows it.")],
    *,
    file: KeysOption,
) -> None:
    """Take a key out of force, at once."""
    typer.echo(f"key {identity} of tenant {_key_ring(file).revoke(identity).tenant} is revoked")


def keys_in_force(file: Path | None, tenant: str | None = None) -> KeyRing:
    """Return the keys.

    Raises ConfigurationError when there are none (of that tenant): nobody would be answered.
    """
    ring = _key_ring(file)
    if tenant is not None and all(key.tenant != tenant for key in ring.issued()):
        raise ConfigurationError(
            f"{ring.path} holds no key of {tenant}, so nobody could call: make one with "
            f"`pgenrm keys add {tenant}`"
        )
    if not ring.issued():
        raise ConfigurationError(
            f"{ring.path} holds no keys, so nobody could call: make one with `pgenrm keys add "
            "TENANT`, or let everybody on this machine in with --no-keys"
        )
    return ring


def _key_ring(file: Path | None) -> KeyRing:
    from pgenrm_agent.integrations.keys import KeyRing
    from pgenrm_agent.settings import data_folder

    return KeyRing(file or data_folder() / "keys.jsonl")
