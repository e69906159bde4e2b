//! Charts in characters: curves in Braille dots, schedules as ticks on a line.
use super::value::{cut, short};

/// Dots that are set in a grid of Braille characters, 2×4 each.
struct Canvas {
    columns: usize,
    rows: usize,
    cells: Vec<u8>,
}

impl Canvas {
    fn new(columns: usize, rows: usize) -> Self {
        Canvas { columns, rows, cells: vec![0; columns * rows] }
    }
    fn dot(&mut self, x: usize, y: usize) {
        // Braille's bits, by row and column
        const BITS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
        if x < 2 * self.columns && y < 4 * self.rows {
            self.cells[y / 4 * self.columns + x / 2] |= BITS[y % 4][x % 2];
        }
    }
    fn line(&mut self, from: (usize, usize), to: (usize, usize)) {
        let steps = from.0.abs_diff(to.0).max(from.1.abs_diff(to.1)).max(1);
        let at = |a: usize, b: usize, i: usize| (a as f64 + (b as f64 - a as f64) * i as f64 / steps as f64).round();
        for i in 0..=steps {
            self.dot(at(from.0, to.0, i) as usize, at(from.1, to.1, i) as usize);
        }
    }
    fn lines(&self) -> impl Iterator<Item = String> {
        let cell = |c: &u8| char::from_u32(0x2800 + u32::from(*c)).unwrap_or(' ');
        self.cells.chunks(self.columns).map(move |row| row.iter().map(cell).collect())
    }
}

/// A curve through `values` over their index, in at most `columns`×`rows` characters. Values that are not finite are gaps.
pub fn curve(values: &[f64], columns: usize, rows: usize) -> String {
    let finite = || values.iter().copied().filter(|v| v.is_finite());
    if finite().count() == 0 {
        return cut(&format!("nothing to draw: none of {} values is finite", values.len()), columns.max(1));
    }
    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let labels = [short(high), short(low)];
    let margin = labels.iter().map(String::len).max().unwrap_or(0) + 1;
    if columns < margin + 4 || rows < 2 {
        return cut(&format!("{} … {}", labels[1], labels[0]), columns.max(1));
    }
    let mut canvas = Canvas::new(columns - margin - 1, rows - 1);
    let (w, h) = (2 * canvas.columns - 1, 4 * canvas.rows - 1);
    let last = values.len().saturating_sub(1).max(1);
    let place = |i: usize, v: f64| {
        // halves first: the range of finite numbers can be infinite
        let share = match high / 2.0 - low / 2.0 {
            range if range > 0.0 => (v / 2.0 - low / 2.0) / range,
            _ => 0.5,
        };
        (i * w / last, h - (share * h as f64).round() as usize)
    };
    let mut before = None;
    for (i, v) in values.iter().enumerate() {
        let here = v.is_finite().then(|| place(i, *v));
        match (before, here) {
            (Some(a), Some(b)) => canvas.line(a, b),
            (None, Some((x, y))) => canvas.dot(x, y),
            _ => {}
        }
        before = here;
    }
    let (count, width) = (canvas.rows, canvas.columns);
    let label = |i: usize| match i {
        0 => labels[0].as_str(),
        i if i + 1 == count => labels[1].as_str(),
        _ => "",
    };
    let drawn = canvas.lines().enumerate().map(|(i, l)| format!("{:>margin$}│{l}", label(i)));
    let mut lines: Vec<String> = drawn.collect();
    let end = last.to_string();
    let axis = format!("{:margin$}0{end:>w$}", "", w = width);
    lines.push(cut(&axis, columns));
    lines.join("\n")
}

/// Steps as ticks on a line from the first (left) to the last; a name and the ends beside it.
pub fn ticks(rows: &[(String, Vec<f64>)], columns: usize) -> String {
    let finite = |v: &[f64]| v.iter().copied().filter(|v| v.is_finite()).collect::<Vec<_>>();
    let all: Vec<f64> = rows.iter().flat_map(|(_, v)| finite(v)).collect();
    let (low, high) =
        (all.iter().copied().fold(f64::INFINITY, f64::min), all.iter().copied().fold(f64::NEG_INFINITY, f64::max));
    let name = rows.iter().map(|(n, _)| n.chars().count()).max().unwrap_or(0).min(columns / 3);
    let width = columns.saturating_sub(name + 2).max(2);
    let line = |(n, v): &(String, Vec<f64>)| {
        let mut drawn = vec!['─'; width];
        for x in finite(v) {
            let share = if high > low { (high - x) / (high - low) } else { 0.0 };
            drawn[((share * (width - 1) as f64).round() as usize).min(width - 1)] = '┼';
        }
        cut(&format!("{:name$} {}", cut(n, name), drawn.into_iter().collect::<String>()), columns.max(1))
    };
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    if !all.is_empty() {
        let ends = format!("{:name$} σ/α: {} … {}", "", short(high.exp()), short(low.exp()));
        lines.push(cut(&ends, columns.max(1)));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use unicode_width::UnicodeWidthStr;

    #[test]
    fn curves() {
        let drawn = curve(&[0.0, 1.0, 2.0, 3.0], 12, 3);
        assert_eq!(drawn, " 3.0│⠀⠀⠀⢀⠤⠒⠉\n 0.0│⣀⠤⠊⠁⠀⠀⠀\n    0      3");
        assert!(curve(&[1.0, f64::NAN, 1.0], 20, 4).contains("1.0"));
        assert_eq!(curve(&[f64::NAN], 80, 4), "nothing to draw: none of 1 values is finite");
        assert_eq!(curve(&[], 80, 4), "nothing to draw: none of 0 values is finite");
    }

    #[test]
    fn any_size() {
        let inputs = [vec![], vec![1.0], vec![f64::MAX, f64::MIN], vec![f64::INFINITY, 1.0, -1e-300], vec![0.5; 5000]];
        for values in inputs {
            for (columns, rows) in [(0, 0), (1, 1), (3, 9), (9, 2), (40, 10), (200, 50)] {
                let drawn = curve(&values, columns, rows);
                assert!(drawn.lines().all(|l| l.width() <= columns.max(1)), "{columns}×{rows}\n{drawn}");
                let drawn = ticks(&[("steps".into(), values.clone()), (String::new(), vec![])], columns);
                assert!(drawn.lines().all(|l| l.width() <= columns.max(3)), "{columns}\n{drawn}");
            }
        }
    }

    #[test]
    fn steps() {
        let drawn = ticks(&[("a".into(), vec![1.0, 0.5, 0.0]), ("bc".into(), vec![1.0, 0.0])], 12);
        assert_eq!(drawn.lines().last(), Some("   σ/α: 2.7…"));
        assert_eq!(drawn.lines().next().unwrap().matches('┼').count(), 3);
        assert_eq!(drawn.lines().nth(1).unwrap().matches('┼').count(), 2);
    }
}
