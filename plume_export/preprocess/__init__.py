"""Items (text, images, video) to the arrays that the graphs take. Needs numpy, Pillow and tokenizers only."""

from .image import load_image, patches_from_image, smart_resize
from .item import ImageSource, Item, ItemLike, VideoSource, is_image_source, item_from, item_from_json
from .media_options import MediaOptions
from .notice import Notice, NoticeTally, Notify
from .patches import Patches, normalised_together
from .positions import mrope_positions, patch_positions
from .preprocessor import Media, PreparedInput, Preprocessor
from .prompt import PromptTokenizer
from .video import frames_from_video
from .video_file import read_video_frames

__all__ = [
    "ImageSource",
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
    "VideoSource",
    "frames_from_video",
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
]
