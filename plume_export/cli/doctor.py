"""doctor."""

from dataclasses import asdict

import click
import msgspec

from ..machine.doctor import examine


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
def doctor(as_json: bool) -> None:
    """Tell what this machine has and lacks, each line with the fix."""
    checks = examine()
    if as_json:
        click.echo(msgspec.json.encode([asdict(check) | ({"fix": ""} if check.is_ok else {}) for check in checks]))
        return
    for check in checks:
        click.echo(f"{'ok     ' if check.is_ok else 'missing'} {check.name}: {check.found if check.is_ok else check.fix}")


COMMANDS = (doctor,)
