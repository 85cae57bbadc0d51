//! Figures as bars, in SVG.
//!
//! A picture stands in the book by its file name, so that all of its looks are in the file: no style sheet reaches it.

use maud::{Markup, html};

use super::{series::Series, unit::Unit};
use crate::load::Figures;

/// All lengths are pixels of a picture of this width.
pub(super) const WIDTH: f64 = 760.0;
/// Where the bars begin: left of it are their names.
const LEFT: f64 = 190.0;
/// Where the longest of them ends: right of it is its figure.
const RIGHT: f64 = 640.0;
const TITLE: f64 = 34.0;
/// Over the bars of each case.
const HEADING: f64 = 24.0;
const BAR: f64 = 20.0;
const BOTTOM: f64 = 34.0;
/// About so many marks on the scale.
const MARKS: f64 = 5.0;
/// The colours of servers, in the order in which they first appear; further ones share them again.
const COLOURS: [&str; 6] = ["#2b6cb0", "#68a06b", "#c77d3a", "#8a63b8", "#b04a5a", "#5f7a86"];
pub(super) const INK: &str = "#222222";
pub(super) const PALE: &str = "#d9dde2";
pub(super) const FONT: &str = "font-family:system-ui,sans-serif";

/// A picture of one figure of several servers in several cases.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plot {
    /// The end of its file name.
    pub(super) name: &'static str,
    pub(super) title: String,
    pub(super) unit: Unit,
    pub(super) groups: Vec<Group>,
}

/// The bars of one case.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) bars: Vec<Bar>,
}

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) value: f64,
    /// What it is the median of, such as its rounds.
    pub(super) points: Vec<f64>,
}

impl Plot {
    /// A figure of these servers, one group for each case, with a point for each round.
    pub(super) fn of(
        name: &'static str,
        title: &str,
        unit: Unit,
        all: &[Series],
        figure: impl Fn(&Figures) -> f64,
    ) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        for series in all {
            let bar = Bar {
                name: series.target.clone(),
                value: series.median(&figure),
                points: series.each(&figure),
            };
            match groups.iter_mut().find(|group| group.name == series.case) {
                Some(group) => group.bars.push(bar),
                None => groups.push(Group { name: series.case.clone(), bars: vec![bar] }),
            }
        }
        Self { name, title: title.to_owned(), unit, groups }
    }

    /// The file.
    pub(super) fn svg(&self) -> String {
        let bars: usize = self.groups.iter().map(|group| group.bars.len()).sum();
        let bottom = TITLE + self.groups.len() as f64 * HEADING + bars as f64 * BAR;
        let height = bottom + BOTTOM;
        let step = step(self.most());
        // A bar of nothing but zeros has a scale too.
        let end = ((self.most() / step).ceil() * step).max(step);
        let scale = Scale { end };
        let picture = html! {
            svg xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {WIDTH} {height}"))
                width=(WIDTH) role="img" aria-label=(self.title) style=(FONT) {
                rect width=(WIDTH) height=(height) fill="#ffffff" {}
                text x="12" y="22" font-size="15" font-weight="600" fill=(INK) { (self.title) }
                (marks(scale, step, self.unit, bottom))
                (self.all_bars(scale))
            }
        };
        picture.into_string() + "\n"
    }

    /// The largest figure in it.
    fn most(&self) -> f64 {
        let bars = self.groups.iter().flat_map(|group| &group.bars);
        let all = bars.flat_map(|bar| bar.points.iter().chain([&bar.value]));
        all.copied().filter(|value| value.is_finite()).fold(0.0, f64::max)
    }

    fn all_bars(&self, scale: Scale) -> Markup {
        let mut names: Vec<&str> = Vec::new();
        let mut top = TITLE;
        let mut drawn = Vec::new();
        for group in &self.groups {
            drawn.push(html! {
                text x="12" y=(short(top + 17.0)) font-size="13" font-weight="600" fill=(INK) {
                    (group.name)
                }
            });
            top += HEADING;
            for bar in &group.bars {
                let known = names.iter().position(|name| *name == bar.name);
                let place = known.unwrap_or_else(|| {
                    names.push(&bar.name);
                    names.len() - 1
                });
                drawn.push(one_bar(scale, bar, self.unit, colour(place), top));
                top += BAR;
            }
        }
        html! { @for part in drawn { (part) } }
    }
}

/// Where figures lie.
#[derive(Clone, Copy)]
struct Scale {
    end: f64,
}

impl Scale {
    fn x(self, value: f64) -> f64 {
        let share = (value / self.end).clamp(0.0, 1.0);
        LEFT + if share.is_finite() { share } else { 0.0 } * (RIGHT - LEFT)
    }
}

fn marks(scale: Scale, step: f64, unit: Unit, bottom: f64) -> Markup {
    let count = (scale.end / step).round() as u32;
    html! {
        @for number in 0..=count {
            @let value = f64::from(number) * step;
            @let x = short(scale.x(value));
            line x1=(x) x2=(x) y1=(short(TITLE)) y2=(short(bottom)) stroke=(PALE) {}
            text x=(x) y=(short(bottom + 16.0)) font-size="11" fill=(INK) text-anchor="middle" {
                (mark(value, unit))
            }
        }
    }
}

fn one_bar(scale: Scale, bar: &Bar, unit: Unit, colour: &str, top: f64) -> Markup {
    let middle = top + BAR / 2.0;
    let shown = if bar.value.is_finite() { unit.show(bar.value) } else { "no figure".to_owned() };
    let longest = bar.points.iter().copied().chain([bar.value]).filter(|value| value.is_finite());
    let behind = scale.x(longest.fold(0.0, f64::max)) + 8.0;
    html! {
        text x=(short(LEFT - 8.0)) y=(short(middle + 4.0)) font-size="12" fill=(INK)
            text-anchor="end" { (bar.name) }
        rect x=(short(LEFT)) y=(short(top + 3.0)) height=(short(BAR - 6.0)) rx="1.5"
            width=(short(scale.x(bar.value) - LEFT)) fill=(colour) fill-opacity="0.8" {}
        @for point in bar.points.iter().filter(|point| point.is_finite()) {
            circle cx=(short(scale.x(*point))) cy=(short(middle)) r="2.5" fill="#ffffff"
                stroke=(INK) stroke-width="1" {}
        }
        text x=(short(behind)) y=(short(middle + 4.0)) font-size="12" fill=(INK) { (shown) }
    }
}

pub(super) fn colour(place: usize) -> &'static str {
    COLOURS.get(place % COLOURS.len()).copied().unwrap_or(INK)
}

/// Between two marks: 1, 2 or 5 with zeros.
pub(super) fn step(most: f64) -> f64 {
    let rough = most / MARKS;
    if !rough.is_normal() {
        return 1.0;
    }
    let power = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|digit| digit * power);
    steps.into_iter().find(|step| *step >= rough).unwrap_or(10.0 * power)
}

/// A figure on the scale, which has few digits.
pub(super) fn mark(value: f64, unit: Unit) -> String {
    // Of a third no more digits than are worth it.
    let rounded = (value * 1e6).round() / 1e6;
    format!("{rounded} {}", unit.word()).trim_end().to_owned()
}

/// A tenth of a pixel is enough.
pub(super) fn short(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(name: &str, value: f64, points: &[f64]) -> Bar {
        Bar { name: name.to_owned(), value, points: points.to_vec() }
    }

    fn plot(bars: Vec<Bar>) -> Plot {
        let group = Group { name: "4 connections".to_owned(), bars };
        let title = "Bytes <per> second".to_owned();
        Plot { name: "bytes", title, unit: Unit::MegabytesPerSecond, groups: vec![group] }
    }

    #[test]
    fn a_bar_is_as_long_as_its_figure_and_has_a_point_for_each_round() {
        let both = vec![bar("tercet", 500.0, &[400.0, 500.0, 600.0]), bar("nginx", 1_000.0, &[])];
        let svg = plot(both).svg();
        assert!(svg.contains("width=\"450\"") && svg.contains("width=\"225\""), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains(">1,000 MB/s</text>") && svg.contains(">4 connections</text>"));
        assert!(svg.contains(colour(0)) && svg.contains(colour(1)));
        assert!(svg.contains("Bytes &lt;per&gt; second") && !svg.contains("<per>"));
    }

    #[test]
    fn nothing_and_what_is_no_number_can_be_drawn() {
        for bars in [Vec::new(), vec![bar("a", f64::NAN, &[f64::INFINITY, 0.0])]] {
            let svg = plot(bars).svg();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn scales_have_few_round_marks() {
        for (most, wanted) in [(9.0, 2.0), (1_000.0, 200.0), (0.33, 0.1), (26.0, 10.0), (0.0, 1.0)]
        {
            let found = step(most);
            assert!((found - wanted).abs() < 1e-9, "{most}: {found}");
        }
        assert_eq!(mark(0.1 + 0.2, Unit::Seconds), "0.3 s");
    }
}
