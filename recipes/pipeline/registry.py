"""The recipes by name."""

from recipes.pipeline.recipe import Recipe
from recipes.tasks.ecg.pipeline import Ecg
from recipes.tasks.ehrsql.pipeline import Ehrsql

RECIPES: dict[str, type[Recipe]] = {recipe.name: recipe for recipe in (Ehrsql, Ecg)}
