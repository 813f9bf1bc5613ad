"""A grid to copy: put your own file beside this one, or anywhere, with its own name. Nothing else needs to change.

Source: (whose experiments these are; and what differs from theirs).
"""

from collections.abc import Iterator

from experiments.config import RunConfig
from experiments.grids import Grid


class Template(Grid, name="template"):
    """Two rules under one attack, and the mean of as many honest workers without."""

    title = "Two rules under one attack, on the digits"
    seeds = "1-3"

    @classmethod
    def experiments(cls) -> Iterator[tuple[str, RunConfig]]:
        yield "honest", RunConfig(nb_workers=7)
        for gar in ("krum", "median"):
            yield f"alie-{gar}", RunConfig(nb_workers=11, nb_decl_byz=4, attack="alie", gar=gar)
