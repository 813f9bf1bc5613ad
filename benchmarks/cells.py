"""The configurations that are measured, as fields of RunConfig."""

LITTLE = {"attack": "little", "attack_args": {"factor": 1.5, "negative": True}}
MNIST_CELL = {
    **LITTLE,
    "dataset": "mnist",
    "model": "simples-full",
    "batch_size": 83,
    "learning_rate": 0.5,
    "learning_rate_decay_delta": 300,
    "l2_regularize": 1e-4,
    "gradient_clip": 2.0,
    "nb_steps": 300,
    "evaluation_delta": 5,
    "nb_for_study_past": 150,
    "nb_workers": 51,
    "nb_decl_byz": 24,
    "gar": "krum-iclr21",
    "momentum_at": "worker",
    "train_mode": "eval",
}
CONV_CELL = {
    **LITTLE,
    "dataset": "mnist",
    "model": "simples-conv",
    "batch_size": 25,
    "nb_workers": 11,
    "nb_decl_byz": 4,
    "gar": "krum-iclr21",
    "momentum_at": "worker",
}
MONNA_CELL = {
    "attack": "alie",
    "attack_args": {"z": 1.5},
    "dataset": "mnist",
    "model": "simples-full",
    "topology": "complete",
    "protocol": "monna",
    "batch_size": 25,
    "learning_rate": 0.75,
    "learning_rate_decay": 0.0,
    "momentum": 0.99,
}
"""Its numbers of nodes vary."""
RING_CELL = {"topology": "ring", "nb_decl_byz": 1, "batch_size": 25, "nb_for_study": 0}
"""Of honest nodes; their number, and the protocol, vary."""
