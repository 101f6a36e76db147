"""The kinds of operators in a plan, and what is wrong with a file: all that stays in memory of its layout."""

CONVOLVE, RESCALE, POOL, MOVE, SOFTMAX = range(5)


class PlanError(ValueError):
    """A file that is no plan, or buffers that do not fit one."""
