"""docs/json-output.md is what the commands print under --json."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from click.testing import CliRunner

from plume_export.bench.report import BenchReport
from plume_export.bundle import Bundle, Manifest
from plume_export.cli import main
from plume_export.cli.documents import BundleDocument, DoctorDocument, EmbedDocument, MadeDocument
from plume_export.cli.failure import ErrorDocument
from plume_export.cli.main import COMMANDS
from plume_export.evaluation.quality_report import EvaluationReport
from plume_export.parity import ParityReport
from plume_export.recipe import Recipe
from plume_export.search.results_json import SearchReport
from plume_export.selftest import SelftestReport

PAGE = Path(__file__).parents[2] / "docs" / "json-output.md"
DOCUMENTS: dict[str, Any] = {
    "build": BundleDocument,
    "export": BundleDocument,
    "compile": BundleDocument,
    "calibrate": MadeDocument,
    "sample-data": MadeDocument,
    "random-checkpoint": MadeDocument,
    "embed": EmbedDocument,
    "search": SearchReport,
    "selftest": SelftestReport,
    "doctor": DoctorDocument,
    "evaluate": EvaluationReport,
    "parity": ParityReport,
    "bench": BenchReport,
}
ADDED_KEYS = {"parity": ["first_bad_stage"]}


def described_keys() -> dict[str, str]:
    rows = re.findall(r"^\| (`.*?`) \| (.*) \|$", PAGE.read_text(), re.M)
    return {name: keys for names, keys in rows for name in re.findall(r"`([\w-]+)`", names)}


def document(*arguments: object) -> Any:
    result = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


def assert_is(found: Any, kind: Any) -> None:
    """Every key is of the type, and none is lost in it."""
    assert json.loads(msgspec.json.encode(msgspec.convert(found, kind, strict=True))) == found


def test_every_command_is_described() -> None:
    assert set(described_keys()) == set(COMMANDS)


@pytest.mark.parametrize("command", DOCUMENTS)
def test_the_keys_are_those_of_the_type(command: str) -> None:
    described = re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", described_keys()[command]))
    fields = [field.name for field in msgspec.structs.fields(DOCUMENTS[command])]
    assert described == ADDED_KEYS.get(command, []) + fields


@pytest.mark.parametrize("command", DOCUMENTS)
def test_the_keys_in_lists_are_those_of_their_types(command: str) -> None:
    types = get_type_hints(DOCUMENTS[command])
    for key, described in re.findall(r"`(\w+)` \(list of (.*?)\)", described_keys()[command]):
        found = [list(get_type_hints(kind)) for kind in types_in(types[key]) if get_type_hints(kind)]
        assert found == [re.findall(r"`(\w+)`", described)], key


def types_in(kind: Any) -> Iterator[Any]:
    """Yield the classes in `list[A] | None`."""
    if get_args(kind):
        for inner in get_args(kind):
            yield from types_in(inner)
    elif isinstance(kind, type):
        yield kind


def test_every_type_has_a_schema() -> None:
    for kind in (*DOCUMENTS.values(), Manifest, ErrorDocument, dict[str, Recipe]):
        assert msgspec.json.schema(kind)


@pytest.mark.slow
def test_small_documents(tmp_path: Path) -> None:
    assert_is(document("sample-data", tmp_path / "drawn"), MadeDocument)
    assert_is(document("random-checkpoint", tmp_path / "checkpoint"), MadeDocument)
    assert set(document("targets")) >= {"cpu", "rtx"}
    assert_is(document("doctor"), DoctorDocument)
    plan = CliRunner().invoke(main, ["plan", "--target", "rtx", "--json"])
    assert set(json.loads(plan.stdout)) == {"plan", "total", "fits", "nearest"}


@pytest.mark.slow
def test_documents_of_a_bundle(tiny_cpu: Bundle, tiny_fp32: Bundle, tmp_path: Path) -> None:
    assert_is(document("selftest", tiny_cpu.path), SelftestReport)
    assert_is(document("embed", tiny_cpu.path, "--text", "a"), EmbedDocument)
    written = document("embed", tiny_cpu.path, "--text", "a", "-o", tmp_path / "out.npy")
    assert_is(written, EmbedDocument)
    assert (written["path"], written["embeddings"]) == (str(tmp_path / "out.npy"), None)
    assert_is(document("compile", tiny_fp32.path, "--target", "cpu", "-o", tmp_path / "compiled"), BundleDocument)
    assert_is(document("inspect", tiny_cpu.path), Manifest)
    document("sample-data", tmp_path / "drawn")
    command = ("search", tiny_cpu.path, "a star", "--in", tmp_path / "drawn" / "pictures", "--cache", tmp_path / "cache")
    assert_is(document(*command, "--html", tmp_path / "found.html"), SearchReport)


def test_an_error_is_of_its_type(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["inspect", str(tmp_path), "--json"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert_is(json.loads(result.stderr), ErrorDocument)
