"""The command `doctor`."""

from functools import partial

import click

from ..machine.checks import Check, examine
from ..machine.software import find_software
from ..machine.target import AUTO, target_of_this_machine
from ..machine.verdict import Verdict, verdict_of_this_machine
from .documents import CheckDocument, DoctorDocument
from .switches import Answer, command

_LEGEND = "ok: found. missing: not installed. unusable: installed, but it does not work. The last lines summarise what works."


@command()
def doctor() -> Answer:
    """Check this machine's GPU and software, suggest a fix for each problem, and say what works."""
    target, software = target_of_this_machine(), find_software()
    checks = [*examine(software=software), Check(f"target {AUTO}", f"{target.name} ({target.reason})")]
    verdict = verdict_of_this_machine(software)
    return Answer(DoctorDocument([_document(check) for check in checks], verdict), partial(_print, checks, verdict))


def _document(check: Check) -> CheckDocument:
    return CheckDocument(check.name, check.state, check.found, "" if check.is_ok else check.fix, check.is_optional)


def _print(checks: list[Check], verdict: Verdict) -> None:
    click.echo(_LEGEND)
    for check in checks:
        click.echo(f"{check.state:8} {check.name}: {check.found if check.is_ok else check.fix}")
    for line in verdict.lines():
        click.echo(line)


COMMANDS = (doctor,)
