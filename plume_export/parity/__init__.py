"""Compare a bundle's results with the reference, stage by stage. Needs torch only to run the reference itself."""

from .compare import ParityReport, StageParity, compare_inputs
from .tolerance import Tolerance, tolerances

__all__ = ["ParityReport", "StageParity", "Tolerance", "compare_inputs", "tolerances"]
