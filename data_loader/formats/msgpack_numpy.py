"""Reading MessagePack files with arrays in them, as msgpack-numpy writes them.

An array is a map {"nd": true, "type": "<f4", "kind": "", "shape": [2, 3], "data": bytes}, a scalar
of numpy the same with "nd" false and no shape. msgpack-numpy unpickles arrays of objects; those are
refused here.
"""

import mmap
from pathlib import Path
from typing import Any

import msgpack

from data_loader.formats.pickles import checked_array, checked_key, plain_type, text_of
from utils.errors import BadContent, Truncated, short


def read_msgpack(path: Path) -> Any:
    """Return the plain value of a file.

    Raises:
        BadContent: it is broken, or holds anything but plain data and arrays.
    """
    with path.open("rb") as handle:
        if not path.stat().st_size:
            raise Truncated("it is empty")
        data = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return _text(
            msgpack.unpackb(
                data,
                raw=True,
                strict_map_key=False,
                object_pairs_hook=_map,
                list_hook=lambda items: list(map(_text, items)),
            )
        )
    except BadContent:
        raise
    except msgpack.ExtraData as error:
        raise BadContent(f"{len(error.extra)} bytes follow the value") from error
    except msgpack.UnpackException as error:
        raise BadContent(f"it is no MessagePack ({type(error).__name__})") from error
    except ValueError as error:  # which the library raises itself
        raise Truncated(f"it announces more than it has ({short(error, 120)})") from error


def _map(pairs: list[tuple[Any, Any]]) -> Any:
    result = {checked_key(_text(key)): value for key, value in pairs}
    if "nd" in result and "data" in result:
        return _array(result)
    for key, value in result.items():
        try:
            result[key] = _text(value)
        except BadContent as error:
            raise BadContent(f'at "{short(key)}" {error}') from error
    return result


def _text(value: Any) -> Any:
    if isinstance(value, msgpack.ExtType | msgpack.Timestamp):
        raise BadContent("it holds an extension type of MessagePack")
    return text_of(value) if isinstance(value, bytes) else value


def _array(entry: dict[Any, Any]) -> Any:
    code, data, kind = _text(entry.get("type")), entry["data"], entry.get("kind", b"")
    if type(code) is not str or kind not in (b"", "", None):
        raise BadContent("it holds an array of objects or structures")
    if not isinstance(data, bytes):
        raise BadContent("the values of an array are no bytes")
    shape = entry.get("shape", []) if entry["nd"] is True else []
    if type(shape) is not list:
        raise BadContent("an array has an unknown shape")
    values = checked_array(data, plain_type(code), tuple(shape), "C")
    return values if entry["nd"] is True else values[()].item()
