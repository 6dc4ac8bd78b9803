"""Published experiments as YAML files: read and checked, run, and compared in a table."""

from tuckertree.tools.recipes.page import reproduction_page, result_lines
from tuckertree.tools.recipes.reading import LoadedRecipe, load_recipe, parse_overrides, training_overrides
from tuckertree.tools.recipes.reproduction import Reproduction, find_weights, reproduce
from tuckertree.tools.recipes.schema import (
    Baseline,
    Compression,
    Data,
    Paper,
    Publication,
    Recipe,
    RecipeStage,
    ReductionTarget,
)

__all__ = [
    "Baseline",
    "Compression",
    "Data",
    "LoadedRecipe",
    "Paper",
    "Publication",
    "Recipe",
    "RecipeStage",
    "ReductionTarget",
    "Reproduction",
    "find_weights",
    "load_recipe",
    "parse_overrides",
    "reproduce",
    "reproduction_page",
    "result_lines",
    "training_overrides",
]
