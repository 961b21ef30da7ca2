"""The demo from beginning to end: compute, draw, write, part by part."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

import sdeflow
from sdeflow.cli.demo import likelihoods, marginals, race, round_trip
from sdeflow.cli.demo.page import page
from sdeflow.cli.demo.section import Section
from sdeflow.cli.demo.setting import Setting, Sizes, prepare
from sdeflow.cli.demo.stages import Stages

__all__ = ["EXPECTED", "Record", "run"]

EXPECTED = {  # seconds on one core, which set the pace of the progress bar and nothing else
    "Fitting the law": 0.4,
    "Digits to noise and back": 4.0,
    "Likelihoods, divergence in closed form": 7.0,
    "Likelihoods, Hutchinson": 10.0,
    "Likelihoods, automatic differentiation": 8.0,
    "Race on the reversed SDE": 9.0,
    "Race on the probability flow": 4.0,
    "One law, three processes": 4.0,
}


class Record:
    """What has been found so far, written at once: an interrupted demo leaves complete files.

    Arguments:
        out: The folder.
        sizes: How much of everything.
        seed: The seed.
        seconds: Of the stages; read when something is written.
    """

    def __init__(self, out: Path, sizes: Sizes, seed: int, seconds: Mapping[str, float]) -> None:
        self.out = out
        self.sections: list[Section] = []
        self._sizes, self._seed, self._seconds = sizes, seed, seconds

    def add(self, section: Section) -> None:
        """Take a section in, and write the files anew."""
        self.sections.append(section)
        self.write()

    def write(self) -> None:
        """results.json and index.html."""
        run = self.facts()
        text = json.dumps({**run, **{s.key: s.figures for s in self.sections}}, indent=2, ensure_ascii=False)
        (self.out / "results.json").write_text(text + "\n", encoding="utf-8")
        versions = ", ".join(f"{name} {value}" for name, value in self.facts_versions().items())
        (self.out / "index.html").write_text(
            page(
                self.sections,
                "sdeflow demo",
                f"{self._sizes.fitted:,} handwritten digits of 8 × 8 pixels, a normal distribution around each: a law "
                "on real data "
                "whose density and score are known at every time of a diffusion. So every figure on this page is "
                "compared with the truth.",
                f"{sum(self._seconds.values()):.0f} s, seed {self._seed}, {torch.get_num_threads()} thread(s) on the "
                f"CPU; {versions}.",
            ),
            encoding="utf-8",
        )

    def facts(self) -> dict[str, object]:
        """How the figures were come by."""
        return {
            "versions": self.facts_versions(),
            "platform": platform.platform(),
            "device": "cpu",
            "threads": torch.get_num_threads(),
            "seed": self._seed,
            "sizes": asdict(self._sizes),
            "seconds": {**self._seconds, "total": sum(self._seconds.values())},
        }

    @staticmethod
    def facts_versions() -> dict[str, str]:
        """Of everything that computes."""
        wrapped = {name: version(name) for name in ("torchsde", "torchdiffeq")}
        return {
            "sdeflow": sdeflow.__version__,
            "torch": torch.__version__,
            **wrapped,
            "python": platform.python_version(),
        }


def run(sizes: Sizes, seed: int, record: Record, stages: Stages) -> None:
    """All parts in order; each is in the record as soon as it is done."""
    out = record.out
    with stages("Fitting the law"):
        setting = prepare(sizes, seed)
    for part in (_round_trip, _likelihoods, _race, _marginals):
        record.add(part(setting, out, stages))
    record.write()


Part = Callable[[Setting, Path, Stages], Section]


def _round_trip(setting: Setting, out: Path, stages: Stages) -> Section:
    with stages("Digits to noise and back"):
        return round_trip.describe(setting, round_trip.there_and_back(setting), out)


def _likelihoods(setting: Setting, out: Path, stages: Stages) -> Section:
    with stages("Likelihoods, divergence in closed form"):
        closed = likelihoods.estimate(setting, "closed form")
    with stages("Likelihoods, Hutchinson"):
        hutchinson = likelihoods.estimate(setting, "Hutchinson")
    with stages("Likelihoods, automatic differentiation"):
        automatic = likelihoods.estimate(setting, "autodiff")
        return likelihoods.describe(setting, [closed, hutchinson, automatic], out)


def _race(setting: Setting, out: Path, stages: Stages) -> Section:
    with stages("Race on the reversed SDE"):
        sde = race.sde_lane(setting, stages.note)
    with stages("Race on the probability flow"):
        flow = race.flow_lane(setting, stages.note)
        return race.describe(setting, [sde, flow], out)


def _marginals(setting: Setting, out: Path, stages: Stages) -> Section:
    with stages("One law, three processes"):
        return marginals.describe(marginals.crowds(setting.sizes.particles, setting.seed + 8), out)
