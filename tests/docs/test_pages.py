"""The pages name everything that there is: errors, targets, public names, the keys and tensors of a bundle."""

import ast
import re
from pathlib import Path

import pytest

import plume_export
from plume_export.bundle import Manifest
from plume_export.spec import PLUME_2B, PRECISIONS, graph_specs

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def public_errors() -> set[str]:
    """Subclasses of PlumeExportError anywhere in the package, and itself."""
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for file in (ROOT / "plume_export").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    found = {"PlumeExportError"}
    while more := {name for name, parents in bases.items() if parents & found} - found:
        found |= more
    return {name for name in found if not name.startswith("_")}


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_every_error_has_a_section_on_troubleshooting() -> None:
    errors = public_errors()
    assert {"InputError", "BundleError", "MissingDecoderError"} <= errors
    assert set(re.findall(r"^## (\w+Error)$", page("troubleshooting.md"), re.M)) == errors


def test_every_target_has_a_status() -> None:
    rows = re.findall(r"^\| (`.*?) \|.*\| \*\*(run on hardware|built|written)\*\*", page("targets.md"), re.M)
    described = {name for names, _ in rows for name in re.findall(r"`([\w-]+)`", names)}
    assert described == {file.stem for file in (ROOT / "engines").glob("*.toml")}


def test_every_public_name_is_on_the_python_page() -> None:
    described = set(re.findall(r"^::: plume_export\.(\w+)$", page("python.md"), re.M))
    assert described == set(plume_export.__all__) - {"__version__"}


def test_every_key_of_the_manifest_is_on_the_page() -> None:
    table = page("bundle-format.md").split("## Manifest")[1].split("The keys of `model`")[0]
    described = re.findall(r"^\| `(\w+)` \|", table, re.M)
    assert sorted(described) == sorted(Manifest.__struct_fields__)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_tensor_is_on_the_page(precision: str) -> None:
    described = set(re.findall(r"`(\w+)`", page("bundle-format.md").split("## Tensors")[1].split("## Prompt")[0]))
    graphs = graph_specs(PLUME_2B, precision)  # type: ignore[arg-type]
    for graph, spec in graphs.items():
        assert graph in described
        for tensor in (*spec.inputs, *spec.outputs):
            assert re.sub(r"_\d+$", "_L", tensor.name) in described


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().split("\nnav:")[1].split("\nvalidation:")[0]
    pages = {file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.md")}
    assert set(re.findall(r"[\w/-]+\.md", navigation)) == pages


def test_every_top_level_package_is_on_the_architecture_page() -> None:
    packages = {file.parent.name for file in (ROOT / "plume_export").glob("*/__init__.py")}
    table = page("architecture.md").split("## The three graphs")[0]
    missing = packages - set(re.findall(r"`(\w+)`", table))
    assert not missing
