//! The picture as text: one column per slice of time, latency upwards.
//!
//! `█` up to the median, `▒` up to the 95th percentile, `·` the slowest, `×` a failure; below, who
//! holds, and where each mark stands.

use std::time::Duration;

use super::{Picture, Scale};
use crate::latency::{Outcome, due, quantile};

const ROWS: usize = 12;

/// Lines of at most `width` columns.
pub fn draw(picture: &Picture, width: usize) -> Vec<String> {
    let scale = Scale::of(&picture.samples);
    let columns = width.saturating_sub(9).clamp(20, 240);
    let slices = slices(picture, scale, columns);
    let ticks = scale.ticks();
    let mut lines = Vec::new();
    for row in (0..ROWS).rev() {
        let name =
            ticks.iter().find(|(ms, _)| row_of(scale.place_ms(*ms)) == row).map_or("", |(_, name)| name);
        let cells: String = slices.iter().map(|slice| slice.cell(row)).collect();
        lines.push(format!("{name:>7} ┤{cells}").trim_end().to_owned());
    }
    let marked: Vec<usize> = picture.marks.iter().map(|mark| column_of(picture, mark.at, columns)).collect();
    let axis: String = (0..columns).map(|column| if marked.contains(&column) { '┴' } else { '─' }).collect();
    lines.push(format!("{:>7} └{axis}", ""));
    lines.push(format!("{:>7}  {}", "holder", holders(picture, columns)));
    lines.extend(marks(picture, &marked, columns).into_iter().map(|line| format!("{:>7}  {line}", "")));
    lines
}

struct Slice {
    median: Option<usize>,
    high: Option<usize>,
    slowest: Option<usize>,
    failed: bool,
}

impl Slice {
    fn cell(&self, row: usize) -> char {
        let reaches = |level: Option<usize>| level.is_some_and(|level| row <= level);
        if self.failed && row == ROWS - 1 {
            '×'
        } else if reaches(self.median) {
            '█'
        } else if reaches(self.high) {
            '▒'
        } else if self.slowest == Some(row) {
            '·'
        } else {
            ' '
        }
    }
}

fn row_of(place: f64) -> usize {
    ((place * ROWS as f64) as usize).min(ROWS - 1)
}

fn column_of(picture: &Picture, moment: Duration, columns: usize) -> usize {
    let share = moment.as_secs_f64() / picture.length.as_secs_f64().max(0.001);
    ((share * columns as f64) as usize).min(columns - 1)
}

fn slices(picture: &Picture, scale: Scale, columns: usize) -> Vec<Slice> {
    let width = picture.length / columns as u32;
    let slice = |column: usize| {
        let from = width * column as u32;
        let samples = due(&picture.samples, from, from + width);
        let level = |permille| quantile(&samples, permille).map(|latency| row_of(scale.place(latency)));
        let failed = samples.iter().any(|sample| sample.outcome == Outcome::Failed);
        Slice { median: level(500), high: level(950), slowest: level(1000), failed }
    };
    (0..columns).map(slice).collect()
}

fn holders(picture: &Picture, columns: usize) -> String {
    let mut line: Vec<char> = vec![' '; columns];
    for reign in &picture.reigns {
        let from = column_of(picture, reign.from, columns);
        let to = column_of(picture, reign.to, columns).max(from);
        line[from..=to].fill('━');
        line[from] = '┣';
        let name = format!(" {} ", reign.release);
        if to - from > name.chars().count() + 1 {
            for (place, letter) in line[from + 2..].iter_mut().zip(name.chars()) {
                *place = letter;
            }
        }
    }
    line.into_iter().collect()
}

/// One line for each mark, the last one first, with the lines of the others running past.
fn marks(picture: &Picture, places: &[usize], columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, mark) in picture.marks.iter().enumerate().rev() {
        let place = places[index];
        let mut line: String =
            (0..place).map(|column| if places[..index].contains(&column) { '│' } else { ' ' }).collect();
        let text = format!("{} at {:.1} s", mark.text, mark.at.as_secs_f64());
        let length = text.chars().count() + 2;
        if place + length < columns || place < length {
            line.push_str(&format!("└ {text}"));
        } else {
            // To the left of its place, where there is room.
            line = line.chars().take(place - length).collect::<String>() + &format!(" {text} ┘");
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_fits_its_width_and_names_what_happened() {
        let picture = super::super::invented();
        for width in [90, 120] {
            let lines = draw(&picture, width);
            if std::env::var_os("BUMPLESS_KEEP_PICTURE").is_some() {
                eprintln!("{}", lines.join("\n"));
            }
            let longest = lines.iter().map(|line| line.chars().count()).max();
            assert!(longest <= Some(width), "{longest:?} of {width}");
            let text = lines.join("\n");
            assert!(text.contains("1.2.0 dies at 48.0 s"), "{text}");
            assert!(text.contains('█') && text.contains("1.0.0"), "{text}");
        }
    }

    #[test]
    fn a_failure_is_never_hidden() {
        let mut picture = super::super::invented();
        picture.samples[100].outcome = Outcome::Failed;
        assert!(draw(&picture, 100).join("\n").contains('×'));
    }
}
