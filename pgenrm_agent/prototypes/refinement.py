"""Prototypes: K-means over persona embeddings, then history-aware attentive refinement.

Paper, section 4.2.1. A *sample* is one choice of one user: the query, the preferred and the other
answer, other choices of theirs, and the embedding of the persona written for it, which decides
the prototype it belongs to. All vectors have one dimension d; personas and prototypes have length 1.

Pure computation on arrays; where vectors come from and where prototypes are kept is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch.nn.functional import logsigmoid, normalize

from pgenrm_agent.errors import ConfigurationError
from pgenrm_agent.prototypes.spectrum import spectrum

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

MINI_BATCH_ROWS = 100_000
"""K-means above this many rows works on batches."""
FEWEST_MEMBERS = 5
"""A prototype should stand for this many samples at least, on average."""
MOST = 200
"""Prototypes, however many samples there are."""
NEARLY_ALL = 0.95
"""Share of the spectrum beyond which another direction is noise."""


@dataclass(frozen=True)
class KChoice:
    """How many prototypes, and why.

    retained: (m,) share of the singular values' sum that the first 1..m directions keep, 0-1.
    """

    k: int
    retained: NDArray[np.float64]
    reason: str


def choose_k(personas: FloatArray) -> KChoice:
    """Return the k at which the retained spectrum of the personas flattens.

    The curve of retained shares rises steeply, then flattens; its knee is the point farthest above
    the straight line between its ends (looked for where at most NEARLY_ALL is kept). Small
    populations get fewer: at most one prototype for FEWEST_MEMBERS samples, and MOST in all.

    Args:
        personas: (n, d).

    Raises:
        ConfigurationError: no rows.
    """
    if personas.ndim != 2 or not len(personas):
        raise ConfigurationError(
            f"personas have shape {personas.shape}: choosing k needs at least one row (n, d)"
        )
    directions = spectrum(personas)
    if not directions.values.sum() > 0:
        return KChoice(1, np.ones(1), "all personas are the same: one prototype")
    retained = directions.retained
    kept = max(2, int(np.searchsorted(retained, NEARLY_ALL)) + 1)
    part = retained[:kept]
    chord = np.linspace(part[0], part[-1], len(part))
    knee = int(np.argmax(part - chord)) + 1
    most = max(1, min(MOST, len(personas) // FEWEST_MEMBERS))
    k = min(knee, most)
    reason = f"the curve flattens at {knee} directions, which keep {retained[knee - 1]:.0%} of the spectrum"
    if k < knee:
        limit = (
            f"there are at most {MOST}"
            if most == MOST
            else f"{len(personas)} samples give {FEWEST_MEMBERS} to a prototype only up to {most}"
        )
        reason += f"; {limit}, so k = {k}"
    return KChoice(k, retained, reason)


def cluster(personas: FloatArray, k: int, *, seed: int) -> tuple[FloatArray, IntArray]:
    """K-means: unit centroids (k, d) and the cluster of each row (n,).

    Raises:
        ConfigurationError: k is not between 1 and the number of rows.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans

    if not 1 <= k <= len(personas):
        raise ConfigurationError(
            f"k is {k}; it must be from 1 to the number of rows, {len(personas)}"
        )
    if len(personas) > MINI_BATCH_ROWS:
        model = MiniBatchKMeans(k, n_init=3, random_state=seed, batch_size=4096)
    else:
        model = KMeans(k, n_init=4, random_state=seed)
    labels = model.fit_predict(personas)
    centroids = model.cluster_centers_.astype(np.float32)
    lengths = np.linalg.norm(centroids, axis=1, keepdims=True)
    return centroids / np.maximum(lengths, 1e-12), labels.astype(np.int64)


def nearest(personas: FloatArray, prototypes: FloatArray) -> IntArray:
    """Return the prototype (n,) with the highest cosine to each persona; both of unit length."""
    return np.asarray((personas @ prototypes.T).argmax(1), dtype=np.int64)


@dataclass(frozen=True)
class Samples:
    """Choices to refine prototypes on; n samples, at most h other choices of the same user, d dimensions.

    persona: (n, d), unit length. query, chosen, rejected: (n, d).
    past_query, past_difference: (n, h, d), the latter chosen minus rejected. past: (n, h), True
    where there is a past choice; the rest is padding.
    """

    persona: FloatArray
    query: FloatArray
    chosen: FloatArray
    rejected: FloatArray
    past_query: FloatArray
    past_difference: FloatArray
    past: NDArray[np.bool_]

    def __post_init__(self) -> None:
        rows, dimension = self.persona.shape
        steps = self.past.shape[-1]
        for name, expected in (
            ("query", (rows, dimension)),
            ("chosen", (rows, dimension)),
            ("rejected", (rows, dimension)),
            ("past_query", (rows, steps, dimension)),
            ("past_difference", (rows, steps, dimension)),
            ("past", (rows, steps)),
        ):
            shape = getattr(self, name).shape
            if shape != expected:
                raise ConfigurationError(
                    f"samples.{name} has shape {shape}; with {rows} personas of {dimension} dimensions"
                    f" and {steps} past choices it must be {expected}"
                )

    def __len__(self) -> int:
        return len(self.persona)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Samples:
        """Some of the samples."""
        return Samples(**{name: value[rows] for name, value in vars(self).items()})


class RefinementSettings(BaseModel):
    """Constants of the refinement; the defaults are the reference implementation's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rho: Annotated[float, Field(ge=0, description="weight of the prototype in the attention")] = 0.5
    lambda_q: Annotated[float, Field(ge=0, description="weight of the query in z")] = 1.0
    lambda_s: Annotated[float, Field(ge=0, description="weight of the history in z")] = 1.0
    lambda_cent: Annotated[float, Field(ge=0, description="pull to the cluster mean")] = 1e-3
    lambda_tr: Annotated[float, Field(ge=0, description="pull to the smoothed past")] = 1e-3
    ema: Annotated[float, Field(ge=0, lt=1, description="smoothing of the past prototypes")] = 0.98
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    batch: Annotated[int, Field(gt=0, description="samples a step")] = 16
    epochs: Annotated[int, Field(gt=0)] = 8
    seed: Annotated[int, Field(ge=0)] = 0


class AttentiveRefinement(torch.nn.Module):
    """Prototypes A (k, d) and the three maps W (d, 2d), W_q (d, d), W_s (d, d) of Eq. 4 and 5."""

    def __init__(self, prototypes: torch.Tensor, settings: RefinementSettings) -> None:
        super().__init__()
        dimension = prototypes.shape[1]
        self.settings = settings
        self.prototypes = torch.nn.Parameter(prototypes.clone())
        self.history = torch.nn.Linear(2 * dimension, dimension, bias=False)
        self.query = torch.nn.Linear(dimension, dimension, bias=False)
        self.summary = torch.nn.Linear(dimension, dimension, bias=False)

    def forward(
        self,
        of: torch.Tensor,
        query: torch.Tensor,
        past_query: torch.Tensor,
        past_difference: torch.Tensor,
        past: torch.Tensor,
    ) -> torch.Tensor:
        """Return z (n, d), Eq. 5. of: (n,) prototype of each sample; the others as in `Samples`."""
        settings = self.settings
        own = self.prototypes[of]
        # (n, h, d): what each past choice says. Padding says nothing and is not computed.
        there = torch.cat([past_query[past], past_difference[past]], dim=-1)
        said = query.new_zeros((*past.shape, query.shape[-1]))
        said = said.masked_scatter(past[..., None], torch.tanh(self.history(there)))
        scale = query.shape[-1] ** 0.5
        toward = (query + settings.rho * own)[:, :, None] / scale
        logits = (said @ toward)[..., 0].masked_fill(~past, float("-inf"))
        # A sample without any past choice attends to nothing, and its summary is zero.
        attention = torch.nan_to_num(logits.softmax(-1))
        summary = (attention[:, None, :] @ said)[:, 0]
        z: torch.Tensor = (
            own + settings.lambda_q * self.query(query) + settings.lambda_s * self.summary(summary)
        )
        return z

    def loss(
        self,
        of: torch.Tensor,
        batch: Samples | dict[str, torch.Tensor],
        means: torch.Tensor,
        smoothed: torch.Tensor,
    ) -> torch.Tensor:
        """Mean of Eq. 7 over the batch. means, smoothed: (k, d), mu and p."""
        tensors = batch if isinstance(batch, dict) else _tensors(batch)
        pair = -logsigmoid(self.margin(of, tensors)).mean()
        own = self.prototypes[of]
        center = (own - means[of]).square().sum(-1).mean()
        past = (own - smoothed[of]).square().sum(-1).mean()
        return pair + self.settings.lambda_cent * center + self.settings.lambda_tr * past

    def margin(self, of: torch.Tensor, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """Delta (n,), Eq. 6: above zero where the chosen answer is predicted."""
        z = self(
            of, *(tensors[name] for name in ("query", "past_query", "past_difference", "past"))
        )
        delta: torch.Tensor = ((tensors["chosen"] - tensors["rejected"]) * z).sum(-1)
        return delta

    @torch.no_grad()
    def predict(self, samples: Samples, of: IntArray) -> FloatArray:
        """Delta (n,) of every sample, given its prototype (n,)."""
        parts = [
            self.margin(torch.from_numpy(of[rows]), _tensors(samples.take(rows))).numpy()
            for rows in _slices(len(samples), 4096)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


@dataclass(frozen=True)
class Refined:
    """prototypes: (k, d), unit length. labels: (n,), the nearest of each sample. losses: per epoch."""

    prototypes: FloatArray
    labels: IntArray
    model: AttentiveRefinement
    losses: tuple[float, ...]


def refine(
    samples: Samples | Callable[[int], Samples],
    centroids: FloatArray,
    settings: RefinementSettings | None = None,
) -> Refined:
    """Refine prototypes attentively; the result is the same for the same seed.

    Prototypes are brought back to unit length after each step; after each epoch every sample is
    reassigned to its nearest prototype, and the cluster means follow. A prototype that lost all its
    samples keeps its own state as its mean.

    Args:
        samples: What to refine on, or a function that draws those of an epoch (0, 1, ...), such as
            the same choices with other past ones before them, equally many each time; labels are of
            the last.
        centroids: (k, d), of K-means.
        settings: Constants; the reference implementation's if left out.

    Raises:
        ConfigurationError: No samples, or centroids of another dimension.
    """
    settings = settings or RefinementSettings()
    drawn = samples if callable(samples) else None
    current = samples(0) if callable(samples) else samples
    if not len(current):
        raise ConfigurationError("there are no samples to refine prototypes on")
    if centroids.ndim != 2 or centroids.shape[1] != current.persona.shape[1]:
        raise ConfigurationError(
            f"centroids have shape {centroids.shape}, personas {current.persona.shape}:"
            " they need the same number of dimensions"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = AttentiveRefinement(torch.from_numpy(centroids), settings)
        order = torch.Generator().manual_seed(settings.seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, fused=True)
        smoothed = model.prototypes.detach().clone()
        labels = nearest(current.persona, centroids)
        per_epoch = -(-len(current) // settings.batch)
        losses = []
        for epoch in range(settings.epochs):
            if epoch and drawn is not None:
                current = _as_many(drawn(epoch), len(current))
                labels = nearest(current.persona, model.prototypes.detach().numpy())
            tensors = _tensors(current)
            of = torch.from_numpy(labels)
            means = _means(current.persona, labels, model.prototypes.detach())
            total = 0.0
            shuffled = torch.randperm(len(current), generator=order)
            for step in range(per_epoch):
                rows = shuffled[step * settings.batch : (step + 1) * settings.batch]
                loss = model.loss(
                    of[rows],
                    {name: value[rows] for name, value in tensors.items()},
                    means,
                    smoothed,
                )
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                optimizer.step()
                with torch.no_grad():
                    model.prototypes.copy_(normalize(model.prototypes, dim=-1))
                    smoothed.lerp_(model.prototypes, 1 - settings.ema)
                total += float(loss.detach()) * len(rows)
            losses.append(total / len(current))
            prototypes = model.prototypes.detach().numpy().copy()
            labels = nearest(current.persona, prototypes)
    return Refined(prototypes, labels, model, tuple(losses))


def _as_many(samples: Samples, count: int) -> Samples:
    if len(samples) != count:
        raise ConfigurationError(
            f"an epoch has {len(samples)} samples and the first had {count}: draw equally many"
        )
    return samples


def _means(personas: FloatArray, labels: IntArray, fallback: torch.Tensor) -> torch.Tensor:
    """(k, d) mean persona of each prototype's samples."""
    of = torch.from_numpy(labels)
    sums = torch.zeros_like(fallback).index_add_(0, of, torch.from_numpy(personas))
    counts = torch.bincount(of, minlength=len(fallback))[:, None]
    return torch.where(counts > 0, sums / counts.clamp(min=1), fallback)


def _tensors(samples: Samples) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in vars(samples).items()}


def _slices(count: int, size: int) -> Iterator[IntArray]:
    for start in range(0, count, size):
        yield np.arange(start, min(count, start + size))
