import numpy as np
import pytest
import torch

from experiments.common import datasets

CPU = torch.device("cpu")


def table(rows: int, test_mask: np.ndarray | None = None) -> datasets.Table:
    rng = np.random.default_rng(0)
    return datasets.Table(
        "made up", rng.normal(2.0, 3.0, (rows, 4)), rng.normal(5.0, 7.0, rows), "y", test_mask=test_mask
    )


def test_diamonds_are_clean():
    diamonds = datasets.load("diamonds")
    assert diamonds.features.shape == (len(diamonds.target), 9)
    assert 53_700 < len(diamonds.target) < 53_940  # of the 53,940 rows, those that repeat or cannot be are gone
    assert np.isfinite(diamonds.features).all()
    assert diamonds.features[:, 3:6].min() > 0
    assert np.exp(diamonds.target).min() == pytest.approx(326)
    assert np.exp(diamonds.target).max() == pytest.approx(18_823)


def test_split_is_disjoint_standardised_and_reproducible():
    source = table(500)
    first, second = (datasets.split(source, 450, 50, seed=3, dtype=torch.float64, device=CPU) for _ in range(2))
    assert torch.equal(first.train_x, second.train_x)
    assert first.train_x.shape == (450, 4)
    assert first.test_x.shape == (50, 4)
    torch.testing.assert_close(first.train_x.mean(dim=0), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(first.train_y.std(correction=0), torch.tensor(1.0, dtype=torch.float64))
    everything = torch.cat([first.train_y, first.test_y]) * first.target_std + first.target_mean
    np.testing.assert_allclose(np.sort(everything.numpy()), np.sort(source.target))


def test_another_seed_gives_another_split():
    first, second = (datasets.split(table(500), 450, 50, seed, torch.float64, CPU) for seed in (0, 1))
    assert not torch.equal(first.train_y, second.train_y)


def test_split_keeps_to_a_given_mask():
    mask = np.arange(300) % 3 == 0
    source = table(300, test_mask=mask)
    split = datasets.split(source, 300, 300, seed=0, dtype=torch.float64, device=CPU)
    assert len(split.test_y) == 100
    test = np.sort(split.test_y.numpy() * split.target_std + split.target_mean)
    np.testing.assert_allclose(test, np.sort(source.target[mask]))


def test_constant_feature_stays_finite():
    source = table(100)
    source.features[:, 0] = 4.0
    assert datasets.split(source, 50, 10, seed=0, dtype=torch.float32, device=CPU).train_x.isfinite().all()


def test_csv_takes_the_named_or_the_last_column(tmp_path):
    path = tmp_path / "small.csv"
    path.write_text("a,b,c\n1,2,3\n4,5,6\n")
    np.testing.assert_array_equal(datasets.read_csv(path).target, [3, 6])
    named = datasets.read_csv(path, "b")
    np.testing.assert_array_equal(named.target, [2, 5])
    np.testing.assert_array_equal(named.features, [[1, 3], [4, 6]])


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("a,b\n1,2\n", "c", "`--target` must be a column of bad.csv"),
        ("a,b\n1,red\n", None, "must hold numbers only"),
        ("a,b\n1,2\n3\n", None, "must hold numbers only"),
        ("a,b\n1,nan\n", None, "holds NaN or infinite"),
        ("a,b\n", None, "must hold a header and rows"),
    ],
)
def test_bad_csv_says_what_is_wrong(tmp_path, text, target, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        datasets.read_csv(path, target)


def test_npz_reads_the_first_split(tmp_path):
    mask = np.zeros((20, 10), dtype=bool)
    mask[:4, 0] = True
    np.savez(tmp_path / "tiny.npz", X=np.ones((20, 2), np.float32), y=np.ones(20, np.float32), test_mask=mask)
    read = datasets.load("tiny", data_dir=tmp_path)
    assert read.features.dtype == np.float64
    assert read.test_mask.sum() == 4


def test_unknown_dataset_says_what_to_do():
    with pytest.raises(ValueError, match="give its folder with `--data-dir`"):
        datasets.load("elevators")


def test_the_synthetic_table_is_the_same_every_time_and_takes_the_place_of_a_missing_package(monkeypatch):
    table = datasets.synthetic(50)
    assert table.features.shape == (50, 9)
    np.testing.assert_array_equal(table.features, datasets.synthetic(50).features)
    assert datasets.default_name() == "diamonds"
    monkeypatch.setattr(datasets.importlib.util, "find_spec", lambda name: None)
    assert datasets.default_name() == datasets.SYNTHETIC
    assert datasets.load(datasets.SYNTHETIC).name == datasets.SYNTHETIC
