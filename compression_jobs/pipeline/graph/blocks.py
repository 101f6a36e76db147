"""The residual blocks of a Net, and what is left of it without one."""

from compression_jobs.pipeline.graph.net import Layer, Net, Op, Plain


def residual_blocks(net: Net) -> list[str]:
    """The names of the sums that add a branch with more layers to one with fewer, of one origin."""
    return [op.name for op in net if _branches(net, op) is not None]


def without(net: Net, block: str) -> Net:
    """A copy in which a block's sum is replaced by its shorter branch."""
    fresh = net.copy()
    op = next(op for op in fresh if op.name == block)
    branches = _branches(fresh, op)
    assert branches is not None
    kept = branches[1]
    fresh.replace(op, [])
    fresh.redirect(op.output, kept)
    fresh.remove_dead()
    return fresh


def _branches(net: Net, op: Op) -> tuple[str, str] | None:
    """The longer and the shorter branch of a residual sum; None when it is none."""
    if not isinstance(op, Plain) or op.op_type != "Add" or any(name in net.constants for name in op.inputs):
        return None
    first, second = op.inputs
    behind = [_layers_behind(net, name) for name in (first, second)]
    own = [behind[0] - behind[1], behind[1] - behind[0]]
    if len(own[0]) == len(own[1]):
        return None
    return (first, second) if len(own[0]) > len(own[1]) else (second, first)


def _layers_behind(net: Net, name: str) -> set[str]:
    """The layers that a tensor depends on."""
    needed, found = {name}, set()
    for op in reversed(list(net)):
        if needed.intersection(op.outputs):
            needed.update(op.inputs)
            if isinstance(op, Layer):
                found.add(op.name)
    return found
