"""Embed a text or an image with a bundle, from the page on the bundle format alone: no plume-export is installed here.

    python read_bundle.py BUNDLE --text "a red circle" --image circle.png

Needs numpy, onnxruntime, Pillow and tokenizers, and a bundle that ONNX Runtime runs on a CPU in float32 or float16.
"""

import argparse
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from tokenizers import Tokenizer

SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"
INSTRUCTION = (
    "Represent the above input text, images, videos, or any combination of the three as embeddings. "
    "First output the thinking process in <think> </think> tags and then summarize the entire input in a word or sentence. "
    "Finally, use the <gen_emb> tag to represent the entire input."
)
DTYPES = {"float32": np.float32, "float16": np.float16, "int64": np.int64}


def embed(bundle, text="", image=None):
    """Return the embedding, float32 [hidden]."""
    manifest = read_manifest(bundle)
    model = manifest["model"]
    constants = np.load(bundle / "constants.npz")
    compute = DTYPES[next(t["dtype"] for t in manifest["graphs"]["latent_step"]["inputs"] if t["name"] == "suffix_embeddings")]
    if image is None:
        visual, grid = constants["blank_visual_embeddings"], (1, 4, 4)
    else:
        patches, positions, grid = patches_from_image(image, model)
        visual = run(bundle, "vision_encoder", patches=patches, patch_positions=positions)["visual_embeddings"]
    tokenizer = (bundle / "tokenizer.json").read_text(encoding="utf-8")
    ids = prompt_ids(tokenizer, text, len(visual), model["rollout"]["prefix"])
    pad, anchor = (Tokenizer.from_str(tokenizer).token_to_id(token) for token in ("<|image_pad|>", "<disc_emb>"))
    is_visual = ids == pad
    prefill = run(
        bundle,
        "prefill",
        input_ids=ids[None],
        visual_embeddings=visual.astype(compute),
        visual_index=np.where(is_visual, np.cumsum(is_visual) - 1, -1)[None],
        position_ids=position_ids(is_visual, grid, model["vision"]["merge_size"])[:, None],
        token_count=np.array([len(ids)]),
        anchor_index=np.flatnonzero(ids == anchor)[-1:],
    )
    return roll_out(bundle, manifest, prefill, len(ids), constants["suffix_embeddings"].astype(compute))


def roll_out(bundle, manifest, prefill, token_count, suffix):
    rollout = manifest["model"]["rollout"]
    inputs = {tensor["name"]: tensor for tensor in manifest["graphs"]["latent_step"]["inputs"]}
    cache = {
        name: np.zeros([1 if axis == "batch" else axis for axis in inputs[name]["axes"]], DTYPES[inputs[name]["dtype"]])
        for name in ("rollout_keys", "rollout_values")
    }
    prefix = {name: values for name, values in prefill.items() if name.startswith("prefix_")}
    state, anchor = prefill["state"], prefill["anchor"]
    if rollout["router_context"] == "none":
        anchor = np.zeros_like(anchor)
    for step in range(rollout["latent_steps"]):
        is_last = step == rollout["latent_steps"] - 1
        tensors = {"state": state, "anchor": anchor, "step": np.array(step), "token_count": np.array([token_count])}
        rows = suffix if is_last else suffix[:0]
        result = run(bundle, "latent_step", **tensors, suffix_embeddings=rows, **prefix, **cache)
        state = result["next_state"]
        cache["rollout_keys"][step], cache["rollout_values"][step] = result["step_keys"], result["step_values"]
    return (state / np.linalg.norm(state))[0]


def prompt_ids(tokenizer_json, text, visual_tokens, prefix):
    tokenizer = Tokenizer.from_str(tokenizer_json)
    literal = Tokenizer.from_str(json.dumps(json.loads(tokenizer_json) | {"added_tokens": []}))  # a user's text is literal
    tail = f"<disc_emb>\n{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n"
    parts = [(tokenizer, SYSTEM + PICTURE), (literal, text.strip() + "\n"), (tokenizer, tail), (tokenizer, prefix)]
    ids = np.concatenate([encoder.encode(part, add_special_tokens=False).ids for encoder, part in parts])
    return np.repeat(ids, np.where(ids == tokenizer.token_to_id("<|image_pad|>"), visual_tokens, 1))


def position_ids(is_visual, grid, merge):
    first, count = int(is_visual.argmax()), int(is_visual.sum())
    picture = np.indices((grid[0], grid[1] // merge, grid[2] // merge)).reshape(3, -1) + first
    after = np.arange(len(is_visual) - first - count) + picture.max() + 1
    return np.concatenate([np.tile(np.arange(first), (3, 1)), picture, np.tile(after, (3, 1))], axis=1)


def patches_from_image(file, model):
    vision, limits = model["vision"], model["preprocess"]
    size, merge, factor = vision["patch_size"], vision["merge_size"], vision["patch_size"] * vision["merge_size"]
    picture = Image.open(file)
    if picture.mode == "RGBA":
        on_white = Image.new("RGB", picture.size, "white")
        on_white.paste(picture, mask=picture.getchannel("A"))
        picture = on_white
    picture = picture.convert("RGB")
    for least, most in ((4 * factor**2, 16384 * factor**2), (limits["min_pixels"], limits["max_pixels"])):
        picture = picture.resize(resized(*picture.size, factor, least, most), Image.Resampling.BICUBIC)
    scaled = (np.arange(256) / 255).astype(np.float32)[np.asarray(picture)]  # [height, width, channels]
    values = (scaled - np.float32(limits["image_mean"])) / np.float32(limits["image_std"])
    rows, columns = values.shape[0] // size, values.shape[1] // size
    blocks = values.reshape(rows // merge, merge, size, columns // merge, merge, size, 3).transpose(0, 3, 1, 4, 6, 2, 5)
    twice = np.repeat(blocks[:, :, :, :, :, None], vision["temporal_patch_size"], axis=5)
    places = np.indices((rows, columns)).reshape(2, rows // merge, merge, columns // merge, merge).transpose(1, 3, 2, 4, 0)
    return twice.reshape(1, rows * columns, -1), places.reshape(-1, 2), (1, rows, columns)


def resized(width, height, factor, least, most):
    """Return width and height in multiples of `factor`. Python's `round` takes halves to the even number."""
    new = [max(factor, round(side / factor) * factor) for side in (width, height)]
    if math.prod(new) > most:
        shrink = math.sqrt(width * height / most)
        new = [max(factor, math.floor(side / shrink / factor) * factor) for side in (width, height)]
    elif math.prod(new) < least:
        grow = math.sqrt(least / (width * height))
        new = [math.ceil(side * grow / factor) * factor for side in (width, height)]
    return tuple(new)


def read_manifest(bundle):
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    if manifest.get("kind") != "plume-export bundle" or manifest["schema_version"] > 6:
        raise SystemExit(f"{bundle} is no bundle of schema 6 or older")
    for name, entry in manifest["files"].items():
        if hashlib.sha256((bundle / name).read_bytes()).hexdigest() != entry["sha256"]:
            raise SystemExit(f"{bundle / name} was altered")
    return manifest


def run(bundle, graph, **inputs):
    """Return the outputs by name. A real reader keeps its sessions."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(bundle / f"{graph}.onnx", options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Embed a text or an image with a bundle.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--text", default="")
    parser.add_argument("--image", type=Path)
    options = parser.parse_args()
    print(*embed(options.bundle, options.text, options.image))
