"""The C99 functions that generated models consist of, with the arithmetic of TFLM's reference kernels."""

_ARITHMETIC = r"""
/* High half of 2ab, rounded, halves away from zero. */
static int32_t high_multiply(int32_t a, int32_t b)
{
    int64_t product = (int64_t)a * (int64_t)b;
    int64_t nudge = product >= 0 ? (1 << 30) : 1 - (1 << 30);
    if (a == INT32_MIN && b == INT32_MIN)
        return INT32_MAX;
    return (int32_t)((product + nudge) / ((int64_t)1 << 31));
}

/* Value / 2^exponent to nearest, halves away from zero. */
static int32_t divide_by_power(int32_t value, int32_t exponent)
{
    int32_t mask = (int32_t)(((uint32_t)1 << exponent) - 1);
    int32_t remainder = value & mask;
    int32_t threshold = (mask >> 1) + (value < 0 ? 1 : 0);
    return (value >> exponent) + (remainder > threshold ? 1 : 0);
}
"""

_SCALE = r"""
/* Value times multiplier times 2^shift; the multiplier is a fraction of 2^31. */
static int32_t scaled(int32_t value, int32_t multiplier, int32_t shift)
{
    int32_t left = shift > 0 ? shift : 0;
    return divide_by_power(high_multiply(value * (1 << left), multiplier), left - shift);
}
"""

_CLAMP = r"""
static int8_t clamped(int32_t value, int32_t low, int32_t high)
{
    return (int8_t)(value < low ? low : value > high ? high : value);
}
"""

_WINDOW = r"""
typedef struct {
    int32_t in_height, in_width, in_channels, out_height, out_width, out_channels;
    int32_t kernel_height, kernel_width, stride_height, stride_width;
    int32_t dilation_height, dilation_width, pad_top, pad_left;
} window;
"""

_LAYER = r"""
typedef struct {
    window at;
    int32_t in_zero, out_zero, low, high;
    const int8_t *weights;
    const int32_t *bias, *multipliers;
    const int8_t *shifts;
} layer;
"""

_CONVOLUTION = r"""
static void convolution(const layer *p, const int8_t *in, int8_t *out)
{
    const window *w = &p->at;
    const int32_t filter = w->kernel_height * w->kernel_width * w->in_channels;
    for (int32_t y = 0; y < w->out_height; y++)
        for (int32_t x = 0; x < w->out_width; x++)
            for (int32_t c = 0; c < w->out_channels; c++) {
                const int8_t *weights = p->weights + c * filter;
                int32_t sum = p->bias[c];
                for (int32_t i = 0; i < w->kernel_height; i++) {
                    int32_t row = y * w->stride_height + i * w->dilation_height - w->pad_top;
                    if (row < 0 || row >= w->in_height)
                        continue;
                    for (int32_t j = 0; j < w->kernel_width; j++) {
                        int32_t column = x * w->stride_width + j * w->dilation_width - w->pad_left;
                        const int8_t *from, *by;
                        if (column < 0 || column >= w->in_width)
                            continue;
                        from = in + (row * w->in_width + column) * w->in_channels;
                        by = weights + (i * w->kernel_width + j) * w->in_channels;
                        for (int32_t k = 0; k < w->in_channels; k++)
                            sum += (from[k] - p->in_zero) * by[k];
                    }
                }
                *out++ = clamped(scaled(sum, p->multipliers[c], p->shifts[c]) + p->out_zero, p->low, p->high);
            }
}
"""

_DEPTHWISE = r"""
static void depthwise(const layer *p, const int8_t *in, int8_t *out)
{
    const window *w = &p->at;
    const int32_t repeat = w->out_channels / w->in_channels;
    for (int32_t y = 0; y < w->out_height; y++)
        for (int32_t x = 0; x < w->out_width; x++)
            for (int32_t c = 0; c < w->out_channels; c++) {
                int32_t sum = p->bias[c];
                for (int32_t i = 0; i < w->kernel_height; i++) {
                    int32_t row = y * w->stride_height + i * w->dilation_height - w->pad_top;
                    if (row < 0 || row >= w->in_height)
                        continue;
                    for (int32_t j = 0; j < w->kernel_width; j++) {
                        int32_t column = x * w->stride_width + j * w->dilation_width - w->pad_left;
                        if (column < 0 || column >= w->in_width)
                            continue;
                        sum += (in[(row * w->in_width + column) * w->in_channels + c / repeat] - p->in_zero)
                             * p->weights[(i * w->kernel_width + j) * w->out_channels + c];
                    }
                }
                *out++ = clamped(scaled(sum, p->multipliers[c], p->shifts[c]) + p->out_zero, p->low, p->high);
            }
}
"""

_MAX_POOL = r"""
static void max_pool(const window *w, const int8_t *in, int8_t *out)
{
    for (int32_t y = 0; y < w->out_height; y++)
        for (int32_t x = 0; x < w->out_width; x++)
            for (int32_t c = 0; c < w->out_channels; c++) {
                int8_t best = INT8_MIN;
                for (int32_t i = 0; i < w->kernel_height; i++)
                    for (int32_t j = 0; j < w->kernel_width; j++) {
                        int32_t row = y * w->stride_height + i - w->pad_top;
                        int32_t column = x * w->stride_width + j - w->pad_left;
                        if (row >= 0 && row < w->in_height && column >= 0 && column < w->in_width) {
                            int8_t value = in[(row * w->in_width + column) * w->in_channels + c];
                            best = value > best ? value : best;
                        }
                    }
                *out++ = best;
            }
}
"""

_AVERAGE_POOL = r"""
static void average_pool(const window *w, const int8_t *in, int8_t *out)
{
    for (int32_t y = 0; y < w->out_height; y++)
        for (int32_t x = 0; x < w->out_width; x++)
            for (int32_t c = 0; c < w->out_channels; c++) {
                int32_t sum = 0, count = 0;
                for (int32_t i = 0; i < w->kernel_height; i++)
                    for (int32_t j = 0; j < w->kernel_width; j++) {
                        int32_t row = y * w->stride_height + i - w->pad_top;
                        int32_t column = x * w->stride_width + j - w->pad_left;
                        if (row >= 0 && row < w->in_height && column >= 0 && column < w->in_width) {
                            sum += in[(row * w->in_width + column) * w->in_channels + c];
                            count++;
                        }
                    }
                *out++ = (int8_t)((sum > 0 ? sum + count / 2 : sum - count / 2) / count);
            }
}
"""

_MEAN = r"""
static void mean(const int8_t *in, int8_t *out, int32_t count, int32_t channels, int32_t in_zero,
                 int32_t out_zero, int32_t multiplier, int32_t shift)
{
    for (int32_t c = 0; c < channels; c++) {
        int32_t sum = -count * in_zero;
        for (int32_t i = 0; i < count; i++)
            sum += in[i * channels + c];
        out[c] = clamped(scaled(sum, multiplier, shift) + out_zero, INT8_MIN, INT8_MAX);
    }
}
"""

# Over every pair of values that a sum or a product takes, x and y.
_EACH_PAIR = r"""    for (int32_t i = 0; i < p->size[0]; i++)
        for (int32_t j = 0; j < p->size[1]; j++)
            for (int32_t k = 0; k < p->size[2]; k++)
                for (int32_t l = 0; l < p->size[3]; l++) {
                    int32_t x = a[i * p->a_step[0] + j * p->a_step[1] + k * p->a_step[2] + l * p->a_step[3]];
                    int32_t y = b[i * p->b_step[0] + j * p->b_step[1] + k * p->b_step[2] + l * p->b_step[3]];
"""

_SUM = (
    r"""
typedef struct {
    int32_t size[4], a_step[4], b_step[4], zero[2], multiplier[2], shift[2];
    int32_t sign, out_multiplier, out_shift, out_zero, low, high;
} addition;

/* Sizes of 1 are repeated: their step is 0. */
static void add(const addition *p, const int8_t *a, const int8_t *b, int8_t *out)
{
"""
    + _EACH_PAIR
    + r"""                    int32_t first = scaled((x - p->zero[0]) * (1 << 20), p->multiplier[0], p->shift[0]);
                    int32_t second = scaled((y - p->zero[1]) * (1 << 20), p->multiplier[1], p->shift[1]);
                    int32_t sum = scaled(first + p->sign * second, p->out_multiplier, p->out_shift);
                    *out++ = clamped(sum + p->out_zero, p->low, p->high);
                }
}
"""
)

_PRODUCT = (
    r"""
typedef struct {
    int32_t size[4], a_step[4], b_step[4], a_zero, b_zero, multiplier, shift, out_zero, low, high;
} product;

/* Sizes of 1 are repeated: their step is 0. */
static void multiply(const product *p, const int8_t *a, const int8_t *b, int8_t *out)
{
"""
    + _EACH_PAIR
    + r"""                    int32_t value = scaled((x - p->a_zero) * (y - p->b_zero), p->multiplier, p->shift);
                    *out++ = clamped(value + p->out_zero, p->low, p->high);
                }
}
"""
)

_COPY = r"""
/* Rows of bytes from one place to another, `step` bytes apart there. */
static void copy_rows(const int8_t *in, int8_t *out, int32_t rows, int32_t bytes, int32_t step)
{
    for (int32_t i = 0; i < rows; i++)
        memcpy(out + i * step, in + i * bytes, (size_t)bytes);
}
"""

_PERMUTE = r"""
static void permute(const int8_t *in, int8_t *out, const int32_t size[4], const int32_t step[4])
{
    for (int32_t i = 0; i < size[0]; i++)
        for (int32_t j = 0; j < size[1]; j++)
            for (int32_t k = 0; k < size[2]; k++)
                for (int32_t l = 0; l < size[3]; l++)
                    *out++ = in[i * step[0] + j * step[1] + k * step[2] + l * step[3]];
}
"""

_ENLARGE = r"""
/* Each element `down` times in height and `across` times in width. */
static void enlarge(const int8_t *in, int8_t *out, const int32_t size[3], int32_t down, int32_t across)
{
    for (int32_t i = 0; i < size[0] * down; i++)
        for (int32_t j = 0; j < size[1] * across; j++, out += size[2])
            memcpy(out, in + ((i / down) * size[1] + j / across) * size[2], (size_t)size[2]);
}
"""

_LIMIT = r"""
static void limit(const int8_t *in, int8_t *out, int32_t count, int32_t low, int32_t high)
{
    for (int32_t i = 0; i < count; i++)
        out[i] = clamped(in[i], low, high);
}
"""

_LOOK_UP = r"""
static void look_up(const int8_t *in, int8_t *out, int32_t count, const int8_t table[256])
{
    for (int32_t i = 0; i < count; i++)
        out[i] = table[in[i] + 128];
}
"""

_SOFTMAX = r"""
/* 1 / (1 + x) for x in [0, 1), a fraction of 2^31: three Newton steps. */
static int32_t one_over_one_plus(int32_t x)
{
    int32_t half = (int32_t)(((int64_t)x + INT32_MAX + 1) / 2);
    int32_t y = 1515870810 + high_multiply(half, -1010580540);
    for (int32_t i = 0; i < 3; i++)
        y += high_multiply(y, (1 << 29) - high_multiply(half, y)) * 4;
    return y > INT32_MAX / 2 ? INT32_MAX : y * 2;
}

/* `table` holds what each difference 0..255 to the largest value adds to the sum. */
static void softmax(const int8_t *in, int8_t *out, int32_t rows, int32_t width, const int32_t table[256])
{
    for (int32_t i = 0; i < rows; i++, in += width, out += width) {
        int32_t largest = INT8_MIN, sum = 0, zeros = 0, reciprocal;
        for (int32_t j = 0; j < width; j++)
            largest = in[j] > largest ? in[j] : largest;
        for (int32_t j = 0; j < width; j++)
            sum += divide_by_power(table[largest - in[j]], 12);
        while ((((uint32_t)sum << zeros) & 0x80000000u) == 0)
            zeros++;
        reciprocal = one_over_one_plus((int32_t)(((uint32_t)sum << zeros) - 0x80000000u));
        for (int32_t j = 0; j < width; j++) {
            int32_t part = table[largest - in[j]];
            int32_t exponent = 12 - zeros + 31 - 8;
            out[j] = part == 0 || exponent > 31
                ? INT8_MIN : clamped(divide_by_power(high_multiply(reciprocal, part), exponent) - 128, INT8_MIN, INT8_MAX);
        }
    }
}
"""

# Name -> its text and what it calls; each stands behind what it needs.
KERNELS: dict[str, tuple[str, tuple[str, ...]]] = {
    "arithmetic": (_ARITHMETIC, ()),
    "scaled": (_SCALE, ("arithmetic",)),
    "clamped": (_CLAMP, ()),
    "window": (_WINDOW, ()),
    "layer": (_LAYER, ("window",)),
    "convolution": (_CONVOLUTION, ("layer", "scaled", "clamped")),
    "depthwise": (_DEPTHWISE, ("layer", "scaled", "clamped")),
    "max_pool": (_MAX_POOL, ("window",)),
    "average_pool": (_AVERAGE_POOL, ("window",)),
    "mean": (_MEAN, ("scaled", "clamped")),
    "add": (_SUM, ("scaled", "clamped")),
    "multiply": (_PRODUCT, ("scaled", "clamped")),
    "copy_rows": (_COPY, ()),
    "permute": (_PERMUTE, ()),
    "enlarge": (_ENLARGE, ()),
    "limit": (_LIMIT, ("clamped",)),
    "look_up": (_LOOK_UP, ()),
    "softmax": (_SOFTMAX, ("arithmetic", "clamped")),
}


def text_of(names: set[str]) -> str:
    """The functions named and those that they call, in an order that C accepts."""
    wanted = set(names)
    for name in reversed(KERNELS):
        if name in wanted:
            wanted.update(KERNELS[name][1])
    return "".join(KERNELS[name][0] for name in KERNELS if name in wanted)
