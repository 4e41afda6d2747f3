"""The entries of a data set's description: experts, text features, lists of videos, splits."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ExpertEntry:
    """Where an expert's features lie.

    Attributes:
        files: known names of the file, relative to the data set's folders; the first is the usual.
        size: length of a feature vector, None if the config or the file decides.
        variable_length: whether a video has a varying number of vectors (tokens).
    """

    files: tuple[str, ...]
    size: int | None = None
    variable_length: bool = False


@dataclass(frozen=True)
class TextEntry:
    """Where text features lie: a file of them, or word vectors to look the captions up in.

    Attributes:
        files: known names of the file, relative to the data set's folders; the first is the usual.
        size: length of a word's vector, None if the file decides.
        is_word_vectors: whether captions are looked up in it.
        parts: files that hold the same together, where it is not one file.
        parts_key_mapping: file of video id -> the id under which `parts` know the video.
    """

    files: tuple[str, ...]
    size: int | None = None
    is_word_vectors: bool = False
    parts: tuple[str, ...] = ()
    parts_key_mapping: str | None = None


@dataclass(frozen=True)
class ListEntry:
    """A list of video ids: a text file, or the list under a key of a JSON file."""

    file: str
    key: str | None = None


@dataclass(frozen=True)
class Counts:
    """How large a retrieval set is.

    Attributes:
        videos: that are searched.
        queries: that exist.
    """

    videos: int
    queries: int

    def __str__(self) -> str:
        return f"{self.videos} videos and {self.queries} queries"


@dataclass(frozen=True)
class SplitEntry:
    """The two lists of a split, and what this split replaces.

    Attributes:
        train: the training videos.
        val: the retrieval set.
        experts: experts whose files differ in this split.
        test_caption_index: file of the one caption by which each video is searched.
        challenge_test: whether the retrieval set, with its captions, is that of a challenge's test
            phase, which was published later in a folder of its own.
        expected: the size of the retrieval set, where it is published; a query is any caption.
    """

    train: ListEntry
    val: ListEntry
    experts: dict[str, ExpertEntry] = field(default_factory=dict)
    test_caption_index: str | None = None
    challenge_test: bool = False
    expected: Counts | None = None
