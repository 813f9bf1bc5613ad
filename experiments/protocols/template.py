"""A protocol to copy: the file's name becomes that of the protocol, and nothing else changes.

Source: authors, title, venue, year, equation or algorithm; and what differs here.
"""

from torch import Tensor

from experiments.protocols import Protocol
from tools.errors import UserError


class Template(Protocol, name="template"):
    """A local step, then the mean of what neighbours sent, in every `every`-th round only."""

    rule = "average"
    takes_rules = False

    @classmethod
    def check(cls, *, n: int, f: int, f_real: int, every: int = 1) -> None:
        if type(every) is not int or every < 1:
            raise UserError(f"--protocol-args: expected every of at least 1, got {every!r}")

    def aggregate_over_received_nodes(self, local_parameters: Tensor, byzantine_parameters: Tensor) -> Tensor:
        """Return what each node makes of what it received; between mixing rounds, its own."""
        if self.step_index % self.arguments.get("every", 1):
            self.byzantine_weight = None
            return self.nodes.mixed.copy_(local_parameters)
        return super().aggregate_over_received_nodes(local_parameters, byzantine_parameters)
