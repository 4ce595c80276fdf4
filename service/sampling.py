"""Draws one token from the logits; the request's own random numbers, so that seeds hold."""

import torch
from torch import Tensor

from service.chat import Sampling

_GREEDY_BELOW = 1e-5
"""Temperatures under which nothing but the best token is drawn; a smaller one is 0 as a float32."""


class Sampler:
    """The sampling of one response."""

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        self._sampling = sampling
        self._counts: dict[int, int] = {}
        self._random = torch.Generator(device)
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    def pick(self, logits: Tensor) -> int:
        """The next token.

        Args:
            logits: ``(V,)`` of the last position, any float dtype.
        """
        logits = logits.float()
        if self._counts and (self._sampling.presence_penalty or self._sampling.frequency_penalty):
            seen = torch.tensor(list(self._counts), device=logits.device)
            counts = torch.tensor(list(self._counts.values()), device=logits.device)
            logits[seen] -= (
                self._sampling.presence_penalty + self._sampling.frequency_penalty * counts
            )
        token = self._draw(logits)
        self._counts[token] = self._counts.get(token, 0) + 1
        return token

    def _draw(self, logits: Tensor) -> int:
        if self._sampling.temperature < _GREEDY_BELOW:
            return int(logits.argmax())
        best, ids = logits.topk(min(self._sampling.top_k, logits.numel()))  # (K,), falling
        # relative to the best, or a tiny temperature would overflow
        weights = torch.softmax((best - best[0]) / self._sampling.temperature, dim=-1)
        before = weights.cumsum(-1) - weights  # mass of the better tokens; 0 for the best
        kept = before < self._sampling.top_p
        kept[0] = True  # as a float32 a tiny top_p is 0, and nothing is less
        weights = weights.where(kept, 0.0)
        return int(ids[torch.multinomial(weights, 1, generator=self._random)])
