"""The kinds of operators in a plan, and what is wrong with a file: all that stays in memory of its layout."""

CONVOLVE = 0
RESCALE = 1
POOL = 2
MOVE = 3
SOFTMAX = 4


class PlanError(ValueError):
    """A file that is no plan, or buffers that do not fit one."""
