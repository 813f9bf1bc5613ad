"""A model that waits to be averaged, and what becomes of it."""

from dataclasses import dataclass

from peers.secure_aggregation.layout import Layout
from peers.secure_aggregation.profiles import Prepared
from peers.secure_aggregation.settings import Settings


class AggregationError(RuntimeError):
    """An aggregation that came to nothing."""


@dataclass
class Wish:
    """A model that waits to be averaged.

    Attributes:
        settings: of the server, under which the model was prepared.
        deadline_s: until when a round must have begun.
        began_s, ended_s: when the first attempt was assigned and when it was over, by the clock.
        n: peers whose average it is.
        packed: the average's bytes, once there is one.
        error: why there will be none.
    """

    number: int
    prepared: Prepared
    settings: Settings
    deadline_s: float
    began_s: float | None = None
    ended_s: float | None = None
    n: int | None = None
    packed: bytes | None = None
    error: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether there is a result, or will never be one."""
        return self.packed is not None or self.error is not None

    @property
    def layout(self) -> Layout:
        """Of the model."""
        return self.prepared.layout
