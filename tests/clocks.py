"""A clock that goes only when it is told to."""


class FixedClock:
    """Returns the same moment until it is moved: seconds since the epoch, or on any other scale."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
