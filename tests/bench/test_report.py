"""What a machine tells of its processor."""

from plume_export.bench.report import cpu_name


def test_the_processor_has_a_name() -> None:
    assert cpu_name(lambda _: "vendor : x\nmodel name\t: A Fast One\nmodel name\t: A Fast One\n") == "A Fast One"
