"""Devices made from published catalogs of variants: MDInference's zoo behind a network, and NestDNN's descendants in little memory."""

# ModiPick/MDInference (Ogden and Guo, 2019 and 2020): accuracy in percent, mean ms on a server's GPU.
ZOO = [
    ("squeezenet", 49.0, 4.91, 224), ("mobilenet-0.25-128", 41.4, 2.45, 128), ("mobilenet-0.25-224", 49.7, 3.21, 224),
    ("mobilenet-0.5-224", 63.2, 4.21, 224), ("mobilenet-0.75-224", 68.3, 4.67, 224), ("mobilenet-1.0-160", 68.0, 4.18, 160),
    ("mobilenet-1.0-224", 71.0, 5.43, 224), ("nasnet-mobile", 73.9, 21.2, 224), ("inception-v3", 77.9, 31.1, 299),
    ("inception-v4", 80.1, 59.2, 299), ("nasnet-large", 82.6, 112.6, 331),
]
# Network times, mean and standard deviation in ms, of the same papers.
NETWORKS = {"campus": (58.0, 31.0), "home": (92.0, 48.0), "lte": (365.0, 171.0)}
# One sigma for the three: sqrt(ln(1 + (sd / mean)^2)) is 0.501, 0.491 and 0.445.
SIGMA = 0.48
# The small model that is there when the network is not: squeezenet, ncnn's Kirin 970, four threads (mean, slowest run).
LOCAL_MS = (25.83, 27.98)


def _cost(mean_ms, p95_ms, watts):
    us = round(mean_ms * 1e3, 3)
    return {"mean_us": us, "p50_us": us, "p95_us": round(p95_ms * 1e3, 3), "energy_mj": round(watts * mean_ms, 3)}


def _processor(name, slots, active, idle, copy_us=0.0):
    return {"name": name, "device": "emulated, from a catalog", "slots": slots, "active_watts": active, "idle_watts": idle, "copy_us": copy_us, "copy_gbps": 0.0}


def _plan(name, processors, variants):
    provenance = {"made_by": "experiments/devices/catalogs.py", "source": f"see [source] of {name}.toml"}
    ones = [[1.0] * len(processors) for _ in processors]
    return {"format": 1, "provenance": provenance, "processors": processors, "contention": ones, "variants": variants}


def mdinference():
    variants = []
    for name, accuracy, ms, side in ZOO:
        # The phone pays for its radio while it waits: 1 W (assumed); the server's energy is not the phone's.
        remote = _cost(ms, 1.1 * ms, 1.0)
        local = _cost(*LOCAL_MS, 3.5) if name == "squeezenet" else None
        segment = {"name": "whole", "input_bytes": 3 * side * side, "output_bytes": 4000, "costs": [local, remote]}
        variants.append({"name": name, "task": "classify", "accuracy": round(accuracy / 100, 4), "memory_bytes": 0, "segments": [segment]})
    processors = [_processor("local", 1, 3.5, 0.2), _processor("server", 8, 1.0, 0.05)]
    text = f"""# Made by make.py; change catalogs.py. A phone that asks a server over a network that changes.
name = "mdinference"
about = "Phone with one small model, and a server with eleven behind a network: campus, home and LTE in turn"
plan = "mdinference.json"

[source]
catalog = "MDInference and ModiPick (Ogden and Guo): accuracy, mean ms on a server GPU, network mean and sd in ms (home 92/48, campus 58/31, LTE 365/171)"
local = "squeezenet on a Kirin 970, four threads: Tencent/ncnn benchmark/README.md at a4d2ea1d, BSD-3"
assumed_network = "the published network time counts as one round trip whatever the size; log-normal with one sigma (0.48) for the three; four seconds of each in turn; 1 % of messages lost on LTE, sent again after 1 s"
assumed_server = "8 requests at once, 95th percentile 1.1 of the mean, 1 W for the phone's radio"

[processor.server.link]
sigma = {SIGMA}
resend_ms = 1000.0
tries = 3
"""
    for i, kind in enumerate(["campus", "home", "lte"] * 5):
        mean, _ = NETWORKS[kind]
        text += f"\n[[processor.server.link.phase]] # {kind}\nfrom_ms = {4000.0 * i}\nround_trip_ms = {mean}\nmbps = 1000.0\nloss = {0.01 if kind == 'lte' else 0.0}\n"
    return "mdinference", _plan("mdinference", processors, variants), text


# NestDNN (Fang, Zeng and Zhang, MobiCom 2018): sizes in MB, accuracy in percent, GFLOPs of five descendants.
NESTDNN = {
    "VC": ([26.5, 39.9, 66.9, 108.2, 196.0], [83.6, 84.8, 86.2, 86.8, 88.3], [0.8, 1.4, 1.9, 2.8, 7.4]),
    "VS": ([0.72, 0.93, 1.37, 3.93, 12.87], [94.4, 95.2, 95.9, 97.8, 98.5], [0.04, 0.06, 0.1, 0.8, 2.1]),
    "VG": ([13.5, 27.4, 34.6, 56.7, 123.9], [76.9, 77.3, 77.7, 78.3, 82.8], [0.8, 1.5, 1.9, 2.8, 10.1]),
    "RI-50": ([0.47, 0.60, 2.12, 12.5, 42.4], [62.5, 64.3, 80.1, 86.6, 89.4], [0.3, 0.3, 0.7, 1.8, 3.1]),
    "RI-100": ([17.6, 25.8, 42.4, 62.4, 87.2], [73.9, 86.2, 87.9, 89.1, 90.1], [2.0, 2.3, 3.1, 4.0, 5.0]),
    "RP": ([0.47, 1.46, 6.82, 25.9, 62.5], [68.7, 74.1, 77.6, 78.5, 79.8], [0.3, 0.7, 1.1, 2.3, 4.0]),
}
# GFLOP/s and watts of the assumed processors; 2 ms of every run are overhead.
SPEED = [("cpu", 30.0, 3.5), ("gpu", 60.0, 2.5)]


def nestdnn():
    variants = []
    for app, (sizes, accuracies, gflops) in NESTDNN.items():
        for i, (size, accuracy, work) in enumerate(zip(sizes, accuracies, gflops)):
            k = 4 if work >= 2.0 else 2 if work >= 0.8 else 1
            times = [2.0 + work / speed * 1e3 for _, speed, _ in SPEED]
            costs = [_cost(t / k, 1.1 * t / k, watts) for t, (_, _, watts) in zip(times, SPEED)]
            segments = [
                {"name": f"{s + 1}/{k}", "input_bytes": 602112 if s == 0 else 200704, "output_bytes": 4000 if s == k - 1 else 200704, "traffic_bytes": int(size * 1e6 / k), "costs": costs}
                for s in range(k)
            ]
            variants.append({"name": f"{app}-{i + 1}", "task": app, "accuracy": round(accuracy / 100, 4), "memory_bytes": int(round(size * 1e6)), "weights": app, "segments": segments})
    processors = [_processor("cpu", 1, 3.5, 0.2), _processor("gpu", 1, 2.5, 0.15, 200.0)]
    text = """# Made by make.py; change catalogs.py. Six apps of five nested networks each in memory that does not hold the largest of all.
name = "nestdnn"
about = "Phone of 2018 with six vision apps; each has five networks that share their weights"
plan = "nestdnn.json"

[source]
catalog = "NestDNN (Fang, Zeng and Zhang, MobiCom 2018): sizes, accuracies and GFLOPs of the five descendants of six apps"
assumed_latency = "2 ms and the published GFLOPs at 30 GFLOP/s on the cpu and 60 on the gpu; 95th percentile 1.1 of the mean; cut in 1, 2 or 4 equal shares by work"
assumed_memory = "250 MB for weights on each processor, loaded at 0.5 GB/s as from flash memory; all largest descendants together need 525 MB"
assumed_energy = "3.5 W and 2.5 W times latency"
assumed_bandwidth = "29.8 GB/s peak as in a Kirin 970; the curve as in the other device files; traffic is the weights alone"

[bandwidth]
curve = [[11.92, 11.92], [29.8, 20.86], [59.6, 23.84]]

[processor.cpu]
peak_gbps = 14.9
memory_mb = 250.0
load_gbps = 0.5
load_us = 1000.0

[processor.gpu]
peak_gbps = 17.88
memory_mb = 250.0
load_gbps = 0.5
load_us = 1000.0
"""
    return "nestdnn", _plan("nestdnn", processors, variants), text
