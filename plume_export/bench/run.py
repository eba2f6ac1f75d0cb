"""Run a benchmark; the function behind `plume-export bench`."""

import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from ..errors import MissingExtraError
from ..machine.cores import check_threads, usable_core_count
from ..progress import detail_of
from .bench_options import BenchOptions
from .candidates import Setup, setup_from_options
from .hardware_limits import MachineLimits
from .inputs import InputSet, Sizer, latency_inputs, mixed_texts
from .latency import ColdStart, RolloutParts, latencies, latency_ratios, measure_cold_starts, measure_turns, rollout_parts
from .process import WarmWorkers, WorkerProcess, warm_workers
from .report import BenchReport, MeasuredBundle, PeakMemory, environment
from .roofline import roofline
from .sweep import Sweep, measure_sweeps
from .throughput import Throughput, measure_throughput
from .worker_messages import AskMemory, MeasureLimits, Memory, PytorchCandidate, RolloutTimes, TimeRollout

# Maximum rounds over many inputs, and over the sizes of a sweep. Fewer suffice than for a single input.
_FEWER_RUNS = 5
_FEWEST_TEXTS = 8
Report = Callable[[str], None]


def run_bench(options: BenchOptions, report: Report) -> BenchReport:
    """Run a benchmark. `report` receives the current step. Raises PlumeExportError if the options cannot be measured."""
    check_threads(options.threads)
    for module, package in (("onnx_ir", "onnx-ir"), ("scipy", "scipy")):
        if find_spec(module) is None:
            raise MissingExtraError(package, "bench")
    threads = options.threads or usable_core_count()
    setup = setup_from_options(options, threads)
    sizers = [Sizer(bundle) for bundle in setup.bundles.values()]
    with tempfile.TemporaryDirectory() as scratch:
        return _Bench(options, setup, sizers, threads, Path(scratch), report).run()


class _Bench:
    """One benchmark, with the data that all of its parts need."""

    def __init__(
        self,
        options: BenchOptions,
        setup: Setup,
        sizers: Sequence[Sizer],
        threads: int,
        scratch: Path,
        report: Report,
    ) -> None:
        self._options, self._setup, self._threads = options, setup, threads
        self._sizer, self._scratch, self._report = sizers[0], scratch, report
        self._inputs = latency_inputs(sizers, options.inputs, scratch)
        count = max(_FEWEST_TEXTS, *options.batch_sizes)
        self._texts = (mixed_texts(self._sizer, count, scratch), range(count))

    def run(self) -> BenchReport:
        """Run the benchmark. Cold starts and hardware limits are measured first, before anything else is loaded."""
        described = environment(self._threads)
        cold_start = self._cold_starts()
        machine = self._machine_limits()
        inputs, runs = self._inputs, self._options.runs
        with warm_workers(self._setup.candidates, (inputs.file, inputs.rows), self._texts, self._report) as warm:
            measured, *others = warm.workers
            baseline = others[0] if others else None
            turns = measure_turns(warm.workers, inputs, runs, self._report)
            latency = latencies(turns, baseline)
            throughput = self._throughput(warm)
            held = {name: worker.ask(AskMemory(), Memory) for name, worker in warm.workers.items()}
            memory = [PeakMemory(name, one.peak, one.mapped_twice) for name, one in held.items()]
            own = warm.workers[measured]
            sweeps = self._sweeps(own)
            rollout = self._rollouts(own)
        own_latency = [one for one in latency if one.candidate == measured]
        return BenchReport(
            environment=described,
            bundles=self._bundles(),
            candidates=list(warm.workers),
            baseline=baseline,
            not_run=warm.not_run | inputs.left_out,
            runs=runs,
            inputs=inputs.sizes,
            latency=latency,
            ratios=latency_ratios(turns, measured),
            throughput=throughput,
            cold_start=cold_start,
            memory=memory,
            machine=machine,
            rollout=rollout,
            roofline=roofline(self._setup.bundle, machine, inputs.sizes, own_latency, rollout, self._sizer.suffix_tokens),
            sweeps=sweeps,
        )

    def _cold_starts(self) -> list[ColdStart]:
        """Measure cold starts. Compiled candidates are left out, because compilation would dominate."""
        if self._options.cold_starts == 0:
            return []
        candidates = [one for one in self._setup.candidates if not (isinstance(one, PytorchCandidate) and one.is_compiled)]
        return measure_cold_starts(candidates, self._texts[0], self._options.cold_starts, self._report)

    def _machine_limits(self) -> MachineLimits:
        self._report("limits of this machine")
        with WorkerProcess("the measurement of this machine") as worker:
            return worker.ask(MeasureLimits(self._setup.measured), MachineLimits)

    def _throughput(self, warm: WarmWorkers) -> list[Throughput]:
        """Measure throughput on generated texts and, if given, on the user's inputs."""
        sets: list[tuple[str, Path, Sequence[int]]] = [("texts", *self._texts)]
        if self._options.inputs is not None:
            sets.append((self._options.inputs.name, self._inputs.file, self._inputs.rows))
        candidates = [one for one in self._setup.candidates if one.name in warm.workers]
        rounds = min(self._options.runs, _FEWER_RUNS)
        return [
            result
            for inputs in sets
            for result in measure_throughput(warm.workers, candidates, self._options.batch_sizes, inputs, rounds, self._report)
        ]

    def _sweeps(self, worker: WorkerProcess) -> list[Sweep]:
        if not self._options.sweep:
            return []
        return measure_sweeps(worker, self._sizer, self._scratch, min(self._options.runs, _FEWER_RUNS), self._report)

    def _rollouts(self, worker: WorkerProcess) -> list[RolloutParts]:
        inputs: InputSet = self._inputs
        parts = []
        self._report("rollout")
        for row, size in zip(inputs.rows, inputs.sizes, strict=True):
            detail_of(self._report)(size.name)
            times = worker.ask(TimeRollout(str(inputs.file), row, self._options.runs), RolloutTimes)
            parts.append(rollout_parts(size.name, times.rollouts))
        return parts

    def _bundles(self) -> list[MeasuredBundle]:
        return [
            MeasuredBundle(
                name, bundle.sha256, bundle.manifest.backend, bundle.manifest.precision, bundle.manifest.checkpoint.name
            )
            for name, bundle in self._setup.bundles.items()
        ]
