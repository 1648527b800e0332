//! The picture as an SVG file: a heat map of latencies, coloured by the release that answered.
//!
//! ```text
//!   title, result
//!   marks, each with its line down through the map
//!   ┌ heat map: time to the right, latency upwards (logarithmic) ┐
//!   └────────────────────────────────────────────────────────────┘
//!   phases of the upgrade under way
//!   who holds
//! ```

use std::fmt::Write;

use super::{Mood, Picture, Scale, reign_at, releases};
use crate::latency::Outcome;

const WIDTH: f64 = 1240.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 28.0;
const MAP_HEIGHT: f64 = 330.0;
/// Pixels per cell of the heat map.
const CELL: (f64, f64) = (4.0, 5.0);
/// Colours of the releases, in order of appearance: blue, green, vermilion, purple.
const COLOURS: [&str; 4] = ["#2f6fde", "#0f9d76", "#d9542b", "#8a4fd0"];
/// How strongly a cell is coloured that holds at least so many thousandths of its column's requests.
const STRENGTHS: [(usize, f64); 5] = [(0, 0.22), (30, 0.38), (90, 0.56), (180, 0.76), (320, 0.96)];
const MARK_ROW: f64 = 19.0;

/// The whole file.
pub fn draw(picture: &Picture) -> String {
    let rows = mark_rows(picture);
    let top = 92.0 + MARK_ROW * (rows.iter().max().map_or(0, |row| row + 1)) as f64;
    let bottom = top + MAP_HEIGHT;
    let height = bottom + 146.0;
    let mut svg = String::with_capacity(256 * 1024);
    let _ = write!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif" font-size="13" fill="#3b4148">
<rect width="{WIDTH}" height="{height}" rx="10" fill="#fcfcfa"/>
<text x="{LEFT}" y="40" font-size="21" font-weight="600" fill="#16191d">{}</text>
<text x="{LEFT}" y="64" font-size="14" fill="#5b636c">{}</text>
"##,
        escaped(&picture.title),
        escaped(&picture.subtitle)
    );
    axes(&mut svg, picture, top);
    heat(&mut svg, picture, top);
    marks(&mut svg, picture, &rows, top);
    ribbons(&mut svg, picture, bottom);
    svg.push_str("</svg>\n");
    svg
}

fn x(picture: &Picture, moment: std::time::Duration) -> f64 {
    let share = moment.as_secs_f64() / picture.length.as_secs_f64().max(0.001);
    LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
}

fn axes(svg: &mut String, picture: &Picture, top: f64) {
    let scale = Scale::of(&picture.samples);
    let (end, bottom) = (WIDTH - RIGHT, top + MAP_HEIGHT);
    let _ = writeln!(svg, r##"<g stroke="#e3e5e8">"##);
    for (ms, _) in scale.ticks() {
        let y = bottom - scale.place_ms(ms) * MAP_HEIGHT;
        let _ = writeln!(svg, r##"<path d="M{LEFT} {y:.1}H{end}"/>"##);
        for part in 2..10 {
            let minor = ms * f64::from(part);
            if minor < scale.high {
                let y = bottom - scale.place_ms(minor) * MAP_HEIGHT;
                let _ = writeln!(svg, r##"<path d="M{LEFT} {y:.1}H{end}" stroke="#f1f2f3"/>"##);
            }
        }
    }
    let _ = writeln!(svg, r##"</g><g fill="#7a828b" text-anchor="end">"##);
    for (ms, name) in scale.ticks() {
        let y = bottom - scale.place_ms(ms) * MAP_HEIGHT + 4.5;
        let _ = writeln!(svg, r##"<text x="{}" y="{y:.1}">{name}</text>"##, LEFT - 10.0);
    }
    let _ = writeln!(svg, r##"</g><g fill="#7a828b" text-anchor="middle">"##);
    let seconds = picture.length.as_secs_f64();
    let step =
        [1.0, 2.0, 5.0, 10.0, 20.0, 60.0].into_iter().find(|step| seconds / step <= 14.0).unwrap_or(120.0);
    let mut second = 0.0;
    while second <= seconds {
        let place = x(picture, std::time::Duration::from_secs_f64(second));
        let _ = writeln!(svg, r##"<text x="{place:.1}" y="{:.1}">{second} s</text>"##, bottom + 20.0);
        second += step;
    }
    svg.push_str("</g>\n");
}

/// Cells of one release and one strength are one path: some hundred kilobytes less than one element
/// for each.
fn heat(svg: &mut String, picture: &Picture, top: f64) {
    let scale = Scale::of(&picture.samples);
    let names = releases(&picture.reigns);
    let columns = ((WIDTH - LEFT - RIGHT) / CELL.0) as usize;
    let rows = (MAP_HEIGHT / CELL.1) as usize;
    let mut counts = vec![vec![[0usize; COLOURS.len()]; rows]; columns];
    let mut failures = Vec::new();
    for sample in &picture.samples {
        let place = x(picture, sample.intended);
        match sample.outcome {
            Outcome::Failed => failures.push(place),
            Outcome::Answered => {
                let column = (((place - LEFT) / CELL.0) as usize).min(columns - 1);
                let row = ((scale.place(sample.latency) * rows as f64) as usize).min(rows - 1);
                let release = picture.reigns.get(reign_at(&picture.reigns, sample.ended()));
                let colour = release.and_then(|reign| names.iter().position(|name| *name == reign.release));
                counts[column][row][colour.unwrap_or(0) % COLOURS.len()] += 1;
            }
        }
    }
    let mut paths = vec![[const { String::new() }; STRENGTHS.len()]; COLOURS.len()];
    for (column, cells) in counts.iter().enumerate() {
        let total: usize = cells.iter().flatten().sum();
        for (row, cell) in cells.iter().enumerate() {
            for (colour, count) in cell.iter().enumerate().filter(|(_, count)| **count > 0) {
                let share = count * 1000 / total.max(1);
                let strength = STRENGTHS.iter().rposition(|(from, _)| share >= *from).unwrap_or(0);
                let left = LEFT + column as f64 * CELL.0;
                let upper = top + MAP_HEIGHT - (row + 1) as f64 * CELL.1;
                let _ = write!(paths[colour][strength], "M{left} {upper}h{}v{}h-{}z", CELL.0, CELL.1, CELL.0);
            }
        }
    }
    for (colour, strengths) in paths.iter().enumerate() {
        for (path, (_, opacity)) in strengths.iter().zip(STRENGTHS).filter(|(path, _)| !path.is_empty()) {
            let _ =
                writeln!(svg, r##"<path fill="{}" fill-opacity="{opacity}" d="{path}"/>"##, COLOURS[colour]);
        }
    }
    for place in failures {
        let _ = writeln!(
            svg,
            r##"<path d="M{:.1} {:.1}l8 8m0 -8l-8 8" stroke="#c8102e" stroke-width="2"/>"##,
            place - 4.0,
            top + 4.0
        );
    }
}

/// In which row each mark's text stands, so that none covers another.
fn mark_rows(picture: &Picture) -> Vec<usize> {
    let mut ends: Vec<f64> = Vec::new();
    let mut rows = vec![0; picture.marks.len()];
    // From the right: a text reaches to the right of its line, so the next one to the left that would
    // run into it goes one row higher.
    for (index, mark) in picture.marks.iter().enumerate().rev() {
        let (from, to) = text_span(x(picture, mark.at), &mark.text);
        let row = ends.iter().position(|begin| to + 14.0 < *begin).unwrap_or(ends.len());
        if row == ends.len() {
            ends.push(from);
        } else {
            ends[row] = from;
        }
        rows[index] = row;
    }
    rows
}

/// From where to where a mark's text reaches; to the left of its line where the picture ends.
fn text_span(line: f64, text: &str) -> (f64, f64) {
    let width = 7.3 * text.chars().count() as f64;
    if line + width > WIDTH - 8.0 { (line - width - 6.0, line) } else { (line, line + width + 6.0) }
}

fn marks(svg: &mut String, picture: &Picture, rows: &[usize], top: f64) {
    for (mark, row) in picture.marks.iter().zip(rows) {
        let colour = match mark.mood {
            Mood::Good => "#16191d",
            Mood::Bad => "#c8102e",
        };
        let line = x(picture, mark.at);
        let base = top - 14.0 - MARK_ROW * *row as f64;
        let bottom = top + MAP_HEIGHT;
        let (place, anchor) =
            if text_span(line, &mark.text).0 < line { (line - 6.0, "end") } else { (line + 6.0, "start") };
        let _ = writeln!(
            svg,
            r##"<path d="M{line:.1} {:.1}V{bottom:.1}" stroke="{colour}" stroke-width="1.2" stroke-dasharray="1 3" stroke-linecap="round"/><text x="{place:.1}" y="{base:.1}" text-anchor="{anchor}" font-weight="600" fill="{colour}" stroke="#fcfcfa" stroke-width="4" stroke-linejoin="round" paint-order="stroke">{}</text>"##,
            base - 10.0,
            escaped(&mark.text)
        );
    }
}

fn ribbons(svg: &mut String, picture: &Picture, bottom: f64) {
    let names = releases(&picture.reigns);
    let (phases, holders) = (bottom + 38.0, bottom + 78.0);
    for (label, y) in [("phase", phases), ("holder", holders)] {
        let _ = writeln!(
            svg,
            r##"<text x="{}" y="{:.1}" fill="#7a828b" text-anchor="end">{label}</text>"##,
            LEFT - 10.0,
            y + 18.0
        );
    }
    for phase in &picture.phases {
        let (from, to) = (x(picture, phase.from), x(picture, phase.to));
        bar(svg, (from, to), phases, ("#e6e9ed", "#3b4148"), &phase.name);
    }
    for reign in &picture.reigns {
        let (from, to) = (x(picture, reign.from), x(picture, reign.to));
        let colour = names.iter().position(|name| *name == reign.release).unwrap_or(0) % COLOURS.len();
        bar(svg, (from, to), holders, (COLOURS[colour], "#ffffff"), &reign.release);
    }
    let legend =
        "Each column shows how the requests of that moment spread; the time counts from when each was due.";
    let _ = writeln!(
        svg,
        r##"<text x="{LEFT}" y="{:.1}" font-size="12" fill="#7a828b">{legend}</text>"##,
        bottom + 130.0
    );
}

/// A bar with its name, where the name fits into it.
fn bar(svg: &mut String, (from, to): (f64, f64), y: f64, (fill, ink): (&str, &str), name: &str) {
    let width = (to - from).max(1.0);
    let _ = writeln!(
        svg,
        r##"<g><title>{0}</title><rect x="{from:.1}" y="{y:.1}" width="{1:.1}" height="27" rx="4" fill="{fill}"/>"##,
        escaped(name),
        (width - 1.5).max(1.0)
    );
    if width > 7.6 * name.chars().count() as f64 + 6.0 {
        let middle = from + width / 2.0;
        let _ = writeln!(
            svg,
            r##"<text x="{middle:.1}" y="{:.1}" text-anchor="middle" fill="{ink}">{}</text>"##,
            y + 18.0,
            escaped(name)
        );
    }
    svg.push_str("</g>\n");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_file_is_small_and_shows_every_mark_and_release() {
        let picture = super::super::invented();
        let svg = draw(&picture);
        if let Some(path) = std::env::var_os("BUMPLESS_KEEP_PICTURE") {
            std::fs::write(path, &svg).unwrap();
        }
        assert!(svg.len() < 400_000, "{} bytes", svg.len());
        for mark in &picture.marks {
            assert!(svg.contains(&mark.text), "{}", mark.text);
        }
        for release in ["1.0.0", "1.1.0", "1.2.0"] {
            assert!(svg.contains(&format!("<title>{release}</title>")));
        }
        assert_eq!(svg.matches("<g").count(), svg.matches("</g>").count());
    }

    #[test]
    fn texts_of_near_marks_stand_in_different_rows() {
        let rows = mark_rows(&super::super::invented());
        assert_ne!(rows[2], rows[3]);
        assert_ne!(rows[3], rows[4]);
    }

    #[test]
    fn a_name_cannot_break_the_file() {
        let mut picture = super::super::invented();
        picture.title = "<b>&".to_owned();
        assert!(draw(&picture).contains("&lt;b&gt;&amp;"));
    }
}
