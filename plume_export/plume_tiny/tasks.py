"""The retrieval tasks of plume-tiny: a scene, a query that asks for it, and an answer that shows it."""

from collections.abc import Callable
from random import Random
from typing import Literal

from ..inputs import Item
from .drawing import draw_clip, draw_picture
from .scenes import (
    Clip,
    Scene,
    Several,
    Single,
    Split,
    sample_clip,
    sample_edit,
    sample_page,
    sample_picture,
    sample_plain_picture,
)

Task = Literal["text-to-image", "image-to-text", "composed-image", "text-to-video", "text-to-page"]
_VAGUE_SHARE = 0.1


def sample_scene(task: Task, random: Random, split: Split) -> Scene:
    """Return what an answer of the task shows. A held-out scene has a combination that training never sees."""
    return _SCENES[task](random, split)


def draw_query(task: Task, scene: Scene, random: Random, split: Split) -> Item:
    """Return a query that `scene` answers."""
    if task == "image-to-text":
        return Item(images=(draw_picture(scene, random),))
    if task == "composed-image":
        return _composed_query(scene, random, split)
    return Item(text=_caption(scene, random, split))


def draw_answer(task: Task, scene: Scene, random: Random, split: Split) -> Item:
    """Return an answer that shows `scene`."""
    if task == "image-to-text":
        return Item(text=_caption(scene, random, split))
    if isinstance(scene, Clip):
        return Item(video=draw_clip(scene, random))
    return Item(images=(draw_picture(scene, random),))


def _composed_query(scene: Scene, random: Random, split: Split) -> Item:
    """Return a picture that differs in one property, and words for the change. For training, the picture is never held out."""
    assert isinstance(scene, Single | Several)
    edit = sample_edit(scene, random)
    while split == "train" and edit.source.is_held_out:
        edit = sample_edit(scene, random)
    return Item(text=edit.words, images=(draw_picture(edit.source, random),))


def _caption(scene: Scene, random: Random, split: Split) -> str:
    """Return a caption. Some training captions leave something out; an evaluation caption has only one answer."""
    if split == "train" and isinstance(scene, Single | Several) and random.random() < _VAGUE_SHARE:
        return scene.vague_caption(random)
    return scene.caption(random)


_SCENES: dict[Task, Callable[[Random, Split], Scene]] = {
    "text-to-image": sample_picture,
    "image-to-text": sample_picture,
    "composed-image": sample_plain_picture,
    "text-to-video": sample_clip,
    "text-to-page": sample_page,
}
TASKS = tuple(_SCENES)
