"""What a machine tells of its processor."""

from pathlib import Path

import pytest

from plume_export.bench.bench_options import BenchOptions
from plume_export.bench.report import cpu_name
from plume_export.bench.run import run_bench
from plume_export.errors import MissingExtraError


def test_the_processor_has_a_name() -> None:
    assert cpu_name(lambda _: "vendor : x\nmodel name\t: A Fast One\nmodel name\t: A Fast One\n") == "A Fast One"


@pytest.mark.parametrize(("module", "package"), [("onnx_ir", "onnx-ir"), ("scipy", "scipy")])
def test_a_missing_package_is_reported_before_any_work(module: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plume_export.bench.run.find_spec", lambda name: None if name == module else object())
    with pytest.raises(MissingExtraError, match=f"'{package}' is not installed") as caught:
        run_bench(BenchOptions(Path("no bundle")), pytest.fail)
    assert "plume-export[bench]" in str(caught.value)
