"""The part of bench-ncnn that talks: converts each network with pnnx once, runs it with ncnn, and answers line by line."""
import hashlib
import os
import shutil
import subprocess
import sys
import time

import ncnn
import numpy

WORK = sys.argv[1]
# Name, Vulkan, Winograd. On Vulkan Winograd is ncnn's default and its better way.
WAYS = [("ncnn cpu", False, False), ("ncnn cpu winograd", False, True), ("ncnn vulkan", True, True)]


def convert(model, onnx, shape):
    """Files of the converted network; kept by what is in the ONNX file."""
    with open(onnx, "rb") as file:
        key = hashlib.sha256(file.read()).hexdigest()[:12]
    # pnnx writes names with underscores.
    base = f"{model}_{key}".replace("-", "_")
    if not os.path.exists(f"{WORK}/{base}.ncnn.bin"):
        shutil.copy(onnx, f"{WORK}/{base}.onnx")
        command = [f"{WORK}/venv/bin/pnnx", f"{base}.onnx", f"inputshape=[{shape}]", "fp16=0"]
        ran = subprocess.run(command, cwd=WORK, capture_output=True, text=True)
        with open(f"{WORK}/{base}.log", "w") as log:
            log.write(ran.stdout + ran.stderr)
        if ran.returncode != 0 or not os.path.exists(f"{WORK}/{base}.ncnn.bin"):
            raise RuntimeError(f"pnnx does not convert it, see {WORK}/{base}.log")
    return f"{WORK}/{base}.ncnn"


def load(files, vulkan, winograd):
    net = ncnn.Net()
    option = net.opt
    option.num_threads = 1
    option.use_vulkan_compute = vulkan
    option.use_winograd_convolution = winograd
    for half in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage", "use_int8_inference"):
        setattr(option, half, False)
    if net.load_param(files + ".param") != 0 or net.load_model(files + ".bin") != 0:
        raise RuntimeError(f"ncnn does not load {files}.param")
    return net


def run(net, x):
    extractor = net.create_extractor()
    extractor.input(net.input_names()[0], x)
    code, out = extractor.extract(net.output_names()[0])
    if code != 0:
        raise RuntimeError(f"ncnn answered {code}")
    return out


def open_model(model, folder, shape):
    """The names of the engines; they stay in `state`."""
    extents = [int(d) for d in shape.split(",")]
    data = numpy.fromfile(f"{folder}/input.f32", dtype="<f4").reshape(extents[1:])
    files = convert(model, f"{folder}/model.onnx", shape)
    state.clear()
    for name, vulkan, winograd in WAYS:
        if vulkan and ncnn.get_gpu_count() == 0:
            continue
        net = load(files, vulkan, winograd)
        x = ncnn.Mat(data).clone()
        numpy.array(run(net, x)).astype("<f4").tofile(f"{folder}/{len(state)}.f32")
        run(net, x)
        state.append((name, net, x))
    return [name for name, _, _ in state]


state = []
# What libraries print must not get between the answers.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    verb, *words = line.rstrip("\n").split("\t")
    try:
        if verb == "open":
            said = ["engines", *open_model(*words)]
        else:
            _, net, x = state[int(words[0])]
            wall, cpu = time.perf_counter(), time.process_time()
            run(net, x)
            said = [f"{1e3 * (time.perf_counter() - wall)}", f"{1e3 * (time.process_time() - cpu)}"]
    except Exception as problem:  # Whatever it is, who asks must hear of it.
        said = ["refused", str(problem).replace("\n", " ").replace("\t", " ")]
    print("\t".join(said), file=answers, flush=True)
