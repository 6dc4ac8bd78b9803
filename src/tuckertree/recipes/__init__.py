"""Published experiments as YAML files: read and checked, carried out, and compared in a table."""

from tuckertree.recipes.page import reproduction_page, result_lines
from tuckertree.recipes.reading import LoadedRecipe, load_recipe, parse_overrides, training_overrides
from tuckertree.recipes.reproduction import Reproduction, find_weights, reproduce
from tuckertree.recipes.schema import Compression, Data, Paper, Reach, Recipe, Rival, Source, Stage

__all__ = [
    "Compression",
    "Data",
    "LoadedRecipe",
    "Paper",
    "Reach",
    "Recipe",
    "Reproduction",
    "Rival",
    "Source",
    "Stage",
    "find_weights",
    "load_recipe",
    "parse_overrides",
    "reproduce",
    "reproduction_page",
    "result_lines",
    "training_overrides",
]
