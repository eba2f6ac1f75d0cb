"""What `import plume_export` offers: names, their types, and that it stays light."""

import subprocess
import sys
from pathlib import Path

import pytest

import plume_export


@pytest.mark.parametrize("name", plume_export.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(plume_export, name) is not None
    assert name in dir(plume_export)


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="embedder"):
        plume_export.embedder  # noqa: B018


def test_the_package_is_marked_as_typed() -> None:
    assert (Path(plume_export.__file__).parent / "py.typed").is_file()


def test_modules_that_commands_import_do_not_take_a_public_name() -> None:
    """A submodule of the same name would replace the function as soon as it is imported."""
    code = """
import pkgutil, plume_export
submodules = {module.name for module in pkgutil.iter_modules(plume_export.__path__)}
print(submodules & set(plume_export.__all__))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
