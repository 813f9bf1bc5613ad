import functools
import gzip
import hashlib
import http.server
import pickle
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments import datasets
from experiments.datasets import Augmentation, load
from experiments.datasets.mnist import FILES, read_idx
from tools.errors import UserError


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def arrays(samples: int = 12) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    sizes = dict(zip(FILES, (samples, samples, 6, 6), strict=True))
    return {
        name: draw.integers(0, 256, (size, 28, 28)) if "images" in name else np.arange(size) % 10
        for name, size in sizes.items()
    }


def write_mnist(folder: Path) -> dict[str, np.ndarray]:
    (folder / "raw").mkdir(parents=True)
    content = arrays()
    for name, array in content.items():
        (folder / "raw" / name).write_bytes(idx_bytes(array))
    return content


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Serve a folder on this machine, as torchvision downloads by HTTP only; return it and its address."""
    folder = tmp_path / "server"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{served.server_port}/"
        served.shutdown()
        thread.join()


def test_digits() -> None:
    data = load("digits", Path("nowhere"))
    assert data.input_shape == (1, 8, 8)
    assert (len(data.train), len(data.test), data.num_outputs) == (1_437, 360, 10)
    assert float(data.train.inputs.min()) == 0
    assert float(data.train.inputs.max()) == 1
    shares = [part.targets.bincount() / len(part) for part in (data.train, data.test)]
    torch.testing.assert_close(shares[0], shares[1], atol=2e-3, rtol=0)  # stratified
    assert torch.equal(load("digits", Path("nowhere")).test.inputs, data.test.inputs)
    assert not torch.equal(load("digits", Path("nowhere"), split_seed=1).test.inputs, data.test.inputs)


@pytest.mark.parametrize(
    ("name", "folder", "mean", "std", "flip"),
    [
        ("mnist", "MNIST", 0.1307, 0.3081, False),
        ("fashionmnist", "FashionMNIST", 0, 1, True),
        ("kmnist", "KMNIST", 0, 1, False),
    ],
)
def test_idx_datasets(name: str, folder: str, mean: float, std: float, flip: bool, tmp_path: Path) -> None:
    content = write_mnist(tmp_path / folder)
    data = load(name, tmp_path)
    expected = (content[FILES[0]][:, None] / 255 - mean) / std
    np.testing.assert_allclose(data.train.inputs, expected, rtol=1e-5, atol=1e-6)
    assert data.train.targets.tolist() == list(content[FILES[1]])
    assert len(data.test) == 6
    assert (data.augmentation is not None) == flip
    plain = load(name, tmp_path, transform=False)
    np.testing.assert_allclose(plain.train.inputs, content[FILES[0]][:, None] / 255, rtol=1e-6)
    assert plain.augmentation is None


def test_image_arguments(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST")
    data = load("mnist", tmp_path, flip=True, crop=2)
    assert data.augmentation == Augmentation(flip=True, crop=2, fill=(pytest.approx(-0.1307 / 0.3081),))
    with pytest.raises(UserError, match="crop of at least 0, got None, -1"):
        load("mnist", tmp_path, crop=-1)
    with pytest.raises(UserError, match="mnist has no argument 'flop', expected: flip, crop"):
        load("mnist", tmp_path, flop=True)


@pytest.mark.parametrize("damage", ["truncated", "empty", "other", "classes"])
def test_damaged_idx_files(damage: str, tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST")
    path = tmp_path / "MNIST" / "raw" / FILES[1 if damage == "classes" else 0]
    whole = path.read_bytes()
    path.write_bytes(
        {"truncated": whole[:-5], "empty": b"", "other": b"PK\3\4" + whole, "classes": whole[:-1] + b"\x0b"}[damage]
    )
    with pytest.raises(UserError, match="expected"):
        load("mnist", tmp_path)


def test_read_idx_gives_what_torchvision_reads(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    content = write_mnist(tmp_path / "MNIST")
    theirs = torchvision.datasets.MNIST(str(tmp_path), train=True)
    assert torch.equal(read_idx(tmp_path / "MNIST" / "raw" / FILES[0]), theirs.data)
    assert content[FILES[0]].shape == tuple(theirs.data.shape)


def test_download_of_mnist(tmp_path: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision = pytest.importorskip("torchvision")
    (source, address), resources = server, []
    for name, array in arrays().items():
        packed = gzip.compress(idx_bytes(array))
        (source / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [address])
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    there = tmp_path / "new" / "folder"
    data = load("mnist", there)
    assert len(data.train) == 12
    assert sorted(path.name for path in there.iterdir()) == ["MNIST"]
    assert set(FILES) <= {path.name for path in (there / "MNIST" / "raw").iterdir()}

    (source / f"{FILES[0]}.gz").write_bytes(b"not what it should be")
    with pytest.raises(UserError, match=r"--dataset mnist: expected its files in .*MNIST.*--data-directory"):
        load("mnist", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_failed_download_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision = pytest.importorskip("torchvision")
    write_mnist(tmp_path / "MNIST")
    (tmp_path / "MNIST" / "raw" / FILES[0]).unlink()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [(tmp_path / "no-server").as_uri() + "/"])
    with pytest.raises(UserError, match="downloading them failed"):
        load("mnist", tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def cifar_archive(folder: Path, base: str, names: dict[str, str], key: str, classes: int) -> Path:
    """Write what the CIFAR server has: an archive of pickled batches, a few images each."""
    draw = np.random.default_rng(0)
    (folder / base).mkdir(parents=True)
    for name in names.values():
        batch = {"data": draw.integers(0, 256, (4, 3_072), dtype=np.uint8), key: [0, 1, 2, classes - 1]}
        (folder / base / name).write_bytes(pickle.dumps(batch))
    meta = {("label_names" if key == "labels" else "fine_label_names"): [str(i) for i in range(classes)]}
    (folder / base / "meta").write_bytes(pickle.dumps(meta))
    with tarfile.open(folder / "cifar.tar.gz", "w:gz") as archive:
        archive.add(folder / base, arcname=base)
    return folder / "cifar.tar.gz"


# Older torchvisions unpack without a filter, against which Python 3.12 and 3.13 warn
@pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")
@pytest.mark.parametrize(("name", "classes", "key"), [("cifar10", 10, "labels"), ("cifar100", 100, "fine_labels")])
def test_download_of_cifar(
    name: str, classes: int, key: str, tmp_path: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torchvision = pytest.importorskip("torchvision")
    theirs = getattr(torchvision.datasets, name.upper())
    archive = cifar_archive(server[0], theirs.base_folder, {"train": "a", "test": "b"}, key, classes)
    folder = server[0] / theirs.base_folder
    digest = {file: hashlib.md5((folder / file).read_bytes()).hexdigest() for file in ("a", "b", "meta")}
    monkeypatch.setattr(theirs, "url", server[1] + archive.name)
    monkeypatch.setattr(theirs, "filename", archive.name)
    monkeypatch.setattr(theirs, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(theirs, "train_list", [["a", digest["a"]]])
    monkeypatch.setattr(theirs, "test_list", [["b", digest["b"]]])
    monkeypatch.setattr(theirs, "meta", {**theirs.meta, "filename": "meta", "md5": digest["meta"]})
    for _ in range(2):  # downloaded, then found
        data = load(name, tmp_path / "data")
        assert data.input_shape == (3, 32, 32)
        assert data.num_outputs == classes
        assert data.train.targets.tolist() == [0, 1, 2, classes - 1]
        assert data.augmentation.flip
    raw = pickle.loads((folder / "a").read_bytes())["data"].reshape(4, 3, 32, 32) / 255
    mean, std = (np.array(v).reshape(1, 3, 1, 1) for v in ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)))
    np.testing.assert_allclose(data.train.inputs, (raw - mean) / std, rtol=1e-4, atol=1e-5)


def test_download_of_phishing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments.datasets import phishing

    server = tmp_path / "phishing.txt"
    server.write_text("1 1:0.5 68:0.25\n0 2:1\n1 3:1\n", encoding="utf-8")
    monkeypatch.setattr(phishing, "URL", server.as_uri())
    with pytest.raises(UserError, match="expected 11055 × 68 values and targets 0 or 1, got"):
        load("phishing", tmp_path)
    monkeypatch.setattr(phishing, "SAMPLES", 3)
    monkeypatch.setattr(phishing, "TRAIN_SAMPLES", 2)
    data = load("phishing", tmp_path)
    assert data.train.inputs.shape == (2, 68)
    assert data.train.targets.tolist() == [[1.0], [0.0]]
    assert float(data.train.inputs[0, 67]) == 0.25
    (tmp_path / "phishing" / "phishing").write_text("1 1:0.5\nnonsense\n", encoding="utf-8")
    with pytest.raises(UserError, match="expected 68 features in LIBSVM format"):
        load("phishing", tmp_path)


def test_real_data(data_directory: Path) -> None:
    mnist = load("mnist", data_directory)
    assert (len(mnist.train), len(mnist.test)) == (60_000, 10_000)
    assert abs(float(mnist.train.inputs.mean())) < 1e-3
    assert abs(float(mnist.train.inputs.std()) - 1) < 1e-3
    assert len(load("fashionmnist", data_directory).train) == 60_000
    phishing = load("phishing", data_directory)
    assert phishing.train.inputs.shape == (8_400, 68)
    assert phishing.test.targets.shape == (2_655, 1)


def test_flips_mirror_half_of_the_images() -> None:
    images = torch.randn(400, 2, 3, 5)
    flipped = Augmentation(flip=True)(images.clone(), torch.Generator().manual_seed(0))
    same = (flipped == images).flatten(1).all(dim=1)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(dim=1)
    assert (same ^ mirrored).all()
    assert 150 < int(mirrored.sum()) < 250


def test_crops_are_shifted_windows_of_the_filled_image() -> None:
    images = torch.randn(60, 2, 4, 5)
    fill = (7.0, 8.0)
    cropped = Augmentation(crop=1, fill=fill)(images.clone(), torch.Generator().manual_seed(0))
    padded = torch.tensor(fill).view(1, 2, 1, 1).expand(60, 2, 6, 7).clone()
    padded[..., 1:5, 1:6] = images
    seen = set()
    for image, whole in zip(cropped, padded, strict=True):
        windows = {(y, x): whole[:, y : y + 4, x : x + 5] for y in range(3) for x in range(3)}
        seen.add(next(shift for shift, window in windows.items() if torch.equal(window, image)))
    assert len(seen) == 9


def test_augmentation_by_given_numbers() -> None:
    images = torch.randn(7, 2, 4, 5)
    augmentation = Augmentation(flip=True, crop=2, fill=(7.0, 8.0))
    draw = torch.Generator().manual_seed(0)
    shifts = torch.randint(5, (2, 7), generator=draw)  # drawn first, all tops before all lefts
    sides = torch.rand(7, generator=draw)
    drawn = augmentation(images.clone(), torch.Generator().manual_seed(0))
    numbers = torch.cat([shifts / 5 + 0.1, sides.unsqueeze(0)]).double()
    assert torch.equal(augmentation.change(images.clone(), numbers), drawn)
    extremes = torch.tensor([[0.0, 1 - 2**-32]] * 3, dtype=torch.float64)
    first, last = augmentation.change(images[:2].clone(), extremes)
    assert torch.equal(first[:, 2:, :3], images[0, :, :2, :3].flip(-1))
    assert torch.equal(last[:, :2, :3], images[1, :, 2:, 2:])
    sides = torch.tensor([[0.0, 0.0]] * 2 + [[0.5, 0.5 - 2**-32]], dtype=torch.float64)
    same, mirrored = Augmentation(flip=True).change(images[:2].clone(), sides)
    assert torch.equal(same, images[0])
    assert torch.equal(mirrored, images[1].flip(-1))


def test_unknown_dataset_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="unknown dataset 'x', expected one of: cifar10, cifar100, digits"):
        datasets.load("x", Path())
