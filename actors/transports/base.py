"""What a transport of weight versions consists of: a publisher in the learner's process, and an offer that
workers understand.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dynalign.actors.remote import RemoteMethod
from dynalign.rollout.weights.version import Manifest, WeightVersion

if TYPE_CHECKING:
    from dynalign.learner.weights import Staging

Buckets = Sequence[NDArray[Any]]
"""The buckets of a version in host memory, each a flat array of uint8."""

Store = Callable[[Manifest, Buckets], WeightVersion]
"""Puts a version into the object store and returns it with its references."""


class VersionSource(Protocol):
    """A learner, as publishers use it. `learner.learner.Learner` says what each method does."""

    @property
    def step(self) -> int: ...

    def weights(
        self, lineage: int, staging: "Staging | None" = None
    ) -> tuple[Manifest, list[NDArray[np.uint8]]] | None: ...

    def stage(self, lineage: int) -> "Staging | None": ...

    def staged(self, step: int) -> tuple[Manifest, list[NDArray[np.uint8]]] | None: ...


class Publisher(Protocol):
    """The learner's side of a transport, one in the process of each learner rank."""

    def publish(self, learner: VersionSource, lineage: int) -> WeightVersion | None:
        """Return version (lineage, `learner.step`) once workers can fetch it; None on all ranks but 0.

        Collective.
        """

    def fallback(self, learner: VersionSource, version: WeightVersion) -> WeightVersion | None:
        """Return the same version with references to the object store; None if a later version has replaced
        it.
        """


class FallbackActor(Protocol):
    """The handle of learner rank 0, from which a worker requests a version in the object store."""

    fallback: RemoteMethod[[int], WeightVersion | None]
