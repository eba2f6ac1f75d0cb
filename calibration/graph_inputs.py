"""What every graph is given over a set of inputs, step by step: what a quantiser of single graphs is calibrated on."""

from collections.abc import Iterable, Mapping

import numpy as np

from plume_export.bundle import Bundle
from plume_export.inputs import PreparedInput
from plume_export.runtime.backend import Array, BoundGraph, Session
from plume_export.runtime.embedder import Embedder
from plume_export.runtime.numpy_buffers import NumpyBuffers
from plume_export.runtime.onnxruntime_cpu import OnnxRuntimeCpu
from plume_export.spec import GraphName

# The inputs of one run of a graph, by tensor name.
Feed = dict[str, Array]


def graph_inputs(bundle: Bundle, inputs: Iterable[PreparedInput]) -> dict[GraphName, list[Feed]]:
    """Embed one input at a time on the CPU; return what each graph was fed, in the order of its runs.

    All of it stays in memory: the prefix cache once a step. A graph that never ran is missing.
    """
    recorder = Recorder(OnnxRuntimeCpu(bundle))
    with Embedder(bundle, verify_hashes=False, backend=recorder) as embedder:
        for one in inputs:
            embedder.embed_prepared([one])
    return recorder.feeds


class Recorder(NumpyBuffers):
    """A backend that copies whatever goes into a graph, before it runs on another backend over numpy arrays."""

    def __init__(self, backend: OnnxRuntimeCpu) -> None:
        super().__init__()
        self._backend = backend
        self.feeds: dict[GraphName, list[Feed]] = {}

    def session(self, graph: GraphName) -> "RecordingSession":
        return RecordingSession(self._backend.session(graph), self.feeds.setdefault(graph, []))

    def close(self) -> None:
        self._backend.close()


class RecordingSession:
    """One graph whose runs are recorded."""

    def __init__(self, session: Session, feeds: list[Feed]) -> None:
        self._session, self._feeds = session, feeds

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> "RecordingBinding":
        return RecordingBinding(self._session.bind(inputs, outputs), inputs, self._feeds)

    def close(self) -> None:
        self._session.close()


class RecordingBinding:
    """Buffers bound once. They change between the runs, so every run copies its inputs."""

    def __init__(self, bound: BoundGraph, inputs: Mapping[str, Array], feeds: list[Feed]) -> None:
        self._bound, self._inputs, self._feeds = bound, inputs, feeds

    def run(self) -> None:
        self._feeds.append({name: np.array(array) for name, array in self._inputs.items()})
        self._bound.run()
