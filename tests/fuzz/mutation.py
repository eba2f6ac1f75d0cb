"""Strategies that damage valid files: bytes with or without knowledge of where the fields lie, and JSON by its structure."""

import json
import struct
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

INTEGERS = (
    *(
        0,
        1,
        2,
        3,
        7,
        16,
        127,
        128,
        255,
        256,
        1000,
        4096,
        32767,
        32768,
        65535,
        65536,
        100_000,
        2**24,
        2**31 - 1,
        2**31,
        2**32 - 1,
    ),
    *(2**32, 2**40, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -1, -2, -128, -(2**31), -(2**63)),
)
# What `json` writes in another way, or refuses.
_RAW = (
    *(
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "-0.0",
        "1" + "0" * 5000,
        "0." + "0" * 400 + "1",
        "01",
        "'a'",
        "tru",
        "",
        "{",
        "]",
    ),
    *(
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        '"\\ud800"',
        '"\\u0000"',
        '"' + "x" * 100_000 + '"',
    ),
    '{"a": 1, "a": 2}',
)
TEXTS = (
    *(
        "",
        " ",
        "a",
        "\0",
        "\n",
        "é",
        "東京",
        "🙂",
        "../../../x",
        "/etc/passwd",
        "..",
        ".",
        "a/b",
        "a\\b",
        "C:\\x",
        "x" * 300,
        "a\0b",
    ),
    *("%s%n", "{}", "-1", "null", "<|im_end|>", "\u202e", "\ufeff"),
)
_FORMATS = ("<B", "<H", ">H", "<I", ">I", "<Q", ">Q")


@st.composite
def mutated(draw: DrawFn, seeds: Sequence[bytes], marks: Sequence[bytes] = (), *, most_edits: int = 6) -> bytes:
    """One of the seeds with up to `most_edits` changes. Many of them lie near the start, or behind one of the `marks`."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, most_edits))):
        _EDITS[draw(st.integers(0, len(_EDITS) - 1))](draw, data, _position(draw, data, marks), seeds)
    return bytes(data)


def _position(draw: DrawFn, data: bytearray, marks: Sequence[bytes]) -> int:
    where = draw(st.integers(0, 3))
    if where == 0 and marks:
        found = data.find(draw(st.sampled_from(marks)))
        return min(max(found, 0) + draw(st.integers(0, 48)), len(data))
    return draw(st.integers(0, min(len(data), 96) if where == 1 else len(data)))


def _flip_bits(draw: DrawFn, data: bytearray, at: int, _: Sequence[bytes]) -> None:
    if at < len(data):
        data[at] ^= draw(st.integers(1, 255))


def _overwrite_integer(draw: DrawFn, data: bytearray, at: int, _: Sequence[bytes]) -> None:
    form = draw(st.sampled_from(_FORMATS))
    value = draw(st.sampled_from(INTEGERS)) % (1 << 8 * struct.calcsize(form))
    data[at : at + struct.calcsize(form)] = struct.pack(form, value)


def _add_to_integer(draw: DrawFn, data: bytearray, at: int, _: Sequence[bytes]) -> None:
    form = draw(st.sampled_from(_FORMATS))
    size = struct.calcsize(form)
    if at + size <= len(data):
        value = struct.unpack_from(form, data, at)[0] + draw(st.integers(-17, 17))
        data[at : at + size] = struct.pack(form, value % (1 << 8 * size))


def _cut(draw: DrawFn, data: bytearray, at: int, _: Sequence[bytes]) -> None:
    del data[at : at + draw(st.integers(1, 64))]


def _truncate(draw: DrawFn, data: bytearray, at: int, _: Sequence[bytes]) -> None:
    del data[at:]


def _insert(draw: DrawFn, data: bytearray, at: int, _: Sequence[bytes]) -> None:
    data[at:at] = draw(st.binary(max_size=16))


def _repeat(draw: DrawFn, data: bytearray, at: int, _: Sequence[bytes]) -> None:
    data[at:at] = data[at : at + draw(st.integers(1, 64))] * draw(st.integers(1, 8))


def _splice(draw: DrawFn, data: bytearray, at: int, seeds: Sequence[bytes]) -> None:
    other = draw(st.sampled_from(seeds))
    data[at:] = other[draw(st.integers(0, len(other))) :]


def _fill(draw: DrawFn, data: bytearray, at: int, _: Sequence[bytes]) -> None:
    size = min(draw(st.integers(1, 64)), len(data) - at)
    data[at : at + size] = bytes([draw(st.sampled_from((0, 255, 32)))]) * size


_EDITS = (
    *(_flip_bits, _flip_bits, _overwrite_integer, _overwrite_integer, _add_to_integer),
    *(_cut, _truncate, _insert, _repeat, _splice, _fill),
)


@st.composite
def mutated_json(
    draw: DrawFn, documents: Sequence[Any], values: Sequence[Any] = (), *, least_edits: int = 0, is_raw: bool = True
) -> bytes:
    """One of the documents with up to three changes of its structure, and sometimes of its bytes.

    `values` are put in beside those that any document gets. `is_raw=False` leaves out what is no JSON.
    """
    document = deepcopy(draw(st.sampled_from(documents)))
    raw: dict[str, str] = {}
    for _ in range(draw(st.integers(least_edits, 3))):
        document = _edited(draw, document, values, raw if is_raw else None)
    text = json.dumps(document, ensure_ascii=draw(st.booleans()))
    for token, replacement in raw.items():
        text = text.replace(f'"{token}"', replacement)
    data = text.encode("utf-8", "surrogatepass")
    if is_raw and draw(st.integers(0, 7)) == 0:
        return draw(mutated([data], most_edits=3))
    return data


def _edited(draw: DrawFn, document: Any, values: Sequence[Any], raw: dict[str, str] | None) -> Any:
    """Change one place of a document, found by a walk from its root that may stop at any depth."""
    parent, key, here = None, None, document
    while isinstance(here, dict | list) and here and draw(st.integers(0, 7)):
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        parent, key = here, keys[draw(st.integers(0, len(keys) - 1))]
        here = parent[key]
    kind = draw(st.integers(0, 9))
    if isinstance(parent, dict | list) and kind == 0:
        del parent[key]
        return document
    if isinstance(parent, dict) and kind == 1:
        parent[draw(st.sampled_from([*TEXTS, *map(str, parent)]))] = parent.pop(key)
        return document
    if isinstance(parent, list) and kind == 1:
        parent.extend([here] * draw(st.integers(1, 3)))
        return document
    if isinstance(here, dict) and kind == 2:
        here[draw(st.sampled_from(TEXTS))] = draw(_json_values(values))
        return document
    if kind == 3 and raw is not None:
        token = f"@{len(raw)}@"
        raw[token] = draw(st.sampled_from(_RAW))
        value: Any = token
    else:
        value = draw(_json_values([*values, [here], {"a": here}]))
    if parent is None:
        return value
    parent[key] = value
    return document


def _json_values(values: Sequence[Any]) -> SearchStrategy[Any]:
    common = st.sampled_from([None, True, False, 0.5, -1.5, 1e308, 1e-320, [], {}, [[]], *INTEGERS, *TEXTS])
    drawn = st.one_of(common, st.sampled_from(values)) if values else common
    return drawn.map(deepcopy)  # what is drawn is edited in its place
