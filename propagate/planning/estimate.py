"""Estimate the memory of a run, in bytes:

- *program*: on a CPU, the resident memory of this process when the plan is made (`planning.resident`), less the
  weights, which count separately, plus 112 MiB for what comes later: decoder buffers, libraries loaded at the first
  frame, and fragmentation. 700 MiB where the system does not report it. On a GPU, the driver's context and its
  libraries' workspaces: 500 MiB, assumed.
- *frames*: on a CPU, the decoded video, the label at its size and the overlay's encoder, which looks 40 frames ahead:
  160 bytes per pixel (measured at 1080p and 2160p with 30 frames: 149), and 3 more per frame of a batch and per
  frame read ahead (`BATCHES_AHEAD` and so on); for batches read ahead, 12 per pixel as resized.
- *weights*: of the network, if a frame's pass uses them.
- *activations*: tensors that the network creates, by a dry run of the extractor (`planning.dry_run`). Times 1.7 on a
  CPU: convolutions also keep rearranged copies, and the peaks measured at 480x832 were 1.2 to 1.9 times the dry run.
- *bank*: the memory bank, by its formula: (anchors + n_last + n_older) * h * w * (C * feature_bytes + L * 4); with
  `propagation.finer` C channels without labels, and f^2 times the finer channels and labels.
- *transfer*: the scores and the gathered keys of one tile, the window's masks, and copies of labels and features.

Activations and transfer take turns, so only the larger one counts. Loading the weights is not counted.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from propagate.propagation.torch.transfer import tile_keys, tile_size
from propagate.propagation.window import Window
from propagate.settings import PropagationSettings

BATCHES_AHEAD, LABELS_AHEAD, PREDICTIONS_AHEAD = 1, 2, 1  # how far each stage's thread may run ahead of the next stage
MIB = 2**20
BYTES_PER_PIXEL, _BYTES_PER_WAITING_PIXEL, _BYTES_PER_RESIZED_PIXEL = 160, 3, 12
_BYTES = {"auto": 4, "float32": 4, "float16": 2, "bfloat16": 2}  # auto: the upper bound; half on a GPU


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes per part, see the module's docstring."""

    program: int
    frames: int
    weights: int
    activations: int
    bank: int
    transfer: int

    @property
    def total(self) -> int:
        """The peak of a run."""
        return self.program + self.frames + self.weights + self.bank + max(self.activations, self.transfer)

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {mib(size)}" for name, size in asdict(self).items())
        return f"{mib(self.total)} ({parts.replace('bank', 'memory bank')})"


@dataclass(frozen=True)
class Load:
    """The sizes that determine a run's memory."""

    frame: tuple[int, int]  # (height, width) of the frames
    resized: tuple[int, int]  # (height, width) for the features
    batch: int  # frames read together
    grid: tuple[int, int]  # (rows, columns) of the features
    channels: int  # of a feature
    labels: int  # channels of a soft label: the background and each object or joint
    anchors: int  # annotated frames
    propagation: PropagationSettings
    factor: int = 1  # of the finer map, with `propagation.finer`
    finer_channels: int = 0

    @property
    def slots(self) -> int:
        """Capacity of the memory bank, in frames."""
        return self.anchors + self.propagation.n_last + self.propagation.n_older

    @property
    def frame_bytes(self) -> int:
        """Bytes of frames, labels and pictures at the video's size."""
        (height, width), (rows, columns) = self.frame, self.resized
        read, resized = (1 + BATCHES_AHEAD) * self.batch + LABELS_AHEAD + PREDICTIONS_AHEAD, BATCHES_AHEAD * self.batch
        pixels = height * width * (BYTES_PER_PIXEL + _BYTES_PER_WAITING_PIXEL * read)
        return pixels + rows * columns * _BYTES_PER_RESIZED_PIXEL * resized

    @property
    def bank_bytes(self) -> int:
        """Bytes of the memory bank."""
        children = self.factor**2
        vectors = (self.channels + children * self.finer_channels) * self._stored
        return self.slots * self._cells * (vectors + children * self.labels * 4)

    @property
    def rounded_bytes(self) -> int:
        """Upper bound for the keys that `propagate.propagation.cpu.keys` caches; none with `propagation.finer`."""
        return 0 if self.finer_channels else self.slots * self._cells * (self.channels + 12)

    @property
    def _stored(self) -> int:
        return _BYTES[self.propagation.memory_dtype]

    @property
    def _cells(self) -> int:
        return self.grid[0] * self.grid[1]

    def transfer_bytes(self, tile_scores: int) -> int:
        """Bytes of one transfer step, at its largest tile."""
        stored, cells = self._stored, self._cells
        free, tiles = self._search(tile_scores)
        copied = free > 0 or self.anchors > 1  # free frames, and the bank until all anchors have come
        copies = self.slots * cells * copied * self.channels * stored
        if not self.finer_channels:
            return tiles + self.slots * cells * self.labels * 4 + copies
        labels, found = self.factor**2 * self.labels * 4, self.propagation.finer_from * 8
        of_frame = self.factor**2 * self.finer_channels * 4 * 3  # as unpacked, normalized and by cell
        bank = self.slots * cells * (labels + (self.anchors > 1) * self.factor**2 * self.finer_channels * stored)
        return cells * (of_frame + found) + max(tiles + copies, self._refinement(tile_scores) + bank + cells * labels)

    def _refinement(self, tile_scores: int) -> int:
        """Bytes of the finer cells of the keys found, for one tile of queries."""
        options, children, stored = self.propagation, self.factor**2, self._stored
        values = options.finer_from * children * self.finer_channels
        queries = min(max(1, tile_scores // values), self._cells)
        as_float = 4 if stored != 4 else 0
        # scores; the selected ones with their indices; weights; and the previous tile's keys
        weighing = children * options.finer_from * children * 4 * 3 + children * options.top_k * 12
        return queries * (values * (2 * stored + as_float) + weighing + options.finer_from * children * self.labels * 4)

    def _search(self, tile_scores: int) -> tuple[int, int]:
        """Number of frames searched without a window, and the bytes of the largest tile."""
        options, stored, cells, slots = self.propagation, self._stored, self._cells, self.slots
        window = None if options.window == "none" else Window(options.window, options.radius)
        free = slots if window is None else self.anchors if options.exempt_anchors else 0
        bound = slots - free
        tile = tile_size(self.grid, bound, free, window, tile_scores)
        queries, keys = tile[0] * tile[1], tile_keys(self.grid, tile, bound, free, window)
        scores = queries * keys * 4
        near = (keys - free * cells) * self.channels * stored
        joined = keys * self.channels * stored if near and free else 0
        as_float = keys * self.channels * 4 if stored != 4 else 0
        # "keep" weighs all keys: scores, masked scores, their quotient by the temperature, softmax
        weighing = scores * (4 if options.ties == "keep" else 2)
        # the previous tile's keys and scores live until this one's replace them
        tiles = near + max((joined or near) + scores, joined + as_float + weighing)
        if window is not None and bound:
            # masks of the window cached from tile to tile: tiles near the border have their own
            rows, columns = (
                min(-(-length // side), 2 * -(-window.reach // side) + 2)
                for length, side in zip(self.grid, tile, strict=True)
            )
            tiles += min(rows * columns, 64) * queries * (keys - free * cells) // bound * 4
        return free, tiles


def mib(size: int) -> str:
    """Format a size in MiB."""
    return f"{size / MIB:.0f} MiB"
