#!/usr/bin/env python3
"""Writes rk3588.json, the plan of an emulated RK3588, from published latencies. Usage: python3 rk3588.py > rk3588.json

Latencies: Tencent/ncnn benchmark/README.md at a4d2ea1d (BSD-3), "Rockchip RK3588 (Cortex-A76 2.4GHz x 4 + Cortex-A55
1.8GHz x 4)": one little core, one big core, GPU; (mean, largest) ms of 8 runs. The largest stands for the 95th percentile.
What the publication does not tell is assumed, and says so in the provenance: watts, copies, contention. Each model is one
segment, since nobody published more.
"""

import json

LITTLE, BIG, GPU = range(3)
PROCESSORS = [("little", 0.5, 0.05), ("big", 2.0, 0.1), ("gpu", 3.5, 0.2)]  # name, active and idle watts (assumed)
# name, task, accuracy (ImageNet top-1 of torchvision; VOC mAP of mobilenet_ssd; COCO AP50 of yolov4-tiny), parameters, ms
MODELS = [
    ("squeezenet", "classify", 0.582, 1.24e6, [(83.53, 83.63), (25.07, 25.14), (7.13, 7.20)]),
    ("resnet18", "classify", 0.698, 11.7e6, [(210.22, 210.42), (61.05, 61.18), (16.25, 16.39)]),
    ("mobilenet_v2", "classify", 0.719, 3.5e6, [(132.44, 227.19), (27.29, 27.31), (10.25, 10.32)]),
    ("mobilenet_ssd", "spot", 0.727, 5.8e6, [(319.21, 319.29), (105.87, 105.90), (22.74, 23.01)]),
    ("yolov4-tiny", "detect", 0.402, 6.06e6, [(450.04, 450.45), (136.91, 137.14), (50.13, 50.73)]),
]


def variant(name, task, accuracy, parameters, latencies):
    costs = [
        {"mean_us": mean * 1e3, "p50_us": mean * 1e3, "p95_us": most * 1e3, "energy_mj": round(watts * mean, 3)}
        for (mean, most), (_, watts, _) in zip(latencies, PROCESSORS)
    ]
    image = 3 * 224 * 224 * 4
    segment = {"name": "whole", "input_bytes": image, "output_bytes": 4000, "costs": costs}
    return {"name": name, "task": task, "accuracy": accuracy, "memory_bytes": int(4 * parameters), "segments": [segment]}


plan = {
    "format": 1,
    "provenance": {
        "latency": "Tencent/ncnn benchmark/README.md at a4d2ea1d, BSD-3; mean of 8 runs, the largest as 95th percentile",
        "assumed": "watts, copy costs, contention; energy is watts times latency; inputs of 224 x 224",
        "made_by": "experiments/devices/rk3588.py",
    },
    "processors": [
        {
            "name": name,
            "device": "Rockchip RK3588, emulated",
            "slots": 1,
            "active_watts": active,
            "idle_watts": idle,
            "copy_us": 200.0 if name == "gpu" else 0.0,
            "copy_gbps": 4.0 if name == "gpu" else 0.0,
        }
        for name, active, idle in PROCESSORS
    ],
    "contention": [[1.0, 1.1, 1.1], [1.1, 1.0, 1.15], [1.05, 1.1, 1.0]],
    "variants": [variant(*model) for model in MODELS],
}
print(json.dumps(plan, indent=1))
