"""How fast learning without a server is: `python3 benchmarks/decentralised.py --data-directory DIR`, where MNIST is.

Prints two parts as markdown tables; `--parts` chooses, `--output FOLDER` also writes all times there as results.json.

All that is compared takes turns in one process, on the same threads, after a turn to warm up. Before a turn idle
threads get time to fall asleep, since some libraries' wait actively, and its first call is not timed. Times are
milliseconds of one call, averaged over the `--steps` of a turn; medians, quartiles and least ones are over `--rounds`
turns, ratios medians over pairs of turns. Phases are medians too, those left out that nobody spends 1 % on.

monna: rounds of MoNNA on MNIST, under the attack alie that reaches all. Ours is what attack.py does, without a study
and with one, and, as a library, `step()` of the protocol itself, with its snapshots. Beside them `MonnaSimulation` of
the library krum where it is installed (PyPI, Python 3.12): the same network, rates and shards, these in a TensorDataset
per node. Asked for is a round in a quarter of its time. Then the evaluation of all honest nodes on the test set, asked
for in a fifth; ours also evaluates the averaged model, theirs also computes the loss.

growth: rounds of three protocols on rings of honest nodes, on the digits. The time that a node takes is set beside that
in the smallest ring; and beside that in the smallest one where it is within 20 % of the least, so that starting each
operation no longer matters. From there on it should stay within 20 %. Memory is by how much a run exceeds at its peak
what imports, data and a ring of four took before, in a process of its own; on Linux or a GPU.

`--quick` takes other sizes, few rounds and the digits: it shows that all works, and nothing else.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import TensorDataset

from benchmarks.aggregators import SETTLE_S, digits, write
from benchmarks.cells import MONNA_CELL, RING_CELL
from benchmarks.run import milliseconds, ratio, resident_bytes
from experiments.config import RunConfig
from experiments.datasets import Data, Samples
from experiments.environment import describe, on_this_machine, settings
from experiments.network_simulation import NetworkSimulation
from experiments.phases import PhaseClock
from experiments.run import load_data
from experiments.simulation import make_model
from tools.errors import one_line
from tools.program import exit_status

SEED = 1
USUAL = {"rounds": 11, "steps": 10, "sizes": [(20, 3)], "nodes": [16, 64, 256, 1024]}
QUICK = {"rounds": 2, "steps": 1, "sizes": [(5, 1)], "nodes": [4, 8]}
PROTOCOLS: dict[str, dict[str, Any]] = {"dpsgd": {}, "gossip": {}, "robust": {"gar": "trmean", "nb_local_byz": 1}}
MOST = {"round": 1 / 4, "evaluation": 1 / 5}
"""What share of krum's time is asked for."""
TOLERANCE = 0.2
FEW_NODES = 4
PHASES = {
    "collect_worker_batches": "data",
    "compute_honest_worker_gradients": "gradients",
    "local_update": "momentum",
    "generate_byzantine_models": "attack",
    "aggregate_over_received_nodes": "rule",
    "commit_state": "update",
    "build_step_result": "snapshot",
}
"""Methods of a decentralised simulation, ours or krum's, and what phase of a round each is."""

Times = dict[str, list[float]]


def take_turns(
    actions: Mapping[str, Callable[[], Any]], clocks: Mapping[str, PhaseClock], rounds: int, calls: int, device: str
) -> tuple[Times, dict[str, Times]]:
    """Return the milliseconds of a call by turn, and, of actions that have a clock, those of each phase.

    Args:
        calls: that are timed in a turn.
    """
    for action in actions.values():
        milliseconds(action, calls, device)
    times: Times = {who: [] for who in actions}
    phases: dict[str, Times] = {who: {} for who in clocks}
    for _ in range(rounds):
        for who, action in actions.items():
            time.sleep(SETTLE_S)
            action()
            before = clocks[who].seconds() if who in clocks else {}
            times[who].append(milliseconds(action, calls, device))
            if who in clocks:
                for phase, seconds in clocks[who].seconds().items():
                    phases[who].setdefault(phase, []).append((seconds - before[phase]) / calls * 1e3)
    return times, phases


def phase_clock(simulation: Any, device: torch.device) -> PhaseClock:
    """Return a clock on which the methods of a decentralised simulation count their time from now on."""
    clock = PhaseClock(device)

    def counted(method: Callable[..., Any], phase: str) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            with clock.phase(phase):
                return method(*arguments, **keywords)

        return call

    for name, phase in PHASES.items():
        setattr(simulation, name, counted(getattr(simulation, name), phase))
    return clock


def krum_simulation(config: RunConfig, data: Data, shards: list[Tensor]) -> Any:
    """Return the same simulation by the library krum; ImportError where it is not installed.

    It takes data on the CPU, and is fastest on test batches of our default size.
    """
    from krum.primitives.attacks.alie import ALIEAttack
    from krum.primitives.models import Model
    from krum.simulations.decentralised.monna_icml_2023 import MonnaSimulation

    def dataset(samples: Samples, part: Tensor | slice = slice(None)) -> TensorDataset:
        return TensorDataset(samples.inputs[part].cpu(), samples.targets[part].cpu())

    return MonnaSimulation(
        model=Model(make_model(config, data, SEED).module),
        train_datasets=[dataset(data.train, shard) for shard in shards],
        train_batch_size=config.batch_size,
        test_set=dataset(data.test),
        test_batch_size=config.batch_size_test,
        loss_fn=F.nll_loss,
        n=config.nb_workers,
        f=config.nb_real_byz,
        learning_rate=config.learning_rate,
        beta=config.momentum,
        attack=ALIEAttack,
        attack_kwargs=config.attack_args,
        seed=SEED,
    )


def measure_monna(config: RunConfig, rounds: int) -> dict[str, Any]:
    """Return what rounds and evaluations take, and how well the nodes then classify."""
    with settings(config):
        data = load_data(config)
        ours, studied, library = (
            NetworkSimulation(replace(config, nb_for_study=study), data, SEED) for study in (0, 1, 0)
        )

        def with_study() -> None:
            studied.step()
            if studied.metrics.full:
                studied.metrics.flush()

        steppers = {"ours": ours.step, "with a study": with_study, "as a library": library.protocol.step}
        evaluators: dict[str, Callable[[], tuple[float, ...]]] = {"ours": ours.evaluate}
        clocks = {"ours": ours.clock, "with a study": studied.clock}
        clocks["as a library"] = phase_clock(library.protocol, ours.device)
        peer = missing = None
        try:
            theirs = krum_simulation(config, data, ours.shards)
        except ImportError as error:
            missing = one_line(error)
        else:
            peer = f"krum {version('krum')}"
            steppers[peer], clocks[peer] = theirs.step, phase_clock(theirs, ours.device)
            evaluators[peer] = lambda: theirs.evaluate()[1:]  # after the loss
        round_ms, phase_ms = take_turns(steppers, clocks, rounds, config.nb_steps, config.device)
        evaluation_ms, _ = take_turns(evaluators, {}, rounds, 1, config.device)
        accuracies = {who: evaluate()[0] for who, evaluate in evaluators.items()}
    return {
        "peer": peer,
        "missing": missing,
        "ms": {"round": round_ms, "evaluation": evaluation_ms},
        "phase_ms": phase_ms,
        "rounds_done": ours.step_index,
        "accuracies": accuracies,
    }


def measure_rings(configs: Mapping[str, RunConfig], rounds: int) -> dict[str, Any]:
    """Return what rounds take and how much memory, by number of nodes."""
    first = next(iter(configs.values()))
    with settings(first):
        data = load_data(first)
        rings = {n: NetworkSimulation(config, data, SEED) for n, config in configs.items()}
        clocks = {n: ring.clock for n, ring in rings.items()}
        steppers = {n: ring.step for n, ring in rings.items()}
        ms, phase_ms = take_turns(steppers, clocks, rounds, first.nb_steps, first.device)
    return {
        "ms": ms,
        "phase_ms": phase_ms,
        "matrix_bytes": {n: ring.protocol.parameters.nbytes for n, ring in rings.items()},
        "peak_bytes": {n: peak_bytes(config) for n, config in configs.items()},
    }


def peak_bytes(config: RunConfig) -> int | None:
    """Return `own_peak_bytes` of a process of its own; None where that cannot be known."""
    if not config.device.startswith("cuda") and not Path("/proc/self/clear_refs").exists():
        return None
    command = [sys.executable, __file__, "--memory", json.dumps(config.to_dict())]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def own_peak_bytes(config: RunConfig) -> int:
    """Return by how much a run exceeds at its peak what imports, data and a run of few nodes took before."""
    cuda = config.device.startswith("cuda")
    with settings(config):
        data = load_data(config)
        NetworkSimulation(replace(config, nb_workers=FEW_NODES), data, SEED).run(config.nb_steps)
        gc.collect()  # a simulation and its protocol know each other
        if cuda:
            torch.cuda.reset_peak_memory_stats(config.device)
            before = torch.cuda.memory_allocated(config.device)
        else:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts again from here
            before = resident_bytes("VmRSS")
        NetworkSimulation(config, data, SEED).run(config.nb_steps)
        peak = torch.cuda.max_memory_allocated(config.device) if cuda else resident_bytes("VmHWM")
    return peak - before


def saturated(by_node: Mapping[int, float]) -> int:
    """Return the smallest number of nodes at which the time that one takes is within 20 % of the least.

    Args:
        by_node: that time, by number of nodes.
    """
    return min(n for n, taken in by_node.items() if taken <= (1 + TOLERANCE) * min(by_node.values()))


def spread(times: list[float]) -> list[str]:
    """Return median, quartiles and least as cells."""
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    return [digits(middle), f"{digits(low)} to {digits(high)}", digits(min(times))]


def beside(times: list[float], of_peer: list[float], most: float) -> str:
    """Return the ratio of times as a cell, and whether it is as asked for."""
    found = ratio(times, of_peer)
    return f"{digits(found)}, {'**exceeds**' if found > most else 'at most'} {most:g}"


def split(phases: Mapping[str, Times]) -> tuple[list[str], dict[str, list[str]]]:
    """Return the names of phases, and by who their medians as cells; without those that nobody spends 1 % on."""
    medians = {who: {name: statistics.median(ms) for name, ms in times.items()} for who, times in phases.items()}
    names = dict.fromkeys(
        name for of_one in medians.values() for name, ms in of_one.items() if ms >= 0.01 * sum(of_one.values())
    )
    cells = {who: [digits(of_one[name]) if name in of_one else "" for name in names] for who, of_one in medians.items()}
    return list(names), cells


def table(*lines: Iterable[str]) -> None:
    """Print a markdown table, its head first."""
    head, *rows = map(list, lines)
    print()
    for line in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(line)} |")


def report_monna(result: dict[str, Any]) -> None:
    """Print what was measured of MoNNA."""
    peer, (names, cells) = result["peer"], split(result["phase_ms"])
    for what, times in result["ms"].items():
        head = [f"{what}, ms", "median", "quartiles", "least", f"/ {peer or 'krum'}"]
        rows = []
        for who, ms in times.items():
            relative = "" if peer in (None, who) else beside(ms, times[peer], MOST[what])
            rows.append([who, *spread(ms), relative, *(cells[who] if what == "round" else ())])
        table([*head, *(names if what == "round" else ())], *rows)
    if peer is None:
        print(f"\nkrum: not compared, {result['missing']}")
    accuracies = ", ".join(f"{who} {accuracy:.3f}" for who, accuracy in result["accuracies"].items())
    print(f"\nMean accuracy of honest nodes after {result['rounds_done']} rounds: {accuracies}", flush=True)


def report_rings(result: dict[str, Any]) -> None:
    """Print what was measured of a protocol on rings."""
    by_node = {int(n): statistics.median(ms) / int(n) for n, ms in result["ms"].items()}
    first, start = min(by_node), saturated(by_node)
    names, cells = split(result["phase_ms"])
    rows = []
    for n, ms in result["ms"].items():
        taken, peak = by_node[int(n)], result["peak_bytes"][n]
        relative = [f"{taken / by_node[base]:.2f}" if int(n) >= base else "" for base in (first, start)]
        memory = [""] * 2 if peak is None else [digits(peak / 1e6), digits(peak / result["matrix_bytes"][n])]
        rows.append([n, *spread(ms), digits(taken * 1e3), *relative, *memory, *cells[n]])
    head = ["nodes", "round, ms", "quartiles", "least", "per node, µs", f"/ at {first}", f"/ at {start}"]
    table([*head, "memory, MB", "(h, d) matrices", *names], *rows)
    farthest = max((by_node[n] / by_node[start] - 1 for n in by_node if n > start), key=abs, default=None)
    if farthest is None:
        print(f"\nGrowth is less than linear up to {start} nodes, and no ring is larger", flush=True)
    else:
        stays = "stays" if abs(farthest) <= TOLERANCE else "does **not** stay"
        print(f"\nFrom {start} nodes on, a node's time {stays} within {TOLERANCE:.0%}: {farthest:+.0%}", flush=True)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the options, with sizes filled in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    nodes = " ".join(map(str, USUAL["nodes"]))
    parser.add_argument("--data-directory", metavar="DIR", help="folder with MNIST in torchvision's layout, for monna")
    parser.add_argument("--parts", nargs="+", default=("monna", "growth"), choices=("monna", "growth"), help="of both")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, help=f"turns of the comparison (default {USUAL['rounds']})")
    parser.add_argument("--steps", type=int, help=f"rounds of a protocol per turn (default {USUAL['steps']})")
    parser.add_argument("--sizes", nargs="+", type=parse_size, metavar="n,f", help="of monna (default 20,3)")
    parser.add_argument("--nodes", nargs="+", type=int, metavar="n", help=f"of rings (default {nodes})")
    parser.add_argument("--protocols", nargs="+", default=list(PROTOCOLS), choices=list(PROTOCOLS), help="on rings")
    size = RING_CELL["batch_size"]
    parser.add_argument("--batch-size", type=int, default=size, help=f"samples per node on rings (default {size})")
    parser.add_argument("--quick", action="store_true", help="see above; flags of sizes and rounds still count")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="folder for results.json")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    for name, value in (QUICK if arguments.quick else USUAL).items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    for name in ("rounds", "steps"):
        if getattr(arguments, name) < 1:
            parser.error(f"argument --{name}: expected at least 1, got {getattr(arguments, name)}")
    if "monna" in arguments.parts and not (arguments.data_directory or arguments.quick or arguments.memory):
        parser.error("argument --data-directory: expected the folder with MNIST in it; or --parts growth")
    return arguments


def parse_size(text: str) -> tuple[int, int]:
    """Read n,f."""
    try:
        n, f = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected n,f such as 20,3, got {text!r}") from None
    return n, f


def monna_configs(arguments: argparse.Namespace) -> dict[str, RunConfig]:
    """Return the configurations of the part monna, by n,f."""
    data = {"dataset": "digits"}
    if not arguments.quick:
        data = {"data_directory": str(Path(arguments.data_directory).resolve())}
    return {
        f"{n},{f}": make_config(arguments, **MONNA_CELL | data, nb_workers=n, nb_decl_byz=f) for n, f in arguments.sizes
    }


def ring_configs(arguments: argparse.Namespace) -> dict[str, dict[str, RunConfig]]:
    """Return the configurations of the part growth, by protocol and number of nodes."""
    common = RING_CELL | {"batch_size": arguments.batch_size}
    return {
        protocol: {
            str(n): make_config(arguments, **common, **PROTOCOLS[protocol], protocol=protocol, nb_workers=n)
            for n in sorted(set(arguments.nodes))
        }
        for protocol in arguments.protocols
    }


def make_config(arguments: argparse.Namespace, **fields: Any) -> RunConfig:
    """Return a configuration with the options that all have in common."""
    common = {"device": arguments.device, "threads": arguments.threads, "nb_steps": arguments.steps}
    return on_this_machine(RunConfig(**fields, **common))


def main(argv: list[str] | None = None) -> int:
    """Measure and print; see the module's text."""
    arguments = parse(argv)
    if arguments.memory:
        print(own_peak_bytes(RunConfig.from_dict(json.loads(arguments.memory))))
        return 0
    monna = monna_configs(arguments) if "monna" in arguments.parts else {}
    growth = ring_configs(arguments) if "growth" in arguments.parts else {}
    results: dict[str, Any] = {"environment": describe(make_config(arguments), SEED), "monna": {}, "growth": {}}

    def keep(part: str, name: str, result: dict[str, Any]) -> None:
        results[part][name] = result
        if arguments.output:
            write(arguments.output, json.dumps(results, indent=1) + "\n")

    if arguments.output:
        write(arguments.output, "", mode="a")  # now rather than after the first table
    environment = results["environment"]
    print(f"{environment['device']}, {environment['threads']} threads, torch {torch.__version__}")
    print(f"{arguments.rounds} turns of {arguments.steps} rounds", flush=True)
    for size, config in monna.items():
        result = measure_monna(config, arguments.rounds)
        print(f"\n## monna, n, f = {size}")
        report_monna(result)
        keep("monna", size, result)
    for protocol, configs in growth.items():
        result = measure_rings(configs, arguments.rounds)
        print(f"\n## {protocol} on rings, batches of {arguments.batch_size}")
        report_rings(result)
        keep("growth", protocol, result)
    return 0


if __name__ == "__main__":
    sys.exit(exit_status("benchmarks/decentralised.py", main))
