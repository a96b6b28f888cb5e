"""Writes onnx_light.bin beside this file: the light real-model graphs of the PyPI package `onnx` (Apache-2.0), whose weights are all alike
and made by the graph itself, with the outputs that the package states for inputs that count up from 0 to 1.

    python executors/tests/data/onnx_light.py      (with onnx 1.23.2)

Format, little-endian: for each graph name, model, outputs as floats; bytes and lists begin with a u32 length.
"""
import pathlib, struct
import onnx
from onnx import numpy_helper

def blob(b):
    return struct.pack("<I", len(b)) + b

folder = pathlib.Path(onnx.__file__).parent / "backend/test/data/light"
out = []
for path in sorted(folder.glob("light_*.onnx")):
    stated = onnx.TensorProto.FromString(path.with_name(path.stem + "_output_0.pb").read_bytes())
    # Shapes of the constants are inputs with a value, as old files have it: from now on they are values only.
    model = onnx.load(path)
    known = {i.name for i in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in known]
    assert len(inputs) == 1 and len(model.graph.output) == 1, path
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)
    floats = numpy_helper.to_array(stated).astype("<f4").tobytes()
    out.append(blob(path.stem.encode()) + blob(model.SerializeToString()) + blob(floats))
target = pathlib.Path(__file__).with_name("onnx_light.bin")
target.write_bytes(struct.pack("<I", len(out)) + b"".join(out))
print(f"{len(out)} graphs, {target.stat().st_size} bytes")
