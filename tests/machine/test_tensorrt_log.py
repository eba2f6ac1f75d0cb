"""What is read in a builder's log."""

from plume_export.machine.tensorrt_log import figures_from_lines, layer_list_in


def test_figures() -> None:
    lines = [("INFO", f"Total {name} Memory: {size} bytes") for name, size in (("Weights", 7), ("Activation", 5))]
    figures = figures_from_lines(lines)
    assert (figures.weights_bytes, figures.activation_bytes) == (7, 5)
    assert figures_from_lines(lines[:1]).activation_bytes is None
    assert figures_from_lines([("INFO", "Total Activation Memory: 9")]).activation_bytes == 9  # TensorRT 10.0


def test_the_list_of_layers() -> None:
    lines = [("INFO", "a"), ("VERBOSE", "Layers:\nName: b"), ("VERBOSE", "Layers:\nName: c"), ("INFO", "Layers: none")]
    assert layer_list_in(lines) == "Layers:\nName: c"
    assert layer_list_in(lines[:1]) is None
