"""Gradients of many workers in one pass over their concatenated batches.

A pass runs the module once, as it stands, on the samples of all workers. Only the operations that meet a parameter are
replaced (linear, convolution, batch normalisation), so that the gradient with respect to each parameter comes out once
per worker, straight in that worker's row of the result, and so that batch normalisation and dropout see one worker at a
time. A `TorchFunctionMode` makes the replacement: the module's code is not touched.

A module that mixes samples elsewhere, or uses parameters in other operations, cannot be treated so: the pass raises
`NotBatchableError`, or its result differs from a loop over workers, for which `Model.prepare` looks.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx
from torch.overrides import TorchFunctionMode

NoiseSeeds = Callable[[int], int]
"""The seed, by worker, of all that is random inside the model at one step."""


class NotBatchableError(Exception):
    """A module does something that a pass over several workers' samples at once cannot reproduce."""


class Dropout(TorchFunctionMode):
    """Dropout whose masks come from one generator per worker, seeded, not from the global one.

    Args:
        workers: whose samples follow each other, in equal numbers.
        seeds: the seed of each of them.
    """

    def __init__(self, workers: range, seeds: NoiseSeeds) -> None:
        super().__init__()
        self.range = workers
        self.seeds = seeds
        self.generators: list[torch.Generator] = []

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        return self.dropout(func, *args, **kwargs) if func in DROPPED_AXES else func(*args, **kwargs)

    def dropout(
        self, func: Callable, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        """Zero values (or, for its spatial versions, channels) with probability p, each worker with its own noise."""
        if not training or p == 0:
            return input
        if not self.generators:
            self.generators = [torch.Generator(input.device).manual_seed(self.seeds(i)) for i in self.range]
        axes = DROPPED_AXES[func] or input.dim()
        kept = input.new_empty(input.shape[:axes] + (1,) * (input.dim() - axes))
        for part, generator in zip(kept.chunk(len(self.generators)), self.generators, strict=True):
            part.bernoulli_(1 - p, generator=generator)
        kept = kept.div_(1 - p) if p < 1 else kept
        return input.mul_(kept) if inplace else input * kept


DROPPED_AXES: dict[Callable, int | None] = {F.dropout: None, F.dropout1d: 2, F.dropout2d: 2, F.dropout3d: 2}
"""How many leading axes a mask has, by function; None for all."""


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a module that are not frozen."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


class Layout:
    """Where the parameters of a module lie in its flat vector, and which of its layers keep running statistics."""

    def __init__(self, module: nn.Module) -> None:
        self.places: dict[int, tuple[slice, torch.Size]] = {}
        first = 0
        for parameter in trainable(module):
            last = first + parameter.numel()
            self.places[id(parameter)] = slice(first, last), parameter.shape
            first = last
        layers = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
        self.batch_norms = {id(layer.running_mean): layer for layer in layers if layer.running_mean is not None}
        self.counters = {id(layer.num_batches_tracked) for layer in self.batch_norms.values()}
        variances = {id(layer.running_var) for layer in self.batch_norms.values()}
        statistics = self.batch_norms.keys() | variances | self.counters
        self.statistics = {id(buffer): name for name, buffer in module.named_buffers() if id(buffer) in statistics}

    def view(self, vectors: Tensor, parameter: Tensor) -> Tensor:
        """Return a parameter's part of (…, d) as (…, *shape)."""
        place, shape = self.places[id(parameter)]
        return vectors[..., place].view(*vectors.shape[:-1], *shape)


class WorkerPass(Dropout):
    """One forward pass of a module over the samples of several workers; its backward fills the workers' gradients.

    Args:
        layout: of the module that the caller runs under this mode.
        gradients: (h, d), written to by the backward pass.
        parameters: (d,), or (h, d) for one row per worker.
        buffers: of each worker, (h, *shape) by name, of which batch normalisation uses its own; None: the module's.
        workers: which workers these are.
        seeds: of each worker's dropout.
    """

    def __init__(
        self,
        layout: Layout,
        gradients: Tensor,
        parameters: Tensor,
        buffers: Mapping[str, Tensor] | None,
        workers: range,
        seeds: NoiseSeeds,
    ) -> None:
        super().__init__(workers, seeds)
        self.layout = layout
        self.gradients = gradients
        self.parameters = parameters
        self.buffers = buffers
        self.workers = len(workers)
        self.own_rows = parameters.dim() == 2
        self.met: set[int] = set()
        self.unwritten = dict(layout.places)

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        replacement = REPLACEMENTS.get(func)
        if replacement is not None:
            return replacement(self, *args, **kwargs)
        if func == Tensor.add_ and id(args[0]) in self.layout.counters:
            if self.buffers is not None:
                self.buffers[self.layout.statistics[id(args[0])]].add_(1)
            return args[0].add_(self.workers)
        result = super().__torch_function__(func, types, args, kwargs)
        if _holds_tensor(result) and any(id(arg) in self.layout.places for arg in _flat((*args, *kwargs.values()))):
            raise NotBatchableError(f"a parameter is used by {getattr(func, '__name__', func)}")
        return result

    def finish(self) -> None:
        """Zero the gradients of parameters that the backward pass did not reach."""
        for place, _ in self.unwritten.values():
            self.gradients[:, place] = 0

    def meet(self, *parameters: Tensor | None) -> None:
        """Note that parameters are used; a second use would need its gradients added, which a pass does not do."""
        for parameter in parameters:
            if parameter is not None:
                if isinstance(parameter, nn.Parameter) and not parameter.requires_grad:
                    raise NotBatchableError("some of its parameters are frozen")
                if id(parameter) not in self.layout.places or id(parameter) in self.met:
                    raise NotBatchableError("a parameter is used twice, or made by the model while it runs")
                self.met.add(id(parameter))

    def value(self, parameter: Tensor | None) -> Tensor | None:
        """Return what stands for a parameter in this pass: its shape, or (workers, *shape) with rows of one's own."""
        return None if parameter is None else self.layout.view(self.parameters, parameter)

    def rows(self, parameter: Tensor) -> Tensor:
        """Return where a parameter's gradients go, (workers, *shape), to be written now."""
        self.unwritten.pop(id(parameter), None)
        return self.layout.view(self.gradients, parameter)

    def split(self, samples: Tensor) -> Tensor:
        """Return (workers · b, …) as (workers, b, …)."""
        return samples.reshape(self.workers, -1, *samples.shape[1:])

    def linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Stand for `F.linear`."""
        self.meet(weight, bias)
        return _Linear.apply(self, input, weight, bias)

    def convolution(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | tuple[int, ...] = 1,
        padding: int | str | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
    ) -> Tensor:
        """Stand for `F.conv1d`, `F.conv2d` and `F.conv3d`."""
        axes = weight.dim() - 2
        if isinstance(padding, str) or input.dim() != axes + 2:
            raise NotBatchableError("a convolution pads by name, or takes no batch")
        self.meet(weight, bias)
        stride, padding, dilation = (
            [value] * axes if isinstance(value, int) else list(value) for value in (stride, padding, dilation)
        )
        return _Convolution.apply(self, input, weight, bias, (stride, padding, dilation, False, [0] * axes, groups))

    def batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """Stand for `F.batch_norm`: in training, each worker's batch by its own statistics, in the workers' order."""
        self.meet(*(p for p in (weight, bias) if p is not None))
        layer = self.layout.batch_norms.get(id(running_mean))
        if training or self.buffers is not None:
            means, variances = self.running(running_mean), self.running(running_var)
            normalised = []
            for i, part in enumerate(input.chunk(self.workers)):
                if training and layer is not None and layer.momentum is None:  # a plain mean over all batches so far
                    momentum = 1 / self.batches_tracked(layer.num_batches_tracked, i)
                normalised.append(F.batch_norm(part, means[i], variances[i], None, None, training, momentum, eps))
            input = torch.cat(normalised)
        else:
            input = F.batch_norm(input, running_mean, running_var, None, None, False, momentum, eps)
        return input if weight is None else _Affine.apply(self, input, weight, bias)

    def running(self, statistic: Tensor | None) -> Sequence[Tensor | None]:
        """Return where each worker finds a running statistic: in its row, or all of them in the module."""
        name = self.layout.statistics.get(id(statistic))
        return [statistic] * self.workers if self.buffers is None or name is None else self.buffers[name].unbind()

    def batches_tracked(self, counter: Tensor, worker: int) -> int:
        """Return how many batches a worker's running statistics are of, this one included."""
        later = self.workers - 1 - worker if self.buffers is None else 0  # the module's counter is ahead of its turn
        return int(self.running(counter)[worker]) - later


REPLACEMENTS: dict[Callable, Callable] = {
    F.linear: WorkerPass.linear,
    F.conv1d: WorkerPass.convolution,
    F.conv2d: WorkerPass.convolution,
    F.conv3d: WorkerPass.convolution,
    F.batch_norm: WorkerPass.batch_norm,
}


def _flat(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from value
        else:
            yield value


def _holds_tensor(value: Any) -> bool:
    return any(isinstance(part, Tensor) for part in _flat((value,)))


# In the functions below the parameters themselves only mark the graph as differentiable: the values used are those of
# the pass, and the gradients go to its rows, so backward returns None for them.


class _Linear(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, workers: WorkerPass, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.workers, ctx.parameters = workers, (weight, bias)
        ctx.save_for_backward(input)
        w, b = workers.value(weight), workers.value(bias)
        if not workers.own_rows:
            return F.linear(input, w, b)
        flat = workers.split(input).flatten(1, -2)
        output = input.new_empty(*input.shape[:-1], w.shape[-2])  # not a view, which could not be changed in place
        rows = workers.split(output).flatten(1, -2)
        torch.bmm(flat, w.mT, out=rows) if b is None else torch.baddbmm(b.unsqueeze(1), flat, w.mT, out=rows)
        return output

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[None, Tensor | None, None, None]:
        (input,), workers, (weight, bias) = ctx.saved_tensors, ctx.workers, ctx.parameters
        grads = workers.split(grad).flatten(1, -2)
        torch.bmm(grads.mT, workers.split(input).flatten(1, -2), out=workers.rows(weight))
        if bias is not None:
            torch.sum(grads, dim=1, out=workers.rows(bias))
        if not ctx.needs_input_grad[1]:
            return None, None, None, None
        w = workers.value(weight)
        grad_input = torch.bmm(grads, w).view(input.shape) if workers.own_rows else grad @ w
        return None, grad_input, None, None


class _Convolution(Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, workers: WorkerPass, input: Tensor, weight: Tensor, bias: Tensor | None, settings: tuple
    ) -> Tensor:
        ctx.workers, ctx.parameters, ctx.settings = workers, (weight, bias), settings
        ctx.save_for_backward(input)
        w, b = workers.value(weight), workers.value(bias)
        if not workers.own_rows:
            return torch.convolution(input, w, b, *settings)
        biases = [None] * workers.workers if b is None else b
        parts = zip(input.chunk(workers.workers), w, biases, strict=True)
        return torch.cat([torch.convolution(part, own, own_bias, *settings) for part, own, own_bias in parts])

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[None, Tensor | None, None, None, None]:
        (input,), workers, (weight, bias) = ctx.saved_tensors, ctx.workers, ctx.parameters
        w = workers.value(weight)
        rows, bias_rows = workers.rows(weight), None if bias is None else workers.rows(bias)
        wanted = ctx.needs_input_grad[1]
        separately = wanted and workers.own_rows
        sizes = None if bias is None else [bias.numel()]
        grad_parts = []
        parts = zip(grad.chunk(workers.workers), input.chunk(workers.workers), strict=True)
        for i, (g, x) in enumerate(parts):  # a grouped convolution would do it at once, several times slower
            grad_x, grad_w, grad_b = torch.ops.aten.convolution_backward(
                g, x, w[i] if workers.own_rows else w, sizes, *ctx.settings, [separately, True, bias is not None]
            )
            rows[i].copy_(grad_w)
            if bias is not None:
                bias_rows[i].copy_(grad_b)
            grad_parts.append(grad_x)
        if separately:
            grad_input = torch.cat(grad_parts)
        elif wanted:
            grad_input = torch.ops.aten.convolution_backward(grad, input, w, None, *ctx.settings, [True, False, False])[
                0
            ]
        else:
            grad_input = None
        return None, grad_input, None, None, None


class _Affine(Function):
    """y = x · weight + bias along axis 1, after normalisation."""

    @staticmethod
    def forward(ctx: FunctionCtx, workers: WorkerPass, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.workers, ctx.parameters = workers, (weight, bias)
        ctx.save_for_backward(input)
        output = input * _Affine.over_samples(workers, weight, input)
        return output if bias is None else output.add_(_Affine.over_samples(workers, bias, input))

    @staticmethod
    def over_samples(workers: WorkerPass, parameter: Tensor, input: Tensor) -> Tensor:
        """Return a parameter (C,), or rows of it, in a shape that broadcasts over the samples (workers · b, C, …)."""
        value = workers.value(parameter)
        if workers.own_rows:
            value = value.repeat_interleave(input.shape[0] // workers.workers, dim=0)
        return value.view(*value.shape, *[1] * (input.dim() - 2))

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[None, Tensor | None, None, None]:
        (input,), workers, (weight, bias) = ctx.saved_tensors, ctx.workers, ctx.parameters
        axes = [1, *range(3, grad.dim() + 1)]  # all but workers and channels
        torch.sum(workers.split(grad * input), dim=axes, out=workers.rows(weight))
        if bias is not None:
            torch.sum(workers.split(grad), dim=axes, out=workers.rows(bias))
        grad_input = grad * _Affine.over_samples(workers, weight, grad) if ctx.needs_input_grad[1] else None
        return None, grad_input, None, None
