"""A generator for every (seed, step, shard): nothing random has to be stored, and who computes what does not matter."""

import torch

_MASK = 2**64 - 1


def splitmix64(state: int) -> int:
    """One output of SplitMix64, a bijection of the 64-bit integers in which every input bit moves every output bit.

    References:
        Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014, figure 17.
    """
    state = (state + 0x9E3779B97F4A7C15) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)


def mixed_seed(*words: int) -> int:
    """h_0 = 0, h_i = splitmix64(h_{i-1} xor word_i): neighbouring seeds, steps and shards have unrelated streams.

    Torch's generator on the CPU takes the lower 32 bits only, so of the hundred thousand batches of a long run one
    pair is expected to be equal. That is harmless; a seed of seed + step would make every run a shift of the next.

    Example:
        >>> from rangeformer.pretrain.seeding import mixed_seed
        >>> mixed_seed(0, 1) == mixed_seed(1, 0)
        False
    """
    mixed = 0
    for word in words:
        mixed = splitmix64(mixed ^ (word & _MASK))
    return mixed


def batch_generator(seed: int, step: int, shard: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The source of everything random in one shard of one step, on the device where the batch is drawn."""
    return torch.Generator(device).manual_seed(mixed_seed(seed, step, shard))


def weights_generator(seed: int) -> torch.Generator:
    """The source of the initial weights, always on the CPU, so that they do not depend on the device."""
    return torch.Generator().manual_seed(mixed_seed(seed))
