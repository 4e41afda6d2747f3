"""Writes checkpoints as the published code, strangers and enemies do, for tests."""

import argparse
import io
import logging
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from datetime import datetime
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class Weights:
    """In a crafted pickle: the storage `key` of float32 values."""

    def __init__(self, key: str = "0", length: int = 6, kind: Any = torch.FloatStorage) -> None:
        self.persistent_id = ("storage", kind, key, "cpu", length)


class Outside:
    """In a crafted pickle: any persistent id."""

    def __init__(self, persistent_id: Any) -> None:
        self.persistent_id = persistent_id


class Call:
    """In a crafted pickle: the call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return getattr(value, "persistent_id", None)


def pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()


class _FreeUnpickler(pickle.Unpickler):
    def persistent_load(self, persistent_id: Any) -> Any:
        return torch.ones(6).untyped_storage()


def load_freely(data: bytes) -> Any:
    """Do what must never be done with a stranger's pickle."""
    return _FreeUnpickler(io.BytesIO(data)).load()


def write_zip(
    path: Path, data: bytes, storages: dict[str, bytes] | None = None, compress: bool = False
) -> None:
    """Write the container of torch 1.6 and later around a pickle."""
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("model/data.pkl", data)
        archive.writestr("model/version", "3\n")
        for key, raw in (storages or {}).items():
            archive.writestr(f"model/data/{key}", raw)


def write_legacy(path: Path, data: bytes, storages: dict[str, bytes] | None = None) -> None:
    """Write the container of torch before 1.6 around a pickle; the storages are of float32."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    parts = [pickle.dumps(item, protocol=2) for item in (LEGACY_MAGIC, 1001, system)]
    storages = storages or {}
    parts += [data, pickle.dumps(list(storages), protocol=2)]
    for raw in storages.values():
        parts += [struct.pack("<q", len(raw) // 4), raw]
    path.write_bytes(b"".join(parts))


CONTAINERS = {"zip": write_zip, "legacy": write_legacy}


def crafted(weights: Any, **others: Any) -> bytes:
    """Pickle a checkpoint whose weights are anything."""
    content = {"arch": "CENet", "epoch": 1, "config": {}, "state_dict": {"w": weights}}
    return pickled(content | others)


def tensor(size: Any, stride: Any, offset: Any = 0, storage: Any = None) -> Call:
    """In a crafted pickle: a tensor of these sizes over 6 values."""
    rebuild = torch._utils._rebuild_tensor_v2
    return Call(rebuild, storage or Weights(), offset, size, stride, False, OrderedDict())


def save_published(
    monkeypatch: pytest.MonkeyPatch, path: Path, content: dict, zipped: bool = True, **state: Any
) -> None:
    """Write a checkpoint as the published code does; its class is gone afterwards.

    `state` is what its config parser holds: `_config`, `_exper_name` and anything else.
    """
    module = ModuleType("parse_config")
    parser_class = type("ConfigParser", (), {"__module__": "parse_config"})
    module.ConfigParser = parser_class
    parser = parser_class()
    parser.__dict__ |= {
        "resume": None,
        "cfg_fname": PurePosixPath("/home/me/configs/msrvtt/train-full-ce.json"),
        "_save_dir": Path("data/saved/models"),
        "_args": argparse.Namespace(config="configs/a.json", seeds="0", device=None),
        "log_levels": OrderedDict({0: logging.WARNING, 1: logging.INFO}),
        "_logger": logging.getLogger("published"),
        "_started": datetime(2020, 1, 2, 3, 4, 5),
        "_best": np.float64(29.5),
    } | state
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "parse_config", module)
        torch.save(content | {"config": parser}, path, _use_new_zipfile_serialization=zipped)
