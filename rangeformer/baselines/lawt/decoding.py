"""Writing answers token by token: the likeliest next token, or a beam of the likeliest beginnings.

Keys and values are kept.
"""

import torch

from rangeformer.baselines.lawt.model import Cache, LawtTransformer
from rangeformer.baselines.lawt.recurrent import LawtRecurrent, RecurrentCache
from rangeformer.baselines.lawt.symbols import BOUNDARY, PADDING
from rangeformer.shapes import Float, Int, Tensor

Model = LawtTransformer | LawtRecurrent


@torch.no_grad()
def greedy(model: Model, source: Int[Tensor, "b s"], max_tokens: int) -> Int[Tensor, "b t"]:
    """The likeliest token, one after the other.

    Args:
        model: What writes.
        source: Inputs, padded at the end.
        max_tokens: Most tokens of an answer, with both boundaries.

    Returns:
        Answers `(b, t)`, from boundary to boundary, then padding; without a last boundary where they did not end.

    Raises:
        ValueError: If `max_tokens` is below 2.
    """
    _check(max_tokens)
    cache = model.start(source)
    token = torch.full_like(source[:, 0], BOUNDARY)
    ended = torch.zeros_like(token, dtype=torch.bool)
    written = [token]
    while len(written) < max_tokens and not bool(ended.all()):
        token = _step(model, cache, token).argmax(-1).masked_fill(ended, PADDING)
        written.append(token)
        ended = ended | (token == BOUNDARY)
    return torch.stack(written, 1)


@torch.no_grad()
def beam(
    model: Model, source: Int[Tensor, "b s"], max_tokens: int, *, num_beams: int = 4, length_penalty: float = 1.0
) -> Int[Tensor, "b t"]:
    """The likeliest answer that a beam search finds.

    Args:
        model: What writes.
        source: Inputs, padded at the end.
        max_tokens: Most tokens of an answer, with both boundaries.
        num_beams: Beginnings that are kept; 1 is greedy.
        length_penalty: Ended answers compete by log-probability / (number of tokens)^penalty.

    Returns:
        Answers, as `greedy` returns them.

    Raises:
        ValueError: If `max_tokens` is below 2 or `num_beams` below 1.
    """
    _check(max_tokens)
    if num_beams < 1:
        raise ValueError(f"`num_beams` must be at least 1. Got {num_beams}.")
    count = len(source)
    cache = model.start(source)
    cache.select(torch.arange(count, device=source.device).repeat_interleave(num_beams))
    written = source.new_full((count * num_beams, 1), BOUNDARY)
    scores = torch.zeros(count, num_beams, device=source.device)
    scores[:, 1:] = -torch.inf  # all beginnings are the same at first
    ended = torch.zeros(count * num_beams, dtype=torch.bool, device=source.device)
    first_row = (torch.arange(count, device=source.device) * num_beams).unsqueeze(1)
    while written.shape[1] < max_tokens and not bool(ended.all()):
        gain = _step(model, cache, written[:, -1]).float().log_softmax(-1)
        # an answer that has ended goes on as padding, for free
        gain[ended] = -torch.inf
        gain[ended, PADDING] = 0.0
        size = gain.shape[-1]
        scores, best = (scores.unsqueeze(-1) + gain.view(count, num_beams, size)).flatten(1).topk(num_beams, 1)
        rows = (first_row + best // size).flatten()
        token = (best % size).flatten()
        written = torch.cat([written[rows], token.unsqueeze(1)], 1)
        ended = ended[rows] | (token == BOUNDARY)
        cache.select(rows)
    lengths = (written != PADDING).sum(1).view(count, num_beams)
    chosen = first_row.squeeze(1) + (scores / lengths**length_penalty).argmax(1)
    longest = int(lengths.flatten()[chosen].max())  # other beginnings may have gone on
    return written[chosen, :longest]


def log_probability(model: Model, source: Int[Tensor, "b s"], answers: Int[Tensor, "b t"]) -> Float[Tensor, " b"]:
    """Of whole answers, from boundary to boundary; padding is free."""
    logits, _ = model(source, answers[:, :-1])
    gain = logits.log_softmax(-1).gather(-1, answers[:, 1:].unsqueeze(-1)).squeeze(-1)
    return gain.masked_fill(answers[:, 1:] == PADDING, 0.0).sum(1)


def _step(model: Model, cache: Cache | RecurrentCache, token: Tensor) -> Tensor:
    """One step of either kind of model, whose cache is of its own kind."""
    if isinstance(model, LawtTransformer):
        assert isinstance(cache, Cache)
        return model.step(cache, token)
    assert isinstance(cache, RecurrentCache)
    return model.step(cache, token)


def _check(max_tokens: int) -> None:
    if max_tokens < 2:
        raise ValueError(f"`max_tokens` must be at least 2, for both boundaries. Got {max_tokens}.")
