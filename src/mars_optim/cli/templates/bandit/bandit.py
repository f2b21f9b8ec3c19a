"""A policy gradient for `mars pilot`: a contextual bandit, learnt as GRPO does.

Gradients are mostly noise here: a reward is 0 or 1, and which actions are tried is chance. Replace
the policy, the contexts and the rewards by yours.

All chance comes with the batch, so that arms meet the same prompts and the same luck.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INPUTS, ACTIONS = 16, 32
PROMPTS, SAMPLES = 8, 8  # in a batch, and actions tried for each: GRPO's groups


class Bandit:
    """Learns which of 32 actions a context rewards most often."""

    # names the data: runs on other data are other runs
    fingerprint = "bandit-1"
    # the saving is counted in actions tried
    batch_tokens = PROMPTS * SAMPLES

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inner = torch.randn(INPUTS, 32, generator=generator) / INPUTS**0.5
        self.outer = torch.randn(32, ACTIONS, generator=generator)
        self.held_out = torch.randn(4096, INPUTS, generator=generator)

    def chances(self, context: Tensor) -> Tensor:
        """The chance of a reward: one for every context and action. The policy never sees it."""
        inner, outer = self.inner.to(context.device), self.outer.to(context.device)
        return torch.sigmoid(torch.tanh(2 * context @ inner) @ outer - 2)

    def build_model(self, seed: int) -> nn.Module:
        """A fresh policy: contexts in, logits of the actions out."""
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(INPUTS, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, ACTIONS)
        )

    def batch(self, seed: int, step: int, micro: int) -> dict[str, Tensor]:
        """Contexts, and the luck: which actions will be drawn and which of them rewarded."""
        generator = torch.Generator().manual_seed(hash((seed, step, micro)) % 2**63)
        uniform = torch.rand(PROMPTS, SAMPLES, ACTIONS, generator=generator).clamp_min(1e-12)
        return {
            "context": torch.randn(PROMPTS, INPUTS, generator=generator),
            "gumbel": -(-uniform.log()).log(),
            "luck": torch.rand(PROMPTS, SAMPLES, generator=generator),
        }

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Its gradient is the policy gradient; its value is 1 - the mean reward.

        The surrogate's own value means nothing, and a pilot ends a run whose loss has doubled.
        """
        logits = model(batch["context"])
        actions = (logits.detach()[:, None] + batch["gumbel"]).argmax(dim=2)
        reward = (batch["luck"] < self.chances(batch["context"]).gather(1, actions)).float()
        centred = reward - reward.mean(dim=1, keepdim=True)
        advantage = centred / (reward.std(dim=1, keepdim=True) + 1e-4)
        surrogate = -(advantage * F.log_softmax(logits, dim=1).gather(1, actions)).mean()
        return surrogate + (1 - reward.mean() - surrogate).detach()

    @torch.no_grad()
    def evaluate(self, model: nn.Module, tokens: int) -> dict[str, float]:
        """The mean reward on held-out contexts, which decides by the plan; 1 - it is the loss.

        Exact, over all actions. Where chances are not known: rewards of samples with fixed luck.
        """
        context = self.held_out[:tokens].to(next(model.parameters()).device)
        reward = (model(context).softmax(dim=1) * self.chances(context)).sum(dim=1).mean().item()
        return {"loss": 1 - reward, "reward": reward}
