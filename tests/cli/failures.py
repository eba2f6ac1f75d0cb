"""How every command fails for a user's mistake."""

from click.testing import Result


def assert_fails(result: Result, *parts: str) -> None:
    """One message with a fix, exit code 1, no traceback."""
    assert result.exit_code == 1, result.output
    assert result.stderr.count("error: ") == 1
    assert "Traceback" not in result.output
    for part in parts:
        assert part in result.stderr


def assert_is_usage(result: Result, *parts: str) -> None:
    """One message in click's way, exit code 2, no traceback."""
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert "Usage: " in result.stderr
    assert "Try '" in result.stderr
    assert result.stderr.count("Error: ") == 1
    assert "Traceback" not in result.stderr
    shown = " ".join(result.stderr.split())
    for part in parts:
        assert part in shown
