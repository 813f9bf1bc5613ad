"""What at least two rooms need: registries, key:value arguments, seeds, the terminal, walks over long rows."""
