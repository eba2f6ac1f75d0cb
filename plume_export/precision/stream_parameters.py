"""Run a graph's module without holding its weights: a layer reads its parameters when it runs and drops them after it."""

from functools import partial
from typing import Any

import torch
from torch import nn

from ..graphs.weights import TensorReader, read_parameter
from ..spec import ModelSpec


def stream_parameters(module: nn.Module, tensors: TensorReader, model: ModelSpec) -> None:
    """Make a module that was built on the meta device runnable, in float32; memory stays bounded by one layer.

    A part that holds others is never called itself: what it has of its own (rotary frequencies) is read for good. Forward
    hooks that look at parameters must be registered before.
    """
    for name, part in module.named_modules():
        parameters = dict(part.named_parameters(recurse=False))
        if not parameters:
            continue
        load = partial(_load, name, list(parameters), tensors, model)
        if next(part.children(), None) is not None:
            load(part)
        else:
            part.register_forward_pre_hook(load)
            part.register_forward_hook(partial(_drop, parameters))


def _load(name: str, parameters: list[str], tensors: TensorReader, model: ModelSpec, part: nn.Module, *_: Any) -> None:
    for parameter in parameters:
        value = read_parameter(f"{name}.{parameter}", tensors, model).to(torch.float32)
        setattr(part, parameter, nn.Parameter(value, requires_grad=False))


def _drop(parameters: dict[str, nn.Parameter], part: nn.Module, *_: Any) -> None:
    for name, on_meta_device in parameters.items():
        setattr(part, name, on_meta_device)
