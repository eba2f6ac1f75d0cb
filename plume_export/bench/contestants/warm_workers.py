"""The processes that take turns: one for each contestant, loaded and warm."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ...errors import PlumeExportError
from ...progress import Report
from .contestant import Contestant, PytorchContestant
from .process import WorkerProcess
from .protocol import Done, Embed, Embedded, Load

# A CUDA graph is recorded in the second batch of a kind, and launched first in the third.
_WARM_UP_RUNS = 3
# How long torch.compile may take for one input.
COMPILE_LIMIT_S = 900.0


# A file and which of its rows.
Rows: TypeAlias = tuple[Path, Sequence[int]]


@dataclass(frozen=True)
class WarmWorkers:
    """Workers by contestant, in order; `not_run` says why a compiled one is missing."""

    workers: dict[str, WorkerProcess]
    not_run: dict[str, str]


@contextmanager
def warm_workers(contestants: Sequence[Contestant], inputs: Rows, texts: Rows, report: Report) -> Iterator[WarmWorkers]:
    """Yield workers that have embedded every input several times and every text once; at the end their processes are gone.

    What torch.compile cannot do, or not in time, is left out. Raises PlumeExportError for everything else.
    """
    with ExitStack() as opened:
        workers, not_run = {}, {}
        for contestant in contestants:
            report(f"loading {contestant.name}")
            is_compiled = isinstance(contestant, PytorchContestant) and contestant.is_compiled
            worker = WorkerProcess(contestant.name)
            opened.push(worker)
            try:
                _warm_up(worker, contestant, inputs, texts, COMPILE_LIMIT_S if is_compiled else None)
            except PlumeExportError as error:
                if not is_compiled:
                    raise
                not_run[contestant.name] = error.message.strip().splitlines()[-1].strip()
                worker.kill()
                continue
            workers[contestant.name] = worker
        yield WarmWorkers(workers, not_run)


def _warm_up(worker: WorkerProcess, contestant: Contestant, inputs: Rows, texts: Rows, timeout_s: float | None) -> None:
    worker.ask(Load(contestant), Done)
    for (file, rows), times in ((inputs, _WARM_UP_RUNS), (texts, 1)):
        for row in rows:
            for _ in range(times):
                worker.ask(Embed(str(file), [row], 1), Embedded, timeout_s=timeout_s)
