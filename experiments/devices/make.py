#!/usr/bin/env python3
"""Writes the device files and their plans from published measurements. Usage: python3 make.py FOLDER

FOLDER holds ncnn_latency_ms.csv (Tencent/ncnn benchmark/README.md at a4d2ea1d, BSD-3) and qualcomm_aihub_latency_ms.csv
(quic/ai-hub-models perf.yaml at 52c080d2, BSD-3). The files go beside this script; the same input gives the same bytes. Only latencies
are measurements. What else a device file needs is assumed, and each file says so under [source].
"""

import csv
import json
import math
import pathlib
import sys

from catalogs import mdinference, nestdnn
from networks import NETWORKS, TWINS

HERE = pathlib.Path(__file__).parent
NCNN = "Tencent/ncnn benchmark/README.md at a4d2ea1d, BSD-3"
AIHUB = "quic/ai-hub-models perf.yaml at 52c080d2, BSD-3"
ASSUMED = {
    "spread": "ncnn: the mean counts as the median and the slowest of its 4 to 64 runs as the 95th percentile; AI Hub gives one number, the 95th percentile is 1.1 of it",
    "segments": "a network of k segments is cut into k equal shares of its latency on every processor; a cut passes 14 x 14 x 256 floats unless networks.py says otherwise",
    "energy": "assumed watts of the processor times latency; for the old phones that lies in the ranges of DeepEn2023 (MobileNetV2 31 to 175 mJ on a CPU, 9 to 48 on a GPU)",
    "traffic": "weights once, activations written and read once, in the bytes a value that the device computes with",
    "bandwidth": "the published peak of the memory; no loss to 0.4 of it, 0.7 of it when all of it is asked for, at most 0.8: the three regions of PCCS (MICRO 2021), the numbers assumed",
    "accuracy": "see networks.py, which names the source of each",
    "copies": "assumed; HaX-CoNN (PPoPP 2024) measured 0.01 to 0.07 ms a transition on a Jetson",
}


def cpu(name, key, watts, peak, slots=1, **more):
    """A CPU cluster: ncnn's (threads, powersave, gpu) row; `peak` is the share of the memory's bandwidth that it can ask for."""
    return dict(name=name, key=key, watts=watts, peak=peak, slots=slots, copy=(0.0, 0.0), **more)


def gpu(key, watts, peak, copy=(200.0, 4.0), **more):
    return dict(name="gpu", key=key, watts=watts, peak=peak, slots=1, copy=copy, **more)


def npu(device, watts, peak, **more):
    return dict(name="npu", hub=device, watts=watts, peak=peak, slots=1, copy=(100.0, 5.0), **more)


# Steps (MHz, speed, power): power falls faster than speed since voltage falls too (assumed: about the cube of speed, plus leakage).
PHONE_CPU = [(3000, 1.0, 1.0), (2400, 0.8, 0.55), (1800, 0.6, 0.28)]
PHONE_GPU = [(800, 1.0, 1.0), (600, 0.75, 0.5), (420, 0.53, 0.25)]
BOARD_CPU = [(1800, 1.0, 1.0), (1400, 0.78, 0.52), (1000, 0.56, 0.26)]
PHONE_HEAT = dict(ambient_c=28.0, kelvin_per_watt=9.0, time_constant_s=40.0, start_c=45.0, trip_c=62.0, hysteresis_c=4.0, poll_ms=200.0, base_watts=1.0)
HEADSET_HEAT = dict(PHONE_HEAT, kelvin_per_watt=7.0, base_watts=2.5, trip_c=58.0)
BOX_HEAT = dict(ambient_c=45.0, kelvin_per_watt=6.0, time_constant_s=90.0, start_c=70.0, trip_c=85.0, hysteresis_c=5.0, poll_ms=500.0, base_watts=1.5)

COMMON = ["squeezenet", "mobilenet_v2", "mobilenet_v3", "resnet18", "resnet50", "mobilenet_ssd", "squeezenet_ssd", "blazeface"]
DETECT = ["yolov4-tiny", "yolo-fastestv2", "yolo-fastest-1.1"]
INT8 = ["mobilenet_int8", "resnet50_int8", "mobilenet_ssd_int8"]

DEVICES = [
    dict(
        name="rk3588", about="Rockchip RK3588 board: one A55 and one A76 core given to inference, the other six left to the application, and its Mali-G610",
        board="Rockchip RK3588 (Cortex-A76 2.4GHz x 4 + Cortex-A55 1.8GHz x 4)", width=2, gbps=34.0,
        processors=[cpu("little", "1,1,-1", (0.5, 0.05), 0.15), cpu("big", "1,2,-1", (2.0, 0.1), 0.35), gpu("1,2,0", (3.5, 0.2), 0.6)],
        networks=COMMON + DETECT,
    ),
    dict(
        name="kirin970", about="Phone of 2017: four A73 cores as one processor, and a Mali-G72",
        board="Kirin 970 (Cortex-A73 2.4GHz x 4 + Cortex-A53 1.8GHz x 4)", width=4, gbps=29.8, heat=PHONE_HEAT,
        processors=[cpu("cpu", "4,2,-1", (3.5, 0.2), 0.5, steps=PHONE_CPU), gpu("1,2,0", (2.0, 0.15), 0.6, steps=PHONE_GPU, memory=96, load=(1.0, 3000.0))],
        networks=COMMON + INT8 + ["efficientnet_b0", "shufflenet_v2"],
    ),
    dict(
        name="sd8gen2", about="Phone or headset of 2023: the four big cores of a Snapdragon 8 Gen 2 as one processor, its Adreno 740 and its Hexagon NPU",
        board="Qualcomm SM8550-AB Snapdragon 8 Gen 2 (Kyro 3.20 GHz + 2.8 GHz x 2 + 2.80 GHz x 2 + 2.00 GHz * 3 + Adreno 740)", width=2, gbps=67.2, heat=PHONE_HEAT,
        processors=[
            cpu("cpu", "4,2,-1", (6.0, 0.3), 0.5, steps=PHONE_CPU), gpu("1,2,0", (4.0, 0.2), 0.6, steps=PHONE_GPU),
            npu("QCS8550 (Proxy)", (4.5, 0.2), 0.6, memory=200, load=(4.0, 2000.0)),
        ],
        networks=COMMON + DETECT + ["mobilenet_ssd_int8", "resnet50_int8", "vision_transformer"],
        hub=[("ffnet_78s_lowres", "float"), ("ffnet_78s", "w8a8"), ("midas", "float"), ("depth_anything_v2", "float"), ("yamnet", "float"), ("wavlm", "float")],
    ),
    dict(
        name="sd855p", about="Headset of 2020: the four big cores of a Snapdragon 855+ as one processor, and its Adreno 640",
        board="Qualcomm SM8150-AC Snapdragon 855+ (Kyro485 2.96 GHz + 2.42 GHz x 3 + 1.80 GHz x 4 + Adreno 640)", width=2, gbps=34.1, heat=HEADSET_HEAT,
        processors=[cpu("cpu", "4,2,-1", (4.5, 0.25), 0.5, steps=PHONE_CPU), gpu("1,2,0", (3.0, 0.15), 0.6, steps=PHONE_GPU)],
        networks=COMMON + ["mobilenet_ssd_int8", "yolo-fastestv2", "yolov4-tiny"],
    ),
    dict(
        name="orin", about="Robot computer: the three four-core clusters of a Jetson AGX Orin as three slots of one processor, and its Ampere GPU",
        board="NVIDIA Jetson AGX Orin (Cortex-A78AE 2.2 GHz x 12 + Ampere@1.3 GHz Tensor Cores 64)", width=2, gbps=204.8,
        processors=[cpu("cpu", "4,0,-1", (6.0, 2.0), 0.2, slots=3), gpu("1,0,0", (25.0, 4.0), 0.6, copy=(50.0, 10.0))],
        networks=COMMON + DETECT + ["resnet50_int8", "efficientnet_b0"],
    ),
    dict(
        name="rpi5", about="Raspberry Pi 5, overclocked: four A76 cores as one processor, and a VideoCore VII that is ten times slower",
        board="Raspberry Pi 5 Broadcom BCM2712 Overclock to 2.9Ghz, VideoCore VII Graphics Overclock to 1.1Ghz (Vulkan 1.2)", width=2, gbps=17.1,
        processors=[cpu("cpu", "4,0,-1", (9.0, 1.0), 0.6), gpu("4,0,0", (2.5, 0.2), 0.4)],
        networks=COMMON + ["FastestDet", "yolov4-tiny", "mobilenet_ssd_int8", "resnet50_int8"],
    ),
    dict(
        name="rk3399", about="Sealed camera box: two A72 cores, four A53 cores and a Mali-T860 of a Rockchip RK3399",
        board="Rockchip RK3399 (Cortex-A72 1.8GHz x 2 + Cortex-A53 1.5GHz x 4)", width=4, gbps=14.9, heat=BOX_HEAT,
        processors=[
            cpu("little", "4,1,-1", (1.2, 0.1), 0.3, steps=BOARD_CPU), cpu("big", "2,2,-1", (2.2, 0.1), 0.5, steps=BOARD_CPU),
            gpu("1,2,0", (1.8, 0.1), 0.6, steps=BOARD_CPU),
        ],
        networks=COMMON + DETECT + ["mobilenet_ssd_int8"],
    ),
    dict(
        name="dimensity9300", about="Phone of 2024: the big and the middle cores of a MediaTek Dimensity 9300, and its Immortalis-G720",
        board="MediaTek Dimensity 9300 (MT6989) (Cortex-X4 3.25 GHz + 2.85 GHz x 3 + Cortex-A720 2.0 GHz x 4 + Mali-G720-Immortalis MC12)", width=2, gbps=76.8, heat=PHONE_HEAT,
        processors=[
            cpu("big", "4,2,-1", (7.0, 0.3), 0.5, steps=PHONE_CPU), cpu("mid", "4,1,-1", (3.0, 0.2), 0.3, steps=PHONE_CPU),
            gpu("1,2,0", (4.5, 0.2), 0.6, steps=PHONE_GPU),
        ],
        networks=COMMON + DETECT + INT8 + ["vision_transformer"],
    ),
    dict(
        name="xelite", about="Laptop: the twelve cores of a Snapdragon X Elite as one processor, its Adreno X1-85 and its Hexagon NPU",
        board="Qualcomm Snapdragon X Elite (X1E78100), Oryon 3.4GHz x 12 + Adreno X1-85", width=2, gbps=135.0,
        processors=[
            cpu("cpu", "12,0,-1", (25.0, 1.5), 0.5), gpu("1,0,0", (10.0, 0.5), 0.5),
            npu("Snapdragon X Elite CRD", (6.0, 0.3), 0.4, memory=400, load=(8.0, 2000.0)),
        ],
        networks=COMMON + DETECT + ["vision_transformer"],
        hub=[("ffnet_78s_lowres", "w8a8"), ("ffnet_78s", "w8a8"), ("midas", "w8a8"), ("yamnet", "w8a8"), ("yolov8_det", "w8a8")],
    ),
    dict(
        name="vim3", about="Khadas VIM3: the four A73 cores of an Amlogic A311D as one processor, and a Mali-G52",
        board="Khadas VIM3, Amlogic A311D (Cortex-A73 2.2GHz x 4 + Cortex-A53 1.8GHz x 2)", width=4, gbps=12.8,
        processors=[cpu("cpu", "4,2,-1", (4.0, 0.2), 0.6), gpu("6,2,0", (2.5, 0.2), 0.6)],
        networks=COMMON + DETECT + INT8,
    ),
    dict(
        name="rb3gen2", about="Qualcomm RB3 Gen 2 (QCS6490): its CPU and its Hexagon NPU, in one harness",
        board=None, width=1, gbps=25.6,
        processors=[
            dict(cpu("cpu", None, (4.0, 0.3), 0.5), hub="Dragonwing RB3 Gen 2 Vision Kit"),
            npu("Dragonwing RB3 Gen 2 Vision Kit", (2.5, 0.15), 0.6, memory=120, load=(2.0, 1500.0)),
        ],
        networks=[],
        hub=[
            ("face_det_lite", "w8a8"), ("face_det_lite", "w8a16"), ("PoseDetector", "w8a8"), ("PoseLandmarkDetector", "w8a8"),
            ("yolov8_det", "w8a8"), ("yolov8_det", "w8a16"), ("ffnet_78s_lowres", "w8a8"), ("ffnet_78s", "w8a8"), ("bisenet", "w8a8"),
            ("squeezenet", "w8a8"), ("shufflenet_v2", "w8a8"), ("resnet50", "w8a8"), ("convnext_tiny", "w8a16"), ("resnet_3d", "w8a8"), ("yamnet", "w8a8"),
        ],
    ),
]


class Tables:
    """The two tables, by key."""

    def __init__(self, folder):
        self.ncnn, self.hub = {}, {}
        with open(folder / "ncnn_latency_ms.csv", newline="") as file:
            for r in csv.DictReader(file):
                key = (r["device"], f"{r['num_threads']},{r['powersave']},{r['gpu_device']}", r["model"])
                # Where a table stands twice, the first counts.
                self.ncnn.setdefault(key, (float(r["avg_ms"]), float(r["max_ms"])))
        with open(folder / "qualcomm_aihub_latency_ms.csv", newline="") as file:
            for r in csv.DictReader(file):
                unit, ms = r["primary_compute_unit"], float(r["inference_ms"])
                # One part of a model of several parts goes by its own name.
                for name in (r["model"], r["component"]):
                    key = (r["device"], unit.lower(), name, r["precision"])
                    self.hub[key] = min(ms, self.hub.get(key, ms))

    def latency(self, device, processor, network, precision):
        """(mean, 95th percentile) in ms, or None where it cannot run or nobody measured it."""
        if "hub" in processor:
            name = TWINS.get(network, network)
            ms = self.hub.get((processor["hub"], processor["name"], name, precision))
            return ms and (ms, 1.1 * ms)
        # ncnn runs int8 layers on the CPU even when told to use the GPU: that row is no measurement of the GPU.
        if processor["name"] == "gpu" and network.endswith("_int8"):
            return None
        return self.ncnn.get((device["board"], processor["key"], network))


def number(value):
    """Five significant digits: more than was measured."""
    return 0.0 if value == 0 else round(value, max(0, 4 - math.floor(math.log10(abs(value)))))


def variant(tables, device, network, precision):
    task, accuracy, parameters, activations, input_bytes, k, cut, _ = NETWORKS[network]
    hub_only = network not in device["networks"]
    quantised = precision.startswith("w8a8") or network.endswith("_int8")
    lookup = "w8a8" if network.endswith("_int8") else precision
    times = [tables.latency(device, p, network, lookup) if not hub_only or "hub" in p else None for p in device["processors"]]
    if not any(times):
        sys.exit(f"{device['name']}: nobody measured {network} ({precision})")
    # The table has the int8 variants of ncnn's networks by themselves.
    accuracy -= 0.01 if hub_only and quantised else 0.0
    width = 1 if quantised else device["width"]

    def cost(processor, time):
        if time is None:
            return None
        mean, p95 = number(time[0] * 1e3 / k), number(time[1] * 1e3 / k)
        return {"mean_us": mean, "p50_us": mean, "p95_us": p95, "energy_mj": number(processor["watts"][0] * mean / 1e3)}

    costs = [cost(p, t) for p, t in zip(device["processors"], times)]
    traffic = int(width * (parameters + 2 * activations) * 1e6 / k)
    segments = [
        {
            "name": f"{s + 1}/{k}",
            "input_bytes": input_bytes if s == 0 else cut,
            "output_bytes": 4000 if s == k - 1 else cut,
            "traffic_bytes": traffic,
            "costs": costs,
        }
        for s in range(k)
    ]
    name = network if not hub_only or precision == "float" else f"{network}-{precision}"
    return {"name": name, "task": task, "accuracy": round(accuracy, 4), "memory_bytes": int(width * parameters * 1e6), "segments": segments}


def plan(tables, device):
    variants = [variant(tables, device, n, "float") for n in device["networks"]]
    variants += [variant(tables, device, n, precision) for n, precision in device.get("hub", [])]
    processors = [
        {
            "name": p["name"],
            "device": f"{device['about'].split(':')[0]}, emulated",
            "slots": p["slots"],
            "active_watts": p["watts"][0],
            "idle_watts": p["watts"][1],
            "copy_us": p["copy"][0],
            "copy_gbps": p["copy"][1],
        }
        for p in device["processors"]
    ]
    # Who disturbs whom follows from the shared bandwidth of the device file.
    ones = [[1.0] * len(processors) for _ in processors]
    provenance = {"made_by": "experiments/devices/make.py", "source": f"see [source] of {device['name']}.toml"}
    return {"format": 1, "provenance": provenance, "processors": processors, "contention": ones, "variants": variants}


def quoted(text):
    return json.dumps(text, ensure_ascii=False)


def toml(device):
    sources = {}
    if device["board"]:
        sources["latency"] = f"{NCNN}; \"{device['board']}\"; " + ", ".join(
            f"{p['name']}: threads, powersave, gpu {p['key']}" for p in device["processors"] if p.get("key")
        )
    hubs = [p for p in device["processors"] if "hub" in p]
    if hubs:
        which = ", ".join(f"{p['name']}: {p['hub']}" for p in hubs)
        sources["latency_hub"] = f"{AIHUB}; least of its runtimes; {which}"
        if device["board"]:
            sources["harness"] = "ncnn and AI Hub are two harnesses: the ratio of the NPU to the others is indicative"
    sources |= {f"assumed_{key}": text for key, text in ASSUMED.items()}
    if device.get("heat"):
        sources["assumed_thermal"] = "one node; resistance, time constant and trip set so that full load trips after 5 to 30 seconds, as passively cooled devices do; frequency steps assumed, power about the cube of speed"
    if any("memory" in p for p in device["processors"]):
        sources["assumed_memory"] = "room for weights and the time to load them, so that switching networks costs something"
    lines = [f"# Made by make.py; change it there. Only latencies are measured.", f"name = {quoted(device['name'])}", f"about = {quoted(device['about'])}", f"plan = {quoted(device['name'] + '.json')}", "", "[source]"]
    lines += [f"{key} = {quoted(text)}" for key, text in sources.items()]
    b = device["gbps"]
    curve = [[number(0.4 * b), number(0.4 * b)], [b, number(0.7 * b)], [2 * b, number(0.8 * b)]]
    lines += ["", "[bandwidth]", f"curve = {json.dumps(curve)}"]
    if device.get("heat"):
        lines += ["", "[thermal]"] + [f"{key} = {value}" for key, value in device["heat"].items()]
    for p in device["processors"]:
        lines += ["", f"[processor.{p['name']}]", f"peak_gbps = {number(p['peak'] * b)}"]
        if "memory" in p:
            lines += [f"memory_mb = {float(p['memory'])}", f"load_gbps = {p['load'][0]}", f"load_us = {p['load'][1]}"]
        if "steps" in p:
            steps = ", ".join(f"{{ mhz = {float(m)}, speed = {s}, power = {w} }}" for m, s, w in p["steps"])
            lines.append(f"frequencies = [{steps}]")
    return "\n".join(lines) + "\n"


def plan_text(made):
    """JSON with a line for each processor and each segment: small, and still to be read and compared."""
    head = {key: value for key, value in made.items() if key not in ("processors", "variants")}
    lines = [json.dumps(head)[:-1] + ","]
    lines.append(' "processors": [\n' + ",\n".join("  " + json.dumps(p) for p in made["processors"]) + "\n ],")
    variants = []
    for v in made["variants"]:
        own = {key: value for key, value in v.items() if key != "segments"}
        segments = ",\n".join("   " + json.dumps(s) for s in v["segments"])
        variants.append("  " + json.dumps(own)[:-1] + ', "segments": [\n' + segments + "\n  ]}")
    lines.append(' "variants": [\n' + ",\n".join(variants) + "\n ]\n}")
    return "\n".join(lines) + "\n"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    tables = Tables(pathlib.Path(sys.argv[1]))
    made = [(d["name"], plan(tables, d), toml(d)) for d in DEVICES] + [mdinference(), nestdnn()]
    for name, numbers, text in made:
        (HERE / f"{name}.json").write_text(plan_text(numbers))
        (HERE / f"{name}.toml").write_text(text)
        print(f"{name}: {len(numbers['variants'])} variants")


if __name__ == "__main__":
    main()
