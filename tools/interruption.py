"""SIGINT and SIGTERM as a wish to stop after the current step."""

import signal
import threading
from types import FrameType


class Interrupted(Exception):
    """A run stopped because a signal asked for it; the results so far can be continued.

    Attributes:
        signal: its number; a program exits with 128 plus it.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.signal = number


class Interruption:
    """Notes the first SIGINT or SIGTERM while inside; a second one raises KeyboardInterrupt at once.

    Attributes:
        signal: the number of the one received; None so far.
        at_once: whether the first one already raises KeyboardInterrupt, as while waiting for input.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.at_once = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        again = self.signal is not None
        self.signal = number
        if again or self.at_once:
            raise KeyboardInterrupt
