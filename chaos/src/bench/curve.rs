//! Figures by size, as lines, in SVG.

use maud::{Markup, html};

use super::{
    plot::{FONT, INK, PALE, WIDTH, colour, mark, short, step},
    unit::Unit,
};

const LEFT: f64 = 80.0;
const RIGHT: f64 = 560.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 300.0;
const HEIGHT: f64 = 350.0;
/// Of the names beside the lines.
const LEGEND: f64 = 22.0;
/// From this ratio of the largest figure to the least on, the scale is logarithmic.
const WIDE: f64 = 20.0;

/// A picture of figures that depend on a size. The scale of sizes is logarithmic.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Curves {
    /// The end of its file name.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// What the sizes are.
    pub(super) across: &'static str,
    pub(super) unit: Unit,
    pub(super) lines: Vec<Line>,
}

/// One figure at each size.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) name: &'static str,
    /// Size, figure.
    pub(super) points: Vec<(f64, f64)>,
}

impl Curves {
    /// The file.
    pub(super) fn svg(&self) -> String {
        let sizes = Axis::sizes(self.points().map(|(size, _)| size));
        let figures = Axis::figures(self.points().map(|(_, figure)| figure));
        let picture = html! {
            svg xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {WIDTH} {HEIGHT}"))
                width=(WIDTH) role="img" aria-label=(self.title) style=(FONT) {
                rect width=(WIDTH) height=(HEIGHT) fill="#ffffff" {}
                text x="12" y="22" font-size="15" font-weight="600" fill=(INK) { (self.title) }
                @for value in figures.marks() {
                    @let y = short(height_of(figures, value));
                    line x1=(short(LEFT)) x2=(short(RIGHT)) y1=(y) y2=(y) stroke=(PALE) {}
                    text x=(short(LEFT - 8.0)) y=(y) dy="4" font-size="11" fill=(INK) text-anchor="end" {
                        (mark(value, self.unit))
                    }
                }
                @for value in sizes.marks() {
                    @let x = short(place_of(sizes, value));
                    line x1=(x) x2=(x) y1=(short(TOP)) y2=(short(BOTTOM)) stroke=(PALE) {}
                    text x=(x) y=(short(BOTTOM + 16.0)) font-size="11" fill=(INK) text-anchor="middle" {
                        (Unit::Count.show_grouped(value))
                    }
                }
                text x=(short((LEFT + RIGHT) / 2.0)) y=(short(BOTTOM + 36.0)) font-size="12" fill=(INK)
                    text-anchor="middle" { (self.across) }
                @for (number, line) in self.lines.iter().enumerate() {
                    (one_line(line, number, sizes, figures))
                }
            }
        };
        picture.into_string() + "\n"
    }

    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.lines.iter().flat_map(|line| known(&line.points))
    }
}

/// Those that are numbers.
fn known(points: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> {
    points.iter().copied().filter(|(size, figure)| size.is_finite() && figure.is_finite())
}

fn one_line(line: &Line, number: usize, sizes: Axis, figures: Axis) -> Markup {
    let places: Vec<(String, String)> = known(&line.points)
        .map(|(size, figure)| (short(place_of(sizes, size)), short(height_of(figures, figure))))
        .collect();
    let path = places.iter().map(|(x, y)| format!("{x},{y}")).collect::<Vec<_>>().join(" ");
    let legend = TOP + 8.0 + number as f64 * LEGEND;
    html! {
        polyline points=(path) fill="none" stroke=(colour(number)) stroke-width="2" {}
        @for (x, y) in &places {
            circle cx=(x) cy=(y) r="3" fill=(colour(number)) {}
        }
        line x1=(short(RIGHT + 14.0)) x2=(short(RIGHT + 34.0)) y1=(short(legend)) y2=(short(legend))
            stroke=(colour(number)) stroke-width="2" {}
        text x=(short(RIGHT + 40.0)) y=(short(legend)) dy="4" font-size="12" fill=(INK) { (line.name) }
    }
}

fn place_of(sizes: Axis, size: f64) -> f64 {
    LEFT + sizes.share(size) * (RIGHT - LEFT)
}

fn height_of(figures: Axis, figure: f64) -> f64 {
    BOTTOM - figures.share(figure) * (BOTTOM - TOP)
}

/// From where to where a scale goes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Axis {
    Linear {
        step: f64,
        count: u32,
    },
    /// From 10^low to 10^high.
    Powers {
        low: i32,
        high: i32,
    },
}

impl Axis {
    fn sizes(all: impl Iterator<Item = f64>) -> Self {
        Self::powers(all)
    }

    fn figures(all: impl Iterator<Item = f64>) -> Self {
        let all: Vec<f64> = all.collect();
        let most = all.iter().copied().fold(0.0, f64::max);
        let least = all.iter().copied().filter(|one| *one > 0.0).fold(f64::INFINITY, f64::min);
        if most / least > WIDE && all.iter().all(|one| *one > 0.0) {
            return Self::powers(all.into_iter());
        }
        let step = step(most);
        Self::Linear { step, count: ((most / step).ceil() as u32).max(1) }
    }

    fn powers(all: impl Iterator<Item = f64>) -> Self {
        let (least, most) = all
            .filter(|one| *one > 0.0)
            .fold((f64::INFINITY, 0.0_f64), |(least, most), one| (least.min(one), most.max(one)));
        if !least.is_finite() {
            return Self::Powers { low: 0, high: 1 };
        }
        let low = least.log10().floor() as i32;
        Self::Powers { low, high: (most.log10().ceil() as i32).max(low + 1) }
    }

    /// Where a value lies between the ends: from 0 to 1.
    fn share(self, value: f64) -> f64 {
        let share = match self {
            Self::Linear { step, count } => value / (step * f64::from(count)),
            Self::Powers { low, high } => (value.log10() - f64::from(low)) / f64::from(high - low),
        };
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }

    fn marks(self) -> Vec<f64> {
        match self {
            Self::Linear { step, count } => (0..=count).map(|one| f64::from(one) * step).collect(),
            Self::Powers { low, high } => (low..=high).map(|power| 10_f64.powi(power)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curves(points: Vec<(f64, f64)>) -> Curves {
        let lines = vec![Line { name: "a <page>", points }];
        Curves { name: "p50", title: "Time", across: "tags", unit: Unit::Milliseconds, lines }
    }

    #[test]
    fn a_point_lies_where_its_size_and_its_figure_are() {
        let svg = curves(vec![(10.0, 1.0), (100.0, 2.0), (1_000.0, 4.0)]).svg();
        // Sizes by powers of ten, figures from 0 to 4.
        assert!(svg.contains("points=\"80,236 320,172 560,44\""), "{svg}");
        assert!(svg.contains("a &lt;page&gt;") && svg.contains(">1,000</text>"));
        assert_eq!(svg.matches("<circle").count(), 3);
    }

    #[test]
    fn figures_that_grow_with_the_size_get_a_scale_of_powers() {
        let all = [1.0, 10.0, 100.0];
        assert_eq!(Axis::figures(all.into_iter()), Axis::Powers { low: 0, high: 2 });
        assert_eq!(Axis::figures([1.0, 1.2].into_iter()), Axis::Linear { step: 0.5, count: 3 });
    }

    #[test]
    fn nothing_and_what_is_no_number_can_be_drawn() {
        for points in [Vec::new(), vec![(10.0, f64::NAN), (100.0, 0.0)]] {
            let svg = curves(points).svg();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
