"""Makes the odd little models of this folder's `odd/`: each has one thing that a loader trips over. Needs onnx 1.19 only; int8 also
needs onnxruntime 1.31 and residual.onnx, mobile.onnx beside it (from export.py).
    python3 odd.py
"""

import os

import numpy as np
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as n

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "odd")
f32 = lambda name, *shape: h.make_tensor_value_info(name, T.FLOAT, shape)
const = lambda name, value: n.from_array(np.asarray(value), name)


def save(name, nodes, inputs, outputs, weights=(), opset=17, ir=8, domains=(), functions=()):
    graph = h.make_graph(nodes, name, inputs, outputs, list(weights))
    sets = [h.make_opsetid("", opset)] + [h.make_opsetid(d, 1) for d in domains]
    model = h.make_model(graph, opset_imports=sets, functions=list(functions))
    model.ir_version = ir
    with open(os.path.join(OUT, f"{name}.onnx"), "wb") as f:
        f.write(model.SerializeToString())


def branch(name, op):
    return h.make_graph([h.make_node(op, ["x"], [f"{name}_y"])], name, [], [f32(f"{name}_y", 1, 4)])


def main():
    os.makedirs(OUT, exist_ok=True)
    x, y = f32("x", 1, 4), f32("y", 1, 4)
    node = h.make_node
    w = const("w", np.arange(4, dtype=np.float32))
    # Control flow on an input must be refused; on a constant it is folded away.
    flag = h.make_tensor_value_info("flag", T.BOOL, [])
    choose = node("If", ["flag"], ["y"], name="choose", then_branch=branch("a", "Relu"), else_branch=branch("b", "Abs"))
    save("if_input", [choose], [x, flag], [y])
    save("if_constant", [choose], [x], [y], [const("flag", True)])
    # A shape that depends on the data.
    save("nonzero", [node("NonZero", ["x"], ["i"], name="where"), node("Cast", ["i"], ["y"], to=T.FLOAT)], [x], [h.make_tensor_value_info("y", T.FLOAT, None)])
    # Types that are not carried.
    text = h.make_tensor_value_info("x", T.STRING, [1, 4])
    save("strings", [node("Identity", ["x"], ["y"])], [text], [h.make_tensor_value_info("y", T.STRING, [1, 4])])
    save("sequence", [node("SequenceConstruct", ["x", "x"], ["s"]), node("SequenceAt", ["s", "i"], ["y"])], [x, h.make_tensor_value_info("i", T.INT64, [])], [y])
    # An operator of a domain that nobody has registered.
    save("foreign", [node("Relu", ["x"], ["a"]), node("Fancy", ["a"], ["y"], name="fancy_one", domain="com.example")], [x], [y], domains=["com.example"])
    # Outputs that are an input, a constant, and twice the same value; an unused input.
    z = f32("z", 1, 4)
    save("passthrough", [node("Relu", ["x"], ["y"]), node("Identity", ["x"], ["same"]), node("Identity", ["w4"], ["c"])], [x, z], [y, f32("same", 1, 4), f32("c", 1, 4)], [const("w4", np.ones((1, 4), np.float32))])
    # Constants behind nodes, shared through Identity; weights listed among the inputs (format 3); no node names.
    nodes = [node("Identity", ["w"], ["w2"]), node("Add", ["x", "w2"], ["a"]), node("Exp", ["w2"], ["e"]), node("Mul", ["a", "e"], ["b"]), node("Add", ["b", "w"], ["y"])]
    save("shared", nodes, [x, f32("w", 4)], [y], [w], ir=3, opset=9)
    # A function of the model's own.
    f = h.make_function("my.own", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], [h.make_opsetid("", 17)])
    save("function", [node("Twice", ["x"], ["t"], domain="my.own"), node("Relu", ["t"], ["y"])], [x], [y], domains=["my.own"], functions=[f])
    # A shape that does not fit.
    save("misfit", [node("Add", ["x", "v"], ["y"], name="sum")], [x], [y], [const("v", np.ones(3, np.float32))])
    # Other element types between the ends.
    nodes = [node("Greater", ["x", "w"], ["g"]), node("Where", ["g", "x", "w"], ["a"]), node("ArgMax", ["a"], ["k"], axis=1), node("Cast", ["a"], ["h"], to=T.FLOAT16), node("Cast", ["h"], ["d"], to=T.DOUBLE), node("Not", ["g"], ["ng"])]
    outs = [h.make_tensor_value_info(o, t, s) for o, t, s in (("k", T.INT64, [1, 1]), ("h", T.FLOAT16, [1, 4]), ("d", T.DOUBLE, [1, 4]), ("ng", T.BOOL, [1, 4]))]
    save("types", nodes, [x], outs, [w])
    quantised()


def quantised():
    """Two fixtures in int8: quantise/dequantise pairs, and integer operators."""
    import onnxruntime.quantization as q

    class Reader(q.CalibrationDataReader):
        def __init__(self):
            self.data = iter([{"image": np.random.default_rng(i).standard_normal((1, 3, 32, 32)).astype(np.float32)} for i in range(4)])

        def get_next(self):
            return next(self.data, None)

    for name, form in (("mobile", q.QuantFormat.QDQ), ("residual", q.QuantFormat.QOperator)):
        source, target = os.path.join(HERE, f"{name}.onnx"), os.path.join(OUT, f"{name}_{form.name.lower()}.onnx")
        q.quantize_static(source, target, Reader(), quant_format=form, activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8, per_channel=True)


main()
