"""Prefill of a padded batch on a CPU, in groups of prompts of similar lengths.

On a CPU, batching saves almost no time: a batch of eight prompts of equal length takes 92 to 101 % of the time of eight single
runs (2b-slice, int8 and fp32, 80 to 160 tokens, 2 threads). Padding therefore costs as much as real tokens, and large groups
only use more memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..spec import GraphSpec, TensorSpec
from .backend import Array, Session, TensorShape
from .numpy_buffers import NumpyBuffers

# Cost of an additional run, as the number of padding tokens that take as long. A run reads all weights: for 2b-slice that takes
# as long as computing 4 tokens (int8 without VNNI) to 11 tokens (with VNNI), limited by the memory bandwidth of 2 threads.
_RUN_TOKENS = 8
# Larger groups are not faster.
_MOST_TOKENS = 512


class PromptGroup(NamedTuple):
    """Consecutive prompts of a batch, and the length that they are padded to."""

    rows: slice
    tokens: int


class GroupedPrefill:
    """A session of graph `prefill` that runs another session once per group. Outputs after a group's longest prompt are zero.

    Outputs that are not contiguous in the batch's array are computed in a temporary buffer and then copied.
    """

    def __init__(self, session: Session, spec: GraphSpec) -> None:
        self._session, self._spec = session, spec
        self._buffers = NumpyBuffers()

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> "GroupedBinding":
        return GroupedBinding(self._session, self._spec, self._buffers, inputs, outputs)

    def close(self) -> None:
        self._session.close()


@dataclass(frozen=True)
class GroupedBinding:
    """Input and output arrays of one batch. Each run computes the groups from `token_count`."""

    session: Session
    spec: GraphSpec
    buffers: NumpyBuffers
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]

    def run(self) -> None:
        for group in prompt_groups(self.inputs["token_count"].tolist()):
            inputs = {tensor.name: _part(self.inputs[tensor.name], tensor, group) for tensor in self.spec.inputs}
            targets = {tensor.name: _part(self.outputs[tensor.name], tensor, group) for tensor in self.spec.outputs}
            scattered = {
                tensor.name: TensorShape(targets[tensor.name].shape, tensor.dtype)
                for tensor in self.spec.outputs
                if not targets[tensor.name].flags.c_contiguous
            }
            written = self.buffers.allocate("batch", scattered) if scattered else {}
            self.session.bind(self.buffers.upload(inputs), targets | written).run()
            for name, values in written.items():
                targets[name][...] = values
            self._clear_after(group)

    def _clear_after(self, group: PromptGroup) -> None:
        """Set the outputs after the group's tokens to zero. A NaN left there would spread through a masked softmax."""
        for tensor in self.spec.outputs:
            if "tokens" in tensor.axes:
                self.outputs[tensor.name][_index(tensor, group.rows, slice(group.tokens, None))] = 0


def prompt_groups(token_counts: Sequence[int]) -> Iterator[PromptGroup]:
    """Yield a batch's prompts in order, in groups. A prompt joins a group if the padding costs no more than another run."""
    first, longest = 0, 0
    for row, tokens in enumerate(token_counts):
        prompts, together = row - first, max(longest, tokens)
        padding = (together - longest) * prompts + together - tokens
        if prompts and (padding > _RUN_TOKENS or together * (prompts + 1) > _MOST_TOKENS):
            yield PromptGroup(slice(first, row), longest)
            first, longest = row, tokens
        else:
            longest = together
    yield PromptGroup(slice(first, len(token_counts)), longest)


def _part(array: Array, tensor: TensorSpec, group: PromptGroup) -> Array:
    """Return the view of a batch's tensor that belongs to a group."""
    return array[_index(tensor, group.rows, slice(group.tokens))]


def _index(tensor: TensorSpec, rows: slice, tokens: slice) -> tuple[slice, ...]:
    by_axis: dict[int | str, slice] = {"batch": rows, "tokens": tokens}
    return tuple(by_axis.get(axis, slice(None)) for axis in tensor.axes)
