//! Spark lines: a row of numbers as a row of bars.

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A range of values below this share of the largest is rounding.
const LEVEL: f64 = 1e-9;

/// One bar for each value, from the smallest to the largest finite one; more values than `width` are averaged in groups.
/// +∞ is the highest bar, −∞ the lowest, NaN a blank.
pub fn spark(values: &[f64], width: usize) -> String {
    let values = grouped(values, width);
    let finite = || values.iter().copied().filter(|v| v.is_finite());
    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let bar = |v: &f64| match *v {
        v if v.is_nan() => ' ',
        f64::INFINITY => BARS[7],
        f64::NEG_INFINITY => BARS[0],
        // halves first: the difference of two finite numbers can be infinite; what only rounding tells apart is level
        v if high / 2.0 - low / 2.0 > LEVEL * high.abs().max(low.abs()) => {
            let share = (v / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0);
            BARS[((share * 7.0).round() as usize).min(7)]
        }
        _ => BARS[3],
    };
    values.iter().map(bar).collect()
}

/// At most `width` means of neighbours.
fn grouped(values: &[f64], width: usize) -> Vec<f64> {
    let n = values.len();
    if n <= width {
        return values.to_vec();
    }
    let group = |i: usize| {
        let part = &values[i * n / width..((i + 1) * n / width).max(i * n / width + 1)];
        part.iter().sum::<f64>() / part.len() as f64
    };
    (0..width).map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        let inf = f64::INFINITY;
        for (values, width, line) in [
            (&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0][..], 80, "▁▂▃▄▅▆▇█"),
            (&[7.0, 0.0], 80, "█▁"),
            (&[1.0, 1.0, 1.0], 80, "▄▄▄"),
            (&[2.0, 2.0 + 1e-14, 2.0 - 1e-14], 80, "▄▄▄"),
            (&[0.0, 0.0, 1.0, 1.0], 2, "▁█"),
            (&[inf, 0.0, 1.0, f64::NAN, -inf], 9, "█▁█ ▁"),
            (&[f64::MAX, f64::MIN], 9, "█▁"),
            (&[1.0, 2.0], 0, ""),
            (&[], 5, ""),
            (&[f64::NAN], 5, " "),
        ] {
            assert_eq!(spark(values, width), line, "{values:?}");
        }
        assert_eq!(spark(&vec![0.5; 1000], 10).chars().count(), 10);
    }
}
