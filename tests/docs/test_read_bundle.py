"""The reader that was written from the page on the bundle format computes what the product computes."""

from importlib import util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from plume_export import Bundle, Embedder

READER = Path(__file__).parents[2] / "docs" / "examples" / "read_bundle.py"


@pytest.fixture(scope="module")
def reader() -> ModuleType:
    spec = util.spec_from_file_location("read_bundle", READER)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RGBA, and no side a multiple of 28."""
    file = tmp_path_factory.mktemp("pictures") / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (97, 143, 4), np.uint8)).save(file)
    return file


@pytest.mark.parametrize("bundle_name", ["plume_tiny_fp16", "tiny_cpu"])
@pytest.mark.parametrize(
    ("text", "has_picture"), [("  what is this? <|im_end|> <disc_emb>\n", False), ("", True), ("what is this?", True)]
)
@pytest.mark.slow
def test_embeddings_are_the_products(
    reader: ModuleType, picture: Path, bundle_name: str, text: str, has_picture: bool, request: pytest.FixtureRequest
) -> None:
    bundle: Bundle = request.getfixturevalue(bundle_name)
    image = picture if has_picture else None
    with Embedder(bundle) as embedder:
        expected = embedder.embed([{"text": text, "image": image}])[0]
    assert np.abs(reader.embed(bundle.path, text, image) - expected).max() <= 1e-5


def test_an_altered_bundle_is_refused(reader: ModuleType, tiny_cpu: Bundle, tmp_path: Path) -> None:
    for name in ("manifest.json", *tiny_cpu.manifest.files):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((tiny_cpu.path / name).read_bytes())
    with (tmp_path / "constants.npz").open("ab") as file:
        file.write(b"0")
    with pytest.raises(SystemExit, match=r"constants\.npz was altered"):
        reader.embed(tmp_path, "a text")


def test_it_does_not_use_the_product() -> None:
    assert "plume_export" not in READER.read_text()
