//! PNG of an SVG picture, at twice its size. The letters come with the program, so that a picture is the same on every machine.
//! It refuses nothing: a letter that its font lacks comes from the system's fonts, if they have it.

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};

/// DejaVu Sans, Latin letters and a few signs (`font/LICENSE`).
const FONT: &[u8] = include_bytes!("font/DejaVuSans.ttf");
const SCALE: f32 = 2.0;

/// Paints pictures; made once, because it reads fonts.
pub(super) struct Painter(Options<'static>);

impl Painter {
    pub(super) fn new() -> Painter {
        let mut options = Options { font_family: "DejaVu Sans".into(), ..Options::default() };
        options.fontdb_mut().load_font_data(FONT.to_vec());
        Painter(options)
    }

    /// The picture's bytes.
    pub(super) fn paint(&self, svg: &str) -> Result<Vec<u8>, String> {
        let tree = Tree::from_str(svg, &self.0).map_err(|e| e.to_string())?;
        let size = tree.size().to_int_size();
        let (width, height) = ((size.width() as f32 * SCALE) as u32, (size.height() as f32 * SCALE) as u32);
        let mut pixels = Pixmap::new(width, height).ok_or("a picture without size")?;
        resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
        pixels.encode_png().map_err(|e| e.to_string())
    }
}
