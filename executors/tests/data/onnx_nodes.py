"""Writes onnx_nodes.bin beside this file: the f32 node tests of the PyPI package `onnx` (Apache-2.0) for the operators that GPU kernels serve.

    python executors/tests/data/onnx_nodes.py      (with onnx 1.23.2 and numpy)

A case with several inputs is written twice: as it is, and `frozen`, with all inputs but the first as constants, as trained networks have them.
Format, little-endian: for each case name, model, inputs, outputs; bytes and lists begin with a u32 length; a tensor is type (ONNX code), shape, data.
"""
import pathlib, struct
import numpy, onnx
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases

OPS = set("""Conv ConvTranspose MatMul Gemm MaxPool AveragePool GlobalAveragePool GlobalMaxPool ReduceMean ReduceSum ReduceMax ReduceMin Add Sub Mul
Div Pow Sqrt Max Min Clip Relu HardSwish HardSigmoid Sigmoid Tanh Erf Gelu Softmax LogSoftmax LayerNormalization Concat Slice Split Gather Resize
Reshape Transpose Flatten Squeeze Unsqueeze Pad Cast BatchNormalization Exp Log Neg Abs Floor Reciprocal Elu LeakyRelu Softplus PRelu Identity
Expand Dropout LRN""".split())
LARGEST = 40_000
TYPES = {numpy.dtype(n): c for n, c in
         [("float32", 1), ("uint8", 2), ("int8", 3), ("int32", 6), ("int64", 7), ("bool", 9), ("float64", 11)]}

def blob(b):
    return struct.pack("<I", len(b)) + b

def tensor(a):
    # tobytes is row-major whatever the strides are; ascontiguousarray would give a scalar an axis.
    return struct.pack("<II", TYPES[a.dtype], a.ndim) + b"".join(struct.pack("<I", d) for d in a.shape) + blob(a.tobytes())

def tensors(all):
    return struct.pack("<I", len(all)) + b"".join(tensor(a) for a in all)

written, skipped, out = 0, 0, []
for case in sorted(collect_testcases(None), key=lambda c: c.name):
    model = case.model
    if model is None or not {n.op_type for n in model.graph.node} <= OPS or len(model.graph.node) != 1:
        continue
    inputs, outputs = case.data_sets[0]
    known = all(isinstance(a, numpy.ndarray) and a.dtype in TYPES for a in [*inputs, *outputs])
    if not known or not outputs or outputs[0].dtype != numpy.float32 or inputs[0].dtype != numpy.float32:
        skipped += 1
        continue
    size = sum(a.nbytes for a in [*inputs, *outputs])
    if size > LARGEST:
        skipped += 1
        continue
    versions = [("", model, inputs)]
    if len(inputs) > 1:
        frozen = onnx.ModelProto()
        frozen.CopyFrom(model)
        names = [i.name for i in model.graph.input]
        if len(names) == len(inputs):
            del frozen.graph.input[1:]
            for name, value in list(zip(names, inputs))[1:]:
                frozen.graph.initializer.append(numpy_helper.from_array(value, name))
            versions.append((" frozen", frozen, inputs[:1]))
    for suffix, model, given in versions:
        out.append(blob((case.name + suffix).encode()) + blob(model.SerializeToString()) + tensors(given) + tensors(outputs))
        written += 1
path = pathlib.Path(__file__).with_name("onnx_nodes.bin")
path.write_bytes(struct.pack("<I", written) + b"".join(out))
print(f"{written} cases, {skipped} left out (other types or too large), {path.stat().st_size} bytes")
