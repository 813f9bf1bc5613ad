"""Secure aggregation between real processes: seconds per round, bytes and memory per peer, and recovery from kill -9.

`python3 benchmarks/secure_aggregation.py --output FOLDER`. Every peer is a process of its own with a model of 1,301,010
float32 and one counter; the server is in the process of this script; all connections are encrypted. A round's seconds
are from the server's assignment to the result, the longest of all peers; bytes are all that a peer hands to its sockets
in a round, acknowledgements and what is sent twice included; memory is the peak of the process. With kill -9 the first
peer that gets to a phase in the second round kills itself; recovery is from then until a survivor has the mean of that
round. Says whether all peers have the same bytes, and their error against the float64 mean.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.secure_peer import PHASES, SHAPES, model
from peers.keys import create_keys
from peers.secure_aggregation import AverageAdditiveSharingModelProfile, SchedulingServer
from peers.secure_aggregation.profiles import AverageTorchAdditiveSharingModelProfile
from tools.program import exit_status

DIGITS, GROUP, ACTORS = 6, 3, 2


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses now."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in taken]
    for each in taken:
        each.close()
    return ports


def run(total: int, rounds: int, *, torch: bool, timeout_s: float, die_at: str | None = None) -> dict[str, Any]:
    """Return what peers, as processes, measured in some rounds."""
    with tempfile.TemporaryDirectory() as folder:
        keys, means = Path(folder) / "keys", Path(folder) / "means"
        means.mkdir()
        for name in ("server", *(f"peer-{number}" for number in range(total))):
            create_keys(name, keys)
        port, *ports = free_ports(total + 1)
        kind = AverageTorchAdditiveSharingModelProfile if torch else AverageAdditiveSharingModelProfile
        server = SchedulingServer(
            port, total, GROUP, ACTORS, kind(DIGITS), keys=keys, host="127.0.0.1", timeout_s=timeout_s
        )
        with server:
            peers = [_peer(number, ports[number], port, keys, means, rounds, torch, die_at) for number in range(total)]
            outputs = [peer.communicate()[0] for peer in peers]
            counted = server.statistics
        rows = [[json.loads(line) for line in output.splitlines()] for output in outputs]
        result = {
            "peers": total,
            "profile": "torch" if torch else "numpy",
            "die_at": die_at,
            "exit": [peer.returncode for peer in peers],
            "server": counted,
            "rows": rows,
            "errors": {path.stem: _errors(path, total, die_at is not None) for path in means.glob("*.npz")},
        }
        token = keys / "token"
        if token.exists():
            result["died"] = float(token.read_text())
    return result


def _peer(
    number: int, own: int, port: int, keys: Path, means: Path, rounds: int, torch: bool, die_at: str | None
) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "benchmarks" / "secure_peer.py"), "--number", str(number)]
    command += ["--address", f"tcp://127.0.0.1:{own}", "--server", f"tcp://127.0.0.1:{port}", "--rounds", str(rounds)]
    command += ["--keys", str(keys), "--means", str(means)] + ["--torch"] * torch
    if die_at:
        command += ["--die-at", die_at, "--token", str(keys / "token")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def _errors(path: Path, total: int, with_losses: bool) -> dict[str, float]:
    """Return the largest difference of a mean from that of all, and from that of all but whoever fits best."""
    with np.load(path) as got:
        sums = {name: np.zeros(shape) for name, shape in SHAPES.items()}
        for seed in range(total):
            for name, array in model(seed).items():
                if name in sums:
                    sums[name] += array
        errors = {"all": max(float(np.abs(got[name] - sums[name] / total).max()) for name in SHAPES)}
        for seed in range(total) if with_losses else ():
            left = model(seed)
            worst = max(float(np.abs(got[name] - (sums[name] - left[name]) / (total - 1)).max()) for name in SHAPES)
            errors["one lost"] = min(worst, errors.get("one lost", np.inf))
    return errors


def summary(result: dict[str, Any]) -> str:
    """Return a line about rounds."""
    rounds = [
        [row[number] for row in result["rows"] if "round" in row[number]]
        for number in range(len(result["rows"][0]) - 1)
    ]
    seconds = [max(row["seconds"] for row in rows) for rows in rounds]
    same = all(len({row["digest"] for row in rows}) == 1 for rows in rounds)
    sent = [row["sent bytes"] / 1e6 for rows in rounds for row in rows]
    memory = [row[-1]["peak MiB"] for row in result["rows"]]
    start = [row[-1]["start MiB"] for row in result["rows"]]
    return (
        f"{result['peers']:3} peers ({result['profile']}): {statistics.median(seconds):.2f} s a round "
        f"({min(seconds):.2f} to {max(seconds):.2f}); sent {min(sent):.1f} to {max(sent):.1f} MB, "
        f"mean {statistics.mean(sent):.1f}; memory {max(memory):.0f} MiB, at first {max(start):.0f}; error "
        f"{max(each['all'] for each in result['errors'].values()):.2e}; {'same bytes' if same else 'DIFFERENT BYTES'}"
    )


def recovery(result: dict[str, Any]) -> str:
    """Return a line about a kill."""
    if "died" not in result:
        return f"kill -9 at {result['die_at']}: nobody got there"
    ended, kinds = [], set()
    for row in result["rows"]:
        mine = [each for each in row if each.get("round") == 1]
        for each in mine:
            ended.append(each["ended"] - result["died"])
            kinds.add(each.get("digest", each.get("error")))
    found = [result["errors"].get(kind, kind) for kind in kinds]
    return (
        f"kill -9 at {result['die_at']}: {len(ended)} survivors go on after {min(ended):.2f} to {max(ended):.2f} s; "
        f"repeats {result['server']['repeats']}; errors {found}; exit {sorted(set(result['exit']))}"
    )


def main() -> int:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=[6, 12, 48])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torch", action="store_true", help="models are state dictionaries of torch")
    parser.add_argument("--kill", nargs="*", default=list(PHASES), choices=PHASES, metavar="PHASE")
    parser.add_argument("--kill-size", type=int, default=12)
    parser.add_argument("--timeout", type=float, default=10.0, help="the server's timeout_s")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    results = []
    for total in args.sizes:
        results.append(run(total, args.rounds, torch=args.torch, timeout_s=max(args.timeout, 30)))
        print(summary(results[-1]), flush=True)
    for phase in args.kill:
        results.append(run(args.kill_size, 3, torch=args.torch, timeout_s=args.timeout, die_at=phase))
        print(recovery(results[-1]), flush=True)
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        (args.output / f"results-{int(time.time())}.json").write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(exit_status("benchmarks/secure_aggregation.py", main))
