"""Convert a user's inputs (items, JSON lines, media files) to the arrays of the graphs. Needs numpy, Pillow and tokenizers."""

from .image import load_image, patches_from_image, smart_resize
from .item import ImageSource, Item, ItemLike, VideoSource, is_image_source, item_from, item_from_json
from .json_lines import Inputs, Source, inputs_from_arguments, inputs_from_file, inputs_from_stream, sources_from_file
from .media_options import MediaOptions
from .notice import Notice, NoticeTally, Notify
from .patches import Patches, normalised_together
from .positions import mrope_positions, patch_positions
from .preprocessor import Media, PreparedInput, Preprocessor
from .prompt import PromptTokenizer
from .video import frames_from_video, read_video_frames

__all__ = [
    "ImageSource",
    "Inputs",
    "Item",
    "ItemLike",
    "Media",
    "MediaOptions",
    "Notice",
    "NoticeTally",
    "Notify",
    "Patches",
    "PreparedInput",
    "Preprocessor",
    "PromptTokenizer",
    "Source",
    "VideoSource",
    "frames_from_video",
    "inputs_from_arguments",
    "inputs_from_file",
    "inputs_from_stream",
    "is_image_source",
    "item_from",
    "item_from_json",
    "load_image",
    "mrope_positions",
    "normalised_together",
    "patch_positions",
    "patches_from_image",
    "read_video_frames",
    "smart_resize",
    "sources_from_file",
]
