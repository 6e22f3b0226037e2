"""A histogram of prometheus_client to which many observations are added at a time. Imports prometheus_client.

Relies on: ``Histogram._sum`` and ``Histogram._buckets``, each with ``inc``; the buckets are not cumulative.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import Histogram

__all__ = ["BatchHistogram"]


class BatchHistogram(Histogram):
    """See the module."""

    def add(self, counts: Sequence[int], seconds: float) -> None:
        """Add observations.

        Args:
            counts: of observations in each class, the smallest first, the one without an upper bound last.
            seconds: the sum of all of them.
        """
        self._sum.inc(seconds)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
