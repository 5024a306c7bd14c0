"""Exponential backoff between attempts."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Delays in seconds that double from `initial` up to `maximum`."""

    initial: float
    maximum: float
    _delay: float = field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._delay = self.initial

    def next_delay(self) -> float:
        delay = self._delay
        self._delay = min(2 * delay, self.maximum)
        return delay
