"""Compiled inner loop of `propagation.finer`, which loads it when it refines labels on a CPU."""

from typing import no_type_check

import numpy as np

from propagate.propagation.cpu.selection import insert
from propagate.propagation.cpu.vectors import compiled


@compiled
@no_type_check
def refine(query, keys, labels, found, first, k, temperature, keep, out):
    """Write labels of the children of `len(out)` cells from `first` on. See `propagation.finer.refine_labels`.

    Query, keys, labels and out are float32: (cells, f^2, c), (n * cells, f^2, c), (n * cells, f^2, l) and (some cells,
    f^2, l). `found`, (cells, m) int64, has rows of `keys`; -1: none. With `keep`, every child that equals the k-th
    counts, too.
    """
    children, channels = query.shape[1], query.shape[2]
    scores = np.empty((children, found.shape[1] * children), np.float32)
    rows = np.empty(found.shape[1] * children, np.int64)
    best, place = np.empty(k, np.float32), np.empty(k, np.int64)
    for cell in range(len(out)):
        count = 0
        for row in found[first + cell]:
            if row < 0:
                continue
            for child in range(children):
                key = keys[row, child]
                for asking in range(children):
                    vector = query[first + cell, asking]
                    total = np.float32(0)
                    for c in range(channels):
                        total += vector[c] * key[c]
                    scores[asking, count] = total
                rows[count] = row * children + child
                count += 1
        for asking in range(children):
            best[:], place[:] = -np.inf, -1
            for i in range(count):
                if scores[asking, i] > best[k - 1]:
                    insert(best, place, scores[asking, i], i)
            target = out[cell, asking]
            target[:] = 0
            least, total = best[min(k, count) - 1], np.float32(0)
            for i in range(count if keep else min(k, count)):
                at = i if keep else place[i]
                if scores[asking, at] >= least:
                    weight = np.exp((scores[asking, at] - best[0]) / np.float32(temperature))
                    total += weight
                    label = labels[rows[at] // children, rows[at] % children]
                    for channel in range(len(target)):
                        target[channel] += weight * label[channel]
            for channel in range(len(target) if count else 0):
                target[channel] /= total
