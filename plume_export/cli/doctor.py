"""doctor."""

from dataclasses import asdict

import click
import msgspec

from ..machine.doctor import Check, examine
from ..machine.target import AUTO, target_of_this_machine


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
def doctor(as_json: bool) -> None:
    """Tell what this machine has and lacks, each line with the fix."""
    target = target_of_this_machine()
    checks = [*examine(), Check(f"target {AUTO}", f"{target.name} ({target.reason})")]
    if as_json:
        click.echo(msgspec.json.encode([asdict(check) | ({"fix": ""} if check.is_ok else {}) for check in checks]))
        return
    for check in checks:
        state = "ok     " if check.is_ok else "absent " if check.is_optional else "missing"
        click.echo(f"{state} {check.name}: {check.found if check.is_ok else check.fix}")


COMMANDS = (doctor,)
