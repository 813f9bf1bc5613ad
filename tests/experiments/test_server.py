import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

import attacks
from aggregators import Aggregator, gars
from attacks import Attack
from experiments.config import RunConfig
from experiments.datasets import Augmentation, Data, Samples
from experiments.defence import Defender
from experiments.model import Model
from experiments.sampling import SampleStream
from experiments.server import ServerSimulation
from experiments.worker_gradients import WorkerGradients
from tests.experiments.test_metrics import direct
from tools.seeding import make_generator

HIDDEN = 4


def make_data(samples: int = 37, shape: tuple[int, ...] = (6,), augmentation: Augmentation | None = None) -> Data:
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(samples + 20, *shape, generator=draw)
    targets = torch.randint(3, (samples + 20,), generator=draw)
    train, test = (Samples(inputs[part], targets[part]) for part in (slice(samples), slice(samples, None)))
    return Data(train, test, num_outputs=3, augmentation=augmentation)


def configure(**options: Any) -> RunConfig:
    defaults = {
        "nb_workers": 7,
        "nb_decl_byz": 2,
        "gar": "trmean",
        "attack": "empire",
        "batch_size": 5,
        "model": "simples-full",
        "model_args": {"hidden": HIDDEN},
        "learning_rate": 0.2,
    }
    return RunConfig(**{**defaults, **options})


def loss_and_gradient(theta: Tensor, inputs: Tensor, targets: Tensor, config: RunConfig) -> tuple[Tensor, Tensor]:
    """Return loss and clipped gradient of one batch, written out for one hidden layer."""
    theta = theta.detach().clone().requires_grad_()
    sizes = [6 * HIDDEN, HIDDEN, 3 * HIDDEN, 3]
    w1, b1, w2, b2 = theta.split(sizes)
    hidden = torch.relu(inputs @ w1.view(HIDDEN, 6).T + b1)
    loss = F.cross_entropy(hidden @ w2.view(3, HIDDEN).T + b2, targets)
    loss = loss + config.l1_regularize * theta.abs().sum() + config.l2_regularize * (theta**2).sum().sqrt()
    (gradient,) = torch.autograd.grad(loss, theta)
    clip, norm = config.gradient_clip or math.inf, float(gradient.norm())
    return loss.detach(), gradient * min(1.0, clip / norm)


def participants(config: RunConfig, step: int) -> list[int]:
    """Return who takes part in a step: a share, rounded up, of a random order."""
    n = config.nb_workers
    if config.participation == 1:
        return list(range(n))
    order = torch.randperm(n, generator=make_generator(1, "participation", step)).tolist()
    return sorted(order[: math.ceil(config.participation * n)])


def by_hand(config: RunConfig, data: Data, theta: Tensor, steps: int) -> tuple[Tensor, list[float]]:
    """Return parameters and average losses after some steps, worker after worker, as DESIGN's table has them."""
    stream = SampleStream(data.train, 1, "training")
    n, f = config.nb_workers, config.nb_real_byz
    mu, delta, rate = config.momentum, config.dampening, config.learning_rate
    momentum = torch.zeros_like(theta)
    of_worker = [torch.zeros_like(theta) for _ in range(n - f)]
    average_losses = []
    for step in range(steps):
        sampled, losses = [], []
        present = participants(config, step)
        honest = [worker for worker in present if worker < n - f]
        for i in honest:
            start = theta
            if config.momentum_nesterov:
                start = theta - mu * rate * (of_worker[i] if config.momentum_at == "worker" else momentum)
            position = start
            for _ in range(config.nb_local_steps):
                batch = stream.take(config.batch_size, 1)
                loss, gradient = loss_and_gradient(position, batch.inputs, batch.targets, config)
                losses.append(loss)
                position = position - rate * gradient
            sampled.append((start - position) / rate)
        sent = sampled
        if config.momentum_at == "server":
            sent = [mu * momentum + (1 - delta) * gradient for gradient in sampled]
        if config.momentum_at == "worker":
            for i, gradient in zip(honest, sampled, strict=True):
                of_worker[i] = mu * of_worker[i] + (1 - delta) * gradient
            sent = [of_worker[i] for i in honest]
        byzantine = [-0.1 * torch.stack(sent).mean(dim=0)] * (len(present) - len(honest))
        defense = gars[config.gar].aggregate([*sent, *byzantine], f=config.nb_decl_byz)
        if config.momentum_at == "update":
            momentum = mu * momentum + (1 - delta) * defense
        else:
            momentum = defense
        theta = theta - rate * (momentum + config.weight_decay * theta)
        average_losses.append(float(torch.stack(losses).mean()))
    return theta, average_losses


@pytest.mark.parametrize("momentum_at", ["update", "server", "worker"])
@pytest.mark.parametrize("momentum_nesterov", [False, True])
@pytest.mark.parametrize("nb_local_steps", [1, 3])
@pytest.mark.parametrize("participation", [1.0, 0.7])
def test_steps_are_those_written_by_hand(
    momentum_at: str, momentum_nesterov: bool, nb_local_steps: int, participation: float
) -> None:
    config = configure(
        participation=participation,
        momentum_at=momentum_at,
        momentum_nesterov=momentum_nesterov,
        nb_local_steps=nb_local_steps,
        momentum=0.8,
        dampening=0.3,
        weight_decay=0.05,
        gradient_clip=0.4,
        l1_regularize=0.01,
        l2_regularize=0.1,
        learning_rate_decay=0,
    )
    data = make_data()
    simulation = ServerSimulation(config, data, 1)
    expected, losses = by_hand(config, data, simulation.model.parameters.clone(), 6)
    simulation.run(6)  # 5 · 5 samples a step of 37: batches of two sizes
    assert_close(simulation.model.parameters, expected, rtol=1e-4, atol=1e-5)
    rows = simulation.metrics.flush()
    assert_close(torch.tensor([row[2] for row in rows]), torch.tensor(losses), rtol=1e-4, atol=1e-5)
    honest = [sum(worker < 5 for worker in participants(config, step)) for step in range(5)]
    assert [row[1] for row in rows] == [5 * nb_local_steps * sum(honest[:step]) for step in range(6)]


@pytest.mark.parametrize(("momentum_at", "moved"), [("update", 1.0625), ("server", 0.8402777), ("worker", 1.0625)])
def test_three_steps_with_numbers(momentum_at: str, moved: float) -> None:
    """All gradients are −1; one of three workers sends the mean turned round; μ = ½, 1 − δ = ¾.

    update: R = g/3, m = ¼ g, ⅜ g, 7/16 g. server: v = ¾ g, ⅞ g, 43/48 g, of which R keeps a third.
    worker: mᵢ = ¾ g, 9/8 g, 21/16 g, of which R keeps a third.
    """
    ones = torch.ones(12, 1)
    data = Data(Samples(ones, 1e3 * ones), Samples(ones, 1e3 * ones), num_outputs=1)
    config = configure(
        nb_workers=3,
        nb_decl_byz=1,
        gar="average",
        attack="empire-strict",
        attack_args={"epsilon": 1},
        model="simples-linear",
        model_args={},
        loss="l1",
        criterion="sigmoid",
        momentum=0.5,
        dampening=0.25,
        momentum_at=momentum_at,
        learning_rate=0.1,
        learning_rate_decay=0,
    )
    simulation = ServerSimulation(config, data, 1)
    before = simulation.model.parameters.clone()
    simulation.run(3)
    assert_close(simulation.model.parameters, before + 0.1 * moved, rtol=1e-5, atol=1e-6)


def test_learning_rates() -> None:
    simulation = ServerSimulation(configure(learning_rate_schedule="0.5,2,0.25"), make_data(), 1)
    rates = []
    for _ in range(4):
        rates.append(simulation.learning_rate())
        simulation.step()
    assert rates == [0.5, 0.5, 0.25, 0.25]
    assert ServerSimulation(configure(learning_rate_decay=1), make_data(), 1).learning_rate() == 0.2


SETTINGS: list[dict[str, Any]] = [
    {},
    {"momentum_at": "server", "momentum_nesterov": True},
    {"momentum_at": "worker", "nb_for_study": 9, "nb_for_study_past": 3},
    {"momentum_at": "worker", "momentum_nesterov": True, "nb_local_steps": 2, "nb_for_study": 9},
    {"gars": "trmean,1;median,2;krum,1", "attack": "little", "attack_args": {"factor": -4}},
    {"attack": None, "nb_for_study": 0, "batch_size_test_reps": 1, "batch_size_test": 7},
    {"attack": "nan", "gar": "krum", "test_augment": True, "dataset_args": {"flip": True}},
    {"participation": 0.7, "momentum_at": "worker", "nb_local_steps": 5, "nb_for_study": 9},
    {"participation": 0.72, "momentum_at": "worker", "attack": "labelflip", "partition": "dirichlet"},
]


def image_data(settings: dict[str, Any]) -> Data:
    augmented = Augmentation(flip=True) if "dataset_args" in settings else None
    return make_data(shape=(1, 2, 3), augmentation=augmented)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("cut", [1, 3, 4])
def test_continues_from_its_state_with_the_same_bits(settings: dict[str, Any], cut: int) -> None:
    config = configure(**{key: value for key, value in settings.items() if key != "dataset_args"})
    whole, start, rest = (ServerSimulation(config, image_data(settings), 1) for _ in range(3))

    def advance(simulation: ServerSimulation, steps: int) -> list:
        log = []
        for _ in range(steps):
            log.append(simulation.evaluate())
            simulation.step()
            log.append(float(simulation.loss))
        return log + (simulation.metrics.flush() if simulation.metrics else [])

    before = advance(whole, cut)
    expected = advance(whole, 5)
    assert repr(advance(start, cut)) == repr(before)
    state = start.state_dict()
    advance(start, 2)  # the state is a copy
    rest.load_state_dict(state)
    assert rest.step_index == cut
    assert repr(advance(rest, 5)) == repr(expected)
    assert torch.equal(rest.model.parameters, whole.model.parameters)


@pytest.mark.parametrize("model", ["simples-full", "empire-cnn"])
def test_studying_never_changes_training(model: str) -> None:
    parameters = []
    for study in (0, 1, 12):
        shape = (1, 4, 4) if model == "empire-cnn" else (6,)
        config = configure(nb_for_study=study, model=model, model_args={}, momentum_at="worker", momentum_nesterov=True)
        simulation = ServerSimulation(config, make_data(shape=shape), 1)
        simulation.run(4)
        parameters.append(simulation.model.state_dict())
        if study == 12:
            rows = simulation.metrics.flush()
            assert rows[0][4] != rows[0][5]  # twelve gradients deviate otherwise than five
    assert_close(parameters[1], parameters[0], rtol=0, atol=0)
    assert_close(parameters[2], parameters[0], rtol=0, atol=0)


def test_evaluating_never_changes_training() -> None:
    simulations = [ServerSimulation(configure(), make_data(), 1) for _ in range(2)]
    for _ in range(3):
        simulations[0].evaluate()
        for simulation in simulations:
            simulation.step()
    assert torch.equal(simulations[0].model.parameters, simulations[1].model.parameters)


@pytest.mark.parametrize("momentum_at", ["update", "server", "worker"])
@pytest.mark.parametrize("more", [{}, {"momentum_nesterov": True, "nb_for_study": 12}, {"nb_local_steps": 2}])
def test_groups_of_workers_give_what_all_at_once_give(
    momentum_at: str, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(momentum_at=momentum_at, dampening=0.3, gradient_clip=0.7, **more)
    whole = ServerSimulation(config, make_data(), 1)
    whole.run(6)
    monkeypatch.setattr(Model, "samples_per_pass", lambda _: 11)  # two workers of batch size 5
    parts = ServerSimulation(config, make_data(), 1)
    expected = [(0, 5)] if config.nb_local_steps > 1 else [(0, 1), (1, 3), (3, 5)]
    assert [(group.start, group.stop) for group in parts.groups(0, 5)] == expected
    assert list(parts.groups(5, 5)) == []
    parts.run(6)
    assert_close(parts.model.parameters, whole.model.parameters)
    assert_close(torch.tensor(parts.metrics.flush()), torch.tensor(whole.metrics.flush()), equal_nan=True)


def test_workers_beyond_do_not_move_the_initial_parameters() -> None:
    first, second = (ServerSimulation(configure(nb_workers=n), make_data(), 1) for n in (7, 9))
    assert torch.equal(first.model.parameters, second.model.parameters)
    assert not torch.equal(first.model.parameters, ServerSimulation(configure(), make_data(), 2).model.parameters)


def test_sampled_and_honest_differ_only_with_momentum_before_the_rule() -> None:
    for momentum_at in ("update", "server", "worker"):
        simulation = ServerSimulation(configure(momentum_at=momentum_at, dampening=0.5), make_data(), 1)
        simulation.run(3)
        row = simulation.metrics.flush()[-1]
        assert (row[7] == row[8]) == (momentum_at == "update")


def test_attacks_see_what_an_omniscient_adversary_knows() -> None:
    seen = []

    class Spy(Attack, name="spy-for-a-test"):
        @classmethod
        def generate(cls, honest_gradients: Tensor, /, *, f: int, **specialized: Any) -> Tensor:
            state = specialized["state"]
            state["calls"] = state.get("calls", 0) + 1
            vectors = torch.cat([honest_gradients, honest_gradients.new_zeros(f, honest_gradients.shape[1])])
            seen.append({**specialized, "defense": specialized["aggregate"](vectors), "f": f})
            return vectors[-f:] + torch.arange(f).unsqueeze(1)

    try:
        config = configure(attack="spy-for-a-test", momentum_at="worker", l2_regularize=0.1)
        data = make_data()
        simulation = ServerSimulation(config, data, 1)
        theta = simulation.model.parameters.clone()
        simulation.run(3)
    finally:
        attacks.attacks._classes.pop("spy-for-a-test")
    assert [context["step"] for context in seen] == [0, 1, 2]
    assert seen[0]["f_declared"] == seen[0]["f"] == 2
    assert simulation.state_dict()["attack"]["state"] == {"calls": 3}
    assert seen[0]["defense"].shape == theta.shape
    assert isinstance(seen[0]["generator"], torch.Generator)
    assert torch.equal(seen[0]["parameters"], simulation.model.parameters)  # θ itself
    _, expected = loss_and_gradient(simulation.model.parameters, data.train.inputs, data.train.targets, config)
    assert_close(seen[0]["full_gradient"](), expected, rtol=1e-4, atol=1e-6)
    row = simulation.metrics.flush()[0]
    assert row[6] == pytest.approx(math.sqrt(theta.numel() / 2), rel=1e-5)  # rows of zeros and of ones deviate so


def test_acceptation_is_the_influence_of_the_rule() -> None:
    simulation = ServerSimulation(configure(gar="krum", attack="empire", momentum_at="worker"), make_data(), 1)
    simulation.step()
    vectors = simulation._vectors.clone()
    vectors[6] = vectors[5]
    expected = gars["krum"].influence(vectors[:5], vectors[5:], f=2)
    assert simulation.metrics.flush()[0][-1] == pytest.approx(expected)
    for gar, share in (("trmean", math.nan), ("average", 2 / 7)):
        simulation = ServerSimulation(configure(gar=gar), make_data(), 1)
        simulation.step()
        assert simulation.metrics.flush()[0][-1] == pytest.approx(share, nan_ok=True)
    unattacked = ServerSimulation(configure(gar="krum", attack=None), make_data(), 1)
    unattacked.step()
    row = unattacked.metrics.flush()[0]
    assert row[-1] == 0
    assert math.isnan(row[9])  # no attack vector has a norm


def test_rules_are_drawn_by_their_frequencies(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = ServerSimulation(configure(gars='krum,3;median,1;krum,4,{"m": 1}', attack=None), make_data(), 1)
    drawn = [simulation._defender.draw() for _ in range(2_000)]
    shares = {
        key: sum((defence.rule.name, defence.arguments.get("m")) == key for defence in drawn) / 2_000
        for key in (("krum", None), ("median", None), ("krum", 1))
    }
    for key, share in {("krum", None): 3 / 8, ("median", None): 1 / 8, ("krum", 1): 1 / 2}.items():
        assert shares[key] == pytest.approx(share, abs=0.04)
    simulation.run(5)


def direct_accuracy(simulation: ServerSimulation, indices: Tensor) -> float:
    test = simulation.data.test
    right = [int(simulation.model.predict(test.inputs[i : i + 1]).argmax()) == int(test.targets[i]) for i in indices]
    return sum(right) / len(right)


@pytest.mark.parametrize(("size", "repetitions"), [(100, None), (6, None), (6, 2), (6, 11), (20, 3)])
def test_evaluation_counts_the_drawn_samples(size: int, repetitions: int | None) -> None:
    simulation = ServerSimulation(configure(batch_size_test=size, batch_size_test_reps=repetitions), make_data(), 1)
    simulation.run(3)
    stream = SampleStream(simulation.data.test, 1, "test")
    for _ in range(3):
        indices, _ = stream.indices(size, repetitions or -(-20 // size))
        assert simulation.evaluate() == (pytest.approx(direct_accuracy(simulation, indices)),)


def test_evaluation_on_flipped_images() -> None:
    config = configure(test_augment=True, batch_size_test=7)
    simulation = ServerSimulation(config, image_data({"dataset_args": {}}), 1)
    stream = SampleStream(simulation.data.test, 1, "test", Augmentation(flip=True))
    for _ in range(3):
        batch = stream.gather(*stream.indices(7, 3))
        right = (simulation.model.predict(batch.inputs).argmax(dim=1) == batch.targets).float().mean()
        assert simulation.evaluate() == (pytest.approx(float(right)),)


def test_running_backwards_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 0 rounds, got -1"):
        ServerSimulation(configure(), make_data(), 1).run(-1)


def test_rule_on_a_device_of_its_own() -> None:
    same, other = (ServerSimulation(configure(device_gar=where), make_data(), 1) for where in ("same", "cpu"))
    for simulation in (same, other):
        simulation.run(3)
    assert torch.equal(same.model.parameters, other.model.parameters)


@pytest.mark.parametrize(
    "settings",
    [
        {"momentum_at": "update"},
        {"momentum_at": "update", "nb_for_study": 8},
        {"momentum_at": "server", "nb_for_study": 8, "attack": "little"},
        {"momentum_at": "worker", "attack": "anticge", "gar": "median"},
        {"momentum_at": "worker", "momentum_nesterov": True, "nb_for_study": 8},
        {"momentum_at": "update", "attack": None, "gar": "krum"},
    ],
    ids=str,
)
def test_study_measures_what_happened(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Record vectors, losses and parameters as a step passes them on, and compute all 24 columns from them."""
    config = configure(nb_for_study_past=2, l2_regularize=0.1, **settings)
    simulation = ServerSimulation(config, make_data(), 1)
    origin, points, passed = simulation.model.parameters.clone(), [], []
    sample, aggregate = WorkerGradients.__call__, Defender.__call__

    def spy_on_gradients(self: WorkerGradients, batches: Any, out: Tensor, **options: Any) -> Tensor:
        losses = sample(self, batches, out, **options)
        where = origin if options["points"] is None else options["points"]
        sampled.append((out.double().numpy().copy(), losses, simulation.model.parameters.clone(), where))
        return losses

    def spy_on_rule(self: Defender, vectors: Tensor, *, copies: int = 1, **context: Any) -> tuple:
        result = aggregate(self, vectors, copies=copies, **context)
        sent = vectors.double().numpy().copy()
        sent[len(sent) - copies :] = sent[-copies]
        passed.append((sent, result[0].double().numpy().copy()))
        return result

    monkeypatch.setattr(WorkerGradients, "__call__", spy_on_gradients)
    monkeypatch.setattr(Defender, "__call__", spy_on_rule)
    history, expected = [], []
    h = simulation.h
    for step in range(5):
        sampled: list[tuple] = []
        momenta = simulation._honest.clone()
        simulation.step()
        sent, defense = passed[-1]
        history.append(np.concatenate([rows for rows, *_ in sampled]))
        points.append(sampled[-1][3])
        losses = torch.cat([losses for _, losses, *_ in sampled]).double()
        theta = sampled[0][2]
        if config.momentum_nesterov:  # those for the study only: where the workers' average momentum leads
            ahead = theta - config.momentum * config.learning_rate / (step / 5000 + 1) * momenta.mean(dim=0)
            assert_close(points[-1], ahead)
        attack = sent[h:] if simulation.f else np.full((2, len(defense)), np.nan)
        row = [step, step * 5 * h, float(losses.mean()), float((theta - origin).norm())]
        expected.append([*row, *direct(history, sent[:h], attack, defense, 2)])
    measured = np.array(simulation.metrics.flush())
    assert len(history[0]) == max(h, config.nb_for_study)
    np.testing.assert_allclose(measured[:, :-1], expected, rtol=2e-4, atol=2e-5)


def test_training_mode_decides_over_running_statistics() -> None:
    for mode in ("train", "eval"):
        config = configure(model="empire-cnn", model_args={}, train_mode=mode, nb_workers=3, nb_decl_byz=0)
        simulation = ServerSimulation(config, make_data(shape=(1, 8, 8)), 1)
        before = {name: buffer.clone() for name, buffer in simulation.model.buffers().items()}
        simulation.run(2)
        same = all(torch.equal(buffer, before[name]) for name, buffer in simulation.model.buffers().items())
        assert same == (mode == "eval")


@pytest.mark.parametrize("nb_local_steps", [1, 2])
def test_noise_differs_by_step_worker_and_local_step(nb_local_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds, gradients = [], Model.gradients

    def spy(self: Model, batches: Any, *arguments: Any, **options: Any) -> Tensor:
        seeds.extend(options["seeds"](worker) for worker in range(len(batches.sizes)))
        return gradients(self, batches, *arguments, **options)

    monkeypatch.setattr(Model, "gradients", spy)
    simulation = ServerSimulation(configure(nb_local_steps=nb_local_steps, nb_for_study=9), make_data(), 1)
    simulation.run(3)
    assert len(seeds) == len(set(seeds)) == 3 * 9 * nb_local_steps


def test_rules_and_attacks_that_remember_continue_with_the_same_bits() -> None:
    pivots: list[Tensor | None] = []

    class Remembers(Aggregator, name="remembers-for-a-test"):
        @classmethod
        def aggregate(cls, gradients: Tensor, /, *, f: int, **context: Any) -> Tensor:
            state = context["state"]
            state["calls"] = state.get("calls", 0) + 1
            noise = torch.randn(gradients.shape[-1], generator=context["generator"])
            pivots.append(context["pivot"])
            pivot = 0 if context["pivot"] is None else context["pivot"]
            return gradients.mean(dim=-2) + 0.1 * state["calls"] * noise + 0.5 * pivot

    class Alternates(Attack, name="alternates-for-a-test"):
        @classmethod
        def generate(cls, honest_gradients: Tensor, /, *, f: int, **context: Any) -> Tensor:
            sign = context["state"]["sign"] = -context["state"].get("sign", 1)
            context["aggregate"](torch.cat([honest_gradients, honest_gradients[:f]]))
            drawn = torch.rand((), generator=context["generator"])
            return attacks.repeat(sign * drawn * honest_gradients.mean(dim=-2), f)

    try:
        config = configure(gar="remembers-for-a-test", attack="alternates-for-a-test")
        whole, start, rest = (ServerSimulation(config, make_data(), 1) for _ in range(3))
        defenses = []
        for _ in range(6):
            whole.step()
            defenses.append(whole._previous_defense)
        seen = pivots[1::2]  # of each step, after the attack's rehearsal
        start.run(3)
        rest.load_state_dict(start.state_dict())
        rest.run(3)
    finally:
        gars._classes.pop("remembers-for-a-test")
        attacks.attacks._classes.pop("alternates-for-a-test")
    assert torch.equal(rest.model.parameters, whole.model.parameters)
    assert repr(rest.metrics.flush()) == repr(whole.metrics.flush()[3:])
    assert seen[0] is None
    assert all(torch.equal(pivot, defense) for pivot, defense in zip(seen[1:], defenses[:-1], strict=True))
    assert whole.state_dict()["defender"]["states"]["rule-0"] == {"calls": 6}  # rehearsals do not count
    assert whole.state_dict()["attack"]["state"] == {"sign": 1}


def test_gradients_whose_norm_overflows_are_clipped_to_the_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    def huge(self: Model, batches: Any, loss: Any, *, out: Tensor, **options: Any) -> Tensor:
        out.fill_(1e25)
        return out.new_zeros(len(out))

    monkeypatch.setattr(Model, "gradients", huge)
    simulation = ServerSimulation(configure(gradient_clip=2.0, attack=None, momentum_at="worker"), make_data(), 1)
    simulation.step()
    assert_close(simulation._honest.norm(dim=1), torch.full((7,), 2.0))
    row = simulation.metrics.flush()[0]
    assert row[7] == pytest.approx(2)
    assert row[4] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("momentum_at", ["server", "worker"])
def test_groups_of_those_present_give_what_all_at_once_give(momentum_at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(momentum_at=momentum_at, participation=0.9, nb_workers=12, attack="labelflip", nb_for_study=12)
    whole = ServerSimulation(config, make_data(), 1)
    whole.run(6)
    monkeypatch.setattr(Model, "samples_per_pass", lambda _: 20)  # four workers of batch size 5
    parts = ServerSimulation(config, make_data(), 1)
    parts.run(6)
    assert_close(parts.model.parameters, whole.model.parameters)
    assert len(parts._sampled) == 4


def test_everybody_takes_part_as_often_as_others() -> None:
    simulation = ServerSimulation(configure(participation=0.7), make_data(), 1)
    counts = torch.zeros(7)
    for step in range(400):
        simulation.step_index = step
        simulation._invite()
        assert len(set(simulation._present.tolist())) == 5
        assert simulation.h + simulation.f == 5
        counts[simulation._present] += 1
    assert_close(counts / 400, torch.full((7,), 5 / 7), rtol=0, atol=0.08)


def test_a_worker_that_is_absent_keeps_its_momentum() -> None:
    simulation = ServerSimulation(configure(participation=0.7, momentum_at="worker"), make_data(), 1)
    for _ in range(5):
        before = simulation._momenta.clone()
        simulation.step()
        moved = (simulation._momenta != before).any(dim=1).nonzero().flatten().tolist()
        assert moved == [worker for worker in simulation._present.tolist() if worker < 5]


def test_workers_with_shards_see_their_own_samples_only() -> None:
    simulation = ServerSimulation(configure(partition="extreme", attack="labelflip"), make_data(), 1)
    assert [len(shard) for shard in simulation.shards] == [6, 6, 5, 5, 5, 5, 5]
    own = simulation._stream.take(5, 1, [3])
    mine = {tuple(row.tolist()) for row in simulation.data.train.inputs[simulation.shards[3]]}
    assert {tuple(row.tolist()) for row in own.inputs} <= mine
    poisoned = simulation._poison_stream.take(5, 1, [1])
    of_last = {tuple(row.tolist()) for row in simulation.data.train.inputs[simulation.shards[6]]}
    assert {tuple(row.tolist()) for row in poisoned.inputs} <= of_last


def test_a_server_stops_when_nothing_moves() -> None:
    simulation = ServerSimulation(configure(learning_rate_schedule="0.2,3,0", stop_below=1e-6), make_data(), 1)
    stopped = []
    for _ in range(4):
        simulation.step()
        stopped.append(simulation.stopped)
    assert stopped == [False, False, False, True]


def test_without_batching_workers_are_computed_one_by_one() -> None:
    on, off = (ServerSimulation(configure(batching=batching), make_data(), 1) for batching in ("on", "off"))
    for simulation in (on, off):
        simulation.run(5)
    assert off.model.one_by_one == "--batching is off"
    assert_close(on.model.parameters, off.model.parameters, rtol=1e-5, atol=1e-6)
