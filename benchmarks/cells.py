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
