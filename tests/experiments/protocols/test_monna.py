"""MoNNA, against rounds that another implementation computed."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from experiments.network import Neighbourhoods, Network
from experiments.optimiser import Optimiser
from experiments.protocols.monna import Monna
from tools.errors import UserError

REFERENCE = Path(__file__).with_name("monna.json")
RUNS = json.loads(REFERENCE.read_text())["runs"]


def given(run: dict[str, Any]) -> type[Monna]:
    """MoNNA whose responders are those of a run."""

    class Given(Monna):
        def neighbourhoods(self) -> Neighbourhoods:
            n, h = self.n, self.h
            heard = []
            for worker, responders in enumerate(run["rounds"][self.step_index]["responders"]):
                byzantine = list(range(h, n)) if run["reach"] == "all" else []
                heard.append([worker, *responders, *byzantine])
            heard += [[worker] for worker in range(h, n)]
            sizes = [len(senders) for senders in heard]
            weights = [1 / size for size in sizes for _ in range(size)]
            offsets = numpy.cumsum([0, *sizes])
            return Neighbourhoods(offsets, numpy.concatenate(heard), numpy.array(weights))

    return Given


@pytest.mark.parametrize("batching", [True, False])
@pytest.mark.parametrize("run", RUNS, ids=[run["reach"] for run in RUNS])
def test_it_agrees_with_the_reference_step_by_step(run: dict[str, Any], batching: bool) -> None:
    module = nn.Linear(4, 3).double()
    torch.nn.utils.vector_to_parameters(
        torch.tensor(run["initial_parameters"], dtype=torch.float64), module.parameters()
    )
    honest = range(run["n"] - run["f"])

    def stream(worker: int) -> list[tuple[Tensor, Tensor]]:
        return [
            (torch.tensor(done["inputs"][worker], dtype=torch.float64), torch.tensor(done["targets"][worker]))
            for done in run["rounds"]
        ]

    simulation = given(run)(
        model=module,
        data=[stream(worker) for worker in honest],
        loss_fn=F.cross_entropy,
        n=run["n"],
        f=run["f"],
        attack="alie",
        attack_kwargs={"z": 1.0},
        optimiser=Optimiser(learning_rate=run["learning_rate"], momentum=run["beta"], weight_decay=run["weight_decay"]),
        arguments={"reach": run["reach"]},
        batching=batching,
        seed=1,
    )
    results = simulation.run(len(run["rounds"]))
    for result, wanted in zip(results, run["rounds"], strict=True):
        for name in ("losses", "honest_gradients", "local_parameters", "byzantine_parameters", "parameters"):
            expected = torch.tensor(wanted[name], dtype=torch.float64)
            assert_close(result[name], expected, rtol=1e-9, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")
    assert_close(
        simulation.nodes.momenta, torch.tensor(run["rounds"][-1]["momentum"], dtype=torch.float64), rtol=1e-9, atol=0
    )


def simulation(
    n: int = 11, f: int = 2, f_declared: int | None = None, allow_weak: bool = False, **arguments: Any
) -> Monna:
    batch = (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
    return Monna(
        model=nn.Linear(3, 2),
        data=[[batch]] * (n - f),
        loss_fn=F.cross_entropy,
        n=n,
        f=f,
        f_declared=f_declared,
        network=Network("complete", {"allow_weak": allow_weak}, n=n, f=f, seed=3),
        attack="signflip",
        optimiser=Optimiser(learning_rate=0.1, momentum=0.9),
        arguments=arguments,
        seed=3,
    )


def heard(neighbourhoods: Neighbourhoods) -> list[list[int]]:
    return [neighbourhoods.senders[first:last].tolist() for first, last in pairwise(neighbourhoods.offsets)]


@pytest.mark.parametrize("declared", [2, 3])
def test_all_byzantine_nodes_reach_everybody(declared: int) -> None:
    monna = simulation(f_declared=declared)
    for worker, senders in enumerate(heard(monna.neighbourhoods())[:9]):
        assert senders[0] == worker
        assert len(set(senders)) == len(senders) == 11 - declared
        assert {9, 10} < set(senders)


def test_responders_are_drawn_from_all_and_anew_every_round() -> None:
    monna = simulation(reach="sampled")
    rounds = []
    for step in range(200):
        monna.step_index = step
        rounds.append(heard(monna.neighbourhoods()))
    assert all(len(set(senders)) == 9 for round_ in rounds for senders in round_)
    assert rounds[0] != rounds[1]
    met = numpy.zeros((11, 11))
    for round_ in rounds:
        for worker, senders in enumerate(round_):
            met[worker, senders] += 1
    assert (numpy.diagonal(met) == 200).all()
    others = met[~numpy.eye(11, dtype=bool)]
    assert abs(others / 200 - 0.8).max() < 0.15
    monna.step_index = 0
    assert heard(monna.neighbourhoods()) == rounds[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reach": "some"}, "--protocol-args: expected reach:all or reach:sampled, got 'some'"),
        ({"f_declared": 6}, "--nb-decl-byz: expected less than half of 11 nodes with --protocol monna, got 6"),
        (
            {"f_declared": 4},
            r"hears 6 neighbours, .*: nna: expected f from 0 to 3 for n = 7, got 4; .* n ≥ 3f \+ 1",
        ),
        (
            {"f": 3, "f_declared": 2},
            "node 0 hears 8 neighbours, at least 3 of them Byzantine: nna is to tolerate 2; use",
        ),
        ({"f": 5, "f_declared": 2, "reach": "sampled"}, "node 0 hears 8 neighbours, at least 3 of them Byzantine: nna"),
        ({"f": 10, "f_declared": 2}, "--nb-real-byz: expected at most 8, .* got 10; with .* reach:sampled"),
    ],
)
def test_what_cannot_be(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        simulation(**arguments)


def test_more_may_attack_than_reach_a_node() -> None:
    monna = simulation(f=4, f_declared=2, reach="sampled")
    assert monna.describe_condition() == (
        "holds in rounds in which at most 2 of the 9 models that a node has are Byzantine; chance may give it 4"
    )
    assert simulation().describe_condition().startswith("holds in every round")


def test_weak_nodes_may_be_allowed() -> None:
    attacked = simulation(f=3, f_declared=2, allow_weak=True)
    assert attacked.describe_condition() == "does not hold for nodes 0, 1, 2, 3, 4, 5, 6, 7, as allow-weak permits"
    (result,) = attacked.run(1)
    assert not torch.equal(result["mixed_parameters"], result["local_parameters"])
    alone = simulation(f_declared=4, allow_weak=True)
    assert alone.refused == {7}
    assert alone.describe_condition().endswith("those that hear too few keep their own vector")
    (result,) = alone.run(1)
    assert torch.equal(result["mixed_parameters"], result["local_parameters"])
