//! Axes of plots: where a value stands, and where the ticks are.

/// A linear or logarithmic axis over a range of positive width.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    /// The ends, as values, or as log₁₀ of values.
    lo: f64,
    hi: f64,
    log: bool,
}

impl Axis {
    /// An axis over finite `values` (positive, if `log`), with a margin where `margin` (a vertical axis) asks for it.
    pub fn over(values: impl Iterator<Item = f64>, log: bool, margin: bool) -> Self {
        let mut a = Axis::tight(values, log);
        let m = if margin { 0.04 * (a.hi - a.lo) } else { 0.0 };
        a.lo -= m;
        a.hi += m;
        a
    }
    /// An axis that ends where the values do.
    pub fn tight(values: impl Iterator<Item = f64>, log: bool) -> Self {
        // ±1e300: differences stay finite
        let values = values.map(|v| if log { v.log10() } else { v.clamp(-1e300, 1e300) });
        let (mut lo, mut hi) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |m, v| (m.0.min(v), m.1.max(v)));
        // a single value, or values that differ by rounding only, stand in the middle
        let least = 1e-9 * lo.abs().max(hi.abs());
        if hi - lo <= least {
            let around = if lo == 0.0 { 1.0 } else { 0.1 * lo.abs() };
            (lo, hi) = (lo - around, hi + around);
        }
        Axis { lo, hi, log }
    }
    /// The place of `v`: 0 at the low end, 1 at the high end.
    pub fn place(&self, v: f64) -> f64 {
        let v = if self.log { v.log10() } else { v };
        ((v - self.lo) / (self.hi - self.lo)).clamp(0.0, 1.0)
    }
    /// About `n` round values with their labels.
    pub fn ticks(&self, n: usize) -> Vec<(f64, String)> {
        let n = n.clamp(2, 20) as f64;
        let range = self.hi - self.lo;
        if !self.log {
            return linear(self.lo, self.hi, n);
        }
        let (lo, hi) = (10f64.powf(self.lo), 10f64.powf(self.hi));
        if range < 0.7 {
            return linear(lo, hi, n);
        }
        let every = (range / n).ceil().max(1.0) as i32;
        // one decade between ticks where there is room for more: 2 and 5 too
        let within: &[f64] = if every == 1 && range * 3.0 <= n + 1.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let (first, last) = (self.lo.floor() as i32, self.hi.ceil() as i32);
        (first..=last)
            .filter(|k| k.rem_euclid(every) == 0)
            .flat_map(|k| within.iter().map(move |m| m * 10f64.powi(k)))
            .filter(|v| *v >= lo * (1.0 - 1e-9) && *v <= hi * (1.0 + 1e-9))
            .map(|v| (v, short(v, v.log10().floor() as i32)))
            .collect()
    }
}

/// Multiples of 1, 2 or 5 times a power of ten.
fn linear(lo: f64, hi: f64, n: f64) -> Vec<(f64, String)> {
    let raw = (hi - lo) / n;
    let power = raw.log10().floor();
    let unit = 10f64.powf(power);
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * unit >= raw * (1.0 - 1e-9)).unwrap_or(10.0);
    let step = factor * unit;
    let exponent = if factor == 10.0 { power + 1.0 } else { power } as i32;
    let (first, last) = ((lo / step - 1e-9).ceil(), (hi / step + 1e-9).floor());
    let count = (last - first).clamp(0.0, 50.0) as usize;
    (0..=count).map(|i| (first + i as f64) * step).map(|v| (v, short(v, exponent))).collect()
}

/// `v` with its last digit at 10^`exponent`.
fn short(v: f64, exponent: i32) -> String {
    let size = if v == 0.0 { exponent } else { v.abs().log10().floor() as i32 };
    if v != 0.0 && (size >= 6 || exponent < -4) {
        let digits = size.saturating_sub(exponent).clamp(0, 15) as usize;
        return format!("{v:.digits$e}");
    }
    let digits = exponent.saturating_neg().clamp(0, 15) as usize;
    // no "-0"
    let v = if v.abs() < 0.5 * 10f64.powi(-(digits as i32)) { 0.0 } else { v };
    format!("{v:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::Axis;

    fn labels(lo: f64, hi: f64, log: bool, n: usize) -> Vec<String> {
        Axis::tight([lo, hi].into_iter(), log).ticks(n).into_iter().map(|t| t.1).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(labels(0.0, 1.0, false, 5), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(-3.0, 17.0, false, 5), ["0", "5", "10", "15"]);
        assert_eq!(labels(0.002, 80.0, true, 7), ["0.01", "0.1", "1", "10"]);
        assert_eq!(labels(1.0, 10.0, true, 7), ["1", "2", "5", "10"]);
        assert_eq!(labels(1e-9, 2e-9, false, 2), ["1.0e-9", "1.5e-9", "2.0e-9"]);
    }

    #[test]
    fn any_two_finite_values_give_a_handful_of_ticks() {
        let ends = [0.0, 1e-308, 1e-9, 0.1, 1.0, 1.0 + 1e-15, 12345.678, 1e300, f64::MAX, -1.0, f64::MIN];
        for (a, b, log) in ends.iter().flat_map(|a| ends.iter().flat_map(move |b| [(a, b, false), (a, b, true)])) {
            if log && (*a <= 0.0 || *b <= 0.0) {
                continue;
            }
            let axis = Axis::tight([*a, *b].into_iter(), log);
            let ticks = axis.ticks(8);
            assert!(ticks.len() <= 60, "{a} {b} {log}: {}", ticks.len());
            assert!(ticks.iter().all(|t| (0.0..=1.0).contains(&axis.place(t.0)) && t.1.len() < 30), "{a} {b}");
        }
    }
}
