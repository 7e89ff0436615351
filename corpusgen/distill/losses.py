"""What a student is trained to lower: cross-entropy on hard labels, divergence from soft targets, or both, weighted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, softmax, xlogy

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """``hard`` parts cross-entropy on the likeliest label, ``soft`` parts KL at ``temperature``.

    The divergence is multiplied by the temperature squared, so that its gradient keeps its size when the temperature
    changes and the two weights stay comparable.
    """

    hard: float = 1.0
    soft: float = 0.0
    temperature: float = 1.0

    def __str__(self) -> str:
        return f"{self.hard:g} hard + {self.soft:g} soft at temperature {self.temperature:g}"


def loss_and_gradient(loss: Loss, logits: Floats, targets: Floats) -> tuple[float, Floats]:
    """Mean loss over items and its gradient with respect to the logits; ``targets`` are probabilities (n x k)."""
    hard_value, hard_gradient = cross_entropy(logits, one_hot(targets))
    if not loss.soft:
        return loss.hard * hard_value, loss.hard * hard_gradient
    soft_value, soft_gradient = temperature_divergence(logits, targets, loss.temperature)
    return loss.hard * hard_value + loss.soft * soft_value, loss.hard * hard_gradient + loss.soft * soft_gradient


def cross_entropy(logits: Floats, targets: Floats) -> tuple[float, Floats]:
    """Mean ``-sum(target * log p)`` and its gradient."""
    value = -float(np.sum(targets * log_softmax(logits, axis=1))) / len(logits)
    return value, (softmax(logits, axis=1) - targets) / len(logits)


def temperature_divergence(logits: Floats, targets: Floats, temperature: float) -> tuple[float, Floats]:
    """Mean ``t^2 KL(teacher at t || student at t)`` and its gradient."""
    wanted = soften(targets, temperature)
    entropy = float(np.sum(xlogy(wanted, wanted))) / len(logits)
    value, gradient = cross_entropy(logits / temperature, wanted)
    return temperature**2 * (value + entropy), temperature * gradient


def soften(probabilities: Floats, temperature: float) -> Floats:
    """The same distribution at another temperature; what had no probability keeps none."""
    raised = probabilities ** (1.0 / temperature)
    softened: Floats = raised / raised.sum(axis=1, keepdims=True)
    return softened


def one_hot(probabilities: Floats) -> Floats:
    """1 at the likeliest label, 0 elsewhere; the first of equals wins."""
    labels: Floats = np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
    return labels
