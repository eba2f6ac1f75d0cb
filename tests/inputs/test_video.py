"""Videos: frame lists against qwen-vl-utils' rules in torch, files made with PyAV, and everything that can be wrong."""

import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from plume_export.errors import InputError, MissingDecoderError
from plume_export.inputs import MediaOptions, Notice, frames_from_video, read_video_frames
from plume_export.inputs import video as video_file
from plume_export.inputs.patches import patches_from_frames
from plume_export.inputs.video import frame_token_count, resize_to_budget, sampled_indices
from tests.golden_model import GOLDEN_MODEL

VISION, LIMITS = GOLDEN_MODEL.vision, GOLDEN_MODEL.preprocess


def noise_frames(count: int, height: int, width: int) -> tuple[Image.Image, ...]:
    values = np.random.default_rng(count).integers(0, 256, (count, height, width, 3), np.uint8)
    return tuple(Image.fromarray(frame) for frame in values)


def write_video(
    path: Path, frame_count: int, *, fps: int = 10, codec: str = "libx264", size: tuple[int, int] = (96, 64)
) -> Path:
    """A video whose frame k is a flat gray of value about 6k; every twelfth frame is a key frame."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.bit_rate, stream.codec_context.gop_size = 4_000_000, 12
        for number in range(frame_count):
            frame = av.VideoFrame.from_ndarray(np.full((*size[::-1], 3), 6 * number, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


class TestFrameList:
    # Count, height and width of the frames; size in multiples of 56; final size. From qwen-vl-utils 0.0.14.
    @pytest.mark.parametrize(
        ("shape", "fetched", "final"),
        [
            ((4, 200, 300), (224, 280), (308, 364)),
            ((3, 30, 31), (112, 168), (280, 392)),
            ((2, 720, 1280), (728, 1288), (560, 1008)),
            ((2, 224, 448), (224, 448), (224, 448)),
        ],
    )
    def test_equals_torch(self, shape: tuple[int, int, int], fetched: tuple[int, int], final: tuple[int, int]) -> None:
        frames = noise_frames(*shape)
        fetched_frames = [np.asarray(frame.resize((fetched[1], fetched[0]))) for frame in frames]
        fetched_frames += fetched_frames[-1:] * (shape[0] % 2)
        tensor = torch.from_numpy(np.stack(fetched_frames)).permute(0, 3, 1, 2)
        if fetched != final:
            tensor = (
                torch.nn.functional.interpolate(tensor.float(), final, mode="bicubic", antialias=True).clamp(0, 255).round()
            )
        expected = tensor.permute(0, 2, 3, 1).numpy()
        result = frames_from_video(frames, VISION, LIMITS)
        assert result.dtype == np.uint8
        assert result.shape == expected.shape
        if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
            np.testing.assert_array_equal(result, expected)
        else:  # this build of PyTorch rounds its sums differently
            assert np.abs(result - expected).max() <= 1

    def test_patches_hold_both_frames_of_a_temporal_pair(self) -> None:
        frames = np.random.default_rng(0).integers(0, 256, (4, 56, 84, 3), np.uint8)
        patches, grid = patches_from_frames(frames, VISION, LIMITS)
        assert grid == (2, 4, 6)
        assert patches.shape == (2, 24, 1176)
        # Patch 5 in merge order is row 0, column 3; values are [channel, temporal, row, column].
        values = patches.normalised()[1, 5].reshape(3, 2, 14, 14)
        mean, std = np.float32(LIMITS.image_mean)[:, None, None], np.float32(LIMITS.image_std)[:, None, None]
        for temporal in range(2):
            pixels = frames[2 + temporal, :14, 42:56].transpose(2, 0, 1)
            np.testing.assert_array_equal(values[:, temporal], ((pixels * (1 / 255)).astype(np.float32) - mean) / std)

    def test_pixel_limits_of_the_model_hold(self) -> None:
        limits = type(LIMITS)(min_pixels=784, max_pixels=20 * 784)
        assert frames_from_video(noise_frames(2, 100, 100), VISION, limits).shape == (2, 112, 112, 3)

    def test_many_frames_share_the_pixel_budget(self) -> None:
        frame = np.asarray(noise_frames(1, 700, 900)[0])
        shapes = {count: resize_to_budget(frame, count, 28, LIMITS).shape[:2] for count in (2, 300, 320, 768, 5000)}
        assert shapes == {2: (672, 868), 300: (672, 868), 320: (644, 840), 768: (420, 532), 5000: (280, 364)}

    def test_frames_of_different_size(self) -> None:
        frames = (*noise_frames(2, 60, 60), *noise_frames(1, 60, 400))
        with pytest.raises(InputError, match="Frame 2 of the video has 400x60 pixels, frame 0 has 60x60"):
            frames_from_video(frames, VISION, LIMITS)

    def test_missing_frame(self) -> None:
        with pytest.raises(InputError, match=r"nowhere\.png does not exist"):
            frames_from_video(("nowhere.png",), VISION, LIMITS)


class TestFile:
    @pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("mkv", "mpeg4"), ("avi", "mpeg4")])
    def test_frames_are_sampled_twice_a_second(self, tmp_path: Path, suffix: str, codec: str) -> None:
        path = write_video(tmp_path / f"clip.{suffix}", 40, codec=codec)
        frames = read_video_frames(path)
        assert [frame.shape for frame in frames] == [(64, 96, 3)] * 8
        np.testing.assert_allclose([frame.mean() / 6 for frame in frames], [0, 6, 11, 17, 22, 28, 33, 39], atol=0.49)

    def test_frames_are_resized_while_decoding(self, tmp_path: Path) -> None:
        assert frames_from_video(write_video(tmp_path / "clip.mp4", 12), VISION, LIMITS).shape == (4, 280, 392, 3)

    def test_fewer_frames_than_packets(self, tmp_path: Path) -> None:
        """A stream that starts in the middle of a group of pictures: its first packets give no frame."""
        with (
            av.open(str(write_video(tmp_path / "whole.mp4", 40))) as source,
            av.open(str(tmp_path / "tail.mkv"), "w") as target,
        ):
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in list(source.demux(source.streams.video[0]))[5:]:
                if packet.size:
                    packet.stream = stream
                    target.mux(packet)
        numbers = [frame.mean() / 6 for frame in read_video_frames(tmp_path / "tail.mkv")]
        np.testing.assert_allclose(numbers, np.linspace(12, 39, len(numbers)), atol=1)

    @pytest.mark.parametrize("frame_count", [2, 3])
    def test_short_file(self, tmp_path: Path, frame_count: int) -> None:
        assert len(read_video_frames(write_video(tmp_path / "short.mp4", frame_count))) == 2

    def test_too_few_frames(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"single\.mp4 has 1 frame\(s\); expected at least 2"):
            read_video_frames(write_video(tmp_path / "single.mp4", 1))

    @pytest.mark.parametrize("name", ["nowhere.mp4", f"{'a' * 5000}.mp4", "a\0b.mp4"])
    def test_missing_file(self, name: str) -> None:
        with pytest.raises(InputError, match="does not exist"):
            read_video_frames(name)

    @pytest.mark.parametrize("content", [b"", b"no video at all"])
    def test_not_a_video(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "note.mp4").write_bytes(content)
        with pytest.raises(InputError, match=r"note\.mp4 cannot be read as a video"):
            read_video_frames(tmp_path / "note.mp4")

    def test_truncated_file(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "cut.mp4", 40)
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(InputError, match=r"cut\.mp4 .* video"):
            read_video_frames(path)

    @pytest.mark.parametrize(
        "text",
        ["ffconcat version 1.0\nfile other.mp4\n", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n"],
    )
    def test_a_list_of_other_files_is_no_video(self, tmp_path: Path, text: str) -> None:
        write_video(tmp_path / "other.mp4", 4)
        (tmp_path / "list.mp4").write_text(text)
        with pytest.raises(InputError, match=r"list\.mp4 cannot be read as a video"):
            read_video_frames(tmp_path / "list.mp4")

    def test_a_name_with_a_colon(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_video(tmp_path / "clip.mp4", 4).rename(tmp_path / "clip12:30.mp4")
        monkeypatch.chdir(tmp_path)
        assert len(read_video_frames("clip12:30.mp4")) == 4

    def test_an_unknown_codec(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "clip.avi", 4, codec="mpeg4")
        path.write_bytes(path.read_bytes().replace(b"FMP4", b"ZZZZ"))
        with pytest.raises(InputError, match="a codec that FFmpeg does not know"):
            read_video_frames(path)

    def test_frames_that_are_too_large(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(video_file, "MAX_FRAME_PIXELS", 96 * 64 - 1)
        with pytest.raises(InputError, match="frames of 96x64 = 6144 pixels; the limit is 6143"):
            read_video_frames(write_video(tmp_path / "clip.mp4", 4))

    @pytest.mark.parametrize("most", [1 << 20, 96 * 64 + 1])
    def test_a_size_that_changes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        """MPEG transport streams may be put together. The second may also be too large for the decoder."""
        monkeypatch.setattr(video_file, "MAX_FRAME_PIXELS", most)
        small = write_video(tmp_path / "small.ts", 12, codec="mpeg2video", fps=25)
        large = write_video(tmp_path / "large.ts", 12, codec="mpeg2video", fps=25, size=(192, 128))
        (tmp_path / "both.ts").write_bytes(small.read_bytes() + large.read_bytes())
        with pytest.raises(InputError, match=r"changes its size from 96x64 to 192x128|cannot be read|expected at least"):
            read_video_frames(tmp_path / "both.ts")

    def test_a_count_that_is_another_each_time(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        counts = iter(range(5, 50))
        monkeypatch.setattr(video_file, "_decoded", lambda *_: ([], next(counts)))
        with pytest.raises(InputError, match="changes from one decode to the next"):
            read_video_frames(write_video(tmp_path / "clip.mp4", 4))

    def test_sound_only(self, tmp_path: Path) -> None:
        with av.open(str(tmp_path / "sound.wav"), "w") as container:
            stream: Any = container.add_stream("pcm_s16le", rate=8000, layout="mono")
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            sound.sample_rate = 8000
            container.mux(stream.encode(sound))
        with pytest.raises(InputError, match=r"sound\.wav has no video stream"):
            read_video_frames(tmp_path / "sound.wav")

    def test_without_pyav(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is one input that cannot be read, so on_error="skip" leaves it out."""
        monkeypatch.setitem(sys.modules, "av", None)
        (tmp_path / "clip.mp4").write_bytes(b"a video")
        with pytest.raises(MissingDecoderError, match=r"clip.mp4 is a video file(.|\n)*plume-export\[video\]"):
            read_video_frames(tmp_path / "clip.mp4")


class TestSampling:
    def test_a_number_of_frames(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "clip.mp4", 40)
        numbers = [frame.mean() / 6 for frame in read_video_frames(path, frame_count=4)]
        np.testing.assert_allclose(numbers, [0, 13, 26, 39], atol=0.49)
        assert len(frames_from_video(path, VISION, LIMITS, MediaOptions(video_frames=12))) == 12

    def test_all_of_a_shorter_video(self, tmp_path: Path) -> None:
        assert len(read_video_frames(write_video(tmp_path / "clip.mp4", 7), frame_count=32)) == 6

    @pytest.mark.parametrize(("fps", "count"), [(0.1, 4), (1, 4), (2, 8), (5, 20), (2.6, 10), (1000, 40)])
    def test_a_rate(self, tmp_path: Path, fps: float, count: int) -> None:
        path = write_video(tmp_path / "clip.mp4", 40)  # of 4 seconds
        assert len(frames_from_video(path, VISION, LIMITS, MediaOptions(video_fps=fps))) == count

    def test_two_a_second_is_the_default(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "clip.mp4", 40)
        by_default, explicit = read_video_frames(path), read_video_frames(path, fps=2.0)
        np.testing.assert_array_equal(np.stack(by_default), np.stack(explicit))

    def test_a_list_of_frames_is_taken_whole(self) -> None:
        assert len(frames_from_video(noise_frames(6, 60, 60), VISION, LIMITS, MediaOptions(video_frames=2))) == 6

    def test_frames_of_a_list_are_turned_upright(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        for number, frame in enumerate(noise_frames(2, 56, 112)):
            frame.save(tmp_path / f"{number}.png", exif=exif)
        frames = tuple(tmp_path / f"{number}.png" for number in range(2))
        notices: list[Notice] = []
        as_stored = frames_from_video(frames, VISION, LIMITS, notify=notices.extend)
        assert [notice.kind for notice in notices] == ["rotation ignored"] * 2
        upright = frames_from_video(frames, VISION, LIMITS, MediaOptions(exif_transpose=True))
        assert as_stored.shape[1:3] == upright.shape[2:0:-1]

    @pytest.mark.parametrize("size", [(40, 60), (224, 448), (720, 1280), (1080, 1920)])
    def test_tokens_of_a_frame_are_foretold(self, size: tuple[int, int]) -> None:
        frame = np.zeros((*size, 3), np.uint8)
        for frame_count in (4, 32, 400, 768):
            height, width = resize_to_budget(frame, frame_count, 28, LIMITS).shape[:2]
            assert frame_token_count(*size, frame_count, 28, LIMITS) == height * width // 784


@pytest.mark.parametrize("suffix", ["gif", "png"])
def test_an_animation_is_a_video(tmp_path: Path, suffix: str) -> None:
    frames = noise_frames(6, 60, 60)
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], duration=100)
    assert frames_from_video(tmp_path / f"a.{suffix}", VISION, LIMITS).shape[0] == 4


@pytest.mark.parametrize(
    ("frame_count", "fps", "sampled_count"),
    [(2, 30, 2), (5, 30, 4), (300, 30, 20), (10, 1, 10), (9, 1, 8), (100_000, 25, 768), (301, 29.97, 20)],
)
def test_sampled_indices(frame_count: int, fps: float, sampled_count: int) -> None:
    """qwen-vl-utils' smart_nframes and torch.linspace."""
    indices = sampled_indices("clip", frame_count, fps)
    np.testing.assert_array_equal(indices, torch.linspace(0, frame_count - 1, sampled_count).round().long().numpy())
