//! The timeline of a run as an SVG picture.

use std::{collections::BTreeSet, fmt::Write as _};

use maud::{Markup, html};

use super::Verdict;
use crate::timeline::{Band, Timeline, Track};

/// All lengths are pixels of a picture of this width.
const WIDTH: f64 = 1_120.0;
/// Where time begins: left of it are names and scales.
const LEFT: f64 = 190.0;
const RIGHT: f64 = 1_096.0;
const TOP: f64 = 8.0;
const ROW: f64 = 17.0;
const RATE_HEIGHT: f64 = 56.0;
const LATENCY_HEIGHT: f64 = 48.0;
const TRACK_GAP: f64 = 18.0;
/// Kinds of faults with a colour of their own; further ones share them again.
pub(super) const COLOURS: usize = 8;
/// An instant must be seen too.
const NARROWEST: f64 = 2.0;
/// Steps between two marks of the scale of time, in seconds.
const STEPS: [u64; 13] = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_800, 3_600, 14_400];
const STEPS_MAX: u64 = 12;
/// The scale of latencies, in microseconds: it is logarithmic.
const FASTEST_US: f64 = 500.0;
const SLOWEST_US: f64 = 20_000_000.0;
const LATENCY_MARKS: [(f64, &str); 3] =
    [(1_000.0, "1 ms"), (100_000.0, "100 ms"), (10_000_000.0, "10 s")];

/// The kinds of faults, in the order in which they first happened: their place is their colour.
pub(super) fn kinds(timeline: &Timeline) -> Vec<&str> {
    let mut kinds: Vec<&str> = Vec::new();
    for band in &timeline.bands {
        if !kinds.contains(&band.kind.as_str()) {
            kinds.push(&band.kind);
        }
    }
    kinds
}

/// The class of the style sheet that colours a kind.
pub(super) fn colour(kind: usize) -> String {
    format!("k{}", kind % COLOURS)
}

/// Where times lie.
#[derive(Clone, Copy)]
struct Scale {
    length_ms: f64,
}

impl Scale {
    fn x(self, ms: u64) -> f64 {
        let share = (ms as f64 / self.length_ms).clamp(0.0, 1.0);
        LEFT + share * (RIGHT - LEFT)
    }

    /// A span that can be seen, and does not leave the picture.
    fn span(self, start_ms: u64, end_ms: u64) -> (f64, f64) {
        let start = self.x(start_ms).min(RIGHT - NARROWEST);
        (start, (self.x(end_ms) - start).max(NARROWEST))
    }
}

/// The picture; `None` if nothing was recorded.
pub(super) fn picture(timeline: &Timeline, verdict: Verdict) -> Option<Markup> {
    if timeline.length_ms == 0 || timeline.tracks.is_empty() {
        return None;
    }
    let scale = Scale { length_ms: timeline.length_ms as f64 };
    let kinds = kinds(timeline);
    let faults_top = TOP;
    let leader_top = faults_top + kinds.len() as f64 * ROW;
    let writes_top = leader_top + ROW;
    let tracks_top = writes_top + ROW + 12.0;
    let track_height = RATE_HEIGHT + LATENCY_HEIGHT + TRACK_GAP;
    let bottom = tracks_top + timeline.tracks.len() as f64 * track_height - TRACK_GAP + 6.0;
    let height = bottom + 24.0;
    let most = most_per_second(timeline);
    Some(html! {
        svg viewBox=(format!("0 0 {WIDTH} {height}")) role="img" xmlns="http://www.w3.org/2000/svg"
            aria-label="Requests, latencies, faults and leaders over time" {
            (time_scale(scale, timeline.length_ms, bottom))
            (shades(scale, timeline, &kinds, tracks_top, bottom))
            @for (index, kind) in kinds.iter().enumerate() {
                (fault_row(scale, timeline, index, kind, faults_top + index as f64 * ROW))
            }
            (leader_row(scale, timeline, leader_top, bottom))
            (writes_row(scale, timeline, verdict, writes_top))
            @for (index, track) in timeline.tracks.iter().enumerate() {
                (replica(scale, timeline.bucket_ms, track, most,
                    tracks_top + index as f64 * track_height))
            }
        }
    })
}

fn time_scale(scale: Scale, length_ms: u64, bottom: f64) -> Markup {
    let wanted = length_ms / 1_000 / STEPS_MAX;
    let step = STEPS.into_iter().find(|step| *step > wanted).unwrap_or(86_400) * 1_000;
    let marks = (0..).map(|number| number * step).take_while(|ms| *ms <= length_ms);
    html! {
        @for ms in marks {
            @let x = short(scale.x(ms));
            line.grid x1=(x) x2=(x) y1=(short(TOP)) y2=(short(bottom)) {}
            text.axis x=(x) y=(short(bottom + 16.0)) text-anchor="middle" { (clock(ms)) }
        }
    }
}

/// The faults as a shade over all replicas. One for each kind and span of pixels: hundreds of damaged files at one
/// moment are one line.
fn shades(scale: Scale, timeline: &Timeline, kinds: &[&str], top: f64, bottom: f64) -> Markup {
    let mut seen = BTreeSet::new();
    let mut drawn = Vec::new();
    for band in &timeline.bands {
        let Some(kind) = kinds.iter().position(|kind| *kind == band.kind) else { continue };
        let (x, width) = scale.span(band.start_ms, end(band, timeline));
        let key = (kind, short(x), short(width));
        if seen.insert(key.clone()) {
            drawn.push(key);
        }
    }
    html! {
        @for (kind, x, width) in drawn {
            rect class=(format!("shade {}", colour(kind))) x=(x) width=(width)
                y=(short(top - 4.0)) height=(short(bottom - top + 4.0)) {}
        }
    }
}

fn fault_row(scale: Scale, timeline: &Timeline, index: usize, kind: &str, top: f64) -> Markup {
    let mut seen = BTreeSet::new();
    let bands = timeline.bands.iter().filter(|band| band.kind == kind);
    html! {
        (name(kind, top + 12.0))
        @for band in bands {
            @let (x, width) = scale.span(band.start_ms, end(band, timeline));
            @if seen.insert((short(x), short(width))) {
                rect class=(format!("fault {}", colour(index))) x=(short(x)) width=(short(width))
                    y=(short(top + 2.0)) height=(short(ROW - 4.0)) rx="1.5" {
                    title { (band.kind) ": " (band.what) ", " (spoken(band)) }
                }
            }
        }
    }
}

fn leader_row(scale: Scale, timeline: &Timeline, top: f64, bottom: f64) -> Markup {
    let nexts = timeline.leaders.iter().skip(1).map(|next| next.at_ms);
    let ends = nexts.chain(std::iter::once(timeline.length_ms));
    let names: Vec<&str> = timeline.tracks.iter().map(|track| track.name.as_str()).collect();
    html! {
        (name("leader", top + 12.0))
        @for (leader, end_ms) in timeline.leaders.iter().zip(ends) {
            @let (x, width) = scale.span(leader.at_ms, end_ms);
            @let place = leader.name.as_deref()
                .and_then(|leads| names.iter().position(|name| *name == leads));
            @let words = leader.name.as_deref().unwrap_or("nobody");
            rect class=(place.map_or("led nobody".to_owned(), |place| format!("led l{}", place % 5)))
                x=(short(x)) width=(short(width)) y=(short(top + 2.0)) height=(short(ROW - 4.0)) {
                title { (words) " leads, term " (leader.term) ", from " (clock(leader.at_ms)) }
            }
            // Where there is room for its name.
            @if width > words.len() as f64 * 6.6 + 8.0 {
                text.inside x=(short(x + 5.0)) y=(short(top + 12.5)) { (words) }
            }
            line.change x1=(short(x)) x2=(short(x)) y1=(short(top + 2.0)) y2=(short(bottom)) {}
        }
    }
}

/// Gaps without an acknowledged write, broken promises, and the end.
fn writes_row(scale: Scale, timeline: &Timeline, verdict: Verdict, top: f64) -> Markup {
    html! {
        (name("no write, violations", top + 12.0))
        @for gap in &timeline.gaps {
            @let (x, width) = scale.span(gap.start_ms, gap.end_ms);
            @let seconds = gap.end_ms.saturating_sub(gap.start_ms) as f64 / 1_000.0;
            rect.gap x=(short(x)) width=(short(width)) y=(short(top + 4.0)) height=(short(ROW - 8.0)) {
                title { "no acknowledged write for " (format!("{seconds:.1}")) " s" }
            }
        }
        @for mark in &timeline.marks {
            @let x = scale.x(mark.at_ms);
            path.violation d=(format!("M{} {}l5 -10h-10z", short(x), short(top + 14.0))) {
                title { (clock(mark.at_ms)) ": " (mark.what) }
            }
        }
        circle class=(format!("verdict {}", verdict.word())) cx=(short(RIGHT + 9.0))
            cy=(short(top + ROW / 2.0)) r="6" {
            title { (verdict.word()) }
        }
    }
}

/// One replica: requests per second as a stack of areas, latencies as two lines below.
fn replica(scale: Scale, bucket_ms: u64, track: &Track, most: f64, top: f64) -> Markup {
    let base = top + RATE_HEIGHT;
    let latency_base = base + 6.0 + LATENCY_HEIGHT;
    let seconds = bucket_ms.max(1) as f64 / 1_000.0;
    // From the whole stack down to its lowest part: each area covers those before. A part that adds nothing is not
    // drawn.
    let layers = ["acknowledged", "refused", "unknown", "failed"]
        .into_iter()
        .zip(columns(track))
        .enumerate()
        .filter(|(_, (_, column))| column.iter().any(|count| *count > 0))
        .map(|(index, (class, _))| (class, stacked(track, index + 1)))
        .rev();
    html! {
        text.name x=(short(LEFT - 6.0)) y=(short(top + RATE_HEIGHT / 2.0 + 6.0)) text-anchor="end" { (track.name) }
        text.axis x=(short(LEFT - 6.0)) y=(short(top + 8.0)) text-anchor="end" { (format!("{most:.0}/s")) }
        text.axis x=(short(LEFT - 6.0)) y=(short(base)) text-anchor="end" { "0" }
        line.base x1=(short(LEFT)) x2=(short(RIGHT)) y1=(short(base)) y2=(short(base)) {}
        @for (class, counts) in layers {
            path class=(format!("area {class}"))
                d=(area(scale, bucket_ms, &counts, base, RATE_HEIGHT / most / seconds)) {}
        }
        @for (us, words) in LATENCY_MARKS {
            @let y = short(latency_y(us, latency_base));
            line.grid x1=(short(LEFT)) x2=(short(RIGHT)) y1=(y) y2=(y) {}
            text.axis x=(short(LEFT - 6.0)) y=(short(latency_y(us, latency_base) + 3.5)) text-anchor="end" { (words) }
        }
        path.p99 d=(curve(scale, bucket_ms, &track.p99_us, latency_base)) {}
        path.p50 d=(curve(scale, bucket_ms, &track.p50_us, latency_base)) {}
    }
}

/// The lowest so many parts of the stack, added up.
fn stacked(track: &Track, parts: usize) -> Vec<u64> {
    let columns = columns(track);
    let length = columns.iter().map(|column| column.len()).max().unwrap_or(0);
    let mut sums = vec![0; length];
    for column in columns.into_iter().take(parts) {
        for (sum, count) in sums.iter_mut().zip(column) {
            *sum += u64::from(*count);
        }
    }
    sums
}

/// The parts of the stack, from the lowest up.
fn columns(track: &Track) -> [&[u32]; 4] {
    [&track.acknowledged, &track.refused, &track.unknown, &track.failed]
}

fn area(scale: Scale, bucket_ms: u64, counts: &[u64], base: f64, per_count: f64) -> String {
    let mut path = format!("M{} {}", short(LEFT), short(base));
    for (index, count) in counts.iter().enumerate() {
        let end = scale.x((index as u64 + 1) * bucket_ms);
        let height = (*count as f64 * per_count).min(RATE_HEIGHT);
        // Writing to a string cannot fail.
        let _ = write!(path, "V{}H{}", short(base - height), short(end));
    }
    let _ = write!(path, "V{}Z", short(base));
    path
}

/// A line through the middles of the buckets that have a latency.
fn curve(scale: Scale, bucket_ms: u64, latencies: &[u64], base: f64) -> String {
    let mut path = String::new();
    let mut pen = 'M';
    for (index, us) in latencies.iter().enumerate() {
        if *us == 0 {
            pen = 'M';
            continue;
        }
        let x = scale.x(index as u64 * bucket_ms + bucket_ms / 2);
        let y = latency_y(*us as f64, base);
        // Writing to a string cannot fail.
        let _ = write!(path, "{pen}{} {}", short(x), short(y));
        if pen == 'M' {
            // A single one is to be seen too.
            path.push_str("h1");
        }
        pen = 'L';
    }
    path
}

fn latency_y(us: f64, base: f64) -> f64 {
    let share = (us.max(FASTEST_US) / FASTEST_US).ln() / (SLOWEST_US / FASTEST_US).ln();
    base - share.min(1.0) * LATENCY_HEIGHT
}

/// What fills the height of a track: the most there ever was, unless that is a short peak far above the rest, such as
/// the last check, which is cut off.
fn most_per_second(timeline: &Timeline) -> f64 {
    let seconds = timeline.bucket_ms.max(1) as f64 / 1_000.0;
    let mut sums: Vec<u64> = timeline.tracks.iter().flat_map(|track| stacked(track, 4)).collect();
    sums.retain(|sum| *sum > 0);
    sums.sort_unstable();
    let most = sums.last().copied().unwrap_or_default();
    let common = sums.get(sums.len() * 9 / 10).copied().unwrap_or_default();
    (most.min(common.saturating_mul(2)) as f64 / seconds).max(1.0)
}

fn name(words: &str, y: f64) -> Markup {
    html! { text.row x=(short(LEFT - 6.0)) y=(short(y)) text-anchor="end" { (words) } }
}

fn end(band: &Band, timeline: &Timeline) -> u64 {
    band.end_ms.unwrap_or(timeline.length_ms)
}

fn spoken(band: &Band) -> String {
    match band.end_ms {
        Some(end) if end <= band.start_ms + 10 => format!("at {}", clock(band.start_ms)),
        Some(end) => format!("from {} to {}", clock(band.start_ms), clock(end)),
        None => format!("from {} on", clock(band.start_ms)),
    }
}

/// `8 s`, `2:05`, `1:02:05`.
pub(super) fn clock(ms: u64) -> String {
    let seconds = ms / 1_000;
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes}:{seconds:02}"),
        (hours, minutes, seconds) => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// A tenth of a pixel is enough.
fn short(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn every_kind_of_fault_is_drawn_and_named() {
        let timeline = sample::timeline();
        let drawn = picture(&timeline, Verdict::Held).map(Markup::into_string).unwrap_or_default();
        for (index, kind) in kinds(&timeline).iter().enumerate() {
            assert!(drawn.contains(&format!(">{kind}</text>")), "{kind}: {drawn}");
            assert!(drawn.contains(&format!("class=\"shade {}\"", colour(index))), "{kind}");
        }
        for track in &timeline.tracks {
            assert!(drawn.contains(&format!(">{}</text>", track.name)));
        }
        assert!(drawn.contains("no acknowledged write for 1.4 s"));
        assert!(drawn.contains("nobody leads, term 2"));
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
    }

    #[test]
    fn hundreds_of_faults_at_one_moment_are_one_line() {
        let mut timeline = sample::timeline();
        let many = timeline.bands.last().cloned().unwrap_or_default();
        timeline.bands.extend(std::iter::repeat_n(many, 1_000));
        let drawn = picture(&timeline, Verdict::Held).map(Markup::into_string).unwrap_or_default();
        assert_eq!(drawn.matches("class=\"shade k2\"").count(), 1);
        assert_eq!(drawn.matches("class=\"fault k2\"").count(), 1);
    }

    #[test]
    fn nothing_recorded_gives_no_picture() {
        assert!(picture(&Timeline::default(), Verdict::Void).is_none());
    }

    #[test]
    fn times_are_short() {
        assert_eq!(clock(8_400), "8 s");
        assert_eq!(clock(125_000), "2:05");
        assert_eq!(clock(3_725_000), "1:02:05");
        assert_eq!(short(12.04), "12");
        assert_eq!(short(12.06), "12.1");
    }
}
