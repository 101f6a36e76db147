"""A part of a rollout's devices: by name, by wave, by target."""

from dataclasses import dataclass

from django.db.models import Q

from fleet.rollouts.models import Rollout


@dataclass(frozen=True)
class Part:
    """Devices that satisfy everything that is given; with nothing given, everybody."""

    devices: tuple[str, ...] = ()
    wave: int | None = None
    target: str = ""

    @property
    def is_everything(self) -> bool:
        """Whether nothing narrows it down."""
        return not self.devices and self.wave is None and not self.target

    def of(self, rollout: Rollout) -> Q:
        """Which deliveries of the rollout are meant."""
        chosen = Q(rollout=rollout)
        if self.devices:
            chosen &= Q(device__name__in=self.devices)
        if self.wave is not None:
            chosen &= Q(wave__number=self.wave)
        if self.target:
            chosen &= Q(device__target__slug=self.target)
        return chosen

    def __str__(self) -> str:
        words = [f"wave {self.wave}" if self.wave is not None else "", self.target]
        if self.devices:
            words.append(", ".join(self.devices[:5]) + (" and others" if len(self.devices) > 5 else ""))
        return " and ".join(filter(None, words)) or "everybody"
