"""What picture and video files are called."""

PICTURE_SUFFIXES = frozenset(
    (
        ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff",
        ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".ico", ".tga", ".avif", ".heic", ".heif", ".hif",
    )
)  # fmt: skip
VIDEO_SUFFIXES = frozenset(
    (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".3gp", ".flv", ".ogv", ".wmv", ".mts")
)
