"""The server as programs use it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peers.keys import read_identity
from peers.secure_aggregation.combining import Combination
from peers.secure_aggregation.node import Node, Permits, endpoint_of
from peers.secure_aggregation.profiles import AggregationProfile
from peers.secure_aggregation.scheduler import Scheduler
from peers.secure_aggregation.settings import Settings, check_timeout
from peers.secure_aggregation.tree import check_sizes
from tools.errors import UserError

LINGER_S = 2.0


class SchedulingServer:
    """Brings peers together; sees no share and no model.

        profile = AverageTorchAdditiveSharingModelProfile(digits_to_keep=6)
        with SchedulingServer(5555, target_size=6, group_size=3, num_actors=2, aggregation_profile=profile) as server:
            server.wait()

    Args:
        port: where to listen.
        target_size: a round begins when so many peers have signed up, again and again.
        group_size: about how many peers a group has, at least 3.
        num_actors: how many of a group hold the shares of its sum, at least 2, fewer than `group_size`. All of them
            together could see the models of their group.
        aggregation_profile: how models are averaged.
        keys: folder with the server's secret keys and the certificates of all peers, see `peers.keys`.
        name: of the server's keys.
        host: the interface to listen on; by default all.
        min_size: with how few peers a round is repeated after losses; by default `group_size`.
        timeout_s: within so long somebody who is silent is lost, and the round goes on.
        combine: name of a rule of `aggregators` that means of groups meet, in place of the mean over all.
        combine_f: groups that may be poisoned.
        combine_args: further arguments of the rule.

    Raises:
        UserError: numbers that do not go together, or keys that are not what they should be.
    """

    def __init__(
        self,
        port: int,
        target_size: int,
        group_size: int,
        num_actors: int,
        aggregation_profile: AggregationProfile,
        *,
        keys: str | Path = "./keys",
        name: str = "server",
        host: str = "*",
        min_size: int | None = None,
        timeout_s: float = 30.0,
        combine: str | None = None,
        combine_f: int = 1,
        combine_args: Mapping[str, Any] | None = None,
    ) -> None:
        _check_numbers(port, target_size, group_size, num_actors, timeout_s)
        min_size = group_size if min_size is None else min_size
        if type(min_size) is not int or not group_size <= min_size <= target_size:
            raise UserError(
                f"min_size: expected {group_size} (group_size) to {target_size} (target_size), got {min_size}"
            )
        if not isinstance(aggregation_profile, AggregationProfile) or not hasattr(aggregation_profile, "name"):
            raise UserError(
                f"aggregation_profile: expected an AggregationProfile with a name, got {aggregation_profile!r}"
            )
        try:
            aggregation_profile.check(target_size)
        except ValueError as error:
            raise UserError(f"aggregation_profile: {error}") from error
        combination = None
        if combine is not None:
            combination = Combination(combine, combine_f, dict(combine_args or {}))
            combination.check(target_size // group_size)
        self.port = port
        self._settings = Settings(aggregation_profile, combination, float(timeout_s))
        self._sizes = {
            "target_size": target_size,
            "group_size": group_size,
            "num_actors": num_actors,
            "min_size": min_size,
        }
        self._bound_to = endpoint_of(host, port)
        self._identity = read_identity(Path(keys), name)
        self._permits = Permits(Path(keys))
        self.scheduler: Scheduler | None = None
        self._node: Node | None = None

    def __enter__(self) -> "SchedulingServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen.

        Raises:
            UserError: the port is taken.
        """
        if self._node is not None:
            raise UserError(f"port {self.port}: already started")
        self.scheduler = Scheduler(identity=self._identity, settings=self._settings, **self._sizes)
        node = Node(self.scheduler, identity=self._identity, permits=self._permits, bound_to=self._bound_to)
        node.start()
        self._node = node

    def wait(self, timeout_s: float | None = None) -> None:
        """Return after some time, or never; raise what ended the server."""
        if self._node is None:
            raise UserError(f"port {self.port}: expected a started server; call start(), or use it in `with`")
        self._node.wait(lambda: False, timeout_s)

    @property
    def statistics(self) -> dict[str, int]:
        """Rounds completed, attempts given up, peers present, connections refused, messages dropped by reason."""
        scheduler = self.scheduler
        if scheduler is None:
            return {}
        counted = {"rounds": scheduler.rounds, "repeats": scheduler.repeats, "peers": len(scheduler.known)}
        counted["refused"] = self._permits.refused
        return counted | {f"dropped: {reason}": count for reason, count in sorted(scheduler.dropped.items())}

    def stop(self) -> None:
        """End; peers in the middle of a round complete it."""
        if self._node is not None:
            until_s = time.monotonic() + LINGER_S
            self._node.stop(lambda: not self.scheduler.unsent() or time.monotonic() > until_s)
            self._node = None


def _check_numbers(port: int, target_size: int, group_size: int, num_actors: int, timeout_s: float) -> None:
    if type(port) is not int or not 0 < port < 1 << 16:
        raise UserError(f"port: expected a whole number from 1 to 65535, got {port!r}")
    check_sizes(group_size, num_actors)
    if type(target_size) is not int or target_size < group_size:
        raise UserError(
            f"target_size: expected a whole number of at least group_size = {group_size}, got {target_size!r}"
        )
    check_timeout(timeout_s)
