"""The command `doctor`."""

from dataclasses import asdict
from functools import partial

import click

from ..machine.doctor import Check, examine
from ..machine.target import AUTO, target_of_this_machine
from .switches import Answer, command


@command()
def doctor() -> Answer:
    """Check this machine's GPU and software, and suggest a fix for each problem."""
    target = target_of_this_machine()
    checks = [*examine(), Check(f"target {AUTO}", f"{target.name} ({target.reason})")]
    return Answer([asdict(check) | ({"fix": ""} if check.is_ok else {}) for check in checks], partial(_print_checks, checks))


def _print_checks(checks: list[Check]) -> None:
    for check in checks:
        state = "ok     " if check.is_ok else "absent " if check.is_optional else "missing"
        click.echo(f"{state} {check.name}: {check.found if check.is_ok else check.fix}")


COMMANDS = (doctor,)
