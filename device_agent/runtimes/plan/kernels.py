"""The plan's operators in machine code: MicroPython's viper emitter, written for 32-bit integers.

Activations and weights are unsigned bytes (int8 + 128), so with xu, wu stored bytes:
    sum((x - zx) * w) = sum(xu * wu) - 128 * sum(xu) - (128 + zx) * sum(w)
whose last term is folded into the stored bias. The requantization is TFLite's MultiplyByQuantizedMultiplier with
double rounding, exact for |acc << left| < 2^30, from 15-bit limbs:
    u = |acc| = uh * 2^15 + ul, m = bh * 2^15 + bl
    X = (u * m + 2^30 - negative) >> 30; result = X >> 1, then RoundingDivideByPOT.
It is repeated in each kernel, because a call between viper functions boxes its integers. Viper keeps a function's
first three variables in registers: they are the ones the inner loops use. Where a port has no viper emitter,
`pointers` runs the same source as bytecode; so `int` is only ever applied to pointers and buffers here.
"""

import micropython


@micropython.viper
def convolve(x: ptr8, w: ptr8, acc: int, p: ptr32, first: int, last: int):
    """Channels first..last of a convolution, depthwise convolution or dense layer.

    `x` is the arena, `w` the rows of weights from channel `first` on. Each window is gathered into the scratch, with the
    zero point for padding, unless it lies in the arena as one run of bytes already. Bytes that the last group of eight
    reads past the window meet weights that count for nothing: zero as stored, and left out of the sum of xu.
    """
    arena = int(x)
    rows = int(w)
    iw = p[3]
    ic = p[4]
    out = ptr8(arena + p[1])
    oy = 0
    while oy < p[5]:
        ox = 0
        while ox < p[6]:
            if p[24]:
                window = arena + p[0] + (oy * p[10] * iw + ox * p[11]) * ic
            else:
                window = arena + p[23]
                w = ptr8(window)
                iy = oy * p[10] - p[14]
                ky = p[8]
                while ky:
                    ix = ox * p[11] - p[15]
                    kx = p[9]
                    while kx:
                        acc = ic
                        if iy >= 0 and iy < p[2] and ix >= 0 and ix < iw:
                            x = ptr8(arena + p[0] + (iy * iw + ix) * ic)
                            while acc:
                                w[0] = x[0]
                                w = ptr8(int(w) + 1)
                                x = ptr8(int(x) + 1)
                                acc -= 1
                        else:
                            n = p[16]
                            while acc:
                                w[0] = n
                                w = ptr8(int(w) + 1)
                                acc -= 1
                        ix += p[13]
                        kx -= 1
                    iy += p[12]
                    ky -= 1
            # 128 * sum(xu) is the same for every channel.
            total = 0
            if p[25] == 0:
                x = ptr8(window)
                n = p[8] * p[9] * ic
                acc = 0
                while n:
                    acc += x[0]
                    x = ptr8(int(x) + 1)
                    n -= 1
                total = acc << 7
            head = ptr32(rows)
            channel = first
            while channel < last:
                acc = head[0] - 0x3FFFFFFF - 1 - total
                w = ptr8(int(head) + 12)
                if p[25]:
                    x = ptr8(window + channel // p[25])
                    n = p[8] * p[9]
                    while n:
                        acc += x[0] * (w[0] - 128)
                        x = ptr8(int(x) + ic)
                        w = ptr8(int(w) + 1)
                        n -= 1
                else:
                    x = ptr8(window)
                    n = p[22]
                    while n:
                        acc += x[0] * w[0]
                        acc += x[1] * w[1]
                        acc += x[2] * w[2]
                        acc += x[3] * w[3]
                        acc += x[4] * w[4]
                        acc += x[5] * w[5]
                        acc += x[6] * w[6]
                        acc += x[7] * w[7]
                        x = ptr8(int(x) + 8)
                        w = ptr8(int(w) + 8)
                        n -= 1
                neg = 0
                if acc < 0:
                    neg = 1
                    acc = 0 - acc
                m = head[1]
                acc = acc << (head[2] >> 6)
                right = head[2] & 63
                uh = acc >> 15
                ul = acc & 0x7FFF
                m1 = uh * (m & 0x7FFF)
                m2 = ul * (m >> 15)
                acc = ul * (m & 0x7FFF) + 0x3FFFFFFF + 1 - neg
                acc = ((m1 & 0x7FFF) + (m2 & 0x7FFF) + (acc >> 15)) >> 15
                acc = (uh * (m >> 15) + (m1 >> 15) + (m2 >> 15) + acc) >> 1
                if neg:
                    acc = 0 - acc
                if right:
                    m = (1 << right) - 1
                    n = m >> 1
                    if acc < 0:
                        n += 1
                    m = acc & m
                    acc = acc >> right
                    if m > n:
                        acc += 1
                acc += p[17]
                if acc < p[18]:
                    acc = p[18]
                if acc > p[19]:
                    acc = p[19]
                out[channel] = acc
                head = ptr32(int(head) + p[21])
                channel += 1
            out = ptr8(int(out) + p[7])
            ox += 1
        oy += 1


@micropython.viper
def rescale(x: ptr8, y: ptr8, acc: int, p: ptr32):
    """Sum, difference, product or mean, to a scale of its own: requantizations 0 and 1 are those of a sum's terms, 2 is the result's.

    An element reads p[5] values of the first tensor, p[4] apart (a mean), and one of the second.
    """
    arena = int(x)
    inner = p[4]
    y = ptr8(arena + p[1])
    out = ptr8(arena + p[2])
    i = 0
    while i < p[3]:
        j = 0
        while j < inner:
            total = 0
            stage = p[11]
            while stage < 3:
                x = ptr8(arena + p[0] + i * inner * p[5] + j)
                acc = 0 - p[6] * p[5]
                n = p[5]
                while n:
                    acc += x[0]
                    x = ptr8(int(x) + inner)
                    n -= 1
                if stage == 0:
                    acc = acc << 20
                elif stage == 1:
                    acc = (y[0] - p[7]) << 20
                elif p[11] == 0:
                    acc = total
                elif p[12]:
                    acc = acc * (y[0] - p[7])
                neg = 0
                if acc < 0:
                    neg = 1
                    acc = 0 - acc
                q = ptr32(int(p) + stage * 12 + 52)
                acc = acc << q[1]
                uh = acc >> 15
                ul = acc & 0x7FFF
                m1 = uh * (q[0] & 0x7FFF)
                m2 = ul * (q[0] >> 15)
                acc = ul * (q[0] & 0x7FFF) + 0x3FFFFFFF + 1 - neg
                acc = ((m1 & 0x7FFF) + (m2 & 0x7FFF) + (acc >> 15)) >> 15
                acc = (uh * (q[0] >> 15) + (m1 >> 15) + (m2 >> 15) + acc) >> 1
                if neg:
                    acc = 0 - acc
                if q[2]:
                    m1 = (1 << q[2]) - 1
                    n = m1 >> 1
                    if acc < 0:
                        n += 1
                    m1 = acc & m1
                    acc = acc >> q[2]
                    if m1 > n:
                        acc += 1
                if stage == 1 and p[12]:
                    acc = 0 - acc
                total += acc
                stage += 1
            acc += p[8]
            if acc < p[9]:
                acc = p[9]
            if acc > p[10]:
                acc = p[10]
            out[0] = acc
            out = ptr8(int(out) + 1)
            y = ptr8(int(y) + 1)
            j += 1
        i += 1


@micropython.viper
def pool(x: ptr8, out: ptr8, acc: int, p: ptr32):
    """Maximum or average over windows; padding never counts."""
    source = int(x) + p[0]
    out = ptr8(int(out) + p[1])
    channels = p[4]
    oy = 0
    while oy < p[5]:
        y0 = oy * p[10] - p[12]
        y1 = y0 + p[8]
        if y0 < 0:
            y0 = 0
        if y1 > p[2]:
            y1 = p[2]
        ox = 0
        while ox < p[6]:
            x0 = ox * p[11] - p[13]
            x1 = x0 + p[9]
            if x0 < 0:
                x0 = 0
            if x1 > p[3]:
                x1 = p[3]
            channel = 0
            while channel < channels:
                acc = 0
                y = y0
                while y < y1:
                    x = ptr8(source + (y * p[3] + x0) * channels + channel)
                    n = x1 - x0
                    while n:
                        if p[14] == 0:
                            acc += x[0]
                        elif x[0] > acc:
                            acc = x[0]
                        x = ptr8(int(x) + channels)
                        n -= 1
                    y += 1
                if p[14] == 0:
                    # C's division rounds towards zero, on the signed values.
                    n = (y1 - y0) * (x1 - x0)
                    acc -= n << 7
                    if acc > 0:
                        acc = 128 + (acc + (n >> 1)) // n
                    else:
                        acc = 128 - ((n >> 1) - acc) // n
                out[0] = acc
                out = ptr8(int(out) + 1)
                channel += 1
            ox += 1
        oy += 1


@micropython.viper
def move(x: ptr8, out: ptr8, values: ptr8, p: ptr32):
    """Bytes of four axes from one set of steps to another, through a table of 256 or as (byte & p[13]) ^ p[14].

    This is every operator without arithmetic: tables (logistic, tanh, a change of scale), concatenation, reshape,
    transpose, padding, and the change between int8 in buffers of the caller and unsigned bytes in the arena.
    """
    source = int(x) + p[0]
    target = int(out) + p[1]
    i = 0
    while i < p[2]:
        j = 0
        while j < p[3]:
            k = 0
            while k < p[4]:
                x = ptr8(source + i * p[6] + j * p[7] + k * p[8])
                out = ptr8(target + i * p[10] + j * p[11] + k * p[12])
                n = p[5]
                if p[15]:
                    while n:
                        out[0] = values[x[0]]
                        x = ptr8(int(x) + p[9])
                        out = ptr8(int(out) + 1)
                        n -= 1
                else:
                    while n:
                        out[0] = x[0] & p[13] ^ p[14]
                        x = ptr8(int(x) + p[9])
                        out = ptr8(int(out) + 1)
                        n -= 1
                k += 1
            j += 1
        i += 1


@micropython.viper
def softmax(x: ptr8, e: ptr32, p: ptr32):
    """Softmax of rows, in gemmlowp's fixed point (tflite: reference_ops::Softmax).

    `e` holds exp of each difference to the largest, in 0.31 bits, then 48/17 and 32/17 in 2.29 bits for the first guess of
    the reciprocal. Steps 0..6 are its three Newton iterations, each later step one element; all share one product:
    (a * b + 2^30 - negative) >> 31 of two 31-bit magnitudes, from the limbs of a / 2 with the lowest bit of a apart.
    """
    e = ptr32(int(e))
    arena = int(x)
    width = p[3]
    rows = p[2]
    source = arena + p[0]
    out = ptr8(arena + p[1])
    while rows:
        largest = 0
        x = ptr8(source)
        n = width
        while n:
            if x[0] > largest:
                largest = x[0]
            x = ptr8(int(x) + 1)
            n -= 1
        x = ptr8(source)
        total = 0
        n = width
        while n:
            b = e[largest - x[0]]
            total += (b >> 12) + ((b >> 11) & 1)
            x = ptr8(int(x) + 1)
            n -= 1
        # The sum shifted up to fill 31 bits is half of 1 + x.
        right = 34
        while total <= 0x3FFFFFFF and right > 3:
            total = total << 1
            right -= 1
        x = ptr8(source)
        y = 0
        correction = 0
        step = 0
        while step < width + 7:
            neg = 0
            a = total
            b = y
            if step == 0:
                b = e[257]
            elif step > 6:
                a = y
                b = e[largest - x[0]]
                x = ptr8(int(x) + 1)
            elif step & 1 == 0:
                a = y
                b = correction
                if b < 0:
                    neg = 1
                    b = 0 - b
            if step == 0:
                neg = 1
            d = 0 - neg
            if a & 1:
                d += b
            a = a >> 1
            uh = a >> 15
            ul = a & 0x7FFF
            m1 = uh * (b & 0x7FFF)
            m2 = ul * (b >> 15)
            r = ul * (b & 0x7FFF)
            t = (m1 & 0x7FFF) + (m2 & 0x7FFF) + (r >> 15)
            r = ((t & 0x7FFF) << 15) + (r & 0x7FFF) + 0x20000000
            t = uh * (b >> 15) + (m1 >> 15) + (m2 >> 15) + (t >> 15) + (r >> 30)
            r = t + (((r & 0x3FFFFFFF) + (d >> 1)) >> 30)
            if step == 0:
                y = e[256] - r
            elif step > 6:
                if right > 31:
                    r = 0
                else:
                    r = (r >> right) + ((r >> (right - 1)) & 1)
                if r > 255:
                    r = 255
                out[0] = r
                out = ptr8(int(out) + 1)
            elif step & 1:
                correction = 0x20000000 - r
            else:
                if neg:
                    r = 0 - r
                y += r << 2
                if step == 6:
                    if y > 0x3FFFFFFF:
                        y = 0x3FFFFFFF
                        y = y + y + 1
                    else:
                        y = y + y
            step += 1
        source += width
        rows -= 1
