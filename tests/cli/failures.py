"""How every command fails for a user's mistake."""

from click.testing import Result


def assert_fails(result: Result, *parts: str) -> None:
    """One message with a fix, exit code 1, no traceback."""
    assert result.exit_code == 1, result.output
    assert result.stderr.count("error: ") == 1
    assert "Traceback" not in result.output
    for part in parts:
        assert part in result.stderr
