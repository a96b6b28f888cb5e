//! The usage scenarios of XRBench (Kwon et al., MLSys 2023, table 3): which models run how often and which follows which.
//! It refuses to know costs and chips.

/// A model of a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// Name, as in a file of costs.
    pub name: &'static str,
    /// Frames per second.
    pub fps: u32,
    /// The model whose answers it needs, and the probability that a frame follows.
    pub after: Option<(&'static str, f64)>,
}

impl Model {
    /// Milliseconds between two frames, and from a frame to its deadline: `floor(1000 / fps)`.
    pub fn interval_ms(&self) -> u32 {
        1000 / self.fps
    }

    /// Frames in a run: `floor(700 / interval)`.
    pub fn frames(&self) -> u32 {
        RUN_MS / self.interval_ms()
    }
}

/// Milliseconds in which frames come.
pub const RUN_MS: u32 = 700;

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Name, as in a file of scores.
    pub name: &'static str,
    /// Its models, those before which others need.
    pub models: &'static [Model],
}

impl Usage {
    /// Whether chance decides which frames come, so that one run does not tell the mean.
    pub fn is_random(&self) -> bool {
        self.models.iter().any(|m| m.after.is_some_and(|(_, probability)| probability < 1.0))
    }
}

const fn model(name: &'static str, fps: u32) -> Model {
    Model { name, fps, after: None }
}

const fn after(parent: &'static str, probability: f64, name: &'static str, fps: u32) -> Model {
    Model { name, fps, after: Some((parent, probability)) }
}

const EYES: Model = model("ES_RITNet", 60);
const GAZE: Model = after("ES_RITNet", 1.0, "GE_FBNet_C", 60);
const HANDS: &str = "HT_hand_graph_cnn_half";
const KEYWORD: Model = model("KD_res8_narrow", 3);

/// All scenarios.
pub const TABLE: &[Usage] = &[
    Usage { name: "VR_gaming", models: &[EYES, GAZE, model(HANDS, 45)] },
    Usage {
        name: "AR_gaming",
        models: &[model("DE_midas_v21_small", 30), model(HANDS, 45), model("PD_Plane_RCNN_Quarter", 15)],
    },
    Usage { name: "social_interactionA", models: &[model("DR_RGBd_200", 30), EYES, GAZE, model(HANDS, 30)] },
    Usage { name: "social_interactionB", models: &[model("AS_ED_TCN", 30), EYES, GAZE] },
    Usage {
        name: "AR_Assistant",
        models: &[
            model("DE_midas_v21_small", 30),
            KEYWORD,
            after("KD_res8_narrow", 0.5, "ASR_EM_24L", 3),
            model("OD_D2go_FasterRCNN", 10),
            model("PD_Plane_RCNN_Quarter", 15),
            model("SS_HRViT_b1", 10),
        ],
    },
    Usage {
        name: "outdoor_activity_A",
        models: &[
            KEYWORD,
            after("KD_res8_narrow", 0.2, "ASR_EM_24L", 3),
            model("OD_D2go_FasterRCNN", 30),
            model("SS_HRViT_b1", 10),
        ],
    },
    Usage {
        name: "outdoor_activity_B",
        models: &[KEYWORD, after("KD_res8_narrow", 0.2, "ASR_EM_24L", 3), model("OD_D2go_FasterRCNN", 30)],
    },
];

/// Names under which other versions of the artifact know a model.
pub const ALIASES: &[(&str, &str)] = &[("OD_D2go_FasterRCNN", "D2go_FastRCNN")];

/// The scenario of this name.
pub fn find(name: &str) -> Option<&'static Usage> {
    TABLE.iter().find(|u| u.name == name)
}
