"""The training run: contrastive losses on the final and on the anchor embedding, as in PLUME (arXiv 2604.02073)."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from plume_export.checkpoint.allocator import set_malloc_option
from plume_export.errors import PlumeExportError
from plume_export.inputs import Preprocessor
from plume_export.plume_tiny.tasks import Task

from .batches import Batch, Batches, Step
from .initial import initial_tensors, write_initial_files
from .model import TrainablePlume

# Pictures come first: what the vision encoder learns there, pages and videos need too.
_FIRST_STEPS = (Step("text-to-image", 128), 200)
_MIXED_STEPS = (
    (Step("text-to-image", 128), 650),
    (Step("composed-image", 96), 420),
    (Step("text-to-page", 64, extra_queries=64), 280),
    (Step("text-to-video", 24, extra_queries=104), 250),
)
_PEAK_RATE, _LAST_RATE, _WARM_UP_STEPS = 2e-3, 4e-5, 60
_WEIGHT_DECAY = 0.02
_FIRST_SCALE, _LARGEST_SCALE = 20.0, 60.0  # of the cosines in the softmax: the inverse temperature
_ANCHOR_WEIGHT, _BALANCE_WEIGHT = 0.5, 0.1
_REPORT_STEPS, _SAVE_STEPS = 20, 200
# Options of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def train(
    output: Path, *, seed: int, in_bfloat16: bool, plan: Sequence[Step] | None = None, report: Callable[[str], None] = print
) -> None:
    """Train plume-tiny and write its checkpoint to `output`. Every `_SAVE_STEPS` steps the weights are written anew.

    `in_bfloat16` rounds the inputs of matrix products: faster where the processor has such instructions.
    Raises PlumeExportError if `output` holds something already, and for a loss that is not finite.
    """
    if output.exists() and any(output.iterdir()):
        raise PlumeExportError(f"{output} exists and is not empty.", fix="choose another directory or delete it")
    _keep_freed_memory()
    plan = training_plan(seed) if plan is None else plan
    output.mkdir(parents=True, exist_ok=True)
    model = write_initial_files(output)
    tokenizer_json = (output / "tokenizer.json").read_text(encoding="utf-8")
    suffix_ids = torch.from_numpy(Preprocessor(tokenizer_json, model).suffix_ids)
    plume = TrainablePlume(model, initial_tensors(model, seed=seed))
    log_scale = nn.Parameter(torch.tensor(math.log(_FIRST_SCALE)))
    optimizer = _optimizer(plume, log_scale)
    progress = _Progress(len(plan), report)
    # The one worker draws ahead while the model learns.
    batches = DataLoader(Batches(tokenizer_json, model, plan, seed), batch_size=None, num_workers=1, prefetch_factor=6)
    for index, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = _rate(index, len(plan))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=in_bfloat16):
            loss, accuracy = _loss(plume, batch, suffix_ids, log_scale)
        if not math.isfinite(loss.item()):
            raise PlumeExportError(f"The loss is {loss.item()} at step {index}.", fix="train with another --seed, or --fp32")
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(plume.tensors.values(), 1.0)
        optimizer.step()
        with torch.no_grad():
            log_scale.clamp_(max=math.log(_LARGEST_SCALE))
        progress.add(index, batch.task, loss.item(), accuracy)
        if (index + 1) % _SAVE_STEPS == 0 or index + 1 == len(plan):
            save_weights(output, plume)


def training_plan(seed: int) -> list[Step]:
    """Return the steps in order: pictures, then a seeded mix of all tasks."""
    step, count = _FIRST_STEPS
    mixed = [step for step, count in _MIXED_STEPS for _ in range(count)]
    Random(f"plan {seed}").shuffle(mixed)
    return [step] * count + mixed


def save_weights(output: Path, plume: TrainablePlume) -> None:
    """Write model.safetensors in float16, by way of a temporary file."""
    partial = output / ".model.safetensors.partial"
    save_file({name: tensor.detach().half().contiguous() for name, tensor in plume.tensors.items()}, partial, {"format": "pt"})
    partial.chmod(0o644)
    partial.rename(output / "model.safetensors")


def _optimizer(plume: TrainablePlume, log_scale: Tensor) -> torch.optim.Optimizer:
    """AdamW that shrinks the matrices only."""
    is_matrix = {name: tensor.dim() > 1 and "embed" not in name for name, tensor in plume.tensors.items()}
    matrices = [tensor for name, tensor in plume.tensors.items() if is_matrix[name]]
    others = [tensor for name, tensor in plume.tensors.items() if not is_matrix[name]]
    groups = [{"params": matrices, "weight_decay": _WEIGHT_DECAY}, {"params": [*others, log_scale], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=_PEAK_RATE, betas=(0.9, 0.98))


def _rate(index: int, steps: int) -> float:
    """Linear warm-up, then half a cosine."""
    fall = 0.5 * (1 + math.cos(math.pi * index / steps))
    return min(1.0, (index + 1) / _WARM_UP_STEPS) * (_LAST_RATE + (_PEAK_RATE - _LAST_RATE) * fall)


def _loss(plume: TrainablePlume, batch: Batch, suffix_ids: Tensor, log_scale: Tensor) -> tuple[Tensor, float]:
    """Return the loss, and the share of queries whose answer comes first by the final embedding."""
    query_state, query_anchor, query_routing = plume.embed(batch.queries, suffix_ids)
    answer_state, answer_anchor, answer_routing = plume.embed(batch.answers, suffix_ids)
    final, accuracy = _contrastive(query_state, answer_state, batch.is_answer, log_scale)
    anchor, _ = _contrastive(query_anchor, answer_anchor, batch.is_answer, log_scale)
    routing = torch.cat([query_routing, answer_routing], 1).float()  # [latent_steps, batch, experts]
    # Zero when all experts are used alike.
    imbalance = routing.shape[-1] * routing.mean((0, 1)).square().sum() - 1
    return final + _ANCHOR_WEIGHT * anchor + _BALANCE_WEIGHT * imbalance, accuracy


def _contrastive(queries: Tensor, answers: Tensor, is_answer: Tensor, log_scale: Tensor) -> tuple[Tensor, float]:
    """InfoNCE in both directions between the answers and the first as many queries; equal scenes do not compete."""
    cosines = functional.normalize(queries.float(), dim=-1) @ functional.normalize(answers.float(), dim=-1).T
    own = torch.eye(*is_answer.shape, dtype=torch.bool)
    scores = (log_scale.exp() * cosines).masked_fill(is_answer & ~own, -1e4)
    count = len(answers)
    target = torch.arange(count)
    loss = functional.cross_entropy(scores[:count], target) + functional.cross_entropy(scores.T, target)
    return loss / 2, (scores[:count].argmax(1) == target).float().mean().item()


class _Progress:
    """Tells rate, remaining time, and loss and accuracy of each task, as moving averages."""

    def __init__(self, steps: int, report: Callable[[str], None]) -> None:
        self._steps, self._report = steps, report
        self._start = time.monotonic()
        self._losses: dict[Task, float] = {}
        self._accuracies: dict[Task, float] = {}

    def add(self, index: int, task: Task, loss: float, accuracy: float) -> None:
        for averages, value in ((self._losses, loss), (self._accuracies, accuracy)):
            averages[task] = 0.9 * averages.get(task, value) + 0.1 * value
        done = index + 1
        if done % _REPORT_STEPS and done != self._steps:
            return
        elapsed = time.monotonic() - self._start
        remaining = elapsed / done * (self._steps - done)
        tasks = "  ".join(f"{name} {loss:.2f} {self._accuracies[name]:.0%}" for name, loss in self._losses.items())
        self._report(f"step {done}/{self._steps}  {elapsed / 60:.1f} min, {remaining / 60:.1f} to go  {tasks}")


def _keep_freed_memory() -> None:
    """Make glibc map no blocks and never shrink its heap, for work that repeatedly allocates the same large blocks.

    By default every block above 32 MiB is mapped anew, which causes a page fault per page. On videos these faults take half the
    time of a training step.
    """
    set_malloc_option(_M_MMAP_MAX, 0)
    set_malloc_option(_M_TRIM_THRESHOLD, -1)
