"""What a graph computes is compared with what the manifest says."""

import numpy as np
import pytest

from plume_export.errors import BundleError
from plume_export.runtime.onnx_reference import OnnxReferenceSession


class Evaluator:
    def __init__(self, state: np.ndarray) -> None:
        self._state = state

    def run(self, _names: list[str], _inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [self._state]


@pytest.mark.parametrize(
    ("state", "found"),
    [(np.zeros((1, 4), np.float16), r"float16 \[1, 4\]"), (np.zeros((1, 3), np.float32), r"float32 \[1, 3\]")],
)
def test_a_graph_with_other_outputs_is_an_error(state: np.ndarray, found: str) -> None:
    target = np.ones((1, 4), np.float32)
    binding = OnnxReferenceSession(Evaluator(state)).bind({}, {"state": target})
    with pytest.raises(BundleError, match=rf"computes state as {found}; expected float32 \[1, 4\]"):
        binding.run()
    assert target.all()


def test_results_are_copied_into_the_outputs() -> None:
    target = np.zeros((1, 4), np.float32)
    OnnxReferenceSession(Evaluator(np.ones((1, 4), np.float32))).bind({}, {"state": target}).run()
    assert target.all()
