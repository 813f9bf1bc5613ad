"""The prompt of --user-input-delta: Python, with the run at hand."""

import code
import signal

from experiments.config import RunConfig
from experiments.simulation import Simulation
from tools.interruption import Interruption

BANNER = (
    "step {step}: Python, with simulation, model and config. Ctrl-D goes on, stop() ends the run after a checkpoint."
)


class _Prompt(code.InteractiveConsole):
    def raw_input(self, prompt: str = "") -> str:
        try:
            return super().raw_input(prompt)
        except KeyboardInterrupt:  # the base class would ask again
            raise EOFError from None
        except (ValueError, RuntimeError):  # exit() closes the input, or there was none
            raise EOFError from None


def ask(simulation: Simulation, config: RunConfig, interruption: Interruption) -> None:
    """Give the user a Python prompt; changing what the run depends on there changes its results."""

    def stop() -> None:
        """End the run after a checkpoint, as Ctrl-C does."""
        interruption.signal = signal.SIGINT
        raise SystemExit

    names = {"simulation": simulation, "model": simulation.model, "config": config, "stop": stop}
    interruption.at_once = True
    try:
        _Prompt(names).interact(banner=BANNER.format(step=simulation.step_index), exitmsg="")
    except SystemExit:
        pass
    finally:
        interruption.at_once = False
