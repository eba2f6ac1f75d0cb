"""Which way a picture lies, by the EXIF tag that cameras write instead of turning the pixels."""

from PIL import ExifTags, Image

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turn_to_upright(image: Image.Image) -> Image.Transpose | None:
    """Return what turns a loaded image upright; None if it is, or if its EXIF block cannot be read.

    TIFF and HEIC are turned while they are loaded, whatever the caller wants, and then have no tag.
    """
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged block raises a dozen kinds; the pixels are fine
        return None
