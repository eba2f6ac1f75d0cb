"""What a run says once about its inputs."""

import pytest

from plume_export.inputs import Notice, NoticeTally

ROTATED = Notice("rotation ignored", "a.jpg")
LONG = Notice("long prompt", "clip.mp4", token_count=28_819, fewer_token_count=1_234)


def tally_of(*notices: Notice) -> NoticeTally:
    tally = NoticeTally()
    tally.add(notices)
    return tally


def test_each_kind_is_one_line_with_its_count() -> None:
    palette = Notice("transparency dropped", "p.png", detail="a transparent palette")
    lines = tally_of(ROTATED, palette, Notice("rotation ignored", "b.jpg"), ROTATED).lines()
    assert [line.split(":")[0] for line in lines] == ["3 images (the first", "p.png has a transparent palette"]
    assert "(the first: a.jpg) have an EXIF rotation" in lines[0]
    assert "--exif-transpose" in lines[0]


def test_of_long_prompts_the_longest_is_shown() -> None:
    (line,) = tally_of(Notice("long prompt", "short.mp4", token_count=9_000), LONG).lines()
    assert line.startswith("clip.mp4: 28,819 tokens, the longest of 2 inputs")
    assert "--video-frames 32 reduces it to about 1,234 tokens" in line
    assert "--video-frames" not in tally_of(Notice("long prompt", "the text", token_count=9_000)).lines()[0]


def test_nothing_is_said_of_nothing() -> None:
    assert tally_of().lines() == []
    tally_of().warn()


def test_a_name_may_hold_anything() -> None:
    assert (
        tally_of(Notice("text names a file", "{0} %s.png", detail="image"), ROTATED).lines()[0].startswith("{0} %s.png names")
    )


def test_warnings_speak_python_and_point_at_the_caller() -> None:
    with pytest.warns(UserWarning, match="exif_transpose=True rotates") as rotated:
        tally_of(ROTATED).warn(stacklevel=1)
    assert rotated[0].filename == __file__
    with pytest.warns(UserWarning, match="video_frames=32 reduces"):
        tally_of(LONG).warn()


def test_pictures_that_could_not_be_turned() -> None:
    unreadable = Notice("rotation unreadable", "a.jpg")
    (one,) = tally_of(unreadable).lines()
    assert one.startswith("a.jpg has an EXIF block that cannot be read and was embedded as stored")
    (two,) = tally_of(unreadable, unreadable).lines()
    assert two.startswith("2 images (the first: a.jpg) have an EXIF block that cannot be read and were embedded as stored")
