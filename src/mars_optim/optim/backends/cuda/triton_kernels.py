"""The Triton kernels of ``triton_backend``; imports triton, so it is itself imported when used.

Every kernel works on all tensors of a bucket. A tensor's data are found through tables on the
device with one entry per tensor t: its address, its size, the number of its first program. Program
b works on tensor ``tensor_of[b]``, there on ``chunk`` elements from ``chunk * (b - first[t])`` on.
Arithmetic is in float32 whatever the tensors' dtypes are; offsets have 64 bits.

A step is three launches, or two without a clip: ``norm_kernel``, ``scalars_kernel``,
``update_kernel``. If ``found_inf`` is given and not zero each of them returns at once, so that a
step that AMP skips leaves no trace. Letters are the paper's (see ``reference``).
"""

import triton
import triton.language as tl

# x m v and so on in comments: one element of parameter, first moment, second moment, ...
# tl.load without ``other`` leaves masked lanes undefined: they are never stored, and the norm,
# which would add them up, drops them.


@triton.jit
def data_of(table, t, dtype: tl.constexpr):
    """The address in the table's entry t, as a pointer to elements of ``dtype``."""
    return tl.load(table + t).to(tl.pointer_type(dtype))


@triton.jit
def at(pointer, offsets, aligned: tl.constexpr):
    """Addresses of elements; ``aligned`` promises 16 bytes, so that loads can be 16 bytes wide."""
    addresses = pointer + offsets
    if aligned:
        addresses = tl.multiple_of(addresses, 16)
    return addresses


@triton.jit
def load(pointer, offsets, mask, aligned: tl.constexpr):
    """Elements as float32."""
    return tl.load(at(pointer, offsets, aligned), mask=mask).to(tl.float32)


@triton.jit
def store(pointer, offsets, values, mask, aligned: tl.constexpr):
    """Elements in their own dtype."""
    rounded = values.to(pointer.dtype.element_ty)
    tl.store(at(pointer, offsets, aligned), rounded, mask=mask)


@triton.jit
def estimate(g, last, offsets, mask, gain, takes_difference: tl.constexpr, aligned: tl.constexpr):
    """c_t = g_t + k (g_t - g_{t-1}), not yet clipped, from the unscaled g_t (Alg. 1, line 4)."""
    c = g
    if takes_difference:
        c = g + gain * (g - load(last, offsets, mask, aligned))
    return c


@triton.jit
def unscaling(grad_scale):
    """1 / grad_scale, by which a gradient is multiplied; 1 where AMP gives no scale."""
    factor = 1.0
    if grad_scale is not None:
        factor = 1.0 / tl.load(grad_scale).to(tl.float32)
    return factor


@triton.jit
def skipped(found_inf):
    """Whether AMP found an overflow, so that this step must do nothing."""
    found = False
    if found_inf is not None:
        found = tl.load(found_inf).to(tl.float32) != 0.0
    return found


@triton.jit
def squares(
    g,
    last,
    offsets,
    mask,
    unscale,
    gain,
    takes_difference: tl.constexpr,
    aligned: tl.constexpr,
):
    """c_t^2, 0 where ``mask`` is False."""
    g_t = load(g, offsets, mask, aligned) * unscale
    c = estimate(g_t, last, offsets, mask, gain, takes_difference, aligned)
    square = c * c
    if mask is not None:
        square = tl.where(mask, square, 0.0)
    return square


# fmt: off
@triton.jit
def norm_kernel(
    gs, lasts, sizes, first, tensor_of, partials, found_inf, grad_scale, gain, gamma_at,
    g_type: tl.constexpr, last_type: tl.constexpr, takes_difference: tl.constexpr,
    aligned: tl.constexpr, chunk: tl.constexpr, block: tl.constexpr,
):
    """partials[b] = sum of c_t^2 over the chunk of program b: always the same sum, in one order."""
    if skipped(found_inf):
        return
    b = tl.program_id(0)
    t = tl.load(tensor_of + b)
    start = (b - tl.load(first + t)) * chunk
    size = tl.load(sizes + t) - start
    unscale = unscaling(grad_scale)
    if gamma_at is not None:
        gain = gain * tl.load(gamma_at).to(tl.float32)
    g = data_of(gs, t, g_type) + start
    last = data_of(lasts, t, last_type) + start
    total = tl.zeros([block], tl.float32)
    if size >= chunk:
        for i in range(0, chunk, block):
            offsets = i + tl.arange(0, block)
            total += squares(g, last, offsets, None, unscale, gain, takes_difference, aligned)
    else:
        for i in range(0, size.to(tl.int32), block):
            offsets = i + tl.arange(0, block)
            mask = offsets < size
            total += squares(g, last, offsets, mask, unscale, gain, takes_difference, aligned)
    tl.store(partials + b, tl.sum(total))
# fmt: on


@triton.jit
def norm_of(partials, first, t, lanes: tl.constexpr):
    """||c||_2 of tensor t: its programs' partial sums, added in float64, always in one order."""
    low, high = tl.load(first + t), tl.load(first + t + 1)
    total = tl.zeros([lanes], tl.float64)
    for i in range(low, high, lanes):
        programs = i + tl.arange(0, lanes)
        total += tl.load(partials + programs, mask=programs < high, other=0.0).to(tl.float64)
    return tl.sqrt(tl.sum(total))


@triton.jit
def norms_kernel(partials, first, norms, lanes: tl.constexpr):
    """norms[t] = ||c||_2 of this process's shard, for the all-reduce between the passes."""
    t = tl.program_id(0)
    tl.store(norms + t, norm_of(partials, first, t, lanes).to(tl.float32))


@triton.jit
def clip_scale(norm, clip):
    """min(1, clip / ||c||): 1 if c is 0, NaN if c holds one."""
    return clip / tl.maximum(norm, clip, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def one_minus_power(log2_beta, step):
    """1 - beta^t in float64: rounding log2(beta) to float32 costs no more than rounding this."""
    return 1.0 - tl.exp2(step.to(tl.float64) * log2_beta)


# fmt: off
@triton.jit
def scalars_kernel(
    steps, first, partials, norms, scalars, found_inf, lr_tensor, lr, weight_decay, clip,
    log2_beta1, log2_beta2, adamw: tl.constexpr, lanes: tl.constexpr,
):
    """t <- t + 1, and what the step of a whole tensor has in global_norm, in scalars[t, :4].

    These are the clip's scale, 1 - eta lambda, the step size and the factor on sqrt(v).
    """
    if skipped(found_inf):
        return
    t = tl.program_id(0)
    step_at = data_of(steps, t, tl.float32)
    step = tl.load(step_at) + 1.0
    tl.store(step_at, step)

    eta = tl.zeros([], tl.float64) + lr
    if lr_tensor is not None:
        eta = tl.load(lr_tensor).to(tl.float64)

    scale = tl.zeros([], tl.float64) + 1.0
    if norms is not None:
        scale = clip_scale(tl.load(norms + t).to(tl.float64), clip)
    elif partials is not None:
        scale = clip_scale(norm_of(partials, first, t, lanes), clip)

    # eta m^ / (sqrt(v^) + eps) = eta / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
    step_size = eta
    root_scale = tl.zeros([], tl.float64) + 1.0
    if adamw:
        step_size = eta / one_minus_power(log2_beta1, step)
        root_scale = 1.0 / tl.sqrt(one_minus_power(log2_beta2, step))
    tl.store(scalars + 4 * t, scale.to(tl.float32))
    tl.store(scalars + 4 * t + 1, (1.0 - eta * weight_decay).to(tl.float32))
    tl.store(scalars + 4 * t + 2, step_size.to(tl.float32))
    tl.store(scalars + 4 * t + 3, root_scale.to(tl.float32))
# fmt: on


@triton.jit
def rounded_by_chance(x, step, offsets, b):
    """float32 whose lower half is 0, up or down so that the mean is x (see ``mixed``).

    Philox's key is the step, its counter (element of the chunk, program, programs): a resumed run
    draws as before, replicas draw alike and no two elements share a draw.
    """
    bits = x.to(tl.int32, bitcast=True)
    counter = offsets.to(tl.uint32)
    zero = counter * 0
    program, programs = zero + b.to(tl.uint32), zero + tl.num_programs(0).to(tl.uint32)
    random, _, _, _ = tl.philox(step.to(tl.int64), counter, program, programs, zero)
    noise = (random & 0xFFFF).to(tl.int32)
    rounded = ((bits + noise) & -65536).to(tl.float32, bitcast=True)
    return tl.where((bits & 0x7F800000) == 0x7F800000, x, rounded)  # inf and NaN as they are


# fmt: off
@triton.jit
def step_block(
    data, offsets, mask, scalars, hyper, step, b,
    adamw: tl.constexpr, amsgrad: tl.constexpr, maximize: tl.constexpr,
    takes_difference: tl.constexpr, remembers: tl.constexpr, folds: tl.constexpr,
    by_chance: tl.constexpr, aligned: tl.constexpr,
):
    """One step of the elements at ``offsets`` from the pointers in ``data``."""
    x_at, g_at, m_at, v_at, v_max_at, last_at = data
    unscale, scale, decay, step_size, root_scale = scalars
    gain, gamma, beta1_rest, beta2_rest, eps = hyper

    g = load(g_at, offsets, mask, aligned) * unscale
    # c_t = g_t + k (g_t - g_{t-1}), clipped
    c = estimate(g, last_at, offsets, mask, gain, takes_difference, aligned)
    if maximize:
        c = -c
    c = c * scale
    # g_{t-1} <- g_t
    if remembers:
        store(last_at, offsets, g, mask, aligned)
    # m_t = beta1 m_{t-1} + (1 - beta1) c_t
    m = load(m_at, offsets, mask, aligned)
    m = m + beta1_rest * (c - m)
    store(m_at, offsets, m, mask, aligned)
    # folded: m_t = (1 - gamma) EMA(g)_t + gamma g_t
    if folds:
        m = m + gamma * (c - m)
    if adamw:
        # v_t = beta2 v_{t-1} + (1 - beta2) c_t^2
        v = load(v_at, offsets, mask, aligned)
        v = v + beta2_rest * (c * c - v)
        store(v_at, offsets, v, mask, aligned)
        if amsgrad:
            v_max = load(v_max_at, offsets, mask, aligned)
            v = tl.maximum(v_max, v, propagate_nan=tl.PropagateNan.ALL)
            store(v_max_at, offsets, v, mask, aligned)
        # m^ / (sqrt(v^) + eps), its 1 - beta1^t in the step size
        direction = tl.div_rn(m, tl.sqrt_rn(v) * root_scale + eps)
    else:
        direction = tl.where(m > 0.0, 1.0, tl.where(m < 0.0, -1.0, 0.0))
    # x <- (1 - eta lambda) x - eta direction
    x = load(x_at, offsets, mask, aligned) * decay - step_size * direction
    if by_chance:
        x = rounded_by_chance(x, step, offsets, b)
    store(x_at, offsets, x, mask, aligned)
# fmt: on


# fmt: off
@triton.jit
def update_kernel(
    xs, gs, ms, vs, v_maxs, lasts, sizes, first, tensor_of, scalars, steps, found_inf, grad_scale,
    gain, gamma, gamma_at, beta1_rest, beta2_rest, eps,
    x_type: tl.constexpr, g_type: tl.constexpr, m_type: tl.constexpr, v_type: tl.constexpr,
    v_max_type: tl.constexpr, last_type: tl.constexpr, adamw: tl.constexpr, amsgrad: tl.constexpr,
    maximize: tl.constexpr, takes_difference: tl.constexpr, remembers: tl.constexpr,
    folds: tl.constexpr, by_chance: tl.constexpr, aligned: tl.constexpr,
    chunk: tl.constexpr, block: tl.constexpr,
):
    """The step of program b's chunk: every tensor is read once and written once."""
    if skipped(found_inf):
        return
    b = tl.program_id(0)
    t = tl.load(tensor_of + b)
    start = (b - tl.load(first + t)) * chunk
    size = tl.load(sizes + t) - start
    x = data_of(xs, t, x_type) + start
    g = data_of(gs, t, g_type) + start
    m = data_of(ms, t, m_type) + start
    v = data_of(vs, t, v_type) + start
    v_max = data_of(v_maxs, t, v_max_type) + start
    last = data_of(lasts, t, last_type) + start
    step = tl.load(data_of(steps, t, tl.float32))
    unscale = unscaling(grad_scale)
    if gamma_at is not None:  # of which gain is then the factor
        gamma = tl.load(gamma_at).to(tl.float32)
        gain = gain * gamma
    scale = tl.load(scalars + 4 * t)
    decay = tl.load(scalars + 4 * t + 1)
    step_size = tl.load(scalars + 4 * t + 2)
    root_scale = tl.load(scalars + 4 * t + 3)
    # whole chunks need no mask, and only unmasked accesses are 16 bytes wide
    if size >= chunk:
        for i in range(0, chunk, block):
            step_block(
                (x, g, m, v, v_max, last), i + tl.arange(0, block), None,
                (unscale, scale, decay, step_size, root_scale),
                (gain, gamma, beta1_rest, beta2_rest, eps), step, b,
                adamw, amsgrad, maximize, takes_difference, remembers, folds, by_chance, aligned,
            )
    else:
        for i in range(0, size.to(tl.int32), block):
            offsets = i + tl.arange(0, block)
            step_block(
                (x, g, m, v, v_max, last), offsets, offsets < size,
                (unscale, scale, decay, step_size, root_scale),
                (gain, gamma, beta1_rest, beta2_rest, eps), step, b,
                adamw, amsgrad, maximize, takes_difference, remembers, folds, by_chance, aligned,
            )
# fmt: on
