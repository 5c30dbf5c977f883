"""Token buckets: how often something may happen, by name."""

PRUNED_FROM = 1000
"""From how many buckets on those that are full again are dropped."""


class TokenBuckets:
    """A bucket for each name, which holds `most` tokens and gets `rate` of them a second.

    A name that is not known has a full bucket, so the full ones need not be kept.
    """

    def __init__(self, rate: float, most: int) -> None:
        self._rate = rate
        self._most = most
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens, and when they were counted
        self._prune_at = PRUNED_FROM

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, name: str, now: float) -> float:
        """Takes a token and returns 0, or returns after how many seconds there will be one."""
        tokens, since = self._buckets.get(name, (float(self._most), now))
        tokens = min(self._most, tokens + (now - since) * self._rate)
        seconds = 0.0 if tokens >= 1 else (1 - tokens) / self._rate
        self._buckets[name] = (tokens if seconds else tokens - 1, now)
        if len(self._buckets) >= self._prune_at:
            self._prune(now)
        return seconds

    def _prune(self, now: float) -> None:
        self._buckets = {
            name: (tokens, since)
            for name, (tokens, since) in self._buckets.items()
            if tokens + (now - since) * self._rate < self._most
        }
        self._prune_at = max(PRUNED_FROM, 2 * len(self._buckets))
