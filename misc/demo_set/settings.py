"""What a demo set is made from, and where its files lie."""

from dataclasses import asdict, dataclass
from pathlib import Path

from misc.demo_set.plan import clip_id
from utils.errors import UserError

# To be raised whenever the same seed and sizes would give other files.
FORMAT_VERSION = 1
CLIPS_PER_CHUNK = 10
MOST_CLIPS = 1_000_000


@dataclass(frozen=True)
class Settings:
    """Seed and sizes. Clips are numbered through: training, then validation, then test."""

    seed: int = 0
    num_train: int = 1500
    num_val: int = 250
    num_test: int = 500
    train_videos: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that make no set.

        Raises:
            UserError: a negative seed, an empty split, or more clips than anybody waits for.
        """
        if self.seed < 0:
            raise UserError(f"The seed of the demo set must be 0 or more, not {self.seed}.")
        for name in ("num_train", "num_val", "num_test"):
            if getattr(self, name) < 1:
                value = getattr(self, name)
                raise UserError(f"{name} of the demo set must be at least 1, not {value}.")
        if self.num_clips > MOST_CLIPS:
            raise UserError(
                f"The demo set has {MOST_CLIPS:,} clips at most, not {self.num_clips:,}: choose "
                "smaller num_train, num_val and num_test."
            )

    @property
    def num_clips(self) -> int:
        """Number of clips of all splits."""
        return self.num_train + self.num_val + self.num_test

    @property
    def made_by(self) -> dict[str, int]:
        """What the descriptor records; a folder holds one value of it."""
        record = asdict(self)
        del record["train_videos"]
        return {**record, "version": FORMAT_VERSION}

    def splits(self) -> dict[str, range]:
        """Return the clip numbers of each list."""
        first_test = self.num_train + self.num_val
        return {
            "train": range(self.num_train),
            "val": range(self.num_train, first_test),
            "test": range(first_test, self.num_clips),
        }

    def has_video(self, number: int) -> bool:
        """Say whether a clip is kept as a video."""
        return self.train_videos or number >= self.num_train

    def chunks(self) -> list[range]:
        """Return the clip numbers of each piece of work."""
        starts = range(0, self.num_clips, CLIPS_PER_CHUNK)
        return [range(start, min(start + CLIPS_PER_CHUNK, self.num_clips)) for start in starts]


@dataclass(frozen=True)
class Places:
    """Where the files of a set lie in its folder."""

    folder: Path

    @property
    def descriptor(self) -> Path:
        """The file that makes the folder a finished data set."""
        return self.folder / "dataset.json"

    @property
    def work(self) -> Path:
        """Hidden folder of what is made so far."""
        return self.folder / ".work"

    @property
    def work_record(self) -> Path:
        """What the unfinished set is made from."""
        return self.work / "made_by.json"

    def chunk(self, place: int) -> Path:
        """Features of one piece of work."""
        return self.work / f"chunk-{place:05d}.npz"

    def video(self, number: int) -> Path:
        """Video of one clip."""
        return self.folder / "videos" / f"{clip_id(number)}.mp4"
