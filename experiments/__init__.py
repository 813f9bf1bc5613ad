"""One seeded run: configuration, data, models, losses, the simulation, its metrics and its result directory."""
