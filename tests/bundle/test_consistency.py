"""A manifest whose dimensions or graphs are no model's is refused when the bundle is opened."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from plume_export.bundle import MANIFEST, Backend, EngineManifest, open_bundle
from plume_export.bundle.manifest import check_consistency, manifest_sha256
from plume_export.errors import BundleError
from plume_export.recipe import read_recipe
from tests.fuzz.sample_bundle import write_sample_bundle


def set_vision(manifest: dict[str, Any], **values: object) -> None:
    manifest["model"]["vision"] |= values


def set_decoder(manifest: dict[str, Any], **values: object) -> None:
    manifest["model"]["decoder"] |= values


def test_a_sound_bundle_opens(tmp_path: Path) -> None:
    write_sample_bundle(tmp_path)
    assert open_bundle(tmp_path).manifest.precision == "fp32"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda manifest: set_vision(manifest, patch_size=0), "patch_size"),
        (lambda manifest: set_vision(manifest, heads=7), "vision width"),
        (lambda manifest: set_vision(manifest, depth=-1), "depth"),
        (lambda manifest: set_vision(manifest, channels=4), "images have 3"),
        (lambda manifest: set_decoder(manifest, layers=10**9), "layers"),
        (lambda manifest: set_decoder(manifest, kv_heads=3), "query heads"),
        (lambda manifest: set_decoder(manifest, hidden=64), "the tensors of the graph"),
        (lambda manifest: set_decoder(manifest, rope_theta=0), "rope_theta"),
        (lambda manifest: manifest["model"]["preprocess"].update(image_std=[0.2, 0, 0.2]), "image_std"),
        (lambda manifest: manifest["model"]["preprocess"].update(min_pixels=10**7), "above max_pixels"),
        (lambda manifest: manifest["model"]["rollout"].update(latent_steps=33), "33 latent steps"),
        (lambda manifest: manifest["graphs"].pop("prefill"), "the graph prefill is missing"),
        (lambda manifest: manifest["graphs"].pop("vision_encoder"), "the graph vision_encoder is missing"),
        (lambda manifest: manifest["graphs"]["prefill"]["inputs"].pop(), "the tensors of the graph prefill"),
        (lambda manifest: manifest.update(backend="onnxruntime-cuda"), "the backend onnxruntime-cuda needs limits"),
        (lambda manifest: manifest.update(backend="tensorrt-rtx"), "the backend tensorrt-rtx needs engines"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, edit: Callable[[dict[str, Any]], object], message: str) -> None:
    write_sample_bundle(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_bytes())
    edit(manifest)
    (tmp_path / MANIFEST).write_text(json.dumps(manifest | {"manifest_sha256": manifest_sha256(manifest)}))
    with pytest.raises(BundleError, match=f"is corrupt: .*{message}"):
        open_bundle(tmp_path)


@pytest.mark.parametrize(
    ("backend", "target", "message"),
    [
        ("onnxruntime", "rtx", "the backend onnxruntime has no engines"),
        ("tensorrt", "cpu", "the engines' recipe has no shapes"),
        ("tensorrt", "l4", "the engine vision_encoder is missing"),
    ],
)
def test_engines_that_do_not_fit_are_named(tmp_path: Path, backend: Backend, target: str, message: str) -> None:
    write_sample_bundle(tmp_path)
    engines = EngineManifest(
        flavour_version="10", device="GPU", target=target, recipe=read_recipe(target), source_sha256="", graphs={}
    )
    manifest = msgspec.structs.replace(open_bundle(tmp_path).manifest, backend=backend, engines=engines)
    with pytest.raises(BundleError, match=message):
        check_consistency(manifest, "manifest.json")
