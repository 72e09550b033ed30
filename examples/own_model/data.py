"""The rows: train.npz and holdout.npz with x [rows, ...], y [rows], and an id for every row."""

import numpy as np
from sklearn.datasets import load_digits

digits = load_digits()
x, y = digits.images[..., None].astype("float32"), digits.target
ids = np.array([f"scan-{number:04d}" for number in range(len(y))])
order = np.random.default_rng(0).permutation(len(y))
for name, rows in (("train", order[:600]), ("holdout", order[600:])):
    np.savez(f"{name}.npz", x=x[rows], y=y[rows], ids=ids[rows])
