"""Sessions that were ended early, until they would have ended by themselves."""

MAX_OF_KEY = 10_000
"""How many are known of a key. Of more, its sessions that would end first count as ended, too."""

_FIRST_PRUNE = 10_000


class EndedSessions:
    """Knows which sessions of which keys were ended early; times are Unix seconds."""

    def __init__(self) -> None:
        self._of_key: dict[str, dict[str, float]] = {}
        self._all_until: dict[str, float] = {}  # by key: those that would end until then
        self._count = 0
        self._prunes_at = _FIRST_PRUNE

    def add(self, id: str, ends_at: float, now: float) -> None:
        """Notes that a session was ended that would end by itself at `ends_at`."""
        key_id = id.partition(".")[0]
        if ends_at <= now or self.has(id, ends_at):
            return
        ended = self._of_key.setdefault(key_id, {})
        ended[id] = ends_at
        self._count += 1
        if len(ended) > MAX_OF_KEY:
            for first in sorted(ended, key=ended.__getitem__)[: MAX_OF_KEY // 10]:
                self._all_until[key_id] = ended.pop(first)
                self._count -= 1
        if self._count >= self._prunes_at:
            self._prune(now)

    def has(self, id: str, ends_at: float) -> bool:
        """Returns whether a session was ended that would end by itself at `ends_at`."""
        key_id = id.partition(".")[0]
        return ends_at <= self._all_until.get(key_id, 0) or id in self._of_key.get(key_id, ())

    def _prune(self, now: float) -> None:
        """Forgets those that have ended by themselves, each time that twice as many are known."""
        left = {
            key_id: kept
            for key_id, ended in self._of_key.items()
            if (kept := {id: ends_at for id, ends_at in ended.items() if ends_at > now})
        }
        self._of_key = left
        self._all_until = {id: until for id, until in self._all_until.items() if until > now}
        self._count = sum(map(len, left.values()))
        self._prunes_at = max(_FIRST_PRUNE, 2 * self._count)
