"""What a training run needs before it is run: `lydite plan`, as a library. Recipe, machine and laws need no torch."""

from lydite.training.plan.recipe import Machine, Recipe, Training, read_machine, read_recipe

__all__ = ["Machine", "Recipe", "Training", "read_machine", "read_recipe"]
