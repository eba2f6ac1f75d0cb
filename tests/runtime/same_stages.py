"""Two embedders that compute the same, stage by stage."""

from collections.abc import Iterable

import numpy as np

from plume_export import Embedder
from plume_export.inputs import Item


def assert_same_stages(actual: Embedder, expected: Embedder, items: Iterable[Item], *, relative: float) -> None:
    """Every stage of every item differs by at most `relative` of its largest magnitude, or of one where that is smaller."""
    for item in items:
        stages = vars(actual.stages(item))
        for name, wanted in vars(expected.stages(item)).items():
            allowed = relative * np.abs(wanted).max(initial=1)
            assert np.abs(stages[name] - wanted).max(initial=0) <= allowed, (item.id, name)
