"""The samples that a server holds itself, and the gradient it trusts."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from experiments.config import RunConfig
from experiments.datasets import Data
from experiments.defence import Defence
from experiments.sampling import SampleStream
from experiments.worker_gradients import WorkerGradients
from tools.arguments import explicit_parameters
from tools.errors import UserError

DEFAULT_SIZE = 100  # samples, for rules that need a trusted gradient and have no parameter `root`


def root_size(defences: Sequence[Defence]) -> int | None:
    """Return how many samples the server holds itself, None where no defence needs a trusted gradient.

    Raises:
        UserError: defences that want different numbers.
    """
    sizes = set()
    for defence in defences:
        if "trusted" in defence.needs:
            parameter = explicit_parameters(defence.rule.formula()).get("root")
            sizes.add(defence.arguments.get("root", parameter.default if parameter else DEFAULT_SIZE))
    if len(sizes) > 1:
        raise UserError(f"--gars: expected one size of the root batch, got {', '.join(map(str, sorted(sizes)))}")
    return sizes.pop() if sizes else None


class RootBatch:
    """What an honest worker would send if these samples were all it had: always the same ones, drawn by the seed.

    They go through the model in one pass, however many they are: as many as are wanted must fit into memory.

    Source: Cao, Fang, Liu and Gong, "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping", NDSS 2021.

    Args:
        size: how many samples.
        d: how many parameters.

    Attributes:
        sent: the vector (d,) of the last step; with momentum at workers its own momentum.

    Raises:
        UserError: more samples than there are.
    """

    def __init__(self, config: RunConfig, data: Data, seed: int, size: int, d: int) -> None:
        if size > len(data.train):
            flag = "--gar-args" if config.gars is None else "--gars"
            raise UserError(f"{flag}: expected root:1 to root:{len(data.train)}, samples of the data, got {size}")
        self._config = config
        self._stream = SampleStream(data.train, seed, "root", data.augmentation)
        self._indices, self._sizes = self._stream.indices(size, 1)
        self.sent = torch.zeros(d, device=data.train.inputs.device)

    def update(
        self,
        worker_gradients: WorkerGradients,
        where: Callable[[float, Tensor], Tensor | None],
        send: Callable[[Tensor, Tensor], None],
        step: int,
        rate: float,
    ) -> None:
        """Compute what is sent at a step.

        Args:
            where: where a worker of this learning rate and momentum computes its gradient, None for at θ.
            send: adds momentum to gradients, and writes to what was sent before.
        """
        repeats = self._config.nb_local_steps
        gradient = torch.empty_like(self.sent).unsqueeze(0)
        worker_gradients(
            self._stream.gather(self._indices.repeat(repeats), self._sizes * repeats),
            gradient,
            points=where(rate, self.sent),
            first=-self._config.nb_workers - 1,  # a number that no worker has
            step=step,
            rate=rate,
            update_statistics=False,
        )
        if self._config.momentum_at == "update":
            self.sent.copy_(gradient[0])
        else:
            send(gradient, self.sent.unsqueeze(0))

    def state_dict(self) -> dict[str, Any]:
        """Return all that later steps depend on."""
        return {"sent": self.sent, "stream": self._stream.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was called."""
        self.sent.copy_(state["sent"])
        self._stream.load_state_dict(state["stream"])
