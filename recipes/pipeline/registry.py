"""The recipes by name."""

from recipes.pipeline.ecg import Ecg
from recipes.pipeline.ehrsql import Ehrsql
from recipes.pipeline.recipe import Recipe

RECIPES: dict[str, type[Recipe]] = {recipe.name: recipe for recipe in (Ehrsql, Ecg)}
