"""What the demo is told, and what it gives its peers to do; wrong numbers are told before anything is started."""

import socket
from dataclasses import dataclass
from pathlib import Path

from peers.secure_aggregation.demo.process import HOST, Job
from peers.secure_aggregation.settings import check_timeout
from peers.secure_aggregation.tree import check_sizes
from tools.errors import UserError

MOST_PORT = 65_535
DATA_SKIP = {"digits": 1}
DATA_SKIP_OF_OTHERS = 25


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """The flags of the demo; see its --help."""

    total: int = 6
    epochs: int = 5
    client_start_port: int = 6000
    client_port_dif: int = 1
    server_port: int = 5555
    server_target_size: int | None = None
    server_group_size: int = 3
    server_num_actors: int = 2
    data_skip: int | None = None
    dataset: str = "digits"
    data_directory: str | None = None
    no_cuda: bool = False
    benchmark_server_port: int = 5556
    keys_directory: str | None = None
    timeout: float = 10.0
    seed: int = 1
    debug: bool = False

    def __post_init__(self) -> None:
        for flag, value in (("--total", self.total), ("--epochs", self.epochs), ("--data-skip", self.skip)):
            if value < 1:
                raise UserError(f"{flag}: expected at least 1, got {value}")
        try:
            check_sizes(self.server_group_size, self.server_num_actors)
        except UserError as error:
            raise UserError(f"--server-{str(error).replace('_', '-')}") from error
        if self.target_size < self.server_group_size:
            flag = "--total" if self.server_target_size is None else "--server-target-size"
            least = f"at least {self.server_group_size} (--server-group-size)"
            raise UserError(f"{flag}: expected {least}, got {self.target_size}")
        if self.total < self.target_size:
            raise UserError(
                f"--total: expected at least {self.target_size} (--server-target-size), as no round would begin, "
                f"got {self.total}"
            )
        check_timeout(self.timeout, "--timeout")
        self._check_ports()

    @property
    def target_size(self) -> int:
        """How many peers begin a round."""
        return self.total if self.server_target_size is None else self.server_target_size

    @property
    def skip(self) -> int:
        """Which samples are used: every so many-th."""
        return DATA_SKIP.get(self.dataset, DATA_SKIP_OF_OTHERS) if self.data_skip is None else self.data_skip

    @property
    def ports(self) -> dict[str, int]:
        """The peers' ports by name."""
        return {f"peer-{i + 1}": self.client_start_port + i * self.client_port_dif for i in range(self.total)}

    def _check_ports(self) -> None:
        servers = {"--server-port": self.server_port, "--benchmark-server-port": self.benchmark_server_port}
        for flag, port in ({"--client-start-port": self.client_start_port} | servers).items():
            if not 1 <= port <= MOST_PORT:
                raise UserError(f"{flag}: expected 1 to {MOST_PORT}, got {port}")
        if self.client_port_dif < 1:
            raise UserError(f"--client-port-dif: expected at least 1, got {self.client_port_dif}")
        own = self.ports.values()
        between = f"{min(own)} to {max(own)}"
        if max(own) > MOST_PORT:
            raise UserError(
                f"--client-start-port: expected ports up to {MOST_PORT}, got {between} for {self.total} peers; lower "
                "it, or --client-port-dif"
            )
        for flag, port in servers.items():
            if port in own:
                raise UserError(f"{flag}: expected none of the peers' ports, {between}, got {port}")
        if self.server_port == self.benchmark_server_port:
            raise UserError(
                f"--benchmark-server-port: expected another port than --server-port, got {self.server_port}"
            )

    def check_free(self) -> None:
        """Raise UserError if a port is taken."""
        flags = {"--server-port": self.server_port, "--benchmark-server-port": self.benchmark_server_port}
        for flag, port in [*flags.items(), *(("--client-start-port", port) for port in self.ports.values())]:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as ZeroMQ does
                try:
                    probe.bind((HOST, port))
                except OSError as error:
                    raise UserError(
                        f"{flag}: cannot listen on port {port}: {error.strerror}; stop what uses it, or choose another"
                    ) from error

    def make_jobs(self, keys: Path) -> list[Job]:
        """Return what each peer is to do, with every `total`-th of the samples that are used.

        Raises:
            UserError: no such dataset, or too few samples.
        """
        from experiments import datasets

        directory = datasets.DEFAULT_DIRECTORY if self.data_directory is None else Path(self.data_directory)
        data = datasets.load(self.dataset, directory)
        train, test = ([part.inputs[:: self.skip], part.targets[:: self.skip]] for part in (data.train, data.test))
        if len(train[0]) < self.total:
            raise UserError(
                f"--data-skip: expected at least a sample for each of {self.total} peers, got {len(train[0])} of "
                f"{len(data.train)} samples with {self.skip}; lower it, or --total"
            )
        return [
            Job(
                name=name,
                keys=str(keys),
                port=port,
                server_port=self.server_port,
                collector_port=self.benchmark_server_port,
                dataset=self.dataset,
                num_outputs=data.num_outputs,
                epochs=self.epochs,
                seed=self.seed,
                no_cuda=self.no_cuda,
                train=[values[i :: self.total].numpy() for values in train],
                test=[values.numpy() for values in test],
            )
            for i, (name, port) in enumerate(self.ports.items())
        ]
