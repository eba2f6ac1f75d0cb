"""The hash of a checkpoint is that of its tensors, however they are stored."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import get_args

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from plume_export.bundle import SCHEMA_VERSION, Bundle, CheckpointOrigin, open_bundle
from plume_export.checkpoint import ExaminedTensors, checkpoint_sha256
from plume_export.checkpoint.origin import hub_snapshot, origin_of
from plume_export.errors import CheckpointError
from plume_export.parity.same_checkpoint import check_same_checkpoint
from plume_export.pipeline import ModelOptions, export_checkpoint, open_checkpoint
from plume_export.spec import Precision

from ..conftest import WITHOUT_CALIBRATION


def sha256(directory: Path) -> str:
    return checkpoint_sha256(ExaminedTensors(directory))


def stored(directory: Path, tensors: dict[str, torch.Tensor]) -> Path:
    directory.mkdir()
    save_file(tensors, directory / "model.safetensors")
    return directory


def test_files_layout_and_path_do_not_count(tiny_checkpoint: Path, tmp_path: Path) -> None:
    tensors = load_file(tiny_checkpoint / "model.safetensors")
    renamed = {"base_model.model." + name: tensor for name, tensor in tensors.items()}
    assert sha256(stored(tmp_path / "renamed", renamed)) == sha256(tiny_checkpoint)
    names = sorted(tensors)
    weight_map = {}
    shards = tmp_path / "shards"
    shards.mkdir()
    for file, part in {"b.safetensors": names[:7], "a.safetensors": names[7:]}.items():
        save_file({name: tensors[name] for name in part}, shards / file)
        weight_map |= dict.fromkeys(part, file)
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert sha256(shards) == sha256(tiny_checkpoint)


def test_every_value_dtype_and_name_counts(tiny_checkpoint: Path, tmp_path: Path) -> None:
    tensors = load_file(tiny_checkpoint / "model.safetensors")
    name = next(name for name in tensors if name.endswith("layers.0.input_layernorm.weight"))
    hashes = {sha256(tiny_checkpoint)}
    changed = tensors[name].clone()
    changed[-1] += 1
    hashes.add(sha256(stored(tmp_path / "value", tensors | {name: changed})))
    hashes.add(sha256(stored(tmp_path / "dtype", tensors | {name: tensors[name].double()})))
    hashes.add(sha256(stored(tmp_path / "fewer", {key: value for key, value in tensors.items() if key != name})))
    assert len(hashes) == 4


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def snapshot(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """A checkpoint as the hub's client keeps it: links to files that are named by their content."""
    repository = tmp_path / "models--owner--plume-2b"
    directory = repository / "snapshots" / COMMIT
    (repository / "blobs").mkdir(parents=True)
    directory.mkdir(parents=True)
    for index, file in enumerate(sorted(tiny_checkpoint.iterdir())):
        shutil.copyfile(file, repository / "blobs" / str(index))
        (directory / file.name).symlink_to(Path("../../blobs") / str(index))
    return directory


def test_the_hub_gets_the_revision_and_the_commit_is_recorded(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked = {}

    def deliver(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", deliver)
    origin = origin_of(open_checkpoint("owner/plume-2b", ModelOptions(), revision="v1.1"))
    assert (asked["name"], asked["revision"]) == ("owner/plume-2b", "v1.1")
    assert (origin.name, origin.repository, origin.revision) == ("owner/plume-2b", "owner/plume-2b", COMMIT)
    assert str(origin) == f"owner/plume-2b, at commit {COMMIT}"


def test_a_directory_in_the_hubs_cache(snapshot: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(snapshot)
    origin = origin_of(open_checkpoint(str(tmp_path / "link"), ModelOptions()))
    assert (origin.repository, origin.revision) == ("owner/plume-2b", COMMIT)
    assert str(origin) == f"{tmp_path / 'link'}, which is owner/plume-2b at commit {COMMIT}"


@pytest.mark.parametrize(
    "path",
    [
        f"datasets--a--b/snapshots/{COMMIT}",
        "models--a--b/snapshots/main",
        f"models--a--b--c/snapshots/{COMMIT}",
        f"models--a--b/refs/{COMMIT}",
        f"a--b/snapshots/{COMMIT}",
        f"models--/snapshots/{COMMIT}",
    ],
)
def test_no_directory_of_the_hubs_cache(tmp_path: Path, path: str) -> None:
    assert hub_snapshot(tmp_path / path) is None


def test_old_repositories_of_the_hub_have_no_owner(tmp_path: Path) -> None:
    assert hub_snapshot(tmp_path / "models--bert" / "snapshots" / COMMIT / "folder") == ("bert", COMMIT)


@pytest.mark.parametrize("name", ["directory", "plume-tiny"])
def test_a_revision_of_a_local_directory(name: str, tiny_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="is a local directory, but the revision 'main' is for a hub repository"):
        open_checkpoint(str(tiny_checkpoint) if name == "directory" else name, ModelOptions(), revision="main")


def test_an_empty_revision() -> None:
    with pytest.raises(CheckpointError, match="The revision is empty"):
        open_checkpoint("owner/name", ModelOptions(), revision="")


def test_a_revision_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="owner/name at revision 'v9' is neither a directory nor"):
        open_checkpoint("owner/name", ModelOptions(), revision="v9", offline=True)


@pytest.mark.slow
def test_the_bundle_records_it(tiny_fp32: Bundle, tiny_cpu: Bundle, tiny_checkpoint: Path) -> None:
    expected = CheckpointOrigin(
        name=str(tiny_checkpoint),
        tensors_sha256=checkpoint_sha256(ExaminedTensors(tiny_checkpoint)),
        config_sha256=hashlib.sha256((tiny_checkpoint / "config.json").read_bytes()).hexdigest(),
    )
    assert tiny_fp32.manifest.checkpoint == expected
    assert tiny_cpu.manifest.checkpoint == expected


def test_hashing_costs_no_pass_of_its_own(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a bundle for texts too: the blank image went through the vision encoder."""
    checkpoint = open_checkpoint(str(tiny_checkpoint), ModelOptions())
    export_checkpoint(checkpoint, tmp_path / "bundle", WITHOUT_CALIBRATION("fp32", modalities="text"), lambda _: None)
    monkeypatch.setattr(ExaminedTensors, "read", lambda _, name: pytest.fail(f"{name} is read again"))
    assert origin_of(checkpoint).tensors_sha256 is not None


def test_another_checkpoint_of_the_same_dimensions(tiny_fp32: Bundle, tiny_checkpoint: Path, tmp_path: Path) -> None:
    check_same_checkpoint(open_checkpoint(str(tiny_checkpoint), ModelOptions()), tiny_fp32.manifest)
    other = Path(shutil.copytree(tiny_checkpoint, tmp_path / "other"))
    tensors = load_file(other / "model.safetensors")
    next(iter(tensors.values())).flatten()[0] += 1
    save_file(tensors, other / "model.safetensors")
    with pytest.raises(CheckpointError, match="not the bundle's checkpoint: the sha256 of its tensors") as raised:
        check_same_checkpoint(open_checkpoint(str(other), ModelOptions()), tiny_fp32.manifest)
    assert str(tiny_checkpoint) in str(raised.value)


def test_a_bundle_without_the_hash_is_compared_by_dimensions(tiny_fp32: Bundle, tmp_path: Path) -> None:
    manifest = msgspec.structs.replace(tiny_fp32.manifest, checkpoint=CheckpointOrigin(name="old"))
    golden = Path(__file__).parents[1] / "golden" / "checkpoint"
    with pytest.raises(CheckpointError, match="its decoder is"):
        check_same_checkpoint(open_checkpoint(str(golden), ModelOptions()), manifest)
    check_same_checkpoint(open_checkpoint(tiny_fp32.manifest.checkpoint.name, ModelOptions()), manifest)


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
@pytest.mark.parametrize("precision", get_args(Precision))
def test_a_value_that_is_not_finite_is_found_in_every_precision(
    tiny_checkpoint: Path, tmp_path: Path, value: float, precision: Precision
) -> None:
    """In what every export reads first; no graph has to be traced."""
    name = "visual.blocks.1.mlp.fc2.weight"
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    tensors = load_file(copy / "model.safetensors")
    tensors[name][5, 7:9] = value
    save_file(tensors, copy / "model.safetensors")
    told = f"The tensor {name} has 2 times {'infinity' if value < 0 else 'NaN'} among its 16,384 values"
    with pytest.raises(CheckpointError, match=told):
        export_checkpoint(
            open_checkpoint(str(copy), ModelOptions()),
            tmp_path / "out" / "bundle",
            WITHOUT_CALIBRATION(precision),
            lambda _: None,
        )
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_bundles_of_schema_5_record_the_name_alone(tiny_fp32: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_fp32.path, tmp_path / "bundle"))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest |= {"schema_version": 5, "checkpoint": "somewhere"}
    del manifest["manifest_sha256"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    opened = open_bundle(copy).manifest
    assert opened.checkpoint == CheckpointOrigin(name="somewhere")
    assert opened.schema_version == SCHEMA_VERSION
