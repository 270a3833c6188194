"""How a Transformer knows where a token stands: attention alone would read a text as a bag of tokens.

Absolute positions are added to the token vectors (learned, sinusoidal), rotary ones turn queries and keys, and relative
ones add a number to the product of query and key that depends on their distance (T5's buckets, ALiBi).

Axes: B texts, T tokens that look, S tokens that are looked at, H heads, C width of a head.
"""

import math

import torch
from torch import Tensor


def angles(positions: Tensor, width: int, base: float) -> Tensor:
    """positions [B, T] -> [B, T, width / 2]: position / base^(2i / width), from fast hands of a clock to slow ones."""
    exponents = torch.arange(0, width, 2, device=positions.device).float() / width
    return positions[..., None].float() * (1.0 / base**exponents)


def sinusoid(positions: Tensor, width: int) -> Tensor:
    """[B, T] -> [B, T, width]: sines and cosines of the angles in turn (Vaswani et al. 2017, section 3.5)."""
    angle = angles(positions, width, 10000.0)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [B, H, T, C], cos and sin [B, 1, T, C / 2]: turns the pairs (i, i + C / 2) of each vector by its position's angles.

    The product of a query and a key then depends on how far apart they are alone (Su et al. 2021).
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def distance_bucket(distance: Tensor, num_buckets: int, farthest: int, *, causal: bool) -> Tensor:
    """Distances [T, S] (key minus query) -> buckets [T, S]: near ones alone, far ones in groups that grow (Raffel et al. 2020).

    Half of the buckets are for keys to the right, unless there are none to be seen.
    """
    if causal:
        side, steps = torch.zeros_like(distance), (-distance).clamp(min=0)
    else:
        num_buckets //= 2
        side, steps = (distance > 0).long() * num_buckets, distance.abs()
    exact = num_buckets // 2
    growth = torch.log(steps.clamp(min=1).float() / exact) / math.log(farthest / exact) * (num_buckets - exact)
    far = (exact + growth.long()).clamp(max=num_buckets - 1)
    return side + torch.where(steps < exact, steps, far)


def alibi(distance: Tensor, num_heads: int) -> Tensor:
    """Distances [T, S] -> [1, H, T, S]: the farther, the less, at a slope of its own for each head (Press et al. 2022).

    The slopes are 2^(-8/n), 2^(-16/n) ... for n heads, n being the largest power of two, and then every other one of
    those of 2n heads for the rest, as in the code that they published.
    """
    n = 2 ** int(math.log2(num_heads))
    slopes = [2 ** (-8 * (head + 1) / n) for head in range(n)]
    slopes += [2 ** (-4 * (2 * head + 1) / n) for head in range(num_heads - n)]
    return -torch.tensor(slopes, device=distance.device)[None, :, None, None] * distance.abs()
