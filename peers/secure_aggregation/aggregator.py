"""A peer as programs use it."""

import threading
from pathlib import Path
from typing import Any

from peers.keys import read_certificate, read_identity
from peers.secure_aggregation.node import Node, Permits, endpoint_of, split_address
from peers.secure_aggregation.peer import Peer
from peers.secure_aggregation.tree import LEAST_GROUP
from peers.secure_aggregation.wish import AggregationError, Wish
from tools.errors import UserError

WAIT_S = 600.0
CONNECT_S = 30.0


class PrivacyPreservingAggregator:
    """Averages models with those of other peers, so that nobody sees another's.

        with PrivacyPreservingAggregator("tcp://10.0.0.7:6000", "tcp://10.0.0.1:5555") as aggregator:
            model.load_state_dict(aggregator.aggregate(model.state_dict()))

    Args:
        address: tcp://host:port, where other peers reach this one.
        server_address: tcp://host:port of the `SchedulingServer`.
        keys: folder with own secret keys and the certificates of the server and of all peers, see `peers.keys`.
        name: of own keys; by default the only secret keys in the folder besides the server's.
        server_name: of the server's certificate.
        listen: where to listen, tcp://host:port, if that is not `address`, as behind a router.
        min_peers: averages of fewer are refused, whatever the server says: few hide little.
        wait_s: how long `aggregate` waits for a round to begin.
        connect_s: how long `start` waits for the server.

    Raises:
        UserError: addresses or keys that are not what they should be.
    """

    def __init__(
        self,
        address: str,
        server_address: str,
        keys: str | Path = "./keys",
        *,
        name: str | None = None,
        server_name: str = "server",
        listen: str | None = None,
        min_peers: int = LEAST_GROUP,
        wait_s: float = WAIT_S,
        connect_s: float = CONNECT_S,
    ) -> None:
        directory = Path(keys)
        split_address(address, hint="the one by which others reach this peer; listen is for interfaces")
        split_address(server_address, hint="the server's")
        if type(min_peers) is not int or min_peers < LEAST_GROUP:
            raise UserError(f"min_peers: expected a whole number of at least {LEAST_GROUP}, got {min_peers!r}")
        self.address, self.server_address = address, server_address
        self.wait_s, self.connect_s = wait_s, connect_s
        self._bound_to = endpoint_of(*split_address(listen or address))
        self._identity = read_identity(directory, name, suggested="NAME", besides=server_name)
        self._server = read_certificate(directory, server_name)
        self._permits = Permits(directory)
        self._peer: Peer | None = None
        self._node: Node | None = None
        self._busy = threading.Lock()
        self._min_peers = min_peers
        self._elapsed_s: float | None = None
        self._num_peers: int | None = None

    def __enter__(self) -> "PrivacyPreservingAggregator":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, and say hello to the server.

        Raises:
            UserError: the port is taken, or settings of the server that this peer cannot follow.
            AggregationError: no answer from the server within `connect_s`.
        """
        if self._node is not None:
            raise UserError(f"{self.address}: already started")
        peer = Peer(
            identity=self._identity,
            server=self._server,
            address=self.address,
            permits=self._permits,
            min_peers=self._min_peers,
        )
        node = Node(
            peer,
            identity=self._identity,
            permits=self._permits,
            bound_to=self._bound_to,
            servers={self._server.key: self.server_address},
            contacts=lambda: {key: contact.address for key, contact in peer.contacts.items()},
        )
        node.start()
        self._peer, self._node = peer, node
        try:
            node.do(peer.start)
            node.wait(lambda: peer.settings is not None or peer.refusal is not None, self.connect_s)
            if peer.refusal is not None:
                raise UserError(peer.refusal)
            if peer.settings is None:
                raise AggregationError(
                    f"{self.server_address}: no answer from the server for {self.connect_s:g} s; is it running there, "
                    f"does its folder of keys have {self._identity.certificate.name}.key, and this one its certificate?"
                )
        except BaseException:
            node.stop()
            self._node = None
            raise

    def aggregate(self, state_dict: Any, weight: int = 1) -> Any:
        """Return the average of this model and those of the other peers of a round, in the same form.

        Args:
            state_dict: what the server's profile averages: tensors, or NumPy arrays, by name.
            weight: of this model, such as a number of samples; at most the profile's `max_weight`.

        Raises:
            AggregationError: there is no average; the text says why.
            ValueError, TypeError: a model or a weight that cannot be averaged, by name of the entry.
        """
        if self._node is None:
            raise UserError(f"{self.address}: expected a started aggregator; call start(), or use it in `with`")
        if not self._busy.acquire(blocking=False):
            raise UserError(f"{self.address}: expected one aggregation at a time, got another one")
        try:
            peer, node = self._peer, self._node
            settings = peer.settings  # others may come while the model is prepared
            profile = settings.profile
            plain = type(weight) is int and weight == 1  # profiles without weights need not know of them
            prepared = profile.prepare(state_dict) if plain else profile.prepare(state_dict, weight)
            wishes: list[Wish] = []
            node.do(lambda now_s: wishes.append(peer.begin(prepared, settings, now_s, self.wait_s)))
            try:
                is_over = node.wait(lambda: bool(wishes) and wishes[0].is_over)
            except BaseException:  # such as KeyboardInterrupt: the others go on without this peer
                node.do(peer.abandon)
                raise
            if not is_over:
                raise AggregationError("stopped before there was an average")
            wish = wishes[0]
            if wish.error is not None:
                raise AggregationError(wish.error)
            self._elapsed_s, self._num_peers = wish.ended_s - wish.began_s, wish.n
            return profile.unpack(wish.packed, prepared.layout, state_dict)
        finally:
            self._busy.release()

    @property
    def time_elapsed(self) -> float | None:
        """Seconds that the last aggregation took, from the server's assignment to the result; None before the first."""
        return self._elapsed_s

    @property
    def num_peers(self) -> int | None:
        """How many peers' average the last aggregation gave, this one's included; None before the first."""
        return self._num_peers

    @property
    def statistics(self) -> dict[str, int]:
        """Bytes sent and received so far, connections refused, and messages dropped, by reason."""
        peer = self._peer
        if peer is None:
            return {}
        counted = {
            "sent bytes": peer.sent_bytes,
            "received bytes": peer.received_bytes,
            "refused": self._permits.refused,
        }
        return counted | {f"dropped: {reason}": count for reason, count in sorted(peer.dropped.items())}

    def stop(self) -> None:
        """Send what others still wait for, while that gets on, and leave."""
        if self._node is not None:
            self._node.do(self._peer.leave)
            self._node.stop(lambda: self._peer.is_gone)
            self._node = None
