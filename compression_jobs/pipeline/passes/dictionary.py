"""Large layers as sparse sums of atoms: W = D S with few non-zero entries in each column of S.

Orthogonal matching pursuit (Pati et al. 1993) finds S, the method of optimal directions (Engan et al. 1999)
improves D. A layer becomes two: S, sparse, then D; an embedding becomes a sparse table, then D. It saves bytes after
coding, not computation.
"""

import numpy as np
import torch

from compression_jobs.pipeline.graph.batch_norm import fold_batch_norm
from compression_jobs.pipeline.graph.graph import Array
from compression_jobs.pipeline.graph.net import Conv, Dense, Embedding, Layer, Net
from compression_jobs.pipeline.passes.factorize import replace_by_product
from compression_jobs.pipeline.passes.keepers import zeros_kept
from compression_jobs.pipeline.passes.kinds import Material
from compression_jobs.pipeline.passes.training import Trainer
from compression_jobs.pipeline.passes.training_options import DictionaryOptions

ROUNDS = 5


def dictionary(net: Net, options: DictionaryOptions, material: Material) -> Net:
    """The net with its large layers as sparse sums of atoms, retrained with the zeros kept."""
    fold_batch_norm(net)
    chance = np.random.default_rng(material.seed)
    for layer in net.layers():
        if _is_large(layer, options):
            matrix = layer.matrix.numpy().astype(np.float64)
            atoms = max(round(layer.width * options.atoms), 1)
            left, right = learn(matrix, atoms, min(options.nonzeros, atoms), chance)
            replace_by_product(net, layer, torch.from_numpy(left).float(), torch.from_numpy(right).float())
    trainer = Trainer(material, options)
    if options.steps:
        trainer.prepare(net)
        trainer.train(net, options.steps, (zeros_kept(net),))
    return net


def _is_large(layer: Layer, options: DictionaryOptions) -> bool:
    whole = isinstance(layer, (Dense, Embedding)) or (isinstance(layer, Conv) and layer.groups == 1)
    return whole and layer.weight.numel() >= options.smallest


def learn(matrix: Array, atoms: int, nonzeros: int, chance: np.random.Generator) -> tuple[Array, Array]:
    """`(D, S)` with unit atoms and at most `nonzeros` entries in each column of S."""
    chosen = chance.choice(matrix.shape[1], atoms, replace=matrix.shape[1] < atoms)
    # A little noise, because two equal columns would make two equal atoms.
    basis = _unit(matrix[:, chosen] + 1e-6 * chance.standard_normal((len(matrix), atoms)))
    codes = pursue(basis, matrix, nonzeros)
    for _ in range(ROUNDS):
        better = np.linalg.lstsq(codes.T, matrix.T, rcond=None)[0].T
        unused = ~codes.any(axis=1)
        better[:, unused] = basis[:, unused]
        basis = _unit(better)
        codes = pursue(basis, matrix, nonzeros)
    return basis, codes


def _unit(columns: Array) -> Array:
    return np.asarray(columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-12))


def pursue(basis: Array, matrix: Array, nonzeros: int) -> Array:
    """Orthogonal matching pursuit of all columns at once."""
    count = matrix.shape[1]
    codes = np.zeros((basis.shape[1], count))
    taken = np.zeros((count, 0), dtype=np.int64)
    rest = matrix
    for _ in range(nonzeros):
        strength = np.abs(basis.T @ rest)
        np.put_along_axis(strength.T, taken, -1.0, axis=1)  # an atom is taken once
        taken = np.concatenate([taken, strength.argmax(axis=0)[:, None]], axis=1)
        chosen = basis.T[taken]  # (column, atom, row)
        gram = chosen @ chosen.transpose(0, 2, 1) + 1e-10 * np.eye(taken.shape[1])
        found = np.linalg.solve(gram, (chosen @ matrix.T[:, :, None]))[:, :, 0]
        codes[:] = 0
        np.put_along_axis(codes.T, taken, found, axis=1)
        rest = matrix - basis @ codes
    return codes
