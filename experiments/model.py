"""A model as one flat parameter vector, with the gradients of many workers in one call."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from experiments import models
from experiments.batches import Batches
from experiments.datasets import Samples
from experiments.losses import Loss
from experiments.per_worker import Dropout, Layout, NoiseSeeds, NotBatchableError, WorkerPass, trainable
from tools.errors import UserError, one_line
from tools.seeding import derive_seed

CPU_SAMPLES_PER_PASS = 1_250  # what they need stays in cache
GPU_SAMPLES_PER_PASS = 10_000
CPU_VALUES_PER_PASS = 2**23  # 32 MiB of float32: larger passes of convolutions at parameters of one's own are slower
GPU_VALUES_PER_PASS = 2**31
TORCH_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)  # for shapes and dtypes it cannot take


class Model:
    """A module whose parameters share the memory of one vector.

    Args:
        module_or_name: a module, or the name of one of `models.architectures` or `torchvision-<name>`.
        arguments: of the architecture, when it is given by name.
        device: where it lives.
        seed: of the initial parameters of an architecture given by name, which are drawn on the CPU.
        initialise: draws them anew once the architecture is built.

    Attributes:
        parameters: (d,), those that require gradients, in the order of `module.parameters()`; writing to it changes the
            module.
        one_by_one: why gradients are computed one worker after another; empty when all at once.
        changes_inputs: whether the module writes to its inputs, which are then copied first.
    """

    def __init__(
        self,
        module_or_name: nn.Module | str,
        arguments: dict | None = None,
        *,
        device: torch.device | str = "cpu",
        seed: int = 0,
        initialise: Callable[[nn.Module], None] | None = None,
    ) -> None:
        if isinstance(module_or_name, str):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive_seed(seed, "initial parameters"))
                module = models.build(module_or_name, **(arguments or {}))
                if initialise is not None:
                    initialise(module)
        else:
            module = module_or_name
        self.module = module.to(device)
        self.parameters = _flatten(self.module)
        self._layout = Layout(self.module)
        self.changes_inputs = True
        self.one_by_one = "its gradients have not been compared with those of a loop over workers"

    @property
    def d(self) -> int:
        """How many parameters there are."""
        return self.parameters.numel()

    def buffers(self) -> dict[str, Tensor]:
        """Return what the module keeps beside its parameters, running statistics foremost, by name."""
        return dict(self.module.named_buffers())

    def state_dict(self) -> dict[str, Tensor | dict[str, Tensor]]:
        """Return copies of parameters and buffers."""
        return {"parameters": self.parameters.clone(), "buffers": _copies(self.buffers())}

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned."""
        self.load(state["parameters"], state["buffers"])

    def load(self, parameters: Tensor, buffers: Mapping[str, Tensor] | None) -> None:
        """Write parameters (d,) and, unless None, all buffers."""
        self.parameters.copy_(parameters)
        if buffers is not None:
            self._load_buffers(buffers)

    def _load_buffers(self, buffers: Mapping[str, Tensor]) -> None:
        for name, buffer in self.buffers().items():
            buffer.copy_(buffers[name])

    def node_buffers(self, h: int) -> dict[str, Tensor]:
        """Return the buffers h times, (h, *shape) by name: what each of h nodes starts with."""
        return {name: torch.stack([buffer] * h) for name, buffer in self.buffers().items()}

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> Tensor:
        """Return the outputs for inputs (samples, …) in evaluation mode."""
        self._set_mode(False)
        return self._forward(inputs)

    def _forward(self, inputs: Tensor) -> Tensor:
        return self.module(inputs.clone() if self.changes_inputs else inputs)

    def samples_per_pass(self) -> int:
        """Return how many samples should go through the model at once."""
        return GPU_SAMPLES_PER_PASS if self.parameters.is_cuda else CPU_SAMPLES_PER_PASS

    def samples_per_own_pass(self, inputs: Tensor) -> int:
        """Return how many samples should go through the model at once where workers have parameters of their own.

        Args:
            inputs: some samples, on which it counts how many values its layers give.
        """
        with _ValueCounter() as counter:
            self.predict(inputs)
        values = GPU_VALUES_PER_PASS if self.parameters.is_cuda else CPU_VALUES_PER_PASS
        return max(values * len(inputs) // max(counter.values, 1), 1)

    @torch.enable_grad()
    def gradients(
        self,
        batches: Batches,
        loss: Loss,
        *,
        out: Tensor,
        parameters: Tensor | None = None,
        buffers: Mapping[str, Tensor] | None = None,
        train: bool = True,
        seeds: NoiseSeeds = lambda worker: worker,
        update_statistics: bool = True,
    ) -> Tensor:
        """Compute the gradient of each worker's loss, regularisation included.

        Args:
            batches: of h workers.
            loss: of one batch.
            out: (h, d), written to: the gradients.
            parameters: where to compute them, (d,) for all workers or (h, d), one row each; the model's own if None.
            buffers: (h, *shape) by name, one row each, which then stand for the model's own and change as those would;
                None for the model's own.
            train: training mode: dropout, and batch normalisation by the statistics of each worker's batch.
            seeds: the seed of each worker's dropout.
            update_statistics: whether running statistics and other buffers change, the model's own as if the workers
                were visited in order.

        Returns:
            Losses (h,).
        """
        self._set_mode(train)
        points = self.parameters if parameters is None else parameters
        method = self._one_by_one if self.one_by_one else self._at_once
        if buffers is not None and not update_statistics:
            buffers = _copies(buffers)
        kept = None if buffers is None and update_statistics else _copies(self.buffers())
        losses = out.new_empty(len(batches.sizes))
        for first, run in batches.equal_runs():
            workers = slice(first, first + len(run.sizes))
            own = points[workers] if points.dim() == 2 else points
            own_buffers = None if buffers is None else {name: rows[workers] for name, rows in buffers.items()}
            numbers = range(workers.start, workers.stop)
            losses[workers] = method(run, loss, out[workers], own, own_buffers, numbers, seeds)
        if kept is not None:
            self._load_buffers(kept)
        with torch.no_grad():
            loss.add_regularisation(points, out, losses)
        return losses

    def full_gradient(self, samples: Samples, loss: Loss) -> Tensor:
        """Return the gradient (d,) of the mean loss over samples, in evaluation mode, regularisation included."""
        # Only a plain mean over samples is the mean of the means over parts of them
        size = self.samples_per_pass() if loss.by_sample is not None else len(samples)
        total = torch.zeros_like(self.parameters)
        gradient = total.new_empty(1, self.d)
        for inputs, targets in zip(samples.inputs.split(size), samples.targets.split(size), strict=True):
            self.gradients(Batches(inputs, targets, (len(inputs),)), loss, out=gradient, train=False)
            total.add_(gradient[0], alpha=len(inputs) / len(samples))
        return total

    def prepare(
        self,
        inputs: Tensor,
        targets: Tensor,
        loss: Loss,
        train: bool = True,
        own_rows: bool = False,
        own_buffers: bool = False,
        sizes: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Try the model on a few samples, and decide whether gradients can be computed for all workers at once.

        They can if, on these samples, that gives the same gradients, losses and buffers as a loop over two workers, up
        to rounding. The model is left as it was.

        Args:
            inputs: at least four samples.
            targets: of these samples.
            loss: what will be minimised.
            train: the mode in which gradients will be computed.
            own_rows: whether they will be computed at parameters of each worker's own.
            own_buffers: whether they will be computed with buffers of each worker's own.
            sizes: how many samples batches will have, by what an error says of them; those of less than half of the
                samples given are tried.

        Raises:
            UserError: the model does not take such inputs, or the loss not its outputs with such targets, or the model
                is not to be trained on so small a batch.
        """
        half = len(inputs) // 2
        batches = Batches(inputs[: 2 * half], targets[: 2 * half], (half, half))
        points = torch.stack([self.parameters, 1.01 * self.parameters]) if own_rows else self.parameters
        buffers = self.node_buffers(2) if own_buffers else None
        if buffers is not None:
            for name in self._layout.statistics.values():
                buffers[name][1] += 1
        self._set_mode(train)
        one_by_one = self._reference(batches, loss, points, buffers)
        for what, size in sizes.items():
            if size < half:
                few = Batches(inputs[: 2 * size], targets[: 2 * size], (size, size))
                self._require_batches(few, what, loss, points, buffers)
        random_state = _random_state(inputs.device)
        try:
            with torch.random.fork_rng(devices=[inputs.device] if inputs.is_cuda else []):
                at_once = self._try(self._at_once, batches, loss, points, buffers)
                draws = not torch.equal(_random_state(inputs.device), random_state)
        except (*TORCH_ERRORS, NotBatchableError) as error:
            self.one_by_one = one_line(error)
            return
        same = [_close(x, y) for x, y in zip(one_by_one, at_once, strict=True)]
        if draws:
            self.one_by_one = "it draws random numbers of its own"
        elif not all(same[:3]):  # both gradients, and losses
            self.one_by_one = "it mixes samples"
        else:
            self.one_by_one = "" if all(same) else "it changes buffers that are no running statistics"

    def _require_batches(
        self, batches: Batches, what: str, loss: Loss, points: Tensor, buffers: Mapping[str, Tensor] | None
    ) -> None:
        """Raise a UserError if the model is not to be trained on batches of that size."""
        try:
            self._try(self._one_by_one, batches, loss, points, buffers)
        except TORCH_ERRORS as error:
            raise UserError(
                f"{what} of {batches.sizes[0]}, on which this model cannot be trained ({one_line(error)}); choose "
                "another size"
            ) from error

    def _reference(
        self, batches: Batches, loss: Loss, points: Tensor, buffers: Mapping[str, Tensor] | None
    ) -> list[Tensor]:
        """Return what a loop over workers gives, see `_try`; find out on the way whether the module changes inputs."""
        expendable = replace(batches, inputs=batches.inputs.clone())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's advice on losses
                warnings.filterwarnings("error", message="Using a target size")  # torch would broadcast
                self.changes_inputs = False
                self._try(self._one_by_one, expendable, loss, points, buffers)
                self.changes_inputs = not torch.equal(expendable.inputs, batches.inputs)
                return self._try(self._one_by_one, batches, loss, points, buffers)
        except (*TORCH_ERRORS, UserWarning) as error:
            raise UserError(
                f"--model, --loss: the model cannot be trained with this loss on inputs of shape "
                f"{tuple(batches.inputs.shape[1:])} and {batches.targets.dtype} targets of shape "
                f"{tuple(batches.targets.shape[1:])}: {one_line(error)}"
            ) from error

    def _try(
        self,
        method: Callable[..., Tensor],
        batches: Batches,
        loss: Loss,
        points: Tensor,
        buffers: Mapping[str, Tensor] | None,
    ) -> list[Tensor]:
        """Return gradients, losses and buffers that a method leaves, and restore the model."""
        before, own_buffers = self.state_dict(), None if buffers is None else _copies(buffers)
        gradients = self.parameters.new_empty(2, self.d)
        try:
            losses = method(batches, loss, gradients, points, own_buffers, range(2), lambda worker: worker)
            left = self.state_dict()["buffers"] if own_buffers is None else own_buffers
            return [*gradients, losses, *left.values()]
        finally:
            self.load_state_dict(before)

    def _set_mode(self, train: bool) -> None:
        if self.module.training != train:
            self.module.train(train)

    def _at_once(
        self,
        batches: Batches,
        loss: Loss,
        out: Tensor,
        parameters: Tensor,
        buffers: Mapping[str, Tensor] | None,
        workers: range,
        seeds: NoiseSeeds,
    ) -> Tensor:
        """Compute gradients of batches of one size in one pass, see `per_worker`."""
        one_pass = WorkerPass(self._layout, out, parameters, buffers, workers, seeds)
        with one_pass:
            outputs = self._forward(batches.inputs)
        losses = loss.per_worker(outputs, batches.targets, len(workers))
        losses.sum().backward()
        one_pass.finish()
        return losses.detach()

    def _one_by_one(
        self,
        batches: Batches,
        loss: Loss,
        out: Tensor,
        parameters: Tensor,
        buffers: Mapping[str, Tensor] | None,
        workers: range,
        seeds: NoiseSeeds,
    ) -> Tensor:
        """Compute gradients in a loop over workers: the reference for `_at_once`."""
        trained, before = trainable(self.module), self.parameters.clone()
        losses = []
        pairs = zip(batches.inputs.split(batches.sizes), batches.targets.split(batches.sizes), strict=True)
        for i, (inputs, targets) in enumerate(pairs):
            own_buffers = None if buffers is None else {name: rows[i] for name, rows in buffers.items()}
            self.load(parameters[i] if parameters.dim() == 2 else parameters, own_buffers)
            devices = [inputs.device] if inputs.is_cuda else []
            with torch.random.fork_rng(devices=devices), Dropout(workers[i : i + 1], seeds):
                torch.manual_seed(seeds(workers[i]))  # of all that is random but not dropout
                value = loss(self._forward(inputs), targets)
                found = torch.autograd.grad(value, trained, materialize_grads=True)
            torch.cat([gradient.flatten() for gradient in found], out=out[i])
            losses.append(value.detach())
            if own_buffers is not None:
                for name, buffer in self.buffers().items():
                    own_buffers[name].copy_(buffer)
        self.parameters.copy_(before)
        return torch.stack(losses)


class _ValueCounter(TorchFunctionMode):
    """Counts the values that functions return, while inside."""

    def __init__(self) -> None:
        super().__init__()
        self.values = 0

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.values += result.numel()
        return result


def _flatten(module: nn.Module) -> Tensor:
    """Move a module's trainable parameters into one new vector, and return it."""
    parameters = trainable(module)
    if not parameters:
        raise UserError("--model: expected a model with parameters to train, got none")
    if not all(parameter.numel() for parameter in parameters):
        raise UserError("--model-args: expected sizes of at least 1, got a model that has parameters without values")
    flat = torch.cat([parameter.detach().flatten() for parameter in parameters])
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.data = part.view(parameter.shape)
    return flat


def _copies(buffers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in buffers.items()}


def _random_state(device: torch.device) -> Tensor:
    """Return the state of the global generator that a module on this device would draw from."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _close(x: Tensor, y: Tensor) -> bool:
    """Return whether two results are the same but for rounding, of which batch normalisation may leave much."""
    x, y = x.double(), y.double()
    return bool(torch.linalg.vector_norm(x - y) <= 1e-3 * torch.linalg.vector_norm(x)) or bool(
        (x.isnan() & y.isnan()).all()
    )
