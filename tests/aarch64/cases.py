"""plume-tiny on emulated aarch64 cores, beside this machine. Started by run.sh, which makes what it needs.

For each core and bundle: `selftest`, and `embed` of the sample inputs (texts, pictures, two pictures, a video), whose
embeddings are compared with this machine's. Latency means nothing under emulation and is not shown.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from plume_export.samples import sample_inputs_file

# The emulated machine's /proc/cpuinfo. ONNX Runtime reads it, and can make nothing of x86's.
_PROCESSOR = """processor\t: {number}
BogoMIPS\t: 50.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: 0

"""
_CPUS = 2
_ARMV8_0 = "fp asimd aes pmull sha1 sha2 crc32 cpuid"
_ARMV8_2 = f"{_ARMV8_0} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
# The same model on another processor. Integers differ where an activation is rounded to the next one.
_LEAST_COSINE = {"fp32": 0.99999, "fp16": 0.99999, "int8": 0.999}


@dataclass(frozen=True)
class Core:
    """What qemu emulates, and what /proc/cpuinfo says of it."""

    name: str
    part: str
    features: str
    note: str


CORES = (
    Core("max", "0xd42", f"{_ARMV8_2} i8mm bf16", "dot product, int8 matrix product"),
    Core("neoverse-n1", "0xd0c", _ARMV8_2, "dot product"),
    Core("cortex-a72", "0xd08", _ARMV8_0, "no dot product"),
)


@dataclass(frozen=True)
class Case:
    """A bundle on a core. Cosines are the lowest: of the self-test with the reference, of the inputs with this machine."""

    core: str
    bundle: str
    selftest: str
    selftest_cosine: float
    embed_cosine: float
    is_good: bool


@dataclass(frozen=True)
class EmulatedMachine:
    """Runs the project's commands under qemu. `directory` is run.sh's, `python` the interpreter below its root."""

    directory: Path
    python: str

    def run(self, core: Core, *arguments: str) -> subprocess.CompletedProcess[str]:
        root = self.directory / "root"
        _write_processors(root, core)
        paths = os.pathsep.join(str(self.directory / name) for name in ("own", "site"))
        environment = {"PYTHONPATH": paths, "HOME": str(self.directory), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        command = ["qemu-aarch64-static", "-cpu", core.name, "-L", str(root), str(root / self.python), "-m", "plume_export"]
        return subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True)


def run_cases(machine: EmulatedMachine, cores: tuple[Core, ...] = CORES) -> Iterator[Case]:
    """Build the bundles here, and one of them on the emulated machine; yield the cases as they are done."""
    bundles = _bundles(machine)
    here = {name: _embeddings_here(bundle, machine.directory) for name, bundle in bundles.items()}
    for core in cores:
        for name, bundle in bundles.items():
            yield _case(machine, core, name, bundle, here[name])


def _bundles(machine: EmulatedMachine) -> dict[str, Path]:
    """Return bundles by name. What is compiled there has its weights in the order of that processor's kernels."""
    directory = machine.directory / "bundles"
    shutil.rmtree(directory, ignore_errors=True)
    bundles = {}
    for precision in ("fp32", "fp16", "int8"):
        portable, compiled = directory / f"{precision}-onnx", directory / precision
        _here("export", "--precision", precision, "-o", str(portable))
        _here("compile", str(portable), "--target", "cpu", "-o", str(compiled))
        bundles[precision] = compiled
    there = directory / "int8-compiled-there"
    _check(machine.run(CORES[0], "compile", str(directory / "int8-onnx"), "--target", "cpu", "-o", str(there)))
    return bundles | {"int8, compiled there": there}


def _embeddings_here(bundle: Path, directory: Path) -> np.ndarray:
    output = directory / "here.npy"
    _here("embed", str(bundle), "--input", str(sample_inputs_file()), "-o", str(output))
    return np.load(output)


def _case(machine: EmulatedMachine, core: Core, name: str, bundle: Path, here: np.ndarray) -> Case:
    tested = machine.run(core, "selftest", str(bundle), "--threads", "1", "--json")
    if tested.returncode not in (0, 1) or not tested.stdout.startswith("{"):
        return Case(core.name, name, f"stopped with {tested.returncode}: {tested.stderr[-300:]}", np.nan, np.nan, False)
    parity = json.loads(tested.stdout)["parity"]
    bad = [stage["stage"] for stage in parity["stages"] if not stage["is_within"]]
    selftest = f"{parity['inputs']} inputs within tolerance" if tested.returncode == 0 else f"outside: {', '.join(bad)}"
    (selftest_cosine,) = (stage["cosine"] for stage in parity["stages"] if stage["stage"] == "embedding")
    output = machine.directory / "there.npy"
    _check(machine.run(core, "embed", str(bundle), "--input", str(sample_inputs_file()), "-o", str(output), "--threads", "1"))
    cosine = float((np.load(output).astype(np.float64) * here).sum(1).min())
    is_good = tested.returncode == 0 and cosine >= _LEAST_COSINE[name.split(",")[0]]
    return Case(core.name, name, selftest, selftest_cosine, cosine, is_good)


def _here(*arguments: str) -> None:
    _check(subprocess.run([sys.executable, "-m", "plume_export", *arguments], capture_output=True, text=True))


def _check(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        raise SystemExit(f"{' '.join(done.args)}\nexit code {done.returncode}\n{done.stderr}")


def _write_processors(root: Path, core: Core) -> None:
    """qemu's -L looks below the root first."""
    (root / "proc").mkdir(exist_ok=True)
    processors = (_PROCESSOR.format(number=number, features=core.features, part=core.part) for number in range(_CPUS))
    (root / "proc" / "cpuinfo").write_text("".join(processors))
    cpus = root / "sys" / "devices" / "system" / "cpu"
    cpus.mkdir(parents=True, exist_ok=True)
    for name in ("possible", "present"):
        (cpus / name).write_text(f"0-{_CPUS - 1}\n")


def _print(cases: list[Case]) -> None:
    table = Table(title="aarch64 under qemu; cosines are the lowest", title_justify="left")
    for column in ("core", "bundle", "self-test", "cosine with the reference", "cosine with this machine", "good"):
        table.add_column(column)
    for case in cases:
        cosines = (f"{case.selftest_cosine:.7f}", f"{case.embed_cosine:.7f}")
        table.add_row(case.core, case.bundle, case.selftest, *cosines, "yes" if case.is_good else "NO")
    Console(width=120, highlight=False, markup=False).print(table)
    for core in CORES:
        click.echo(f"{core.name}: {core.note}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests/aarch64/run.sh")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--python", required=True, help="The interpreter below the root.")
    options = parser.parse_args()
    cases = []
    for case in run_cases(EmulatedMachine(options.directory, options.python)):
        cases.append(case)
        click.echo(f"{case.core}, {case.bundle}: {case.selftest}, cosine {case.embed_cosine:.7f}", err=True)
    _print(cases)
    (options.directory / "cases.json").write_text(json.dumps([asdict(case) for case in cases], indent=2) + "\n")
    raise SystemExit(0 if all(case.is_good for case in cases) else 1)


if __name__ == "__main__":
    main()
