"""The embeddings of an index in Milvus; `misc.search.milvus` is its command.

Each pattern of experts is a collection, of the embeddings of its experts beside one another and of
what is taken off for hubness: a score is an inner product, as a pattern has one divisor.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from logger.progress import progress
from misc.search.index.folder import Index
from misc.search.index.parts import Group
from misc.search.ranking import Found, Question, question_vector, ranked
from utils.errors import UserError, short

# What Milvus takes at most in one message, and gives at most in one answer.
_BYTES_AT_ONCE, _MOST_AT_ONCE = 16 << 20, 16_384
_LEAST_SIZE = 2
# So many more are asked for, as Milvus rounds otherwise; they are compared again.
_TO_SPARE = 16
_ROW, _VECTOR = "row", "vector"


class MilvusIndex:
    """The collections of an index in Milvus.

    Args:
        index: whose videos they are.
        uri: address of Milvus, or a file ending in ".db".
        token: "user:password", or a key, where the server asks for one.

    Raises:
        UserError: pymilvus is not installed, or there is no Milvus.
    """

    def __init__(self, index: Index, uri: str, token: str = "") -> None:
        self._index, self._uri = index, uri
        self._client = _connect(uri, token)

    def __enter__(self) -> "MilvusIndex":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def write(self) -> int:
        """Write what is not there yet; returns how many videos were written.

        A collection is complete once it has as many videos as its pattern: one that a killed
        process left is made again.
        """
        written = 0
        groups = list(self._collections())
        with progress(None, total=sum(len(g) for _, g in groups), description="writing") as bar:
            for name, group in groups:
                if not self._is_complete(name, group):
                    self._write(name, group, bar)
                    written += len(group)
                else:
                    bar.update(len(group))
        return written

    def remove(self) -> None:
        """Remove the collections of this index."""
        for name, _ in self._collections():
            self._client.drop_collection(name)

    def best(self, question: Question, k: int) -> Found:
        """Find the k best rows, as `ranking.best` does.

        Raises:
            UserError: the index has not been written to this Milvus, or k is too large.
        """
        if k > _MOST_AT_ONCE:
            raise UserError(f"Milvus gives at most {_MOST_AT_ONCE} videos, not {k}.")
        rows: list[int] = []
        left_out = _left_out(self._index, question)
        for name, group in self._collections():
            if not self._is_complete(name, group):
                raise UserError(
                    f"The index {self._index.folder} is not in {self._uri}: write it there with "
                    f"`python3 -m misc.search.milvus {self._index.folder} --uri {self._uri}`."
                )
            rows += self._best_of(name, group, question, k, left_out)
        return ranked(self._index, question, torch.tensor(rows, dtype=torch.long), k)

    def _best_of(
        self, name: str, group: Group, question: Question, k: int, left_out: torch.Tensor
    ) -> list[int]:
        vector = question_vector(question, group, self._index.manifest.shape)
        query = np.zeros(_size(group), dtype=np.float32)
        query[: len(vector)] = vector.numpy()
        query[len(vector)] = -1.0 if question.is_corrected else 0.0
        here = left_out[group.first : group.first + len(group)]
        gone = int(here.sum())
        if gone == len(group):
            return []
        wanted = {}
        if gone:
            # Whichever list is shorter: rows that are left out, or those that are not.
            is_few = 2 * gone <= len(group)
            listed = (here if is_few else ~here).nonzero()[:, 0] + group.first
            words = "not in" if is_few else "in"
            wanted = {"filter": f"{_ROW} {words} {listed.tolist()}"}
        [hits] = self._client.search(
            name,
            data=[query.tolist()],
            anns_field=_VECTOR,
            limit=min(k + _TO_SPARE, len(group) - gone, _MOST_AT_ONCE),
            search_params={"metric_type": "IP"},
            output_fields=[_ROW],
            consistency_level="Strong",
            **wanted,
        )
        return [int(hit[_ROW] if _ROW in hit else hit["entity"][_ROW]) for hit in hits]

    def _collections(self) -> Iterator[tuple[str, Group]]:
        """Give each group with the name of its collection: no other index has that."""
        for part, name in zip(self._index.parts, self._index.manifest.parts, strict=True):
            for group in part.groups:
                bits = "".join("01"[is_there] for is_there in group.pattern)
                yield f"{name.replace('-', '_')}_from_{group.first}_{bits}", group

    def _is_complete(self, name: str, group: Group) -> bool:
        if not self._client.has_collection(name):
            return False
        return int(self._client.get_collection_stats(name)["row_count"]) == len(group)

    def _write(self, name: str, group: Group, bar: Any) -> None:
        from pymilvus import DataType

        if self._client.has_collection(name):
            self._client.drop_collection(name)
        size = _size(group)
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(_ROW, DataType.INT64, is_primary=True)
        schema.add_field(_VECTOR, DataType.FLOAT_VECTOR, dim=size)
        how = self._client.prepare_index_params()
        how.add_index(_VECTOR, index_type="FLAT", metric_type="IP")
        self._client.create_collection(name, schema=schema, index_params=how)
        offsets = self._index.offsets
        step = max(1, _BYTES_AT_ONCE // (8 * size))
        for start in range(0, len(group), step):
            values = group.whole[start : start + step]
            first = group.first + start
            block = torch.zeros(len(values), size)
            block[:, : values.shape[1]] = values
            block[:, values.shape[1]] = offsets[first : first + len(values)]
            self._client.insert(
                name,
                [{_ROW: first + at, _VECTOR: row} for at, row in enumerate(block.numpy())],
            )
            bar.update(len(values))
        self._client.flush(name)
        self._client.load_collection(name)


def _size(group: Group) -> int:
    return max(_LEAST_SIZE, group.whole.shape[1] + 1)


def _left_out(index: Index, question: Question) -> torch.Tensor:
    left_out = ~index.is_found
    return left_out if question.rows is None else left_out | ~question.rows


def _connect(uri: str, token: str) -> Any:
    try:
        from pymilvus import MilvusClient
        from pymilvus.exceptions import MilvusException
    except ImportError as error:
        raise UserError(
            "Searching by Milvus needs more packages: run "
            "`pip install -r requirements/milvus-requirements.txt`."
        ) from error
    try:
        return MilvusClient(uri, token=token)
    except (MilvusException, ValueError, OSError, ImportError) as error:
        raise UserError(
            f"There is no Milvus at {short(uri)} ({short(error, 120)}): an address such as "
            'http://localhost:19530 was expected, or a file ending in ".db".'
        ) from error
