//! The zoo: standard networks with seeded weights, written as ONNX files, so that nobody needs a download to begin.
//! The architectures are the published ones; the weights are random. It refuses to pretend accuracy: outputs mean nothing.

mod builder;
mod efficient;
mod mobilenet;
mod others;
mod vit;

use crate::file::write_whole;
use builder::Net;
use std::path::{Path, PathBuf};

/// A row of the table.
pub struct Row {
    /// The word for the command line; also the file name.
    pub name: &'static str,
    /// One line for the help.
    pub about: &'static str,
    /// Shape of the one input (f32), for the resolution (height and width in pixels).
    pub shape: fn(usize) -> Vec<usize>,
    /// The default resolution; 0 when the input is no image and its shape is fixed.
    pub resolution: usize,
    /// Resolutions must be multiples of this.
    pub step: usize,
    /// Adds the layers.
    build: fn(&mut Net, usize),
}

/// How a model is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Seed of the weights.
    pub seed: u64,
    /// Height and width of the input in pixels; `None`: the row's default.
    pub resolution: Option<usize>,
}

/// Why a model was not made.
#[derive(Debug, thiserror::Error)]
pub enum ZooError {
    /// No such row.
    #[error("the zoo has no model `{name}`; it has: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// All names.
        known: String,
    },
    /// A resolution that the network cannot take.
    #[error("zoo model `{name}`: resolution {resolution} is not possible: {reason}")]
    Resolution {
        /// The model.
        name: String,
        /// What was asked for.
        resolution: usize,
        /// Why not.
        reason: String,
    },
    /// The file could not be written.
    #[error("{file}: cannot write: {source}")]
    Write {
        /// Path.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
}

fn image(resolution: usize) -> Vec<usize> {
    vec![1, 3, resolution, resolution]
}

/// Every model of the zoo.
pub static TABLE: &[Row] = &[
    Row {
        name: "mobilenet_v2",
        about: "MobileNetV2: inverted residuals, depthwise convolutions; 1000 classes",
        shape: image,
        resolution: 224,
        step: 32,
        build: |net, _| mobilenet::v2(net, 1.0),
    },
    Row {
        name: "mobilenet_v2_050",
        about: "MobileNetV2 at half width: the cheap variant",
        shape: image,
        resolution: 224,
        step: 32,
        build: |net, _| mobilenet::v2(net, 0.5),
    },
    Row {
        name: "squeezenet1_1",
        about: "SqueezeNet 1.1: fire modules, concatenation; 1000 classes",
        shape: image,
        resolution: 224,
        step: 32,
        build: |net, _| others::squeezenet(net),
    },
    Row {
        name: "resnet18",
        about: "ResNet-18: residual blocks of 3x3 convolutions; 1000 classes",
        shape: image,
        resolution: 224,
        step: 32,
        build: |net, _| others::resnet18(net),
    },
    Row {
        name: "kws",
        about: "DS-CNN for keyword spotting on 49 frames of 10 MFCCs; 12 classes",
        shape: |_| vec![1, 1, 49, 10],
        resolution: 0,
        step: 1,
        build: |net, _| others::kws(net, 64),
    },
    Row {
        name: "kws_small",
        about: "DS-CNN with 32 instead of 64 channels: the cheap variant",
        shape: |_| vec![1, 1, 49, 10],
        resolution: 0,
        step: 1,
        build: |net, _| others::kws(net, 32),
    },
    Row {
        name: "vit_tiny",
        about: "small vision transformer: 16x16 patches, width 128, 4 blocks, 4 heads; 100 classes",
        shape: image,
        resolution: 128,
        step: 16,
        build: |net, resolution| vit::vit(net, resolution, 128, 4),
    },
    Row {
        name: "vit_tiny_2l",
        about: "the small vision transformer with 2 blocks of width 96: the cheap variant",
        shape: image,
        resolution: 128,
        step: 16,
        build: |net, resolution| vit::vit(net, resolution, 96, 2),
    },
    Row {
        name: "mobilenet_v3_small",
        about: "MobileNetV3-small: squeeze and excitation, HardSwish; 1000 classes",
        shape: image,
        resolution: 224,
        step: 32,
        build: |net, _| mobilenet::v3_small(net),
    },
    Row {
        name: "efficientnet_b0",
        about: "EfficientNet-B0: squeeze and excitation, SiLU, 5x5 filters; 1000 classes",
        shape: image,
        resolution: 224,
        step: 32,
        build: |net, _| efficient::b0(net),
    },
    Row {
        name: "shufflenet_v2",
        about: "ShuffleNetV2 at full width: channel split and shuffle; 1000 classes",
        shape: image,
        resolution: 224,
        step: 32,
        build: efficient::shuffle,
    },
    Row {
        name: "unet",
        about: "small U-Net: four levels of width 16 to 128, skips, transposed convolutions; 4 classes a pixel",
        shape: image,
        resolution: 128,
        step: 16,
        build: |net, _| efficient::unet(net),
    },
    Row {
        name: "bert_mini",
        about: "BERT encoder behind its embedding: 4 blocks of width 256, 4 heads, 128 tokens",
        shape: |_| vec![1, 128, 256],
        resolution: 0,
        step: 1,
        build: |net, _| vit::bert(net, 128, 256, 4),
    },
];

/// The model as ONNX bytes (opset 17, input `input`, output `output`). The same name and options give the same bytes.
///
/// # Errors
/// [`ZooError::Unknown`] and [`ZooError::Resolution`].
pub fn bytes(name: &str, options: &Options) -> Result<Vec<u8>, ZooError> {
    let row = TABLE.iter().find(|row| row.name == name).ok_or_else(|| ZooError::Unknown {
        name: name.to_owned(),
        known: TABLE.iter().map(|row| row.name).collect::<Vec<_>>().join(", "),
    })?;
    let resolution = options.resolution.unwrap_or(row.resolution);
    let refused = |reason: String| ZooError::Resolution { name: name.to_owned(), resolution, reason };
    if row.resolution == 0 && resolution != 0 {
        return Err(refused(format!("its input is always {:?}", (row.shape)(0))));
    }
    if row.resolution != 0 && (resolution == 0 || !resolution.is_multiple_of(row.step) || resolution > 2048) {
        return Err(refused(format!("it must be a multiple of {} up to 2048", row.step)));
    }
    let mut net = Net::new(row.name, options.seed, &(row.shape)(resolution));
    (row.build)(&mut net, resolution);
    Ok(net.finish())
}

/// Writes `<dir>/<name>.onnx` and returns its path; makes the folder where there is none.
///
/// # Errors
/// [`ZooError`].
pub fn write(name: &str, options: &Options, dir: &Path) -> Result<PathBuf, ZooError> {
    let bytes = bytes(name, options)?;
    let path = dir.join(format!("{name}.onnx"));
    match write_whole(&path, &bytes) {
        Ok(()) => Ok(path),
        Err(source) => Err(ZooError::Write { file: path.display().to_string(), source }),
    }
}
