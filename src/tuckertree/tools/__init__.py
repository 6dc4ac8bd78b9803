"""Around the library: data, models, training, benchmarks, recipes, the demo, the command line."""
