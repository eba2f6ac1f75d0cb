"""Where measured timings are kept. No GPU needed."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from plume_export.builders.tensorrt.tensorrt_bundle import timing_cache_file
from plume_export.errors import PlumeExportError
from plume_export.machine.tensorrt_variant import Variant


def test_a_link_in_the_place_of_timings_is_refused_before_a_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    variant = Variant("tensorrt", SimpleNamespace(__version__="10.3"))
    file = timing_cache_file(variant)
    assert file is not None
    Path(file).symlink_to("elsewhere")
    with pytest.raises(PlumeExportError, match=r"timings-tensorrt-10\.3 is a symbolic link to elsewhere"):
        timing_cache_file(variant)
