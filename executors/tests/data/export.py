"""Makes the small networks of this folder: exported by PyTorch, each with an input and PyTorch's own output for it.

Run it only to change them (it needs torch 2.13, onnx 1.19 and onnxscript; nothing of cosched's build does):
    python3 -m venv v && v/bin/pip install torch==2.13.0 onnx==1.19.1 onnxscript && v/bin/python export.py
For NAME it writes NAME.onnx and NAME.json: {"inputs": [{"name", "shape", "data"}], "outputs": [...]}, all f32.
"""

import json
import os
import sys
import warnings

import torch
from torch import nn

warnings.filterwarnings("ignore")
HERE = os.path.dirname(os.path.abspath(__file__))


class Residual(nn.Module):
    """Convolution, batch normalisation, ReLU, a residual addition, pooling, a linear layer: what ResNets are made of."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.a = nn.Sequential(nn.Conv2d(16, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 24, 3, 1, 1, bias=False), nn.BatchNorm2d(24))
        self.down = nn.Sequential(nn.Conv2d(16, 24, 1, 2, bias=False), nn.BatchNorm2d(24))
        self.b = nn.Sequential(nn.Conv2d(24, 24, 3, 1, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 24, 3, 1, 1, bias=False), nn.BatchNorm2d(24))
        self.head = nn.Linear(24, 10)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(self.a(x) + self.down(x))
        x = torch.relu(self.b(x) + x)
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


class Squeeze(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.down, self.up = nn.Conv2d(c, c // 4, 1), nn.Conv2d(c // 4, c, 1)

    def forward(self, x):
        s = nn.functional.adaptive_avg_pool2d(x, 1)
        return x * nn.functional.hardsigmoid(self.up(torch.relu(self.down(s))))


class Mobile(nn.Module):
    """Depthwise convolutions, hard swish, squeeze-and-excite, grouped convolution: what MobileNetV3 is made of. Two outputs."""

    def __init__(self):
        super().__init__()
        def block(i, e, o, k, s):
            return nn.Sequential(nn.Conv2d(i, e, 1, bias=False), nn.BatchNorm2d(e), nn.Hardswish(), nn.Conv2d(e, e, k, s, k // 2, groups=e, bias=False), nn.BatchNorm2d(e), nn.Hardswish(), Squeeze(e), nn.Conv2d(e, o, 1, bias=False), nn.BatchNorm2d(o))
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.one, self.two = block(8, 24, 16, 3, 2), block(16, 48, 16, 5, 1)
        self.grouped = nn.Conv2d(16, 32, 3, 1, 1, groups=4)
        self.head = nn.Linear(32, 7)

    def forward(self, x):
        x = self.one(self.stem(x))
        x = self.two(x) + x
        x = nn.functional.hardswish(self.grouped(x))
        logits = self.head(x.mean((2, 3)))
        return torch.softmax(logits, -1), torch.clamp(x, -0.2, 0.7).sigmoid()


class Encoder(nn.Module):
    """A convolutional patch embedding and two transformer layers, pre-norm, GELU. The batch is dynamic."""

    def __init__(self, d=48, heads=3):
        super().__init__()
        self.patch = nn.Conv2d(3, d, 8, 8)
        self.position = nn.Parameter(torch.randn(1, 16, d) * 0.1)
        self.layers = nn.ModuleList(nn.ModuleDict(dict(n1=nn.LayerNorm(d), qkv=nn.Linear(d, 3 * d), out=nn.Linear(d, d), n2=nn.LayerNorm(d), up=nn.Linear(d, 2 * d), down=nn.Linear(2 * d, d))) for _ in range(2))
        self.norm, self.head, self.heads = nn.LayerNorm(d), nn.Linear(d, 5), heads

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        b, n, d = x.shape
        for l in self.layers:
            q, k, v = l["qkv"](l["n1"](x)).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
            a = torch.softmax(q @ k.transpose(-2, -1) * (d // self.heads) ** -0.5, -1)
            x = x + l["out"]((a @ v).transpose(1, 2).reshape(b, n, d))
            x = x + l["down"](nn.functional.gelu(l["up"](l["n2"](x))))
        return self.head(self.norm(x).mean(1))


class Unet(nn.Module):
    """Encoder and decoder with skips: transposed convolution, resize, concatenation, slices, leaky ReLU, tanh, padding. Two inputs."""

    def __init__(self):
        super().__init__()
        self.e1, self.e2, self.mid = nn.Conv2d(4, 8, 3, 1, 1), nn.Conv2d(8, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 1, 2, dilation=2)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.d1, self.d2 = nn.Conv2d(16, 8, 3, 1, 1), nn.Conv2d(8, 2, 1)

    def forward(self, image, depth):
        x1 = nn.functional.leaky_relu(self.e1(torch.cat([image, depth], 1)), 0.1)
        x2 = torch.relu(self.e2(x1))
        m = nn.functional.elu(self.mid(nn.functional.avg_pool2d(x2, 2)))
        m = nn.functional.interpolate(m, scale_factor=2, mode="nearest") + x2
        u = self.up(m)
        y = torch.tanh(self.d1(torch.cat([u, x1], 1)))
        y = nn.functional.pad(y, (1, 1, 1, 1))[:, :, 1:-1, 1:-1]
        y = self.d2(y)
        a, b = y.chunk(2, 1)
        return torch.sqrt(torch.abs(a) + 0.5) * torch.exp(-torch.square(b)) + torch.max(a, b)


def settle(net, inputs):
    """Gives batch normalisation real statistics, so that folding it matters."""
    net.train()
    with torch.no_grad():
        for _ in range(10):
            net(*[torch.randn(4, *i.shape[1:]) for i in inputs])
        for m in net.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.weight.uniform_(0.7, 1.3)
                m.bias.uniform_(-0.2, 0.2)
    net.eval()


def record(tensors, names):
    return [{"name": n, "shape": list(t.shape), "data": [float(f"{v:.8g}") for v in t.flatten().tolist()]} for n, t in zip(names, tensors)]


def save(name, net, inputs, names, outputs, dynamo=False, **options):
    settle(net, inputs)
    with torch.no_grad():
        want = net(*inputs)
    want = want if isinstance(want, tuple) else (want,)
    path = os.path.join(HERE, f"{name}.onnx")
    torch.onnx.export(net, tuple(inputs), path, input_names=names, output_names=outputs, opset_version=18 if dynamo else 17, dynamo=dynamo, **options)
    with open(os.path.join(HERE, f"{name}.json"), "w") as f:
        json.dump({"inputs": record(inputs, names), "outputs": record(want, outputs)}, f, separators=(",", ":"))
    print(name, os.path.getsize(path))


def main():
    torch.set_num_threads(1)
    only = sys.argv[1:]
    todo = {
        "residual": lambda n: save(n, Residual(), [torch.randn(1, 3, 32, 32)], ["image"], ["logits"]),
        "mobile": lambda n: save(n, Mobile(), [torch.randn(1, 3, 32, 32)], ["image"], ["classes", "map"]),
        "encoder": lambda n: save(n, Encoder(), [torch.randn(1, 3, 32, 32)], ["image"], ["logits"], dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}}),
        "unet": lambda n: save(n, Unet(), [torch.randn(1, 3, 16, 16), torch.randn(1, 1, 16, 16)], ["image", "depth"], ["out"]),
        "encoder_dynamo": lambda n: save(n, Encoder(), [torch.randn(1, 3, 32, 32)], ["image"], ["logits"], dynamo=True, external_data=False, verbose=False),
        "mobile_external": lambda n: save(n, Mobile(), [torch.randn(1, 3, 32, 32)], ["image"], ["classes", "map"], dynamo=True, external_data=True, verbose=False),
    }
    for i, (name, make) in enumerate(todo.items()):
        torch.manual_seed(100 + i)
        if not only or name in only:
            make(name)


main()
