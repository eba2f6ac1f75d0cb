"""Options of a benchmark."""

from dataclasses import dataclass
from pathlib import Path

from ..errors import OptionError

# "pytorch" stands for every PyTorch setup that fits the bundle's device.
PYTORCH = "pytorch"
PYTORCH_FORMS = (PYTORCH, "pytorch-fp32", "pytorch-bf16")


@dataclass(frozen=True)
class BenchOptions:
    """`against` lists bundles and `PYTORCH_FORMS` to compare with. PyTorch needs `checkpoint`, a directory or a hub id.

    `inputs` is a JSON lines file as for `embed`; None means generated inputs. `threads` None means one per core. `sweep`
    measures the bundle over prompt lengths and image sizes. `cold_starts` is the number of processes started per candidate; 0
    disables this measurement.
    """

    bundle: Path
    against: tuple[str, ...] = ()
    checkpoint: str | None = None
    compiled: bool = False
    revision: str | None = None
    offline: bool = False
    inputs: Path | None = None
    batch_sizes: tuple[int, ...] = (1, 8)
    runs: int = 10
    cold_starts: int = 3
    threads: int | None = None
    sweep: bool = False
    verify_hashes: bool = True


def batch_sizes_from_text(text: str) -> tuple[int, ...]:
    """Return the sizes in a text such as "1,8". Raises PlumeExportError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise OptionError(
            f"The batch sizes are {text!r}; expected positive numbers, separated by commas.", fix="pass --batch 1,8"
        )
    return tuple(sorted({int(part) for part in parts}))
