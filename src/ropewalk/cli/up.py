"""`ropewalk up TARGET`: the whole system on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from ..errors import ConfigurationError, DeclarationError


@click.command()
@click.argument("target", default="system.toml")
@click.option("--port", default=8000, show_default=True, help="The first service's; each next one on the next port.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Where data lies (default: .ropewalk).")
@click.option("--fresh", is_flag=True, help="Delete the data folder first.")
@click.option("--json", "as_json", is_flag=True, help="The log as lines of JSON.")
# There is no dashboard yet; who will not want one may say so already, in scripts that are to last.
@click.option("--no-dashboard", is_flag=True, hidden=True, expose_value=False)
def up(target: str, port: int, data: Path | None, fresh: bool, as_json: bool) -> None:
    """Run the whole system of TARGET on this machine until Ctrl-C, and restart what changes."""
    from ..engine import install

    install()
    from ..runtime.up import run

    try:
        status = run(
            target, port=port, data=data, fresh=fresh, as_json=as_json, stream=sys.stdout, environment=os.environ
        )
    except (ConfigurationError, DeclarationError) as error:
        raise click.ClickException(str(error)) from error
    sys.exit(status)
