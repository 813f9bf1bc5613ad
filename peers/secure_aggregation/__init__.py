"""Secure aggregation: peers average their models, and nobody sees another's; see docs/secure_aggregation.md."""

from peers.secure_aggregation.aggregator import PrivacyPreservingAggregator
from peers.secure_aggregation.profiles import (
    AggregationProfile,
    AverageAdditiveSharingModelProfile,
    AverageTorchAdditiveSharingModelProfile,
)
from peers.secure_aggregation.server import SchedulingServer
from peers.secure_aggregation.wish import AggregationError

__all__ = [
    "AggregationError",
    "AggregationProfile",
    "AverageAdditiveSharingModelProfile",
    "AverageTorchAdditiveSharingModelProfile",
    "PrivacyPreservingAggregator",
    "SchedulingServer",
]
