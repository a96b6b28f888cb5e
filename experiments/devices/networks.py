"""What is known of each network besides its latency. Rows: task, accuracy, parameters (million), activations (million values, the
outputs of all convolutions and matrix products), input bytes, segments, bytes of the tensor at a cut, source of the accuracy.

Published: torchvision's table of weights (float and, under _int8, its quantised models), the BlazeFace and ViT papers, the
repositories chuanqi305/MobileNet-SSD and SqueezeNet-SSD (VOC 2007 mAP), AlexeyAB/darknet, dog-qiuqiu/Yolo-Fastest and FastestDet (COCO
AP50). Activations: timm's results-imagenet tables where it has the network, else scaled by input area (assumed). "assumed" in the last
column: no publication is at hand; int8 without one counts 0.01 less than its float twin.
"""

I224, I300, I352, I416, I384 = (3 * side * side * 4 for side in (224, 300, 352, 416, 384))
CUT = 14 * 14 * 256 * 4  # A tensor of 14 x 14 x 256 floats, as in the third stage of a ResNet: assumed for all cuts.

NETWORKS = {
    # Image classification, ImageNet top-1.
    "squeezenet": ("classify", 0.582, 1.24, 2.6, I224, 1, CUT, "torchvision squeezenet1_1"),
    "shufflenet_v2": ("classify", 0.694, 2.28, 1.95, I224, 1, CUT, "torchvision shufflenet_v2_x1_0"),
    "mobilenet_v2": ("classify", 0.719, 3.50, 6.68, I224, 2, CUT, "torchvision mobilenet_v2"),
    "mobilenet_v3": ("classify", 0.740, 5.48, 4.41, I224, 2, CUT, "torchvision mobilenet_v3_large"),
    "mobilenet_int8": ("classify", 0.700, 4.23, 5.04, I224, 1, CUT, "TensorFlow MobileNet_v1_1.0_224_quant"),
    "efficientnet_b0": ("classify", 0.777, 5.29, 6.75, I224, 3, CUT, "torchvision efficientnet_b0"),
    "googlenet": ("classify", 0.698, 6.62, 3.7, I224, 2, CUT, "torchvision googlenet"),
    "resnet18": ("classify", 0.698, 11.69, 2.48, I224, 2, CUT, "torchvision resnet18"),
    "resnet18_int8": ("classify", 0.695, 11.69, 2.48, I224, 2, CUT, "torchvision quantized resnet18"),
    "resnet50": ("classify", 0.761, 25.56, 11.11, I224, 4, CUT, "torchvision resnet50 V1"),
    "resnet50_int8": ("classify", 0.759, 25.56, 11.11, I224, 4, CUT, "torchvision quantized resnet50 V1"),
    # Objects of 20 kinds, VOC 2007 mAP.
    "squeezenet_ssd": ("spot", 0.643, 5.5, 5.5, I300, 3, CUT, "chuanqi305/SqueezeNet-SSD"),
    "mobilenet_ssd": ("spot", 0.727, 5.8, 9.5, I300, 3, CUT, "chuanqi305/MobileNet-SSD"),
    "mobilenet_ssd_int8": ("spot", 0.717, 5.8, 9.5, I300, 3, CUT, "assumed"),
    # Objects of 80 kinds, COCO AP50.
    "yolov4-tiny": ("detect", 0.402, 6.06, 18.0, I416, 4, CUT, "AlexeyAB/darknet"),
    "FastestDet": ("detect", 0.253, 0.24, 1.5, I352, 1, CUT, "dog-qiuqiu/FastestDet"),
    "yolo-fastestv2": ("detect", 0.241, 0.25, 2.0, I352, 1, CUT, "dog-qiuqiu/Yolo-FastestV2"),
    "yolo-fastest-1.1": ("detect", 0.244, 0.35, 2.0, I352, 1, CUT, "dog-qiuqiu/Yolo-Fastest"),
    # Faces, average precision.
    "blazeface": ("face", 0.986, 0.10, 0.4, 3 * 128 * 128 * 4, 1, CUT, "BlazeFace, Bazarevsky et al. 2019"),
    # The whole picture, ImageNet top-1.
    "vision_transformer": ("scene", 0.813, 88.3, 12.14, I384, 6, 145 * 768 * 4, "ViT-B/32 at 384, Dosovitskiy et al. 2021 (size assumed)"),
    # Qualcomm AI Hub. Parameters from its model pages; accuracies of quantised models assumed.
    "face_det_lite": ("face", 0.96, 0.88, 2.0, 480 * 640, 1, CUT, "assumed"),
    "PoseDetector": ("pose", 0.95, 0.82, 1.0, 3 * 128 * 128, 1, CUT, "assumed"),
    "PoseLandmarkDetector": ("landmarks", 0.95, 3.37, 2.0, 3 * 256 * 256, 1, CUT, "assumed"),
    "yolov8_det": ("detect", 0.526, 3.18, 22.0, 3 * 640 * 640, 4, CUT, "ultralytics YOLOv8n, COCO AP50"),
    "ffnet_78s": ("segment", 0.813, 27.5, 150.0, 3 * 1024 * 2048, 4, 4 * CUT, "FFNet-78S, Mehta et al. 2022, mIoU"),
    "ffnet_78s_lowres": ("segment", 0.787, 26.8, 35.0, 3 * 512 * 1024, 3, 2 * CUT, "assumed"),
    "bisenet": ("segment", 0.75, 12.0, 60.0, 3 * 720 * 960, 3, 2 * CUT, "assumed"),
    "convnext_tiny": ("classify", 0.825, 28.6, 13.44, 3 * 224 * 224, 4, CUT, "torchvision convnext_tiny"),
    "resnet_3d": ("action", 0.632, 33.2, 30.0, 3 * 16 * 112 * 112, 3, CUT, "torchvision r3d_18, Kinetics-400"),
    "yamnet": ("sound", 0.306, 3.73, 1.5, 96 * 64 * 4, 1, CUT, "TensorFlow YAMNet, AudioSet mAP"),
    "midas": ("depth", 0.80, 16.6, 14.0, 3 * 256 * 256, 2, CUT, "assumed"),
    "depth_anything_v2": ("depth", 0.95, 24.8, 60.0, 3 * 518 * 518, 6, 1370 * 384 * 2, "assumed"),
    "wavlm": ("speech", 0.94, 95.1, 60.0, 4 * 160000, 6, 500 * 768 * 4, "assumed"),
}

# The same network under its name in Qualcomm AI Hub.
TWINS = {
    "squeezenet": "squeezenet1_1",
    "mobilenet_v3": "mobilenet_v3_large",
    "resnet18_int8": "resnet18",
    "resnet50_int8": "resnet50",
    "wavlm": "huggingface_wavlm_base_plus",
}
