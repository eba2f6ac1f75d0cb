"""The weights that several engines share: tensors of the bundle's weight file, each copied to the device once."""

import mmap
import struct
from typing import Any

import msgspec
import numpy as np

from ...bundle import WEIGHTS, Bundle
from ...spec import DType
from .arena import DeviceBuffer
from .device import CudaDevice

_DTYPES: dict[str, DType] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "I8": "int8"}
_LENGTH = struct.Struct("<Q")


class SharedWeights:
    """Copies tensors to the device when they are first wanted. The file is mapped: the host holds no copy of it."""

    def __init__(self, bundle: Bundle, device: CudaDevice) -> None:
        self._file, self._device = bundle.file(WEIGHTS), device
        self._loaded: dict[str, DeviceBuffer] = {}

    def load(self, name: str) -> DeviceBuffer:
        """Return a tensor on the device."""
        if name not in self._loaded:
            with self._file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                self._loaded[name] = self._copied(name, mapped)
        return self._loaded[name]

    def _copied(self, name: str, mapped: mmap.mmap) -> DeviceBuffer:
        (length,) = _LENGTH.unpack_from(mapped)
        entry: dict[str, Any] = msgspec.json.decode(mapped[_LENGTH.size : _LENGTH.size + length])[name]
        start, stop = entry["data_offsets"]
        address = self._device.allocate(stop - start, "the weights")
        values = np.frombuffer(mapped, np.uint8, stop - start, _LENGTH.size + length + start)
        try:
            self._device.copy_in(values, address)
            self._device.wait()
        finally:
            del values  # it holds the mapping open
        return DeviceBuffer(address, tuple(entry["shape"]), _DTYPES[entry["dtype"]])
