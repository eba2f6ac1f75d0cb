"""The tokenizer of a bundle, and the tokenizer files of a checkpoint."""

import json
import shutil
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from plume_export.inputs import Item, Preprocessor
from tests.golden_model import GOLDEN_MODEL

from ..mutation import mutated, mutated_json
from ..sample_bundle import GOLDEN_CHECKPOINT
from ..surface import Files, Surface

_TOKENIZER = "tokenizer.json"
_FILES = (_TOKENIZER, "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json")
_ITEM = Item(text="Two dogs, 東京 and 12 <|im_end|> apples.")
_VALUES = (
    "<disc_emb>",
    "<bot>",
    {"type": "Sequence", "normalizers": []},
    {"type": "NFC"},
    {"type": "Replace", "pattern": {"Regex": "(a*)*b"}, "content": "x"},
    ["a", "b"],
)
# Of so many cases one goes through transformers, which is slow.
_CONVERTED_RARITY = 40


def _write(directory: Path) -> None:
    for name in _FILES:
        shutil.copyfile(GOLDEN_CHECKPOINT / name, directory / name)


def _cases(directory: Path) -> st.SearchStrategy[Files]:
    contents = {name: (directory / name).read_bytes() for name in _FILES}
    documents = {name: json.loads(content) for name, content in contents.items() if name.endswith(".json")}

    @st.composite
    def draw(draw: DrawFn) -> Files:
        if draw(st.integers(0, _CONVERTED_RARITY)):
            return {_TOKENIZER: draw(_damaged(contents[_TOKENIZER], documents[_TOKENIZER]))}
        name = draw(st.sampled_from(_FILES[1:]))
        return {_TOKENIZER: None, name: draw(_damaged(contents[name], documents.get(name)))}

    return draw()


def _damaged(content: bytes, document: object) -> st.SearchStrategy[bytes]:
    if document is None:
        return mutated([content])
    return st.one_of(mutated_json([document], _VALUES), mutated_json([document], _VALUES), mutated([content]))


def _read(directory: Path) -> None:
    from plume_export.checkpoint.tokenizer import tokenizer_json_from_checkpoint

    text = tokenizer_json_from_checkpoint(directory, GOLDEN_MODEL.decoder.vocab)
    prepared = Preprocessor(text, GOLDEN_MODEL).prepare(_ITEM)
    assert prepared.input_ids.min() >= 0
    assert prepared.input_ids.max() < GOLDEN_MODEL.decoder.vocab
    assert prepared.visual_token_count == 4


SURFACE = Surface("tokenizers", 5, _write, _cases, _read)
