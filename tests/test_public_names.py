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


@pytest.mark.parametrize("arguments", [["-c", "import plume_export"], ["-m", "plume_export", "--help"]])
def test_what_is_asked_first_loads_nothing_heavy(arguments: list[str]) -> None:
    result = subprocess.run([sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True)
    loaded = {line.split("|")[-1].strip() for line in result.stderr.splitlines()}
    assert "plume_export" in loaded
    assert loaded & {"numpy", "onnxruntime", "PIL", "psutil", "pynvml", "scipy", "tokenizers", "torch"} == set()


def test_modules_that_commands_import_do_not_take_a_public_name() -> None:
    """A submodule of the same name would replace the function as soon as it is imported."""
    code = """
import pkgutil, plume_export
submodules = {module.name for module in pkgutil.iter_modules(plume_export.__path__)}
print(submodules & set(plume_export.__all__))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
