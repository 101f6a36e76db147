"""Waiting times that double up to a limit, with jitter so that a fleet does not knock in step."""

# Numerical Recipes' linear congruence: good enough to spread devices, the same on both interpreters.
_MULTIPLIER = 1664525
_INCREMENT = 1013904223
_MASK = 0xFFFFFFFF


class Jitter:
    """A small random source, seeded by the device's epoch and boot."""

    def __init__(self, seed: int) -> None:
        self.state = seed & _MASK

    def around(self, wait_ms: int) -> int:
        """Between 75 % and 125 % of `wait_ms`."""
        self.state = (self.state * _MULTIPLIER + _INCREMENT) & _MASK
        return wait_ms * 3 // 4 + (wait_ms // 2) * (self.state >> 16) // 0xFFFF


class BackOff:
    """One waiting time that doubles at every failure."""

    def __init__(self, jitter: Jitter, first_ms: int, limit_ms: int) -> None:
        self.jitter = jitter
        self.first_ms = first_ms
        self.limit_ms = limit_ms
        self.next_ms = first_ms

    def reset(self) -> None:
        """Begin again with the first waiting time."""
        self.next_ms = self.first_ms

    def wait_ms(self) -> int:
        """The next waiting time, jittered; the one after it is twice as long."""
        wait = self.jitter.around(self.next_ms)
        self.next_ms = min(self.next_ms * 2, self.limit_ms)
        return wait
