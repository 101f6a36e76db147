"""The words of each kind of operator, by name, in order: for those who write plans or read them in comfort."""

from device_agent.runtimes.plan import kinds

# The version of plans that keep nothing from one run to the next: interpreters of any age read them.
WITHOUT_STATE = 1
# Tensors are moved along up to four axes.
AXES = 4
_WINDOW = (
    "source",
    "target",
    "in_h",
    "in_w",
    "in_c",
    "out_h",
    "out_w",
    "out_c",
    "k_h",
    "k_w",
    "stride_h",
    "stride_w",
)
_MULTIPLIERS = tuple(f"{part}_{name}" for name in "abo" for part in ("mult", "left", "right"))

WORDS = {
    # groups: of eight weights a row; direct: windows are runs of bytes; times: channels each input channel makes in a
    # depthwise convolution, 0 in any other.
    kinds.CONVOLVE: (
        *_WINDOW,
        *("dilation_h", "dilation_w", "pad_top", "pad_left", "zero_in", "zero_out", "low", "high"),
        *("weights", "row_bytes", "groups", "scratch", "direct", "times"),
    ),
    # first: 0 for a sum or, with `combine`, a difference; 2 for a mean of `count` values `inner` apart or, with
    # `combine`, for a product.
    kinds.RESCALE: (
        *("a", "b", "target", "outer", "inner", "count", "zero_a", "zero_b", "zero_out", "low", "high"),
        *("first", "combine", *_MULTIPLIERS),
    ),
    kinds.POOL: (*_WINDOW, "pad_top", "pad_left", "largest"),
    # Sizes n, steps of the source s and of the target t (the last is 1); (byte & keep) ^ flip, or a table.
    kinds.MOVE: (
        *("source", "target", "n0", "n1", "n2", "n3", "s0", "s1", "s2", "s3", "t0", "t1", "t2"),
        *("keep", "flip", "tabled", "weights"),
    ),
    kinds.SOFTMAX: ("source", "target", "rows", "width", "weights"),
}
