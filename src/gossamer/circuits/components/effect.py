"""The effect of a task under an ablation, what share of it a circuit keeps, and the smallest size that keeps enough.

F(C) = (m(C) - m(none)) / (m(all) - m(none))         m(none): everything that can be ablated is
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ...data.pairs import Batch
from ...errors import refuse

CERTAIN = 2.0  # standard errors that an effect must be away from zero; assumed


@dataclass(frozen=True)
class Effect:
    """m(all) and m(none) of every prompt, (n,) each, under one ablation."""

    batches: Sequence[Batch]
    ablation: str
    all: Tensor
    none: Tensor

    @property
    def n(self) -> int:
        """Prompts."""
        return len(self.all)

    @property
    def size(self) -> float:
        """m(all) - m(none), the mean over prompts."""
        return float((self.all - self.none).mean())

    def require(self) -> None:
        """Raise unless the effect is certainly above zero."""
        difference = self.all - self.none
        error = float(difference.std()) / self.n**0.5 if self.n > 1 else 0.0
        if not self.size > max(CERTAIN * error, 1e-6):
            message = f"{self.size:.4g} +- {error:.2g} ({self.ablation})"
            raise refuse(
                f"the effect on {self.batches[0].task} is {message}, too near zero to divide by: "
                "the model does not know this task",
                f"an effect above {CERTAIN:g} standard errors",
                "train it on the task, or choose another",
            )

    def share(self, values: Tensor) -> float:
        """F of a circuit with these metrics, (n,); 1 is the whole effect."""
        self.require()
        return float((values - self.none).mean()) / self.size


def sizes_around_first(
    reaches: Callable[[int], bool], of: int, factor: float = 1.25, within: float = 0.0
) -> list[int]:
    """Sizes in a row, the first of which that reaches is the smallest that was found to.

    Sizes grow by `factor` from 1 until one reaches; then every eighth of that last step is tried, and listed is every
    size of the eighth that reached. F need not grow with the size, so this is the first of a search and not a proof.
    If none reaches, the last of the list is `of`.

    Args:
        within: the share of a size by which those listed may lie apart; 0 lists every one.
    """
    low, size = 0, 1
    while not reaches(size) and size < of:
        low, size = size, min(of, max(size + 1, round(size * factor)))
    step = max(1, (size - low) // 8)
    if step > 1:
        size = next(n for n in (*range(low + step, size, step), size) if n == size or reaches(n))
        low = max(low, size - step)
    apart = max(1, int(within * size))
    return list(range(size, low, -apart))[::-1]
