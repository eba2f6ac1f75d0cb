"""Prefix caching: graph `prefill` stores the keys and values of the tokens that prompts start with, and starts after them.

Every prompt starts with the system message, and a text continues with the blank image. Their keys and values are always the
same, because attention is causal. The graph itself counts how many leading tokens of a batch match the cached ones, by ids,
positions and visual embeddings. It computes prompts with another start in full, so its inputs, outputs and results do not
change.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.rewriter.pattern import PatternBase

from ...bundle import TOKENIZER, CachedStart, Manifest, read_constants
from ...errors import PlumeExportError
from ...inputs import Item, Preprocessor
from ...machine.onnxruntime_module import import_onnxruntime
from ...runtime.backend import Array
from ...runtime.batch import prompt_arrays
from ...runtime.onnxruntime_cpu import session_options
from ...spec import DecoderSpec, layer_name
from .fused_attention import attention_pattern
from .new_nodes import NewNodes

_TOKEN_AXES = {"input_ids": 1, "visual_index": 1, "position_ids": 2}
_COUNTING_TOKENS = ("token_count", "anchor_index")
_STATES = ("state", "anchor")
# The number of leading tokens, [1], that the rewritten graph takes from its cache for every prompt of a batch.
CACHED_TOKENS = "cached_tokens"


@dataclass(frozen=True)
class PromptStart:
    """The start of a text's prompt as a batch of one: the inputs of `prefill`, and its keys and values by name.

    Keys and values are [1, kv_heads, tokens, head_dim].
    """

    inputs: Mapping[str, Array]
    cache: Mapping[str, Array]


def cache_prompt_start(directory: Path, manifest: Manifest) -> CachedStart:
    """Rewrite the fused graph `prefill` in a directory to start after the cached tokens; return their number.

    Raises MissingExtraError without ONNX Runtime, and PlumeExportError if ONNX Runtime fails.
    """
    file = directory / "prefill.onnx"
    inputs = _inputs_of_start(directory, manifest)
    start = PromptStart(inputs, _computed(file, inputs, manifest))
    ir.save(StartAfterCachedTokens(start, manifest.model.decoder)(ir.load(file)).model, file)
    is_visual = inputs["visual_index"][0] >= 0
    return CachedStart(any_prompt_tokens=int(np.argmax(is_visual)), text_tokens=len(is_visual))


def _inputs_of_start(directory: Path, manifest: Manifest) -> dict[str, Array]:
    """Return the inputs of `prefill` for a text's prompt, up to and including the blank image."""
    tokenizer = (directory / TOKENIZER).read_text(encoding="utf-8")
    prompt = Preprocessor(tokenizer, manifest.model).prepare(Item(text="any"))
    tokens = int(np.flatnonzero(prompt.visual_index >= 0)[-1]) + 2  # including the token that closes the image
    arrays = prompt_arrays([prompt], prompt.token_count)
    inputs = {name: arrays[name].take(range(tokens), axis) for name, axis in _TOKEN_AXES.items()}
    dtype = next(tensor.dtype for tensor in manifest.graphs["prefill"].inputs if tensor.name == "visual_embeddings")
    inputs["visual_embeddings"] = read_constants(directory, manifest.model).blank_visual_embeddings.astype(dtype)
    return inputs | {"token_count": np.array([tokens]), "anchor_index": np.array([tokens - 1])}


def _computed(file: Path, inputs: Mapping[str, Array], manifest: Manifest) -> dict[str, Array]:
    """Return the keys and values that a graph computes.

    Uses little memory: weights are not copied or widened ahead of their use.
    """
    onnxruntime = import_onnxruntime()
    options = session_options(manifest)
    if manifest.precision != "int8":  # int8 needs the optimisations that make its sums exact
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    options.add_session_config_entry("session.disable_prepacking", "1")
    names = [tensor.name for tensor in manifest.graphs["prefill"].outputs if tensor.name not in _STATES]
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))
    except Exception as error:  # ONNX Runtime has one error class per error code
        raise PlumeExportError(
            f"ONNX Runtime could not compute the cached start of prompts with {file.name}: {error}.",
            fix="if memory is full, free as much as the bundle's size; otherwise try another version of onnxruntime",
        ) from error


class StartAfterCachedTokens(ir.passes.InPlacePass):
    """Compute only the rest of each prompt, and let attention see the cached start before it.

    Requires: the fused graph `prefill`, in which only the attention of the last layer is not fused. Ensures: the same inputs,
    outputs and results. The value `cached_tokens` is the number of tokens taken from the cache.
    """

    def __init__(self, start: PromptStart, decoder: DecoderSpec) -> None:
        self._start, self._decoder = start, decoder

    def requires(self, model: ir.Model) -> None:
        fused, expected = len(_fused_attentions(model.graph)), self._decoder.layers - 1
        if fused != expected:
            raise ir.passes.PreconditionError(f"{fused} attentions are fused, expected {expected}")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        rewrite = _Rewrite(model, self._start, self._decoder)
        rewrite.take_rest_of_prompts()
        whole_cache = rewrite.return_whole_cache()
        rewrite.complete_fused_attentions(whole_cache)
        rewrite.complete_last_attention()
        model.graph.extend(rewrite.nodes.nodes)
        model.graph.sort()
        RemoveUnusedNodesPass()(model)
        _forget_shapes(model.graph)
        return ir.passes.PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        missing = self._start.cache.keys() - {value.name for value in model.graph.outputs}
        if missing:
            raise ir.passes.PostconditionError(f"{', '.join(sorted(missing))} are not returned")


class _Attention(PatternBase):
    """Masked attention that is not fused."""

    def pattern(self, op: Any, queries: Any, keys: Any, values: Any, mask: Any) -> Any:
        return attention_pattern(op, queries, keys, values, mask)


def _fused_attentions(graph: ir.Graph) -> list[ir.Node]:
    """Return the fused attentions in the order of the layers, because each layer reads the previous one."""
    return [node for node in graph if node.op_type == "GroupQueryAttention"]


def _forget_shapes(graph: ir.Graph) -> None:
    """Remove the shapes of values within the graph, because the axis `tokens` is shorter now."""
    for node in graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None


class _Rewrite:
    """The rewriting of one graph. The recorded uses of its inputs are those before any new node reads them."""

    def __init__(self, model: ir.Model, start: PromptStart, decoder: DecoderSpec) -> None:
        self._model, self._start, self._decoder = model, start, decoder
        self.nodes = NewNodes(model.graph, "cached_start")
        self._inputs = {str(value.name): value for value in model.graph.inputs}
        self._input_uses = {name: list(value.uses()) for name, value in self._inputs.items()}
        self._batch = self.nodes.op("Shape", [self._inputs["input_ids"]], {"start": 0, "end": 1})
        self._cached = self._cached_tokens()
        self._cached.name = CACHED_TOKENS

    def take_rest_of_prompts(self) -> None:
        """Slice the inputs, so that everything is computed only for the tokens after the start."""
        rest = {name: self._after_start(self._inputs[name], axis) for name, axis in _TOKEN_AXES.items()}
        rest |= {name: self.nodes.op("Sub", [self._inputs[name], self._cached]) for name in _COUNTING_TOKENS}
        for name, value in rest.items():
            _redirect(self._input_uses[name], value)

    def return_whole_cache(self) -> dict[str, ir.Value]:
        """Make the graph return the keys and values of whole prompts. Return them by name."""
        outputs = self._model.graph.outputs
        whole_cache = {}
        for index, output in enumerate(list(outputs)):
            name = str(output.name)
            if name in self._start.cache:
                whole = self._joined(self._for_batch(name, self._start.cache[name]), output, axis=2)
                output.name = f"{name}.rest"
                whole.name, whole.type, whole.shape = name, output.type, output.shape
                outputs[index] = whole_cache[name] = whole
        return whole_cache

    def complete_fused_attentions(self, whole_cache: Mapping[str, ir.Value]) -> None:
        """Pad the queries of the fused operator, which needs as many queries as keys, and drop the outputs of the padding."""
        decoder, nodes = self._decoder, self.nodes
        fused = _fused_attentions(self._model.graph)
        width = decoder.query_heads * decoder.head_dim
        dtype = next(iter(self._start.cache.values())).dtype
        no_query = nodes.constant("no_query", np.zeros((1, 1, width), dtype))
        no_queries = self._expanded(no_query, self._batch, self._cached, width)
        cached = nodes.op("Cast", [self._cached], {"to": ir.DataType.INT32.value})
        lengths = [nodes.op("Add", [length, cached]) for length in fused[0].inputs[5:7]] if fused else []
        for layer, node in enumerate(fused):
            uses = list(node.outputs[0].uses())
            queries = self._joined(no_queries, node.inputs[0], axis=1)
            keys, values = (self._flat(whole_cache[layer_name(name, layer)]) for name in ("prefix_keys", "prefix_values"))
            for index, operand in enumerate((queries, keys, values, None, None, *lengths)):
                node.replace_input_with(index, operand)
            _redirect(uses, self._after_start(node.outputs[0], 1))

    def complete_last_attention(self) -> None:
        """Let the last layer's two rows attend to the cached start.

        Its keys and values come after the repetition for query heads.
        """
        transpose, matmul, where = self._unfused_attention()
        layer, groups = self._decoder.layers - 1, self._decoder.query_heads // self._decoder.kv_heads
        for name, node, index in (("prefix_keys", transpose, 0), ("prefix_values", matmul, 1)):
            values = self._start.cache[layer_name(name, layer)].repeat(groups, 1)
            start = self._for_batch(f"{name}_of_query_heads", values)
            node.replace_input_with(index, self._joined(start, node.inputs[index], axis=2))
        is_seen = self.nodes.constant("is_seen", np.ones((1, 1, 1, 1), np.bool_))
        start = self._expanded(is_seen, self._batch, 1, len(_STATES), self._cached)
        where.replace_input_with(0, self._joined(start, where.inputs[0], axis=3))

    def _unfused_attention(self) -> tuple[ir.Node, ir.Node, ir.Node]:
        """Return the nodes that read the keys, the values and the mask."""
        attention, graph = _Attention(), self._model.graph
        matches = [match for node in graph if (match := attention.match(self._model, graph, node))]
        (bindings,) = [match.bindings for match in matches]
        keys, values, mask = (bindings[name].producer() for name in ("transposed_keys", "attended", "masked_scores"))
        return keys, values, mask

    def _cached_tokens(self) -> ir.Value:
        """Count the leading tokens that match the cached start in every prompt.

        The count ends at the first token whose state is an output.
        """
        nodes, start = self.nodes, self._start.inputs
        tokens = self._integers(start["input_ids"].shape[1])
        ids, visual_index, positions = (self._first(self._inputs[name], tokens, axis) for name, axis in _TOKEN_AXES.items())
        zero = self._integers(0)
        # The row index of a visual embedding does not matter, only its values.
        rows = nodes.op("Gather", [self._inputs["visual_embeddings"], nodes.op("Max", [visual_index, zero])], {"axis": 0})
        start_rows = start["visual_embeddings"][np.maximum(start["visual_index"], 0)]
        same_rows = self._all(self._same("visual_rows", rows, start_rows, 1), axis=-1)
        is_text = nodes.op("Cast", [nodes.op("Less", [visual_index, zero])], {"to": ir.DataType.INT32.value})
        same_positions = self._same("positions", positions, start["position_ids"], 2)
        is_visual = nodes.op("Min", [visual_index, zero])
        same = [
            self._same("ids", ids, start["input_ids"], 1),
            self._same("is_visual", is_visual, np.minimum(start["visual_index"], 0), 1),
            self._all(same_positions, axis=0),
            nodes.op("Max", [same_rows, is_text]),
        ]
        in_all_prompts = self._all(nodes.op("Min", same), axis=0)  # [tokens of the start]
        end = nodes.constant("end", np.array([0], np.int32))
        first_other = nodes.op("ArgMin", [self._joined(in_all_prompts, end, axis=0)], {"axis": 0})
        count, anchor = (nodes.op("ReduceMin", [self._inputs[name]]) for name in _COUNTING_TOKENS)
        return nodes.op("Min", [first_other, nodes.op("Sub", [count, self._integers(1)]), anchor])

    def _same(self, name: str, values: ir.Value, start: Array, token_axis: int) -> ir.Value:
        """Compare the first tokens of prompts, which may be shorter, with the start. Return int32: 1 where they are equal."""
        prompt_tokens = self.nodes.op("Shape", [self._inputs["input_ids"]], {"start": 1, "end": 2})
        cached = self._first(self.nodes.constant(name, start), prompt_tokens, token_axis)
        return self.nodes.op("Cast", [self.nodes.op("Equal", [values, cached])], {"to": ir.DataType.INT32.value})

    def _all(self, values: ir.Value, axis: int) -> ir.Value:
        return self.nodes.op("ReduceMin", [values, self._integers(axis)], {"keepdims": 0})

    def _for_batch(self, name: str, start: Array) -> ir.Value:
        """Return the cached keys or values [1, heads, tokens, head_dim], repeated for every prompt of a batch."""
        _, heads, _, head_dim = start.shape
        cached = self._first(self.nodes.constant(name, start), self._cached, 2)
        return self._expanded(cached, self._batch, heads, self._cached, head_dim)

    def _flat(self, value: ir.Value) -> ir.Value:
        """Return [batch, kv_heads, tokens, head_dim] reshaped to [batch, tokens, kv_heads * head_dim]."""
        width = self._decoder.kv_heads * self._decoder.head_dim
        transposed = self.nodes.op("Transpose", [value], {"perm": [0, 2, 1, 3]})
        return self.nodes.op("Reshape", [transposed, self._integers(0, 0, width)])

    def _after_start(self, value: ir.Value, token_axis: int) -> ir.Value:
        end = self._integers(np.iinfo(np.int64).max)
        return self.nodes.op("Slice", [value, self._cached, end, self._integers(token_axis)])

    def _first(self, value: ir.Value, count: ir.Value, axis: int) -> ir.Value:
        """Return the first `count` [1] elements of an axis, or all if there are fewer."""
        return self.nodes.op("Slice", [value, self._integers(0), count, self._integers(axis)])

    def _joined(self, *values: ir.Value | None, axis: int) -> ir.Value:
        return self.nodes.op("Concat", values, {"axis": axis})

    def _expanded(self, value: ir.Value, *shape: int | ir.Value) -> ir.Value:
        sizes = [self._integers(size) if isinstance(size, int) else size for size in shape]
        return self.nodes.op("Expand", [value, self._joined(*sizes, axis=0)])

    def _integers(self, *values: int) -> ir.Value:
        return self.nodes.constant("integers_" + "_".join(map(str, values)), np.array(values))


def _redirect(uses: Iterable[tuple[ir.Node, int]], value: ir.Value) -> None:
    for node, index in uses:
        node.replace_input_with(index, value)
