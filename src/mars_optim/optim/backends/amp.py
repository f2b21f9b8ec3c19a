"""A gradient scaler's ``grad_scale`` and ``found_inf``."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Amp:
    """Values that torch.amp.GradScaler hands to a step: tensors of one element, or None.

    Args:
        grad_scale: the gradients are multiplied by it, and must be divided.
        found_inf: not zero where one of them is inf or NaN: the step must change nothing.
    """

    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

    @property
    def skips(self) -> bool:
        """Whether the step is to be skipped, as far as that is known without waiting for a device.

        A tensor on the CPU can be read for nothing.
        """
        found = self.found_inf
        return found is not None and found.device.type == "cpu" and bool(found)

    @property
    def on_device(self) -> Tensor | None:
        """``found_inf`` where only the device knows it yet."""
        found = self.found_inf
        return None if found is None or found.device.type == "cpu" else found

    def unscaled(self, grads: list[Tensor]) -> list[Tensor]:
        """g / grad_scale, as new tensors: p.grad is its owner's."""
        if self.grad_scale is None:
            return grads
        inverse = self.grad_scale.double().reciprocal()
        scales = {g.device: inverse.to(g.device, non_blocking=True) for g in grads}
        return [(g * scales[g.device]).to(g.dtype) for g in grads]
