"""A run while it goes: its state, a step of it, and what is written of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sdeflow.errors import ArgumentError
from sdeflow.models import drop_conditions
from sdeflow.training.average import Average
from sdeflow.training.batches import Batch, Batches
from sdeflow.training.checkpoint import FILE, Checkpoint, write, write_text
from sdeflow.training.held_out import HeldOut
from sdeflow.training.modes import uncompiled
from sdeflow.training.randomness import Purpose, isolated, key, seed_torch
from sdeflow.training.rates import rate
from sdeflow.training.recipes import check_same_recipe
from sdeflow.training.settings import Settings
from sdeflow.training.state import load_optimiser, load_weights, optimiser_state, plain, put, weights

__all__ = ["Training", "arguments_of"]


class Training:
    """The state of a run, and one step of it.

    Arguments:
        model: The model; between steps it has its own weights, not the averaged ones.
        batches: Where data come from.
        settings: Checked options.
        optimiser: Of the trainable parameters.
        fabric: Devices and precision.
        seed: Of everything that is random.
        device: Where the model is.
        held_out: What is watched, or None.
        recipe: What the model was made from, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        settings: Settings,
        optimiser: Optimizer,
        fabric: Any,
        seed: int,
        device: torch.device,
        held_out: HeldOut | None,
        recipe: Mapping[str, Any] | None,
    ) -> None:
        self.model, self.batches, self.settings, self.fabric = model, batches, settings, fabric
        self.seed, self.device, self.held_out, self.recipe = seed, device, held_out, recipe
        self.optimiser = fabric.setup_optimizers(optimiser)
        # At full precision Fabric's own calls come to the plain ones, by a detour that a small network's step notices.
        self.plain = settings.precision == "full"
        self.loss: Callable[..., Tensor] = model.loss  # type: ignore[assignment]
        self.arguments = arguments_of(model, settings.names, device)
        self.rates = [group["lr"] for group in optimiser.param_groups]
        self.average = Average(model, settings.average)
        parameters = {plain(name) for name, _ in model.named_parameters(remove_duplicate=False)}
        self.buffers = [value for name, value in weights(model).items() if name not in parameters]
        self.losses: list[float] = []
        self.looks: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] = {}
        self.regular: dict[
            str, Tensor
        ] = {}  # the best but for the look at the end, which a run of more steps does not have
        self.status = "running"
        self.whole = True  # but for the moment in which a step changes the weights

    @property
    def step(self) -> int:
        """How many steps were taken."""
        return len(self.losses)

    def advance(self) -> bool:
        """Take a step, and say whether the loss and its gradient were finite; where not, nothing was changed.

        Nothing is either where reading the data or the loss raises.
        """
        position = list(self.batches.position)
        before = [value.clone() for value in self.buffers]  # running statistics see the batch before the loss is known
        taken = False
        try:
            taken = self.attempt()
        finally:
            if not taken:
                self.batches.position[:] = position
                self.put_buffers(before)
        return taken

    def attempt(self) -> bool:
        """A step, of which the weights know nothing unless the loss and its gradient were finite."""
        step, settings = self.step, self.settings
        seed_torch(key(self.seed, Purpose.DATA, step), self.device)
        arguments = self.arguments(self.batches.take())
        seed_torch(key(self.seed, Purpose.STEP, step), self.device)  # whatever reading the data has drawn
        if settings.drop_labels is not None:
            arguments |= drop_conditions({"label": arguments["label"]}, {"label": -1}, settings.drop_labels)
        factor = rate(settings.schedule, step, settings.steps, settings.warmup)
        for group, value in zip(self.optimiser.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = value * factor
        for parameter in self.average.parameters:
            parameter.grad = None
        loss = self.differentiated(arguments)
        gradients = [value.grad for value in self.average.parameters if value.grad is not None]
        value, norm = float(loss.detach()), float(total_norm(gradients))  # all that comes to the host in a step
        # A scaler of 16-bit gradients tries scales that are too large, and skips those steps itself.
        if not (math.isfinite(value) and (settings.precision == "16-mixed" or math.isfinite(norm))):
            return False
        if settings.clip is not None and settings.clip < norm < math.inf:
            torch._foreach_mul_(gradients, settings.clip / norm)
        self.whole = False
        (self.optimiser.optimizer if self.plain else self.optimiser).step()
        self.average.update(step + 1)
        self.losses.append(value)
        self.whole = True
        return True

    def put_buffers(self, earlier: list[Tensor]) -> None:
        """Give the buffers the numbers that they had."""
        with torch.no_grad():
            for value, number in zip(self.buffers, earlier, strict=True):
                put(value, number)

    def differentiated(self, arguments: dict[str, Any]) -> Tensor:
        """The loss of a batch, whose gradients are in the parameters."""
        if self.plain:
            loss = self.loss(arguments.pop("x"), **arguments)
            loss.backward()
            return loss
        with self.fabric.autocast():
            loss = self.loss(arguments.pop("x"), **arguments)
        self.fabric.backward(loss)
        self.fabric.strategy.precision.unscale_gradients(self.optimiser)
        return loss

    def try_look(self) -> None:
        """Evaluate two rows of the held-out data, so that what is wrong is known before anything is computed.

        The run is as without it, to the last bit: neither generators nor buffers keep a trace.

        Raises:
            ArgumentError: They do not fit the model, or the model has no such criterion.
        """
        if self.held_out is None:
            return
        before = [value.clone() for value in self.buffers]
        try:
            with isolated(self.device), uncompiled():
                self.held_out.evaluate(self.model, self.device, rows=2)
        except ArgumentError as error:
            raise ArgumentError(f"held_out cannot be evaluated: {error}") from error
        finally:
            self.put_buffers(before)

    def look(self) -> bool:
        """Evaluate the held-out data if it is time, and say whether training is to stop."""
        settings = self.settings
        regular = self.step % settings.evaluate_every == 0
        if self.held_out is None or self.step == 0 or not (regular or self.step == settings.steps):
            return False
        if not self.looks or self.looks[-1]["step"] < self.step:  # else it was looked at before the run was taken up
            with self.average.in_place():
                value, stderr = self.held_out.evaluate(self.model, self.device)
            earlier = max((look["value"] for look in self.looks), default=-math.inf)
            self.looks.append({"step": self.step, "value": value, "stderr": stderr})
            if settings.patience is not None and (value > earlier or not self.best):
                self.regular = {} if regular else self.best
                self.best = {name: tensor.clone() for name, tensor in self.average.state().items()}
        if settings.patience is None:
            return False
        return self.step - self.best_step >= settings.patience * settings.evaluate_every

    @property
    def best_step(self) -> int:
        return int(max(self.looks, key=lambda look: look["value"])["step"])

    # --- on disk -------------------------------------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """All that the next step depends on, and what is worth knowing besides."""
        optimiser, numbers = optimiser_state(self.optimiser)
        groups = {
            "model": weights(self.model),
            "average": self.average.state(),
            "optimiser": optimiser,
            "best": self.best,
            "regular": self.regular,
        }
        tensors = {f"{part}.{name}": value for part, values in groups.items() for name, value in values.items()}
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        record = {
            "step": self.step,
            "status": self.status,
            "seed": self.seed,
            "model": type(self.model).__name__,
            "recipe": self.recipe,
            "data": self.batches.description,
            "position": self.batches.position,
            "settings": self.settings.record(),
            "optimiser": numbers,
            "scaler": scaler.state_dict() if scaler is not None else None,
            "held_out": self.looks,
            "versions": versions(),
        }
        return Checkpoint(tensors, record)

    def save(self, folder: Path) -> None:
        """Write the checkpoint, and what a person may want to read of it."""
        checkpoint = self.checkpoint()
        write(folder / FILE, checkpoint)
        shown = {name: value for name, value in checkpoint.record.items() if name not in ("optimiser", "scaler")}
        shown["loss"] = self.losses[-1] if self.losses else None
        write_text(folder / "run.json", json.dumps(shown, indent=1) + "\n")

    def restore(self, checkpoint: Checkpoint, source: str) -> None:
        """Take up a run where a checkpoint left it.

        Raises:
            ArgumentError: It was made with other settings, data or weights.
        """
        record = checkpoint.record
        self.settings.check_same(record["settings"], source)
        if record["recipe"] is not None and self.recipe is not None:
            check_same_recipe(record["recipe"], self.recipe, source)
        if record["data"] != self.batches.description:
            raise ArgumentError(
                f"the run in {source} was made with other data ({record['data']}) than those that are given "
                f"({self.batches.description}): it would not be the same run. Give those, or another folder."
            )
        load_weights(self.model, checkpoint.part("model"), source)
        with torch.no_grad():
            for name, value in self.average.state().items():
                value.copy_(checkpoint.tensors[f"average.{name}"])
        load_optimiser(self.optimiser.optimizer, checkpoint.part("optimiser"), record["optimiser"])
        if record["scaler"] is not None:
            self.fabric.strategy.precision.scaler.load_state_dict(record["scaler"])
        self.losses = checkpoint.tensors["losses"].tolist()
        self.looks, self.best, self.status = record["held_out"], checkpoint.part("best"), record["status"]
        self.regular = checkpoint.part("regular")
        self.forget_last_look()
        self.batches.position[:] = record["position"]

    def forget_last_look(self) -> None:
        """Where a run of more steps goes on, the look at the end of the shorter one was none of its own."""
        last = self.looks[-1]["step"] if self.looks else 0
        if last % self.settings.evaluate_every == 0 or last >= self.settings.steps:
            return
        if self.best_step == last:
            self.best, self.regular = self.regular, {}
        self.looks.pop()


def total_norm(gradients: list[Tensor]) -> Tensor:
    """The norm of all of them together."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


def arguments_of(
    model: nn.Module, names: tuple[str | None, ...], device: torch.device
) -> Callable[[Batch], dict[str, Any]]:
    """From a batch to the arguments of the loss: by name, on the device, floating-point parts in the model's dtype."""
    dtype = next(value.dtype for value in model.parameters() if value.is_floating_point())

    def arguments(batch: Batch) -> dict[str, Any]:
        if len(batch) != len(names):
            raise ArgumentError(
                f"a batch has {len(batch)} parts, and names={names!r} has {len(names)}; name each, None if it is not used."
            )
        return {
            name: part.to(device, dtype if part.is_floating_point() else None, non_blocking=True)
            for name, part in zip(names, batch, strict=True)
            if name is not None
        }

    return arguments


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {package: version(package) for package in ("sdeflow", "torch", "lightning-fabric")}
