"""How much memory a run takes.

What is counted, in bytes:

- *program*: on a CPU, what this process holds when the plan is made, as the system counts it (`planning.resident`),
  less the weights, which count by themselves, and 112 MiB for what comes later: buffers of the decoder, libraries that
  are loaded at the first frame, and pieces of memory too small to be used again. Where the system does not tell,
  700 MiB. On a GPU, the driver's context and its libraries' workspaces: 500 MiB, assumed.
- *frames*: on a CPU, the video that is read, the label at its size and the overlay's encoder, which looks 40 frames
  ahead: 160 bytes per pixel (measured at 1080p and 2160p with 30 frames: 149), and 3 more per frame of a batch and per
  frame that is ahead of another (`BATCHES_AHEAD` and the like); of the batches that are, 12 per pixel as resized.
- *weights*: of the network, as far as a frame's pass uses them.
- *activations*: what the network makes on the way, by a dry run of the extractor with tensors that have no content
  (`planning.dry_run`). On a CPU times 1.7: convolutions also keep rearranged copies, and the peaks measured at
  480x832 were 1.2 to 1.9 times what the dry run sees.
- *bank*: the memory bank, by its formula: (anchors + n_last + n_older) * h * w * (C * feature_bytes + L * 4); with
  `propagation.finer` that for C channels without labels, and for f^2 times as many finer channels and labels.
- *transfer*: the scores and the gathered keys of one tile, the window's masks, and copies of labels and features.

Activations and transfer take turns, so that only the larger one counts. Not counted: loading the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from propagate.propagation.torch.transfer import tile_keys, tile_size
from propagate.propagation.window import Window
from propagate.settings import PropagationSettings

# what stages in threads of their own may have done while what was before it is in work
BATCHES_AHEAD, LABELS_AHEAD, PREDICTIONS_AHEAD = 1, 2, 1


MIB = 2**20


BYTES_PER_PIXEL, _BYTES_PER_WAITING_PIXEL, _BYTES_PER_RESIZED_PIXEL = 160, 3, 12


_BYTES = {"auto": 4, "float32": 4, "float16": 2, "bfloat16": 2}  # auto: at most; on a GPU it is half of that


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes per part; what each of them is stands in the module's docstring."""

    program: int
    frames: int
    weights: int
    activations: int
    bank: int
    transfer: int

    @property
    def total(self) -> int:
        """The most that is taken at a time."""
        return self.program + self.frames + self.weights + self.bank + max(self.activations, self.transfer)

    def __str__(self) -> str:
        parts = {
            "program": self.program,
            "frames": self.frames,
            "weights": self.weights,
            "activations": self.activations,
            "memory bank": self.bank,
            "transfer": self.transfer,
        }
        return f"{mib(self.total)} ({', '.join(f'{name} {mib(size)}' for name, size in parts.items())})"


@dataclass(frozen=True)
class Load:
    """What a run has to hold.

    Attributes:
        frame: (height, width) of the frames, at their own size.
        resized: (height, width) at which they are looked at.
        batch: frames that are read together.
        grid: (rows, columns) of the features.
        channels: of a feature.
        labels: channels of a soft label: the background and each object or joint.
        anchors: annotated frames.
        propagation: the settings of the transfer step.
        factor, finer_channels: of the finer map, with `propagation.finer`.
    """

    frame: tuple[int, int]
    resized: tuple[int, int]
    batch: int
    grid: tuple[int, int]
    channels: int
    labels: int
    anchors: int
    propagation: PropagationSettings
    factor: int = 1
    finer_channels: int = 0

    @property
    def slots(self) -> int:
        """Frames that the memory has room for."""
        return self.anchors + self.propagation.n_last + self.propagation.n_older

    @property
    def frame_bytes(self) -> int:
        """Of frames, labels and pictures at the video's size."""
        (height, width), (rows, columns) = self.frame, self.resized
        read, resized = (1 + BATCHES_AHEAD) * self.batch + LABELS_AHEAD + PREDICTIONS_AHEAD, BATCHES_AHEAD * self.batch
        pixels = height * width * (BYTES_PER_PIXEL + _BYTES_PER_WAITING_PIXEL * read)
        return pixels + rows * columns * _BYTES_PER_RESIZED_PIXEL * resized

    @property
    def bank_bytes(self) -> int:
        """Of the memory bank."""
        rows, columns = self.grid
        stored, children = _BYTES[self.propagation.memory_dtype], self.factor**2
        vectors = (self.channels + children * self.finer_channels) * stored
        return self.slots * rows * columns * (vectors + children * self.labels * 4)

    @property
    def rounded_bytes(self) -> int:
        """Of the keys that `propagate.propagation.cpu.keys` keeps on a CPU, at most; the finer step has none."""
        rows, columns = self.grid
        return 0 if self.finer_channels else self.slots * rows * columns * (self.channels + 12)

    def transfer_bytes(self, tile_scores: int) -> int:
        """Of one transfer step, at its fullest tile."""
        stored, cells = _BYTES[self.propagation.memory_dtype], self.grid[0] * self.grid[1]
        free, tiles = self._search(tile_scores)
        copied = free > 0 or self.anchors > 1  # of the bank: free frames, and while not all anchors have come
        copies = self.slots * cells * copied * self.channels * stored
        if not self.finer_channels:
            return tiles + self.slots * cells * self.labels * 4 + copies
        labels, found = self.factor**2 * self.labels * 4, self.propagation.finer_from * 8
        of_frame = self.factor**2 * self.finer_channels * 4 * 3  # as taken apart, normalized and by cell
        bank = self.slots * cells * (labels + (self.anchors > 1) * self.factor**2 * self.finer_channels * stored)
        return cells * (of_frame + found) + max(tiles + copies, self._refinement(tile_scores) + bank + cells * labels)

    def _refinement(self, tile_scores: int) -> int:
        """Of the finer cells of the keys that were found, for one tile of queries."""
        options, children, stored = self.propagation, self.factor**2, _BYTES[self.propagation.memory_dtype]
        values = options.finer_from * children * self.finer_channels
        queries = min(max(1, tile_scores // values), self.grid[0] * self.grid[1])
        as_float = 4 if stored != 4 else 0
        # scores; those that are chosen with their places; weights; and the keys of the tile before
        weighing = children * options.finer_from * children * 4 * 3 + children * options.top_k * 12
        return queries * (values * (2 * stored + as_float) + weighing + options.finer_from * children * self.labels * 4)

    def _search(self, tile_scores: int) -> tuple[int, int]:
        """Frames that no window binds, and the bytes of the fullest tile."""
        options, stored = self.propagation, _BYTES[self.propagation.memory_dtype]
        cells, slots = self.grid[0] * self.grid[1], self.slots
        window = None if options.window == "none" else Window(options.window, options.radius)
        free = slots if window is None else self.anchors if options.exempt_anchors else 0
        bound = slots - free
        tile = tile_size(self.grid, bound, free, window, tile_scores)
        queries, keys = tile[0] * tile[1], tile_keys(self.grid, tile, bound, free, window)
        scores = queries * keys * 4
        near = (keys - free * cells) * self.channels * stored
        joined = keys * self.channels * stored if near and free else 0
        as_float = keys * self.channels * 4 if stored != 4 else 0
        # "keep" weighs all keys: scores, those that count, divided by the temperature, softmax
        weighing = scores * (4 if options.ties == "keep" else 2)
        # the last tile's keys and scores are held until this one's have taken their place
        tiles = near + max((joined or near) + scores, joined + as_float + weighing)
        if window is not None and bound:
            tiles += _window_masks(self.grid, tile, window.reach) * queries * (keys - free * cells) // bound * 4
        return free, tiles


def _window_masks(grid: tuple[int, int], tile: tuple[int, int], reach: int) -> int:
    """Masks of the window that are kept from tile to tile: near the border each tile's is another one."""
    kinds = [min(-(-length // side), 2 * -(-reach // side) + 2) for length, side in zip(grid, tile, strict=True)]
    return min(kinds[0] * kinds[1], 64)


def mib(size: int) -> str:
    """Return a size in words."""
    return f"{size / MIB:.0f} MiB"
