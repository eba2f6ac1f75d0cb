"""One input: a text, images, a video, or any combination of the three."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InputError
from .image_file import EncodedSource, is_open_file

# A path, the bytes of an image file, an opened image file, a PIL image, or uint8 [height, width], [height, width, 3 or 4].
ImageSource: TypeAlias = EncodedSource | Image.Image | NDArray[np.uint8]
# A tuple of frames, or the path of a video file.
VideoSource: TypeAlias = tuple[ImageSource, ...] | str | os.PathLike[str]

_KEYS = ("id", "text", "image", "video")


@dataclass(frozen=True)
class Item:
    """One input. Raises InputError if a field has the wrong type or the input is empty."""

    text: str = ""
    images: tuple[ImageSource, ...] = ()
    video: VideoSource | None = None
    id: str | None = None

    def __post_init__(self) -> None:
        _check_text(self.text)
        _check_id(self.id)
        _check_images("images", self.images)
        if self.video is not None and not isinstance(self.video, str | os.PathLike):
            _check_images("video", self.video)
            if not self.video:
                raise InputError("The video has no frames.", fix="pass at least one frame, or omit the video")
        if not self.text.strip() and not self.images and self.video is None:
            raise InputError("The input is empty.", fix="pass a non-blank text, an image or a video")


# A text, an image, an Item, or a mapping with "id", "text", "image" and "video".
ItemLike: TypeAlias = str | ImageSource | Item | Mapping[str, Any]


def item_from(value: object) -> Item:
    """Return an Item from a text, an image, an Item, or a mapping with "id", "text", "image" and "video".

    A string is a text; for an image file pass a pathlib.Path, or {"image": path}. "image" is one image or a list. "video" is a
    list of frames or the path of a video file. A value of None means absent.

    Raises InputError for an unknown key, a wrong type or an empty input.
    """
    if isinstance(value, Item):
        return value
    if isinstance(value, str):
        return Item(text=value)
    if is_image_source(value):
        return Item(images=(value,))
    if isinstance(value, Mapping):
        return _item_from_mapping(value)
    raise InputError(
        f"An input is a {type(value).__name__}; expected a text, an image, an Item or a mapping.",
        fix="for several images, or an image with a text, pass {'image': [...], 'text': ...}",
    )


def is_image_source(value: object) -> TypeGuard[ImageSource]:
    """Return True if a value's type is an image. A string returns False: it is a text, or a path where an image is expected."""
    kinds = (os.PathLike, Image.Image, np.ndarray, bytes, bytearray, memoryview)
    return isinstance(value, kinds) or is_open_file(value)


def item_from_json(line: str, base_dir: Path) -> Item:
    """Return the Item of one JSON line. Relative paths are resolved against `base_dir`. Raises InputError."""
    return JsonLine.parse(line, base_dir).item()


@dataclass(frozen=True)
class JsonLine:
    """A parsed JSON line. `fields` are those that could be read; `files` are the paths of its images and videos, resolved.

    `problem` is the message and the fix of a line that is no input. `place` appears in messages.
    """

    fields: dict[str, Any]
    files: list[str]
    problem: tuple[str, str | None] | None = None
    place: str | None = None

    @classmethod
    def parse(cls, line: str, base_dir: Path, place: str | None = None) -> "JsonLine":
        """Parse a line. Nothing is raised, because a bad line matters only if it is embedded."""
        value, problem = dict[str, Any](), None
        try:
            try:
                value = json.loads(line, object_pairs_hook=object_from_pairs)
            except InputError as error:
                problem = error.message, error.command_line_fix
                value = json.loads(line)
        except (ValueError, RecursionError) as error:
            problem = problem or (f"The line is not JSON: {error}.", 'write one object per line, such as {"text": "..."}')
        if not isinstance(value, dict):
            problem = problem or (f"The line is a JSON {type(value).__name__}; expected an object.", 'write {"text": "..."}')
            value = {}
        files: list[str] = []
        for key in ("image", "video"):
            if key in value:
                value[key] = _resolved(value[key], base_dir, files)
        return cls(value, files, problem, place)

    def item(self) -> Item:
        """Return the input. Raises InputError."""
        try:
            if self.problem is not None:
                raise InputError(self.problem[0], fix=self.problem[1])
            return _item_from_mapping(self.fields)
        except InputError as error:
            if self.place is not None:
                error.add_place(self.place)
            raise


def object_from_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; an `object_pairs_hook` for `json.loads`. Raises InputError if a key is repeated."""
    value: dict[str, Any] = {}
    for key, content in pairs:
        if key in value:
            raise InputError(f"The key {key!r} is repeated.", fix="give each key of an object once")
        value[key] = content
    return value


def _item_from_mapping(value: Mapping[Any, Any]) -> Item:
    unknown = [key for key in value if key not in _KEYS]
    if unknown:
        raise InputError(f"The input has the unknown key {unknown[0]!r}.", fix=f"use only the keys {', '.join(_KEYS)}")
    identity, text, image, video = (value.get(key) for key in _KEYS)
    return Item(
        text="" if text is None else text,
        images=() if image is None else tuple(image) if isinstance(image, list | tuple) else (image,),
        video=tuple(video) if isinstance(video, list) else video,
        id=str(identity) if type(identity) is int else identity,
    )


def _resolved(media: object, base_dir: Path, files: list[str]) -> object:
    """Return one path or a list of paths, resolved and added to `files`.

    URLs are not changed: reading the image then raises the error.
    """
    if isinstance(media, list):
        return [_resolved(name, base_dir, files) if isinstance(name, str) else name for name in media]
    if not isinstance(media, str):
        return media
    files.append(media if "://" in media or media.startswith("data:") else str(base_dir / media))
    return files[-1]


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        raise InputError(f"The text is a {type(text).__name__}; expected a string.", fix="pass the text as one string")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"The text has an unpaired surrogate at character {error.start}.", fix="repair the text's encoding"
        ) from None


def _check_id(identity: object) -> None:
    if identity is not None and not isinstance(identity, str):
        raise InputError(f"The id is a {type(identity).__name__}; expected a string.", fix="quote the id")


def _check_images(name: str, images: object) -> None:
    if not isinstance(images, tuple):
        raise InputError(
            f"{name} is a {type(images).__name__}; expected a tuple of images{' or a path' if name == 'video' else ''}.",
            fix=f"pass {name} as a tuple",
        )
    for image in images:
        if not isinstance(image, str) and not is_image_source(image):
            raise InputError(
                f"{name} has an element of type {type(image).__name__}; expected an image.",
                fix="pass a path, bytes, an open file, a PIL image or a uint8 array",
            )
