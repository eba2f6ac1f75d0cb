"""Embeddings that are written as they come, runs that were stopped, and what they go on with."""

import errno
import fcntl
import io
import json
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from plume_export import locked_file
from plume_export.embed_file import embed_sources, embed_to_file, embed_to_lines, partial, stopped_run
from plume_export.errors import InputError, PlumeExportError
from plume_export.inputs import MediaOptions, NoticeTally, inputs_from_file
from plume_export.runtime.output_rows import OUTPUT_DTYPES, OutputDtype, rows_from_embeddings

from .embedder_double import EmbedderDouble

INPUTS = 40  # with batches of one, windows of 16: two whole ones and one of 8


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    file = tmp_path / "in.jsonl"
    write(file, [f"text {number}" for number in range(INPUTS)])
    return file


def write(file: Path, texts: list[str]) -> None:
    file.write_text("".join(json.dumps({"id": f"id {row}", "text": text}) + "\n" for row, text in enumerate(texts)))


def embed(
    lines: Path,
    name: str = "out.npy",
    *,
    resume: bool = False,
    restart: bool = False,
    on_error: str = "fail",
    batch_size: int = 1,
    dtype: str = "float32",
    **double: object,
) -> SimpleNamespace:
    """Run to the end; return the file's bytes, the embedder, and what progress was told."""
    output = lines.with_name(name)
    embedder, told = EmbedderDouble(**double), []
    summary = embed_to_file(
        embedder,  # type: ignore[arg-type]
        inputs_from_file(lines),
        output,
        batch_size=batch_size,
        on_error=on_error,  # type: ignore[arg-type]
        is_resumed=resume,
        is_restarted=restart,
        output_dtype=dtype,  # type: ignore[arg-type]
        advance=told.append,
    )
    written = output.read_bytes() if output.exists() else None
    return SimpleNamespace(bytes=written, embedded=embedder.embedded, told=sum(told), skipped=summary.skipped, summary=summary)


@pytest.mark.parametrize("batch_size", [None, 3])
def test_batch_size_is_checked_once(lines: Path, batch_size: int | None) -> None:
    double: Any = EmbedderDouble()
    inputs, output = inputs_from_file(lines), lines.with_name("out.npy")
    embed_to_file(double, inputs, output, batch_size=batch_size, on_error="fail", is_resumed=False)
    embed_to_lines(double, inputs, io.BytesIO(), batch_size=batch_size, on_error="fail")
    embed_sources(double, inputs.sources, batch_size=batch_size, on_error="fail")
    assert double.checked == [batch_size] * 3


def test_notices_are_handed_on_as_inputs_are_embedded(lines: Path) -> None:
    write(lines, ["sideways", "upright", "bad", "sideways"])
    tally = NoticeTally()
    embedder, output = EmbedderDouble(), lines.with_name("out.npy")
    options = {"batch_size": 1, "on_error": "skip", "is_resumed": False}
    embed_to_file(embedder, inputs_from_file(lines), output, notify=tally.add, **options)  # type: ignore[arg-type]
    assert [line[:10] for line in tally.lines()] == ["2 images ("]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (MediaOptions(exif_transpose=True), "exif_transpose was False but is now True"),
        (MediaOptions(video_frames=8), "video_frames was None but is now 8"),
        (MediaOptions(video_fps=1.0), "video_fps was None but is now 1.0"),
    ],
)
def test_a_run_does_not_go_on_with_pictures_read_otherwise(lines: Path, options: MediaOptions, found: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed(lines, stop_after=20)
    with pytest.raises(PlumeExportError, match=found):
        embed(lines, resume=True, media_options=options)
    assert embed(lines, resume=True).embedded == INPUTS - 16


def test_a_run_of_a_version_without_options_for_media_goes_on(lines: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed(lines, stop_after=20)
    journal = lines.with_name(".out.npy.partial.jsonl")
    first, *rest = journal.read_text().splitlines()
    settings = {key: value for key, value in json.loads(first).items() if key not in vars(MediaOptions())}
    assert len(settings) == len(json.loads(first)) - 3
    journal.write_text("\n".join([json.dumps(settings), *rest, ""]))
    assert embed(lines, resume=True).embedded == INPUTS - 16


def test_parquet_says_how_it_was_made(lines: Path) -> None:
    embed(lines, "out.parquet", media_options=MediaOptions(exif_transpose=True, video_frames=8))
    settings = json.loads(pyarrow.parquet.read_schema(lines.with_name("out.parquet")).metadata[b"plume_export"])
    assert (settings["exif_transpose"], settings["video_frames"], settings["bundle"]) == (True, 8, "bundle")


def hidden(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir() if file.name.startswith("."))


@pytest.mark.parametrize("suffix", [".npy", ".jsonl", ".parquet"])
@pytest.mark.parametrize(("stop_after", "left"), [(3, INPUTS), (16, 24), (17, 24), (31, 24), (33, 8)])
def test_a_stopped_run_goes_on_to_the_same_file(lines: Path, suffix: str, stop_after: int, left: int) -> None:
    whole = embed(lines, f"whole{suffix}")
    assert whole.told == INPUTS
    with pytest.raises(KeyboardInterrupt):
        embed(lines, f"out{suffix}", stop_after=stop_after)
    assert not lines.with_name(f"out{suffix}").exists()
    resumed = embed(lines, f"out{suffix}", resume=True)
    assert resumed.bytes == whole.bytes
    assert (resumed.embedded, resumed.told) == (left, INPUTS)
    assert hidden(lines.parent) == []


@pytest.mark.parametrize("stop_at", range(7))
def test_killed_between_any_two_writes(lines: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int) -> None:
    """Each is made lasting: the settings, then the rows and the journal's line of the three windows."""
    whole = embed(lines, "whole.npy").bytes
    calls = iter(range(7))
    flush = partial._flush

    def killed(file: io.BufferedRandom) -> None:
        if next(calls) == stop_at:
            raise KeyboardInterrupt
        flush(file)

    with monkeypatch.context() as patch:
        patch.setattr(partial, "_flush", killed)
        patch.setattr(partial.PartialRun, "remove", lambda _: None)  # a kill cleans nothing up
        with pytest.raises(KeyboardInterrupt):
            embed(lines)
    assert hidden(lines.parent) == [".out.npy.partial", ".out.npy.partial.jsonl"]
    assert embed(lines, resume=True).bytes == whole
    assert hidden(lines.parent) == []


def test_cut_at_any_byte(lines: Path) -> None:
    """A torn line of the journal, rows that it does not name, and rows that it names and that are lost."""
    whole = embed(lines, "whole.npy").bytes
    with pytest.raises(KeyboardInterrupt):
        embed(lines, stop_after=33)
    files = [lines.with_name(name) for name in hidden(lines.parent)]
    rows, journal = (file.read_bytes() for file in files)
    settings, last = journal.index(b"\n"), journal.rindex(b"\n", 0, -1)
    for kept_rows in (b"", rows[:17], rows[: len(rows) // 2 - 1], rows[: len(rows) // 2], rows, rows + b"torn"):
        for kept in (0, 1, settings, settings + 1, last + 1, last + 9, len(journal) - 1, len(journal)):
            files[0].write_bytes(kept_rows)
            files[1].write_bytes(journal[:kept])
            assert embed(lines, resume=True).bytes == whole


def test_a_signal_just_after_the_first_window_was_written_loses_nothing(lines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = embed(lines, "whole.npy").bytes
    write_line = partial.PartialRun._write_line

    def write_and_stop(run: partial.PartialRun, value: object) -> None:
        write_line(run, value)  # type: ignore[arg-type]
        if isinstance(value, partial._Window):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(partial.PartialRun, "_write_line", write_and_stop)
        with pytest.raises(KeyboardInterrupt):
            embed(lines)
    stopped = stopped_run(lines.with_name("out.npy"))
    assert stopped is not None
    resumed = embed(lines, resume=True)
    assert resumed.embedded == INPUTS - stopped.inputs
    assert resumed.bytes == whole


def test_resume_with_nothing_there_starts(lines: Path) -> None:
    assert embed(lines, resume=True).bytes == embed(lines, "whole.npy").bytes


def test_a_stopped_run_is_neither_forgotten_nor_thrown_away(lines: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed(lines, stop_after=33)
    kept = {name: lines.with_name(name).read_bytes() for name in hidden(lines.parent)}
    said = r"run for .*out\.npy: 32 inputs are finished with bundle bundle, last written on [-:0-9 ]{16}\."
    with pytest.raises(PlumeExportError, match=said) as raised:
        embed(lines)
    assert "--resume" in str(raised.value.command_line_fix)
    assert "--restart" in str(raised.value.command_line_fix)
    assert {name: lines.with_name(name).read_bytes() for name in hidden(lines.parent)} == kept
    found = stopped_run(lines.with_name("out.npy"))
    assert found is not None
    assert found.inputs == 32
    write(lines, ["other"] * INPUTS)
    assert embed(lines, restart=True).embedded == INPUTS
    assert stopped_run(lines.with_name("out.npy")) is None


def test_a_damaged_journal_is_not_thrown_away_either(lines: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed(lines, stop_after=33)
    lines.with_name(".out.npy.partial.jsonl").write_text('{"version": 1}\n')
    with pytest.raises(PlumeExportError, match="Its journal is corrupt") as raised:
        embed(lines)
    assert raised.value.command_line_fix == "use --restart to discard it and start again"
    assert embed(lines, restart=True).embedded == INPUTS


def test_a_run_that_did_nothing_is_in_nobodys_way(lines: Path) -> None:
    """Killed before its first window: the settings alone are there."""
    for name, content in ((".out.npy.partial", b""), (".out.npy.partial.jsonl", b'{"version": "0"')):
        lines.with_name(name).write_bytes(content)
    assert stopped_run(lines.with_name("out.npy")) is None
    assert embed(lines).embedded == INPUTS


def test_a_failing_line_is_put_right(lines: Path) -> None:
    texts = [f"text {number}" for number in range(INPUTS)]
    write(lines, [*texts[:37], "bad", *texts[38:]])
    with pytest.raises(InputError, match=r"'id 37': The input is bad(.|\n)*resume continues after the 32 finished inputs"):
        embed(lines)
    write(lines, texts)
    resumed = embed(lines, resume=True)
    assert resumed.embedded == 8
    assert resumed.bytes == embed(lines, "whole.npy").bytes


def test_a_failing_line_is_skipped_when_the_run_goes_on(lines: Path) -> None:
    write(lines, [*(f"text {number}" for number in range(37)), "bad", "last"])
    with pytest.raises(InputError):
        embed(lines)
    resumed = embed(lines, resume=True, on_error="skip")
    assert [one.id for one in resumed.skipped] == ["id 37"]
    assert resumed.bytes == embed(lines, "whole.npy", on_error="skip").bytes
    assert np.isnan(np.load(lines.with_name("out.npy"))[37]).all()


def test_nothing_stays_of_a_run_that_did_nothing(lines: Path) -> None:
    write(lines, ["bad"])
    with pytest.raises(
        InputError, match=r"^input 'id 0': The input is bad\.\n  fix: give a good one; on_error skip skips this input$"
    ):
        embed(lines)
    assert hidden(lines.parent) == []


def test_skipped_inputs_are_reported_by_the_run_that_goes_on(lines: Path) -> None:
    write(lines, ["bad", *(f"text {number}" for number in range(39))])
    with pytest.raises(KeyboardInterrupt):
        embed(lines, on_error="skip", stop_after=33)
    with pytest.raises(PlumeExportError, match=r"it skipped 1 inputs, the first one 'id 0'(.|\n)*on_error skip"):
        embed(lines, resume=True)
    resumed = embed(lines, resume=True, on_error="skip").summary
    assert [one.id for one in resumed.skipped] == ["id 0"]
    assert resumed.lines() == ["39 embedded, 1 skipped (line 1)"]


def test_every_input_of_one_id_is_reported(lines: Path) -> None:
    lines.write_text('{"id": "a", "text": "bad"}\n' * 2)
    lines.write_text(lines.read_text() + '{"text": "good"}\n')
    assert [one.id for one in embed(lines, on_error="skip").skipped] == ["a", "a"]


def test_an_embedding_that_is_not_finite_is_skipped_or_named(lines: Path) -> None:
    texts = [f"text {number}" for number in range(INPUTS)]
    write(lines, [*texts[:20], "overflow", *texts[21:]])
    with pytest.raises(InputError, match="input 'id 20': The embedding is not finite") as raised:
        embed(lines)
    assert (raised.value.index, raised.value.input) == (20, "id 20")
    assert "--on-error skip" in str(raised.value.command_line_fix)
    resumed = embed(lines, resume=True, on_error="skip")
    assert resumed.summary.lines() == ["39 embedded, 1 skipped (line 21)"]
    assert np.isnan(np.load(lines.with_name("out.npy"))).any(1).nonzero()[0].tolist() == [20]


@pytest.mark.parametrize("suffix", [".npy", ".jsonl", ".parquet"])
def test_nothing_is_written_if_every_input_is_skipped(lines: Path, suffix: str) -> None:
    write(lines, ["bad"] * 20)
    output = lines.with_name(f"out{suffix}")
    output.write_text("of an earlier run")
    summary = embed(lines, output.name, on_error="skip").summary
    assert summary.lines() == ["0 embedded, 20 skipped (lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 10 more)"]
    with pytest.raises(PlumeExportError, match=r"All 20 inputs were skipped(.|\n)*The input is bad"):
        summary.check()
    assert output.read_text() == "of an earlier run"
    assert hidden(lines.parent) == []


def test_blank_lines_are_counted_beside_the_rows(lines: Path) -> None:
    texts = ["a", "", "", "bad", "c", ""]
    lines.write_text("".join((json.dumps({"text": text}) if text else " ") + "\n" for text in texts))
    run = embed(lines, on_error="skip")
    assert run.summary.lines() == ["2 embedded, 1 skipped (line 4), 3 blank lines ignored"]
    assert len(np.load(lines.with_name("out.npy"))) == 3
    write(lines, [f"text {number}" for number in range(INPUTS)])
    lines.write_text("\n" + lines.read_text())
    with pytest.raises(KeyboardInterrupt):
        embed(lines, stop_after=17)
    assert embed(lines, resume=True).summary.lines() == ["40 embedded, 1 blank line ignored"]


def test_ids_that_occur_more_than_once_are_reported_once(lines: Path) -> None:
    ids = ["a", "b", "a", "line 5", None, "b", "a", "c\n", "c\n", *(f"x{number}" for number in range(20))]
    lines.write_text("".join(json.dumps({"id": name, "text": f"text {row}"}) + "\n" for row, name in enumerate(ids)))
    with pytest.raises(KeyboardInterrupt):
        embed(lines, stop_after=17)
    assert embed(lines, resume=True).summary.lines() == ["29 embedded", "3 ids occur more than once: a, b, 'c\\n'"]
    lines.write_text("".join(json.dumps({"id": f"id {row // 2}", "text": "t"}) + "\n" for row in range(30)))
    *_, line = embed(lines).summary.lines()
    assert line == f"15 ids occur more than once: {', '.join(f'id {row}' for row in range(10))} and 5 more"


@pytest.mark.parametrize("dtype", OUTPUT_DTYPES)
def test_every_dtype_in_every_format(lines: Path, dtype: OutputDtype) -> None:
    """A run that was stopped may go on to another dtype; its rows are float32."""
    wanted = rows_from_embeddings(np.load(io.BytesIO(embed(lines, "whole.npy").bytes)), dtype)
    for suffix in (".npy", ".jsonl", ".parquet"):
        with pytest.raises(KeyboardInterrupt):
            embed(lines, f"out{suffix}", stop_after=33)
        embed(lines, f"out{suffix}", resume=True, dtype=dtype)
    array = np.load(lines.with_name("out.npy"))
    assert array.dtype == wanted.dtype
    assert array.tobytes() == wanted.tobytes()
    column = pyarrow.parquet.read_table(lines.with_name("out.parquet")).column("embedding")
    assert str(column.type.value_type) == {"float32": "float", "float16": "halffloat", "binary": "uint8"}.get(dtype, dtype)
    assert np.array_equal(np.array(column.to_pylist(), wanted.dtype), wanted)
    read = [json.loads(line)["embedding"] for line in lines.with_name("out.jsonl").read_text().splitlines()]
    assert np.array_equal(np.array(read, wanted.dtype), wanted)
    assert all(isinstance(value, float if dtype.startswith("float") else int) for row in read for value in row)


@pytest.mark.parametrize("dtype", ["int8", "binary"])
def test_a_skipped_row_has_no_place_among_integers(lines: Path, dtype: str) -> None:
    write(lines, ["good", "bad"])
    with pytest.raises(PlumeExportError, match=rf"^{dtype} has no NaN"):
        embed(lines, on_error="skip", dtype=dtype)
    embed(lines, "out.jsonl", on_error="skip", dtype=dtype)
    assert len(lines.with_name("out.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "disc"}, "mode was 'gen' but is now 'disc'"),
        ({"steps": 4}, "steps was 8 but is now 4"),
        ({"batch_size": 2}, "batch_size was 1 but is now 2"),
        ({"allow_control_tokens": True}, "allow_control_tokens was False but is now True"),
        ({"bundle": SimpleNamespace(cache_key="another")}, "bundle was 'bundle' but is now 'another'"),
    ],
)
def test_a_run_of_other_settings_does_not_go_on(lines: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed(lines, stop_after=33)
    with pytest.raises(
        PlumeExportError, match=rf"out\.npy\.partial cannot be resumed: {message}\.\n  fix: .*restart to discard it"
    ):
        embed(lines, resume=True, **changes)  # type: ignore[arg-type]
    assert embed(lines, resume=True).embedded == 8  # what was done is still there


@pytest.mark.parametrize("change", ["text", "id", "fewer"])
def test_inputs_that_are_done_have_changed(lines: Path, change: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed(lines, stop_after=33)
    text = lines.read_text()
    changed = {
        "text": text.replace("text 20", "TEXT 20"),
        "id": text.replace("id 20", "ID 20"),
        "fewer": text[: len(text) // 2],
    }
    lines.write_text(changed[change])
    with pytest.raises(PlumeExportError, match="the inputs 17 to 32 differ from those that were embedded"):
        embed(lines, resume=True)


@pytest.mark.parametrize("change", ["written", "exchanged for one of equal size and time"])
def test_files_of_inputs_that_are_done_have_changed(lines: Path, change: str) -> None:
    pictures = [lines.with_name(f"{row}.png") for row in range(INPUTS)]
    for picture in pictures:
        picture.write_bytes(b"some")
    lines.write_text("".join(json.dumps({"text": "t", "image": picture.name}) + "\n" for picture in pictures))
    with pytest.raises(KeyboardInterrupt):
        embed(lines, stop_after=17)
    if change == "written":
        pictures[3].write_bytes(b"other")
    else:
        new, state = lines.with_name("new.png"), pictures[3].stat()
        new.write_bytes(b"same")
        os.utime(new, ns=(state.st_atime_ns, state.st_mtime_ns))
        new.replace(pictures[3])
        assert pictures[3].stat().st_mtime_ns == state.st_mtime_ns
    with pytest.raises(
        PlumeExportError, match=r"the inputs 1 to 16 differ from those(.|\n)*copied, moved .*restart to discard"
    ):
        embed(lines, resume=True)


def test_lines_were_added_after_a_run_that_was_stopped_at_its_end(lines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last window was cut by the end of the file; it is embedded again, with what has come."""
    with monkeypatch.context() as patch:
        patch.setattr(
            "plume_export.embed_file.stream.write_embeddings", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            embed(lines)
    write(lines, [f"text {number}" for number in range(INPUTS + 3)])
    assert embed(lines, resume=True).bytes == embed(lines, "whole.npy").bytes


def test_a_damaged_journal(lines: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed(lines, stop_after=33)
    lines.with_name(".out.npy.partial.jsonl").write_text('{"version": 1}\n')
    with pytest.raises(PlumeExportError, match="its journal is corrupt"):
        embed(lines, resume=True)


def test_changed_ids_in_the_journal(lines: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed(lines, stop_after=33)
    journal = lines.with_name(".out.npy.partial.jsonl")
    journal.write_text(journal.read_text().replace('"id 2"', '"id 3"', 1))
    with pytest.raises(PlumeExportError, match=r"the inputs 1 to .* differ from those that were embedded"):
        embed(lines, resume=True)


def test_a_journal_without_end(lines: Path) -> None:
    lines.with_name(".out.npy.partial.jsonl").write_text("[" * 100_000 + "\n")
    with pytest.raises(PlumeExportError, match="its journal is corrupt"):
        embed(lines, resume=True)


def test_two_runs_to_one_file(lines: Path) -> None:
    settings = partial.RunSettings("0", "bundle", "gen", 8, 1, False)
    with (
        partial.PartialRun(lines.with_name("out.npy"), settings, 8, is_resumed=False),
        pytest.raises(PlumeExportError, match=r"out\.npy is being written by another process"),
    ):
        embed(lines)


def test_a_run_does_not_take_the_files_of_one_that_has_ended(lines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second has opened the rows when the first ends and removes them; a third has its own rows by then."""
    rows, lock, begun = lines.with_name(".out.npy.partial"), locked_file._lock, []

    def lock_late(descriptor: int, output: Path, *, is_shared: bool) -> None:
        if not begun:
            begun.append(descriptor)
            rows.rename(rows.with_name("ended"))
            rows.touch()
        lock(descriptor, output, is_shared=is_shared)

    monkeypatch.setattr(locked_file, "_lock", lock_late)
    settings = partial.RunSettings("0", "bundle", "gen", 8, 1, False)
    second = partial.PartialRun(lines.with_name("out.npy"), settings, 8, is_resumed=False)
    with second, rows.open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_a_run_removes_its_files_once(lines: Path) -> None:
    rows, settings = lines.with_name(".out.npy.partial"), partial.RunSettings("0", "bundle", "gen", 8, 1, False)
    with partial.PartialRun(lines.with_name("out.npy"), settings, 8, is_resumed=False) as run:
        run.remove()
        rows.write_text("of another run")
    assert rows.read_text() == "of another run"


@pytest.mark.parametrize("name", [".out.npy.partial", ".out.npy.partial.jsonl", ".out.npy.lock"])
def test_links_beside_the_output_are_not_followed(lines: Path, name: str) -> None:
    victim = lines.with_name("victim")
    victim.write_text("precious")
    lines.with_name(name).symlink_to("victim")
    with pytest.raises(PlumeExportError, match=rf"{re.escape(name)} is a symbolic link to victim.*\n  fix: remove it"):
        embed(lines)
    assert victim.read_text() == "precious"
    if "partial" in name:
        lines.with_name(".out.npy.partial").touch()
        with pytest.raises(PlumeExportError, match="is a symbolic link to victim"):
            stopped_run(lines.with_name("out.npy"))


def test_a_pipe_beside_the_output_is_refused_and_not_waited_for(lines: Path) -> None:
    os.mkfifo(lines.with_name(".out.npy.partial"))
    with pytest.raises(PlumeExportError, match=r"\.out\.npy\.partial is not a regular file"):
        stopped_run(lines.with_name("out.npy"))


def test_a_file_system_without_locks_is_said_to_be_one(lines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with pytest.raises(PlumeExportError, match=r"its file system has no locks.*\n  fix: choose an output on another"):
        embed(lines)


def test_a_full_disk_names_the_way_on(lines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(99))

    def full(file: io.BufferedRandom) -> None:
        if next(calls) == 3:
            raise OSError(28, os.strerror(28))
        file.flush()

    with monkeypatch.context() as patch:
        patch.setattr(partial, "_flush", full)
        with pytest.raises(PlumeExportError, match=r"cannot be written: No space left on device\.\n  fix: .*resume"):
            embed(lines)
    assert embed(lines, resume=True).embedded == INPUTS - 16


@pytest.mark.parametrize("suffix", [".npy", ".jsonl", ".parquet"])
def test_files_that_cannot_grow(lines: Path, suffix: str) -> None:
    """As on a full disk, at many places of a run: one sentence, what stood there stays, and --resume ends it."""
    whole = embed(lines, f"whole{suffix}").bytes
    output, failures = lines.with_name(f"out{suffix}"), 0
    for most in range(0, max(4000, len(whole)) + 100, 150):
        output.write_bytes(b"old")
        if (message := error_with_files_of(most, lambda: embed(lines, output.name))) is not None:
            failures += 1
            assert message.count(": File too large.\n  fix: ") == 1
            assert output.read_bytes() == b"old"
            assert len(hidden(lines.parent)) in (0, 2)
        assert embed(lines, output.name, resume=True).bytes == whole
        assert hidden(lines.parent) == []
    assert failures >= 10


def error_with_files_of(most: int, run: Callable[[], object]) -> str | None:
    """Return the error of what runs while no file may have more bytes than so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
        run()
    except PlumeExportError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    return None


def test_lines_come_window_by_window(lines: Path) -> None:
    file = io.BytesIO()
    embedder = EmbedderDouble(stop_after=33)
    with pytest.raises(KeyboardInterrupt):
        embed_to_lines(embedder, inputs_from_file(lines), file, batch_size=1, on_error="fail")  # type: ignore[arg-type]
    assert [json.loads(line)["id"] for line in file.getvalue().splitlines()] == [f"id {number}" for number in range(32)]


def test_every_format_has_the_same_rows(lines: Path) -> None:
    write(lines, ["first", "bad", *(f"text {number}" for number in range(30))])
    for suffix in (".npy", ".jsonl", ".parquet"):
        embed(lines, f"out{suffix}", on_error="skip")
    array = np.load(lines.with_name("out.npy"))
    assert array.shape == (32, 8)
    assert np.isnan(array).all(1).nonzero()[0].tolist() == [1]
    table = pyarrow.parquet.read_table(lines.with_name("out.parquet")).to_pydict()
    read = [json.loads(line) for line in lines.with_name("out.jsonl").read_text().splitlines()]
    assert table["id"] == [line["id"] for line in read] == [f"id {number}" for number in range(32) if number != 1]
    assert (np.array(table["embedding"], np.float32) == np.delete(array, 1, 0)).all()
    assert (np.array([line["embedding"] for line in read], np.float32) == np.delete(array, 1, 0)).all()


@pytest.mark.parametrize("suffix", [".npy", ".jsonl", ".parquet"])
def test_no_inputs(lines: Path, suffix: str) -> None:
    lines.write_text("\n  \n")
    embed(lines, f"out{suffix}")
    assert hidden(lines.parent) == []
    if suffix == ".npy":
        assert np.load(lines.with_name("out.npy")).shape == (0, 8)
